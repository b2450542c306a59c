//! How the form looks: a field for each thing that a command has, made from the catalog.

use diagbot_catalog::{Catalog, Diagnostic, Parameter, ParameterKind};
use diagbot_cluster::pod_index::PodEntry;
use serde_json::{Value, json};
use slack_morphism::prelude::*;

use super::{
    answers::impact_words,
    build::{Message, cut},
};
use crate::form::{CALLBACK, CLUSTER, CONTAINER, DIAGNOSTIC, FOUND, Form, PARAMETER, TARGET, option_value};

/// Most characters of a form's title.
const TITLE: usize = 24;
/// Most characters of an option's text and of its description.
const OPTION_TEXT: usize = 75;
/// Most options of a select.
const OPTIONS: usize = 100;

type Choice = SlackBlockChoiceItem<SlackBlockPlainTextOnly>;

/// The form. `clusters`: their names, the home cluster first.
pub fn form(form: &Form, catalog: &Catalog, clusters: &[String]) -> Value {
    let mut blocks: Vec<SlackBlock> = Vec::new();
    if clusters.len() > 1 {
        blocks.push(cluster(form, clusters).into());
    }
    if !form.memory.found.is_empty() {
        let choices = form.memory.found.iter().map(|text| choice(text, text, None)).collect();
        blocks.push(
            select(FOUND, "Found in the message", choices, None)
                .with_optional(true)
                .into(),
        );
    }
    blocks.push(target(form).into());
    blocks.push(container().into());
    blocks.push(diagnostic(form, catalog).into());
    let chosen = form.diagnostic.as_deref().and_then(|name| catalog.get(name));
    if let Some(chosen) = chosen {
        let impact = format!("Impact on the target: {}.", impact_words(chosen.impact));
        blocks.push(SlackContextBlock::new(vec![SlackBlockMarkDownText::new(impact).into()]).into());
        blocks.extend(
            chosen
                .parameters
                .iter()
                .map(|(name, rule)| parameter(name, rule).into()),
        );
    }
    let memory = serde_json::to_string(&form.memory).expect("texts and lists are valid JSON");
    let view = SlackModalView::new(plain("Take evidence", TITLE), blocks)
        .with_callback_id(CALLBACK.into())
        .with_private_metadata(memory)
        .with_submit(plain("Run", TITLE))
        .with_close(plain("Close", TITLE));
    json!(SlackView::Modal(view))
}

/// What takes the form's place when there is something to say instead.
pub fn closing(message: &Message) -> Value {
    let view = SlackModalView::new(plain("Take evidence", TITLE), message.blocks.clone())
        .with_callback_id(CALLBACK.into())
        .with_close(plain("Close", TITLE));
    json!(SlackView::Modal(view))
}

/// What is offered while a person types a target.
pub fn offers(pod_entries: &[PodEntry]) -> Value {
    let choices: Vec<Choice> = pod_entries
        .iter()
        .filter_map(|pod_entry| {
            let place = format!("{} in {}", pod_entry.kind, pod_entry.namespace);
            Some(choice(&pod_entry.name, &option_value(pod_entry)?, Some(&place)))
        })
        .take(OPTIONS)
        .collect();
    json!({ "options": choices })
}

fn plain(text: &str, most: usize) -> SlackBlockPlainTextOnly {
    cut(text, most).into()
}

fn choice(text: &str, value: &str, description: Option<&str>) -> Choice {
    Choice {
        text: plain(text, OPTION_TEXT),
        value: value.to_owned(),
        description: description.map(|words| plain(words, OPTION_TEXT)),
        url: None,
    }
}

/// A field with a closed list.
fn select(block: &str, label: &str, choices: Vec<Choice>, initial: Option<Choice>) -> SlackInputBlock {
    let mut element = SlackBlockStaticSelectElement::new().with_action_id(block.into());
    element.options = Some(choices.into_iter().take(OPTIONS).collect());
    element.initial_option = initial;
    SlackInputBlock::new(plain(label, 2_000), element.into()).with_block_id(block.into())
}

fn cluster(form: &Form, clusters: &[String]) -> SlackInputBlock {
    let choices: Vec<Choice> = clusters.iter().map(|name| choice(name, name, None)).collect();
    let initial = choices.iter().find(|choice| choice.value == form.cluster).cloned();
    select(CLUSTER, "Cluster", choices, initial).with_dispatch_action(true)
}

fn target(form: &Form) -> SlackInputBlock {
    let element = SlackBlockExternalSelectElement::new()
        .with_action_id(TARGET.into())
        .with_min_query_length(0)
        .with_placeholder(plain("Part of a name, or namespace/part of a name", 150));
    let label = if form.memory.found.is_empty() {
        "Pod or workload"
    } else {
        "Another pod or workload"
    };
    SlackInputBlock::new(plain(label, 2_000), element.into())
        .with_block_id(TARGET.into())
        // Which of the two fields must be filled is checked on submission.
        .with_optional(!form.memory.found.is_empty())
}

fn container() -> SlackInputBlock {
    let element = SlackBlockPlainTextInputElement::new()
        .with_action_id(CONTAINER.into())
        .with_max_length(63);
    SlackInputBlock::new(plain("Container", 2_000), element.into())
        .with_block_id(CONTAINER.into())
        .with_hint(plain("Empty: the pod's default container.", 2_000))
        .with_optional(true)
}

fn diagnostic(form: &Form, catalog: &Catalog) -> SlackInputBlock {
    let choices: Vec<Choice> = catalog.iter().map(described).collect();
    let wanted = form.diagnostic.as_deref();
    let initial = choices
        .iter()
        .find(|choice| Some(choice.value.as_str()) == wanted)
        .cloned();
    select(DIAGNOSTIC, "Diagnostic", choices, initial).with_dispatch_action(true)
}

fn described(diagnostic: &Diagnostic) -> Choice {
    let name = diagnostic.name.as_str();
    choice(name, name, Some(&diagnostic.summary))
}

fn parameter(name: &str, parameter: &Parameter) -> SlackInputBlock {
    let block = format!("{PARAMETER}{name}");
    let default = parameter.default.as_deref();
    let words: Option<Vec<&str>> = match parameter.kind {
        ParameterKind::Boolean => Some(vec!["true", "false"]),
        ParameterKind::Choice => words(&parameter.pattern),
        ParameterKind::Integer | ParameterKind::Text => None,
    };
    let field = if let Some(words) = words {
        let choices: Vec<Choice> = words.iter().map(|word| choice(word, word, None)).collect();
        let initial = choices
            .iter()
            .find(|choice| Some(choice.value.as_str()) == default)
            .cloned();
        select(&block, name, choices, initial)
    } else {
        let mut element = SlackBlockPlainTextInputElement::new().with_action_id(block.clone().into());
        element.initial_value = default.map(str::to_owned);
        SlackInputBlock::new(plain(name, 2_000), element.into()).with_block_id(block.into())
    };
    field
        .with_hint(plain(&parameter.rule, 2_000))
        .with_optional(default.is_some())
}

/// The words of a pattern that is nothing but a list of them, `^(?:a|b)$`; any other gets a field to type in.
fn words(pattern: &str) -> Option<Vec<&str>> {
    let inside = pattern
        .strip_prefix('^')?
        .strip_suffix('$')?
        .strip_prefix('(')?
        .strip_suffix(')')?;
    let words: Vec<&str> = inside.strip_prefix("?:").unwrap_or(inside).split('|').collect();
    let simple =
        |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    (words.len() <= OPTIONS && words.iter().all(simple)).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn only_a_plain_list_of_words_becomes_a_list() {
        assert_eq!(words("^(?:live|all)$"), Some(vec!["live", "all"]));
        assert_eq!(words("^(a|b-c)$"), Some(vec!["a", "b-c"]));
        for pattern in ["^(a|b+)$", "^a|b$", "^[0-9]{1,3}$", "^(?:a|)$", "^(a)(b)$"] {
            assert_eq!(words(pattern), None, "{pattern}");
        }
    }
}

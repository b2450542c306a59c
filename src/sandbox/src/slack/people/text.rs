//! What a person types, as Slack sends it on: mentions become ids, the rest is escaped.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::super::{
    directory::{BOT_USER, Directory},
    plain,
};

/// Mentions as typed (`@ada`, `#incidents`) and as Slack writes them (`<@U…>`, `<#C…|name>`), links written out, and the rest.
static MENTION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"<[@#!][^<>]*>|(?:^|\b|\s)?[@#][A-Za-z0-9][A-Za-z0-9._-]*").expect("the pattern is a constant")
});

/// How a typed text looks in a payload. `with_names` writes `<@U…|ada>` as slash commands do.
pub(super) fn encode(typed: &str, directory: &Directory, with_names: bool) -> String {
    let mut encoded = String::new();
    let mut end = 0;
    for found in MENTION.captures_iter(typed) {
        let Some(whole) = found.get(0) else { continue };
        encoded.push_str(&plain::escape(&typed[end..whole.start()]));
        encoded.push_str(&mention(&found, directory, with_names));
        end = whole.end();
    }
    encoded.push_str(&plain::escape(&typed[end..]));
    encoded
}

fn mention(found: &Captures<'_>, directory: &Directory, with_names: bool) -> String {
    let whole = &found[0];
    if whole.starts_with('<') {
        return whole.to_owned();
    }
    let sigil_at = whole.find(['@', '#']).unwrap_or_default();
    let (before, key) = whole.split_at(sigil_at);
    let (sigil, name) = key.split_at(1);
    let (id, label) = if sigil == "@" {
        let user = if name == "diag" {
            directory.user(BOT_USER)
        } else {
            directory.user(name)
        };
        (user.map(|user| user.id.clone()), user.map(|user| user.name.clone()))
    } else {
        let channel = directory.channel(name);
        (
            channel.map(|channel| channel.id.clone()),
            channel.map(|channel| channel.name.clone()),
        )
    };
    match (id, label) {
        (Some(id), Some(label)) if with_names || sigil == "#" => format!("{before}<{sigil}{id}|{label}>"),
        (Some(id), _) => format!("{before}<{sigil}{id}>"),
        (None, _) => plain::escape(whole),
    }
}

/// Whether an encoded text mentions the bot.
pub(super) fn mentions_bot(encoded: &str) -> bool {
    encoded.contains(&format!("<@{BOT_USER}>")) || encoded.contains(&format!("<@{BOT_USER}|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mentions_become_ids_and_the_rest_is_escaped() {
        let directory = Directory::fixture("diag");
        assert_eq!(
            encode("@diag jstack a<b & c", &directory, false),
            "<@U0DIAG0001> jstack a&lt;b &amp; c"
        );
        assert_eq!(
            encode("ask @ada in #incidents", &directory, true),
            "ask <@U0ADA00001|ada> in <#C0INCIDENT|incidents>"
        );
        assert_eq!(
            encode("mail me@example.com, @nobody", &directory, false),
            "mail me@example.com, @nobody"
        );
        assert_eq!(encode("<@U0DIAG0001> help", &directory, false), "<@U0DIAG0001> help");
    }
}

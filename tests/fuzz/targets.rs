//! What is fuzzed, and what must hold whatever comes in.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use diagbot_analysis::redact::{MAX_LINE_BYTES, Redactor};
use diagbot_api::run::OFFER;
use diagbot_captures::RedactionConfig;
use diagbot_catalog::{
    Catalog,
    load::{Allowances, Entry},
    policy::{self, Fence},
};
use diagbot_slack::{grammar, inbound::Inbound, socket::Envelope};
use diagbot_wire::{
    args::AgentArgs,
    control::ControlLine,
    digest::sha256_hex,
    journal::{Event, Reader},
    result::SignedResult,
};
use serde_json::{Value, json};

use crate::Class;

/// What a target made of an input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Equal classes are nothing new.
    pub(crate) class: Class,
    /// What reads it did not refuse it, so that it was looked at further.
    pub(crate) taken: bool,
}

impl Seen {
    fn taken(answer: &str) -> Self {
        Self {
            class: class(answer),
            taken: true,
        }
    }

    fn refused(answer: &str) -> Self {
        Self {
            class: class(answer),
            taken: false,
        }
    }
}

/// The class of an answer's text: its words without digits, quoted parts and positions.
fn class(answer: &str) -> Class {
    let mut hasher = DefaultHasher::new();
    let mut quoted = false;
    for c in answer.chars().take(160) {
        if matches!(c, '"' | '`' | '\'') {
            quoted = !quoted;
        } else if !quoted && (c.is_ascii_alphabetic() || c == ' ') {
            c.hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn shipped() -> Catalog {
    Catalog::load(std::path::Path::new(crate::COMMANDS), Allowances::default()).unwrap()
}

/// A request names what the catalog has and allows; a message is short enough for Slack.
pub(crate) fn grammar() -> impl Fn(&[u8]) -> Seen {
    let catalog = shipped();
    move |input| {
        let text = String::from_utf8_lossy(input);
        match grammar::parse(&text, &catalog) {
            Ok(request) => {
                if let grammar::Request::Run(call) = &request {
                    match catalog.entry(&call.diagnostic) {
                        Some(Entry::Diagnostic(known)) => {
                            assert!(call.parameters.keys().all(|name| known.parameters.contains_key(name)));
                            known
                                .check_parameters(&call.parameters)
                                .expect("parameters that the catalog allows");
                        }
                        Some(Entry::Runbook(_)) => assert!(call.parameters.is_empty(), "a runbook has no parameters"),
                        None => assert!(
                            call.diagnostic == OFFER && call.parameters.is_empty(),
                            "{} is in no catalog",
                            call.diagnostic
                        ),
                    }
                }
                Seen::taken(&format!("{request:?}"))
            }
            Err(fault) => {
                let told = fault.to_string();
                assert!(told.chars().count() < 3_000, "{told}");
                Seen::refused(&told)
            }
        }
    }
}

/// A catalog that passes the lint renders policies, and each diagnostic's step with default values matches its own pattern.
pub(crate) fn catalog(input: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(input).into_owned();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("name: "))
        .map_or_else(|| "tool".to_owned(), |name| name.trim().to_owned());
    match Catalog::parse(&[(format!("{name}.yaml"), text)], Allowances::default()) {
        Err(error) => Seen::refused(&error.to_string()),
        Ok(catalog) => {
            let fence = Fence {
                namespace: "diagbot".to_owned(),
                users: vec!["system:serviceaccount:diagbot:diagbot".to_owned()],
                agent_image: "agent@sha256:0".to_owned(),
            };
            let policies = policy::render(&catalog, &fence);
            let admitted = admitted_arguments(&policies);
            for diagnostic in catalog.iter() {
                let Ok(values) = diagnostic.check_parameters(&std::collections::BTreeMap::new()) else {
                    continue;
                };
                if diagnostic.argv.is_empty() {
                    continue;
                }
                let step = diagnostic.render_step(&values).render();
                let arguments = [
                    "run".to_owned(),
                    "--capture=d-0123456789abcdef-0".to_owned(),
                    format!("--nonce={}", "ab".repeat(32)),
                    "--wait=60".to_owned(),
                    "--deadline=60".to_owned(),
                    format!("--step={step}"),
                ];
                for argument in &arguments {
                    assert!(admitted.is_match(argument), "{argument} is not what the policy admits");
                    let more = format!("{argument}\n--step=sh");
                    assert!(!admitted.is_match(&more), "the policy admits more: {more}");
                }
                assert!(
                    AgentArgs::parse(&arguments).is_ok(),
                    "{step} is not what the agent reads"
                );
            }
            Seen::taken(&format!("{catalog:?}"))
        }
    }
}

/// The pattern that the rendered policy matches every argument with, as CEL reads the literal. All policies must be there, fail
/// closed and deny.
fn admitted_arguments(policies: &[Value]) -> regex::Regex {
    let (rules, bindings): (Vec<&Value>, Vec<&Value>) = policies
        .iter()
        .partition(|object| object["kind"] == "ValidatingAdmissionPolicy");
    let closed = rules.iter().all(|policy| policy["spec"]["failurePolicy"] == "Fail");
    let deny = |binding: &&Value| binding["spec"]["validationActions"] == json!(["Deny"]);
    assert!(rules.len() == 3 && closed, "{rules:?}");
    assert!(bindings.len() == 3 && bindings.iter().all(deny), "{bindings:?}");
    let mut rules = rules
        .iter()
        .flat_map(|policy| policy["spec"]["validations"].as_array().unwrap());
    let rule = rules
        .find(|rule| rule["message"] == "an argument is not in the catalog")
        .unwrap();
    let expression = rule["expression"].as_str().unwrap();
    let mut characters = expression.split_once("a.matches('").unwrap().1.chars();
    let mut pattern = String::new();
    loop {
        match characters.next().unwrap() {
            '\\' => pattern.extend(characters.next()),
            '\'' => return regex::Regex::new(&pattern).unwrap(),
            other => pattern.push(other),
        }
    }
}

/// Arguments have one form; no line without the nonce or the key is taken for anything but a first hello.
pub(crate) fn wire(input: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(input);
    let words: Vec<&str> = text.split('\n').collect();
    let arguments = AgentArgs::parse(&words);
    if let Ok(arguments) = &arguments {
        assert_eq!(arguments.render(), words);
    }
    let control = ControlLine::parse(&text, &sha256_hex(b"a nonce that nobody has"));
    assert!(control.is_none(), "a foreign line was taken");
    let own = ControlLine::parse(&text, &sha256_hex(&[0]));
    let mut reader = Reader::default();
    let mut hello = false;
    for line in &words {
        if let Some((seq, event)) = reader.take(line, b"a key that nobody has") {
            hello = true;
            assert!(
                seq == 1 && matches!(event, Event::Hello(_)),
                "a foreign line was taken: {event:?}"
            );
        }
    }
    let result: Option<SignedResult> = serde_json::from_str(&text).ok();
    assert!(
        result
            .as_ref()
            .is_none_or(|result| result.open(b"a key that nobody has").is_none())
    );
    // In words: a class knows no digits.
    let rejected = match reader.rejected() {
        0 => "none",
        1 => "one",
        _ => "several",
    };
    let answer = format!("{arguments:?} {own:?} {hello} {rejected} {}", result.is_some());
    Seen {
        class: class(&answer),
        taken: hello || own.is_some() || arguments.is_ok() || result.is_some(),
    }
}

/// Every envelope is something; a response_url is never shown.
pub(crate) fn inbound(input: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(input);
    let Ok(envelope) = serde_json::from_str::<Envelope>(&text) else {
        return Seen::refused("no envelope");
    };
    let shown = format!("{:?} {envelope:?}", Inbound::read(&envelope));
    let secret = envelope.payload["response_url"].as_str().unwrap_or_default();
    assert!(
        !secret.starts_with("https://hooks.slack.com/SECRET") || !shown.contains(secret),
        "{shown}"
    );
    Seen::taken(&shown)
}

/// The shipped rules give the same text however it is cut, and leave no secret of a fixed form.
pub(crate) fn redaction() -> impl Fn(&[u8]) -> Seen {
    let rules = RedactionConfig::default().compile().unwrap();
    move |input| {
        let redact = |piece: usize| {
            let mut out = Vec::new();
            let mut redactor = Redactor::new(&rules);
            for piece in input.chunks(piece) {
                redactor.push(piece, &mut out);
            }
            let removed = redactor.finish(&mut out);
            (out, removed)
        };
        let (out, removed) = redact(MAX_LINE_BYTES);
        let cut = usize::from(*input.first().unwrap_or(&1)) % 61 + 1;
        assert_eq!(redact(cut), (out.clone(), removed.clone()), "cut into pieces of {cut}");
        if removed.count == 0 {
            assert_eq!(out, input);
        }
        // On a line of its own a secret goes, whatever stands before it.
        let planted = [input, b"\nkey AKIAIOSFODNN7EXAMPLE end\n"].concat();
        let clean = Redactor::text(&rules, &String::from_utf8_lossy(&planted));
        assert!(!clean.ends_with("AKIAIOSFODNN7EXAMPLE end\n"), "{clean}");
        let answer = format!("{:?}", removed.by_rule.keys().collect::<Vec<_>>());
        Seen {
            class: class(&answer),
            taken: removed.count > 0,
        }
    }
}

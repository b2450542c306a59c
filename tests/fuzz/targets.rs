//! What is fuzzed, and what must hold whatever comes in.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use diagbot::{
    captures::RedactionConfig,
    runs::resource::OFFER,
    slack::{grammar, inbound::Inbound, socket::Envelope},
};
use diagbot_analysis::redact::{MAX_LINE_BYTES, Redactor};
use diagbot_catalog::{
    Catalog,
    load::{Allowances, Entry},
    policy::{self, Fence},
};
use diagbot_wire::{
    args::AgentArgs,
    control::ControlLine,
    digest::sha256_hex,
    journal::{Event, Reader},
    result::SignedResult,
};

use crate::Class;

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
pub(crate) fn grammar() -> impl Fn(&[u8]) -> Class {
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
                class(&format!("{request:?}"))
            }
            Err(fault) => {
                let told = fault.to_string();
                assert!(told.chars().count() < 3_000, "{told}");
                class(&told)
            }
        }
    }
}

/// A catalog that passes the lint renders policies, and each diagnostic's step with default values matches its own pattern.
pub(crate) fn catalog(input: &[u8]) -> Class {
    let text = String::from_utf8_lossy(input).into_owned();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("name: "))
        .map_or_else(|| "tool".to_owned(), |name| name.trim().to_owned());
    match Catalog::parse(&[(format!("{name}.yaml"), text)], Allowances::default()) {
        Err(error) => class(&error.to_string()),
        Ok(catalog) => {
            let fence = Fence {
                namespace: "diagbot".to_owned(),
                users: vec!["system:serviceaccount:diagbot:diagbot".to_owned()],
                agent_image: "agent@sha256:0".to_owned(),
            };
            assert_eq!(policy::render(&catalog, &fence).len(), 6);
            for diagnostic in catalog.iter() {
                let Ok(values) = diagnostic.check_parameters(&std::collections::BTreeMap::new()) else {
                    continue;
                };
                if diagnostic.argv.is_empty() {
                    continue;
                }
                let step = diagnostic.render_step(&values).render();
                let pattern = regex::Regex::new(&format!("^(?:{})$", diagnostic.step_pattern())).unwrap();
                assert!(pattern.is_match(&step), "{step} is not what its policy admits");
                let arguments = [
                    "run".to_owned(),
                    "--capture=d-0123456789abcdef-0".to_owned(),
                    format!("--nonce={}", "ab".repeat(32)),
                    "--wait=60".to_owned(),
                    "--deadline=60".to_owned(),
                    format!("--step={step}"),
                ];
                assert!(
                    AgentArgs::parse(&arguments).is_ok(),
                    "{step} is not what the agent reads"
                );
            }
            class(&format!("{catalog:?}"))
        }
    }
}

/// Arguments have one form; no line without the nonce or the key is taken for anything but a first hello.
pub(crate) fn wire(input: &[u8]) -> Class {
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
    for line in &words {
        if let Some((seq, event)) = reader.take(line, b"a key that nobody has") {
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
    class(&format!(
        "{:?} {:?} {} {}",
        arguments,
        own,
        reader.rejected().min(2),
        result.is_some()
    ))
}

/// Every envelope is something; a response_url is never shown.
pub(crate) fn inbound(input: &[u8]) -> Class {
    let text = String::from_utf8_lossy(input);
    let Ok(envelope) = serde_json::from_str::<Envelope>(&text) else {
        return 0;
    };
    let shown = format!("{:?} {envelope:?}", Inbound::read(&envelope));
    let secret = envelope.payload["response_url"].as_str().unwrap_or_default();
    assert!(
        !secret.starts_with("https://hooks.slack.com/SECRET") || !shown.contains(secret),
        "{shown}"
    );
    class(&shown)
}

/// The shipped rules give the same text however it is cut, and leave no secret of a fixed form.
pub(crate) fn redaction() -> impl Fn(&[u8]) -> Class {
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
        class(&format!("{:?}", removed.by_rule.keys().collect::<Vec<_>>()))
    }
}

//! What the released version wrote, kept as files: today's bot must understand that agent, and today's agent that bot.
//!
//! The files are never changed; a version that is released adds its own. That stands for an old agent: the lines are all
//! that the two sides ever see of each other.

use std::collections::BTreeSet;

use diagbot_wire::{
    args::AgentArgs,
    control::{Command, ControlLine},
    digest,
    journal::{Event, JournalLine, Reader},
    result::SignedResult,
};
use serde_json::{Map, Value};

const CONTROL: &str = include_str!("released/control-1.jsonl");
const JOURNAL: &str = include_str!("released/journal-1.jsonl");
const RESULT: &str = include_str!("released/result-1.json");
const ARGS: &str = include_str!("released/args-1.txt");
/// Nonce and journal key of the files.
const NONCE: [u8; 32] = [0xab; 32];
const KEY: [u8; 32] = [0xcd; 32];

fn value(text: &str) -> Value {
    serde_json::from_str(text).expect("a released line is JSON")
}

/// Everything of `old` stands in `new`, unchanged: the other side, which is older, looks for nothing else.
fn assert_kept(old: &Value, new: &Value, what: &str) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                let kept = new.get(key).unwrap_or_else(|| panic!("{what}: {key} is gone: {new:?}"));
                assert_kept(value, kept, what);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            assert_eq!(old.len(), new.len(), "{what}");
            old.iter().zip(new).for_each(|(old, new)| assert_kept(old, new, what));
        }
        _ => assert_eq!(old, new, "{what}"),
    }
}

/// The same with a field that only a newer version knows, in every object.
fn newer(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut grown: Map<String, Value> = fields.iter().map(|(key, value)| (key.clone(), newer(value))).collect();
            grown.insert("ofANewerVersion".to_owned(), Value::Bool(true));
            Value::Object(grown)
        }
        Value::Array(items) => Value::Array(items.iter().map(newer).collect()),
        other => other.clone(),
    }
}

#[test]
fn control_lines_of_the_released_bot_are_read_and_todays_are_readable_by_its_agent() {
    let hash = digest::sha256_hex(&NONCE);
    let mut kinds = BTreeSet::new();
    for line in CONTROL.lines() {
        let parsed = ControlLine::parse(line, &hash).unwrap_or_else(|| panic!("{line}"));
        kinds.insert(match &parsed.command {
            Command::Ticket(_) => "ticket",
            Command::Urls { .. } => "urls",
            Command::Cancel { .. } => "cancel",
            Command::Release { .. } => "release",
        });
        assert_kept(&value(line), &value(parsed.render().trim()), line);
        let grown = newer(&value(line)).to_string();
        assert_eq!(ControlLine::parse(&grown, &hash), Some(parsed), "{grown}");
    }
    assert_eq!(kinds, BTreeSet::from(["ticket", "urls", "cancel", "release"]));
}

#[test]
fn the_journal_of_the_released_agent_is_read_and_todays_is_readable_by_its_bot() {
    let mut reader = Reader::default();
    let mut kinds = BTreeSet::new();
    for line in JOURNAL.lines() {
        let (seq, event) = reader.take(line, &KEY).unwrap_or_else(|| panic!("{line}"));
        kinds.insert(match &event {
            Event::Hello(_) => "hello",
            Event::Started { .. } => "started",
            Event::StepStarted { .. } => "step-started",
            Event::Progress { .. } => "progress",
            Event::NeedUrls { .. } => "need-urls",
            Event::Staged { .. } => "staged",
            Event::StepEnded { .. } => "step-ended",
            Event::CleanedUp { .. } => "cleaned-up",
            Event::End { .. } => "end",
            Event::Unknown => "unknown",
        });
        let body = value(value(line)["body"].as_str().expect("a body"));
        let today = serde_json::to_value(&event).expect("an event is plain data");
        assert_kept(&body, &today, line);
        let grown: Event = serde_json::from_value(newer(&body)).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(grown, event, "{line}");
        // The frame is written the same byte for byte, and its HMAC is over the same text.
        let released: JournalLine = serde_json::from_str(line).expect("a frame");
        assert_eq!(released.render(), format!("{line}\n"));
        let key = (seq > 1).then_some(&KEY[..]);
        let sealed = JournalLine::seal(seq, &event, key);
        let signed = format!("{seq}/{}", sealed.body);
        let mac = key.map(|key| hex::encode(digest::hmac_sha256(key, signed.as_bytes())));
        assert_eq!(sealed.mac, mac.unwrap_or_default(), "{line}");
    }
    assert_eq!(reader.rejected(), 0);
    assert_eq!(kinds.len(), 9, "{kinds:?}");
    assert!(!kinds.contains("unknown"), "{kinds:?}");
}

#[test]
fn words_of_a_newer_side_are_known_as_such_and_break_nothing() {
    let event: Event = serde_json::from_str(r#"{"event":"of-a-newer-agent","x":1}"#).expect("an event");
    assert_eq!(event, Event::Unknown);
    let hash = digest::sha256_hex(&NONCE);
    let cancel = format!(
        r#"{{"seq":9,"nonce":"{}","command":{{"do":"cancel","reason":"of-a-newer-bot"}}}}"#,
        hex::encode(NONCE)
    );
    assert!(ControlLine::parse(&cancel, &hash).is_some());
    let unknown = format!(
        r#"{{"seq":9,"nonce":"{}","command":{{"do":"of-a-newer-bot"}}}}"#,
        hex::encode(NONCE)
    );
    assert_eq!(
        ControlLine::parse(&unknown, &hash),
        None,
        "ignored, as a foreign line is"
    );
}

#[test]
fn the_result_object_of_the_released_agent_is_opened_and_todays_by_its_bot() {
    let signed: SignedResult = serde_json::from_str(RESULT).expect("a result");
    let result = signed.open(&KEY).expect("the released signature");
    let today = serde_json::to_value(&result).expect("a result is plain data");
    assert_kept(&value(&signed.body), &today, RESULT);
}

#[test]
fn the_arguments_of_the_released_bot_start_todays_agent_and_the_other_way_round() {
    let words: Vec<String> = ARGS.lines().map(str::to_owned).collect();
    let args = AgentArgs::parse(&words).expect("the released arguments");
    assert_eq!(args.render(), words, "one canonical form: a policy matches it");
}

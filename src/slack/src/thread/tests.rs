use diagbot_api::{
    approval::Audience,
    capture::CapturePhase,
    request_key::RequestKey,
    run::{Phase, RunStatus, ThreadStatus},
};

use super::*;
use crate::{
    button::Button,
    thread::desired::{SUCCESSOR, desired, is_told, pressed},
    views::{
        RunView, Successor,
        tests::{capture, run},
    },
};

fn name() -> RunName {
    "d-0123456789abcdef".parse().unwrap()
}

#[test]
fn several_captures_get_a_message_each_once_they_have_ended_and_one_gets_none() {
    let second = |phase| {
        let mut second = capture(phase);
        second.name = "d-0123456789abcdef-1".into();
        second
    };
    let parts = |captures| {
        let run = run(RunStatus {
            phase: Phase::Capturing,
            captures,
            ..RunStatus::default()
        });
        let name = name();
        let view = RunView {
            name: &name,
            run: &run,
            home: "local",
            successors: &[],
            compared: None,
            hidden: false,
        };
        desired(&view, Audience::default())
            .into_iter()
            .map(|w| w.part)
            .collect::<Vec<_>>()
    };
    assert_eq!(parts(vec![capture(CapturePhase::Succeeded)]), ["root"]);
    assert_eq!(
        parts(vec![capture(CapturePhase::Running), second(CapturePhase::Failed)]),
        ["root", "d-0123456789abcdef-1"]
    );
}

#[test]
fn a_told_run_is_told_again_only_when_a_button_of_it_started_something() {
    let button = Button::Again { run: name() };
    let key = RequestKey::Action {
        run: name(),
        button: button.key(),
    };
    assert_eq!(pressed(&key.record()), Some(button.clone()));
    let later = RequestKey::Action {
        run: name(),
        button: button.attempt(3),
    };
    assert_ne!(later.run_name(), key.run_name());
    assert_eq!(pressed(&later.record()), Some(button.clone()));
    let next = Successor {
        open: false,
        name: key.run_name(),
        by: run(RunStatus::default()).spec.requester,
        button,
        phase: Phase::Capturing,
    };
    let mut told = run(serde_json::from_value(serde_json::json!({
        "phase": "Failed",
        "conditions": [{ "type": "Reported", "status": "True", "reason": "Told", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z" }],
    }))
    .unwrap());
    assert!(is_told(&told, &[]));
    assert!(!is_told(&told, std::slice::from_ref(&next)));
    if let Some(status) = &mut told.status {
        status.telling = ThreadStatus {
            sent: [(SUCCESSOR.to_owned(), next.name.to_string())].into(),
            ..ThreadStatus::default()
        };
    }
    assert!(is_told(&told, std::slice::from_ref(&next)));
}

#[test]
fn a_quiet_run_holds_up_no_other_message_of_its_channel() {
    let mut run = run(RunStatus::default());
    assert!(queued(&run).is_some(), "whoever asked hears in turn");
    run.spec.origin.quiet = true;
    assert_eq!(queued(&run), None);
}

#[test]
fn progress_waits_three_seconds_after_a_post_and_the_end_does_not() {
    let now = Instant::now();
    let posted = Memory {
        sent_at: Some(now),
        ..Memory::default()
    };
    assert_eq!(posted.edit_due(true), None);
    assert_eq!(posted.edit_due(false), Some(now + memory::BETWEEN_EDITS));
    let edited = Memory {
        edited_at: Some(now),
        ..posted
    };
    assert_eq!(edited.edit_due(true), Some(now + memory::BETWEEN_EDITS));
}

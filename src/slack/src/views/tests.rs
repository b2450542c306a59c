use std::collections::BTreeMap;

use diagbot_api::{
    capture::{ArtifactRecord, CapturePhase, Explanation, PinnedTarget, Progress, Proof, RedactionRecord},
    request_key::RunName,
    requester::Requester,
    run::{Candidate, CaptureSummary, DiagnosticRun, Phase, RunStatus},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::json;

use super::*;
use crate::button::Button;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs(seconds)
}

/// A run in a phase.
pub(crate) fn run(status: RunStatus) -> DiagnosticRun {
    let mut run: DiagnosticRun = serde_json::from_value(json!({
        "apiVersion": "diagbot.dev/v1alpha1", "kind": "DiagnosticRun", "metadata": { "name": "d-0123456789abcdef" },
        "spec": {
            "key": { "kind": "Command", "id": "[\"T1\",\"1\"]" }, "requester": { "team": "T1", "user": "U1" },
            "origin": { "channel": "C1" }, "diagnostic": "jst", "target": { "name": "checkout", "namespace": "shop" },
            "receivedAt": MicroTime(at(0)),
        },
    }))
    .unwrap();
    run.status = Some(status);
    run
}

pub(crate) fn capture(phase: CapturePhase) -> CaptureSummary {
    serde_json::from_value(json!({
        "name": "d-0123456789abcdef-0", "phase": phase,
        "target": PinnedTarget {
            cluster: "eu".into(), namespace: "shop".into(), pod: "checkout-x2x4z".into(), container: "app".into(),
            ..PinnedTarget::default()
        },
    }))
    .unwrap()
}

fn artifact(sensitive: bool) -> ArtifactRecord {
    ArtifactRecord {
        diagnostic: "jstack".into(),
        name: "threads.txt".into(),
        media_type: "text/plain".into(),
        key: "k".into(),
        version: None,
        size_bytes: 1_572_864,
        sha256: "ab".repeat(32),
        proof: Proof::StoreChecked,
        truncated: false,
        shortfall: None,
        sensitive,
        findings: vec!["2 threads are deadlocked: a & b".into()],
        redaction: Some(RedactionRecord {
            count: 2,
            by_rule: [("named".into(), 2)].into(),
            original_bytes: 1_572_870,
            original_digest: "cd".repeat(32),
        }),
        preview: "Full thread dump <!channel>\n```\"main\" #1 \u{202e}prio=5".into(),
    }
}

pub(crate) fn root(run: &DiagnosticRun) -> Message {
    let name: RunName = "d-0123456789abcdef".parse().unwrap();
    let view = RunView {
        name: &name,
        run,
        home: "local",
        successors: &[],
        compared: None,
        hidden: false,
    };
    view.root(Links::Withheld)
}

fn ended(phase: Phase) -> RunStatus {
    RunStatus {
        phase,
        diagnostic: Some("jstack".into()),
        entered: BTreeMap::from([(phase.as_str().to_owned(), MicroTime(at(2)))]),
        ..RunStatus::default()
    }
}

#[test]
fn a_run_is_told_from_queued_to_done() {
    let mut launching = capture(CapturePhase::Launching);
    launching.waiting = Some("pulling the image".into());
    let mut uploading = capture(CapturePhase::Uploading);
    uploading.progress = Some(Progress {
        step: 0,
        captured_bytes: 40 << 20,
        uploaded_bytes: 10 << 20,
        total_bytes: Some(40 << 20),
    });
    let mut done = capture(CapturePhase::Succeeded);
    done.artifacts = vec![artifact(false)];
    let capturing = |capture| RunStatus {
        phase: Phase::Capturing,
        diagnostic: Some("jstack".into()),
        captures: vec![capture],
        ..RunStatus::default()
    };
    let told: Vec<String> = [
        RunStatus::default(),
        capturing(launching),
        capturing(uploading),
        RunStatus {
            captures: vec![done],
            ..ended(Phase::Succeeded)
        },
    ]
    .into_iter()
    .map(|status| root(&run(status)).text)
    .collect();
    insta::assert_snapshot!(told.join("\n----\n"), @r##"
    *jst* of `shop/checkout`, cluster `local`
    State: *queued*
    Asked by <@U1>, <!date^1800000000^{date_short_pretty} {time}|2027-01-15 08:00:00 UTC> (2027-01-15 08:00:00 UTC) · run `d-012-345`
    ----
    *jstack* of `shop/checkout-x2x4z` (container `app`), cluster `eu`
    State: *capturing*: launching (pulling the image)
    Asked by <@U1>, <!date^1800000000^{date_short_pretty} {time}|2027-01-15 08:00:00 UTC> (2027-01-15 08:00:00 UTC) · run `d-012-345`
    ----
    *jstack* of `shop/checkout-x2x4z` (container `app`), cluster `eu`
    State: *capturing*: uploading, 10.0 MiB of 40.0 MiB (25 %)
    Asked by <@U1>, <!date^1800000000^{date_short_pretty} {time}|2027-01-15 08:00:00 UTC> (2027-01-15 08:00:00 UTC) · run `d-012-345`
    ----
    *jstack* of `shop/checkout-x2x4z` (container `app`), cluster `eu`
    State: *done* after 2.0 s
    *threads.txt* – 1.5 MiB (1,572,864 bytes)
    SHA-256 `abababababababababababababababababababababababababababababababab`
    Proof: store-checked (the store compared every part and the whole)
    Redacted: 2 places that looked like a secret
    Press “Send me a link” to get it.
    *Found:*
    • 2 threads are deadlocked: a &amp; b
    ```
    Full thread dump &lt;!channel&gt;
    '''"main" #1 prio=5
    ```
    Asked by <@U1>, <!date^1800000000^{date_short_pretty} {time}|2027-01-15 08:00:00 UTC> (2027-01-15 08:00:00 UTC) · run `d-012-345`
    "##);
}

#[test]
fn a_refusal_says_what_happened_what_to_do_and_offers_what_fits() {
    let candidate = |pod: &str, hint: &str| Candidate {
        namespace: "shop".into(),
        pod: pod.into(),
        pod_uid: "u".into(),
        container: None,
        hint: hint.into(),
    };
    let status = RunStatus {
        reason: Some(Explanation {
            code: "SeveralTargets".into(),
            message: "2 pods fit `shop/checkout`.".into(),
            remedy: "Choose one.".into(),
        }),
        candidates: vec![
            candidate("checkout-a", ""),
            candidate("checkout-b", "not ready, 4 restarts"),
        ],
        ..ended(Phase::Refused)
    };
    let message = root(&run(status));
    insta::assert_snapshot!(message.text, @r##"
    *jstack* of `shop/checkout`, cluster `local`
    State: *refused* after 2.0 s
    2 pods fit `shop/checkout`.
    *What to do:* Choose one.
    1. `shop/checkout-a`
    2. `shop/checkout-b` – not ready, 4 restarts
    Asked by <@U1>, <!date^1800000000^{date_short_pretty} {time}|2027-01-15 08:00:00 UTC> (2027-01-15 08:00:00 UTC) · run `d-012-345` · SeveralTargets
    "##);
    let blocks = json!(message.blocks);
    let buttons = blocks.as_array().unwrap().last().unwrap()["elements"].clone();
    let labels: Vec<&str> = buttons
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|b| b["text"]["text"].as_str())
        .collect();
    assert_eq!(labels, ["1: checkout-a", "2: checkout-b"]);
    let value = buttons[1]["value"].as_str().unwrap();
    let button = Button::parse(buttons[1]["action_id"].as_str().unwrap(), value).unwrap();
    assert!(matches!(button, Button::Choose { index: 1, .. }));
}

#[test]
fn the_reason_of_the_only_capture_is_told_once() {
    let reason = Explanation {
        code: "NoSuchProcess".into(),
        message: "No process fits.".into(),
        remedy: "Name another container.".into(),
    };
    let mut failed = capture(CapturePhase::Failed);
    failed.reason = Some(reason.clone());
    let status = RunStatus {
        reason: Some(reason),
        captures: vec![failed],
        ..ended(Phase::Failed)
    };
    assert_eq!(root(&run(status)).text.matches("No process fits.").count(), 1);
}

#[test]
fn a_sensitive_artifact_is_neither_previewed_nor_linked_in_a_channel() {
    let mut done = capture(CapturePhase::Succeeded);
    done.artifacts = vec![artifact(true)];
    let status = RunStatus {
        captures: vec![done],
        ..ended(Phase::Succeeded)
    };
    let message = root(&run(status));
    let all = message.json().to_string();
    assert!(!all.contains("thread dump") && !all.contains("deadlocked"), "{all}");
    assert!(all.contains("Send me a link"), "{all}");
}

#[test]
fn a_button_that_was_pressed_goes_and_its_person_is_named() {
    let name: RunName = "d-0123456789abcdef".parse().unwrap();
    let next = Successor {
        open: false,
        name: "d-zzzzzzzzzzzzzzzz".parse().unwrap(),
        by: Requester {
            team: "T1".into(),
            user: "U2".into(),
        },
        button: Button::Again { run: name.clone() },
        phase: Phase::Capturing,
    };
    let run = run(ended(Phase::Failed));
    let before = root(&run);
    assert!(before.json().to_string().contains("Run again"));
    let view = RunView {
        name: &name,
        run: &run,
        home: "local",
        successors: std::slice::from_ref(&next),
        compared: None,
        hidden: false,
    };
    let after = view.root(Links::Withheld);
    assert!(
        after.text.contains("Run again by <@U2> as run `d-zzz-zzz`"),
        "{}",
        after.text
    );
    assert!(!after.json().to_string().contains("\"button\""));
    assert_ne!(before.digest(), after.digest());
}

#[test]
fn many_targets_are_a_table_that_tells_the_state_only_where_not_everybody_may_read() {
    let captures = (0..12).map(|index| {
        let mut one = capture(CapturePhase::Succeeded);
        one.target.pod = format!("checkout-{index}");
        one.target.pod_uid = format!("uid-{index}");
        one.artifacts = vec![artifact(false)];
        if index == 7 {
            one.phase = CapturePhase::Failed;
            one.artifacts.clear();
        }
        one
    });
    let run = run(RunStatus {
        captures: captures.collect(),
        ..ended(Phase::PartlyFailed)
    });
    let name: RunName = "d-0123456789abcdef".parse().unwrap();
    let table = |hidden| {
        let view = RunView {
            name: &name,
            run: &run,
            home: "local",
            successors: &[],
            compared: None,
            hidden,
        };
        view.table().text
    };
    let (open, closed) = (table(false), table(true));
    assert!(open.starts_with("```\n✗ checkout-7\n✓ checkout-0"), "{open}");
    assert!(open.contains("1.5 MiB") && !closed.contains("MiB"), "{closed}");
    assert!(open.lines().all(|line| line.chars().count() <= 42), "{open}");
    assert_eq!(open.lines().count(), closed.lines().count());
    assert!(
        root(&run).text.contains("12 targets: 11 done, 1 failed."),
        "{}",
        root(&run).text
    );
}

//! The agent as the bot meets it: a process with control lines on its standard input, a journal on its standard output, and
//! a store that has faults.

mod agent;
mod jvm;
mod store;

use agent::Agent;
use diagbot_wire::{
    args::{OutputKind, ProcessSelector, StepArgs},
    control::{CancelReason, Command},
    journal::Event,
    result::{Failure, StepOutcome, Via},
};
use store::{Answer, Store};

fn step(argv: &[&str]) -> StepArgs {
    StepArgs {
        name: "sample".to_owned(),
        process: ProcessSelector::None,
        output: OutputKind::Text,
        limit_bytes: 64 << 20,
        deadline_s: 30,
        after_s: 0,
        stop_on_error: false,
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
    }
}

#[test]
fn evidence_goes_straight_to_the_store_and_the_result_follows() {
    let store = Store::start();
    let mut agent = Agent::start(vec![step(&["@sockets"])]);
    agent.ticket(&store);
    let result = agent.step_ended();
    assert_eq!(result.outcome, StepOutcome::Done);
    let artifact = result.artifact.expect("an artifact");
    assert_eq!(artifact.via, Via::Direct);
    let stored = store.object(1);
    assert_eq!(diagbot_wire::digest::sha256_hex(&stored), artifact.digests.sha256);
    assert_eq!(stored.len() as u64, artifact.digests.size_bytes);
    assert!(artifact.preview.starts_with("== tcp =="), "{}", artifact.preview);
    let Event::End {
        result_stored: true,
        cancelled: false,
        ..
    } = agent.end()
    else {
        panic!("stored, not cancelled")
    };
    assert_eq!(store.result().steps.len(), 1);
    agent.succeeds();
}

#[test]
fn a_step_waits_its_pause_and_one_that_needs_a_failed_one_is_not_begun() {
    let store = Store::start();
    let failing = StepArgs {
        stop_on_error: true,
        ..step(&["false"])
    };
    let paused = StepArgs {
        after_s: 1,
        ..step(&["@sockets"])
    };
    let mut agent = Agent::start(vec![step(&["@sockets"]), paused, failing, step(&["@sockets"])]);
    agent.ticket(&store);
    let results: Vec<_> = (0..4).map(|_| agent.step_ended()).collect();
    assert!(results[1].started_ms >= results[0].ended_ms + 1_000, "{results:?}");
    assert!(matches!(results[2].outcome, StepOutcome::Failed { .. }));
    assert!(matches!(
        &results[3].outcome,
        StepOutcome::Failed { failure: Failure::NotReached, detail } if detail.contains("sample")
    ));
    assert!(results[3].artifact.is_none());
    agent.end();
}

#[test]
fn a_lost_connection_and_a_slow_down_are_tried_again() {
    let store = Store::start();
    store.answer_next(&[
        Answer::Cut,
        Answer::Status(503, "SlowDown"),
        Answer::Status(400, "BadDigest"),
    ]);
    let mut agent = Agent::start(vec![step(&["@sockets"])]);
    agent.ticket(&store);
    assert_eq!(agent.step_ended().outcome, StepOutcome::Done);
    agent.end();
}

#[test]
fn an_expired_url_is_renewed() {
    let store = Store::start();
    store.answer_next(&[Answer::Expired]);
    let mut agent = Agent::start(vec![step(&["@sockets"])]);
    agent.ticket(&store);
    agent.wait_for(|event| matches!(event, Event::NeedUrls { step: 0, from_part: 1 }).then_some(()));
    agent.say(Command::Urls { grant: store.grant(0) });
    assert_eq!(agent.step_ended().outcome, StepOutcome::Done);
    agent.end();
}

/// 20 MiB that compress badly: parts of 8 MiB.
fn large_file() -> (tempfile::NamedTempFile, Vec<u8>) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let bytes: Vec<u8> = (0..20_u32 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(file.path(), &bytes).expect("write");
    (file, bytes)
}

#[test]
fn a_url_that_expired_on_the_way_is_renewed_though_the_answer_is_lost() {
    let store = Store::start();
    // The store closes without reading 8 MiB: most often the reset overtakes its answer.
    store.answer_next(&[Answer::ExpiredAtTheHead; 2]);
    let (file, bytes) = large_file();
    let path = file.path().to_str().expect("a path").to_owned();
    let mut agent = Agent::start(vec![step(&["cat", &path])]);
    let mut stale = store.grant(0);
    stale.expires_at_ms = 1;
    agent.ticket_with(vec![stale], Some(store.result_url()));
    agent.wait_for(|event| matches!(event, Event::NeedUrls { step: 0, .. }).then_some(()));
    agent.say(Command::Urls { grant: store.grant(0) });
    // Two parts were under way; the second may ask again.
    let result = agent.wait_for(|event| match event {
        Event::NeedUrls { .. } => Some(None),
        Event::StepEnded { result } => Some(Some(result.clone())),
        _ => None,
    });
    let result = result.unwrap_or_else(|| {
        agent.say(Command::Urls { grant: store.grant(0) });
        agent.step_ended()
    });
    assert_eq!(result.outcome, StepOutcome::Done);
    let stored: Vec<u8> = (1..=3).flat_map(|part| store.object(part)).collect();
    assert!(stored == bytes, "the parts make up the file");
    agent.end();
}

#[test]
fn a_refusal_by_something_on_the_way_leaves_the_relay() {
    let store = Store::start();
    store.answer_next(&[Answer::Status(403, "")]);
    let mut agent = Agent::start(vec![step(&["@sockets"])]);
    agent.ticket(&store);
    let reason = agent.wait_for(|event| match event {
        Event::Staged { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.contains("403"), "{reason}");
    agent.say(Command::Release { step: 0 });
    assert_eq!(agent.step_ended().outcome, StepOutcome::Done);
    agent.end();
}

#[test]
fn a_refusal_of_the_store_is_told_and_nothing_is_called_done() {
    let store = Store::start();
    store.answer_next(&[Answer::Status(403, "AccessDenied")]);
    let mut agent = Agent::start(vec![step(&["@sockets"])]);
    agent.ticket(&store);
    let result = agent.step_ended();
    assert!(
        matches!(&result.outcome, StepOutcome::Failed { failure: Failure::UploadFailed, detail } if detail.contains("AccessDenied")),
        "{result:?}"
    );
    assert_eq!(result.artifact, None);
    agent.end();
}

#[test]
fn without_a_way_to_the_store_the_artifact_waits_for_the_bot() {
    let store = Store::start();
    let grant = store.grant(0);
    let mut agent = Agent::start(vec![step(&["@sockets"])]);
    store.close();
    agent.ticket_with(vec![grant], None);
    let staged = agent.wait_for(|event| match event {
        Event::Staged { result, .. } => Some(result.clone()),
        _ => None,
    });
    let artifact = staged.artifact.expect("a report");
    assert_eq!(artifact.via, Via::Relay);
    let whole = Agent::cat(0, 0);
    assert_eq!(diagbot_wire::digest::sha256_hex(&whole), artifact.digests.sha256);
    assert_eq!(Agent::cat(0, 10), whole[10..], "a broken fetch goes on at its byte");
    agent.say(Command::Release { step: 0 });
    assert_eq!(agent.step_ended().outcome, StepOutcome::Done);
    agent.end();
}

#[test]
fn many_parts_arrive_in_order_with_the_etag_that_follows_from_them() {
    let store = Store::start();
    let (file, bytes) = large_file();
    let path = file.path().to_str().expect("a path").to_owned();
    let mut agent = Agent::start(vec![step(&["cat", &path])]);
    agent.ticket(&store);
    let artifact = agent.step_ended().artifact.expect("an artifact");
    assert_eq!(artifact.parts, 3);
    let stored: Vec<u8> = (1..=3).flat_map(|part| store.object(part)).collect();
    assert!(stored == bytes, "the parts make up the file");
    agent.end();
    assert!(agent.peak_kib() < 24 * 1024, "the agent used {} KiB", agent.peak_kib());
}

#[test]
fn cancel_stops_the_tool_and_says_so() {
    let store = Store::start();
    let mut agent = Agent::start(vec![step(&["sleep", "1000"])]);
    agent.ticket(&store);
    agent.wait_for(|event| matches!(event, Event::StepStarted { .. }).then_some(()));
    let tool = agent.child_named("sleep");
    agent.say(Command::Cancel {
        reason: CancelReason::Requested,
    });
    assert_eq!(agent.step_ended().outcome, StepOutcome::Cancelled);
    let Event::End { cancelled: true, .. } = agent.end() else {
        panic!("cancelled")
    };
    let stat = std::fs::read_to_string(format!("/proc/{tool}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "the tool has ended: {stat}");
}

#[test]
fn a_store_that_hangs_does_not_keep_back_that_the_tool_was_stopped() {
    let store = Store::start();
    let mut agent = Agent::start(vec![step(&["sleep", "1000"])]);
    agent.ticket(&store);
    agent.wait_for(|event| matches!(event, Event::StepStarted { .. }).then_some(()));
    store.answer_next(&[Answer::Silence; 16]);
    agent.say(Command::Cancel {
        reason: CancelReason::Requested,
    });
    assert_eq!(agent.step_ended().outcome, StepOutcome::Cancelled);
    let Event::End {
        cancelled: true,
        result_stored: false,
        ..
    } = agent.end()
    else {
        panic!("cancelled, and nothing is stored")
    };
}

#[test]
fn a_container_that_is_stopped_stops_its_tool_and_ends_in_order() {
    let store = Store::start();
    let mut agent = Agent::start(vec![step(&["sleep", "1000"])]);
    agent.ticket(&store);
    agent.wait_for(|event| matches!(event, Event::StepStarted { .. }).then_some(()));
    let tool = agent.child_named("sleep");
    agent.terminate();
    assert_eq!(agent.step_ended().outcome, StepOutcome::Cancelled);
    let Event::End {
        cancelled: true,
        result_stored: true,
        ..
    } = agent.end()
    else {
        panic!("cancelled, and stored")
    };
    assert!(!std::path::Path::new(&format!("/proc/{tool}/exe")).exists());
}

#[test]
fn the_agent_keeps_its_deadline_when_nobody_comes_back() {
    let store = Store::start();
    let mut agent = Agent::start_with(vec![step(&["sleep", "1000"])], 60, 2);
    agent.ticket(&store);
    let result = agent.step_ended();
    assert!(
        matches!(
            result.outcome,
            StepOutcome::Failed {
                failure: Failure::TimedOut,
                ..
            }
        ),
        "{result:?}"
    );
    agent.end();
}

#[test]
fn without_a_ticket_it_ends_and_has_touched_nothing() {
    let mut agent = Agent::start_with(vec![step(&["@sockets"])], 1, 60);
    let Event::End { cancelled: true, .. } = agent.end_without_ticket() else {
        panic!("an end")
    };
    agent.succeeds();
}

#[test]
fn a_line_with_a_foreign_nonce_changes_nothing() {
    let store = Store::start();
    let mut agent = Agent::start(vec![step(&["@sockets"])]);
    agent.say_with_nonce(
        &[7; 32],
        Command::Cancel {
            reason: CancelReason::Requested,
        },
    );
    agent.ticket(&store);
    assert_eq!(agent.step_ended().outcome, StepOutcome::Done);
    let Event::End { cancelled: false, .. } = agent.end() else {
        panic!("the foreign line was taken")
    };
}

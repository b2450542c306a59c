//! From what the agent says to the end: relay, result, cancel, deadline, faults.

use std::sync::Arc;

use diagbot_wire::{
    journal::Event,
    result::{CaptureResult, Failure, StepOutcome, Via},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use serde_json::json;

use super::{
    super::*,
    case::{Case, aborted},
};
use crate::samples;

#[test]
fn a_staged_artifact_is_relayed_then_released_and_not_relayed_from_a_dead_container() {
    let mut result = samples::step_result();
    result.artifact.as_mut().expect("an artifact").via = Via::Relay;
    let event = Event::Staged {
        result: result.clone(),
        reason: "unreachable".to_owned(),
    };
    let staged = Case::started().says(std::slice::from_ref(&event));
    assert_eq!(staged.actions(), [Action::Relay { step: 0 }]);
    assert_eq!(staged.stored().actions(), [Action::SendRelease { step: 0 }]);
    let dead = Case::started()
        .says(&[event])
        .container(&json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}))
        .with(|f| {
            f.attempt.log = LogState::Complete;
            f.attempt.result = ResultFact::Absent;
        });
    assert_eq!(
        aborted(dead).capture_outcome(),
        (CapturePhase::Failed, "AgentOutOfMemory".to_owned())
    );
}

#[test]
fn what_became_of_the_target_may_be_reported_after_the_end_of_the_agent() {
    let ended = samples::at(1);
    let terminated = json!({"terminated": {"exitCode": 137, "reason": "Error", "finishedAt": ended.to_string()}});
    let silent = |second| {
        let case = Case::started().container(&terminated).at(second);
        case.with(|f| f.attempt.log = LogState::Complete)
    };
    assert_eq!(silent(2).actions(), []);
    assert_eq!(silent(2).plan().wake_at, Some(samples::at(4)));
    assert_eq!(silent(4).actions(), [Action::ReadResult { last: true }]);
}

#[test]
fn a_silent_end_is_looked_up_in_the_result_object() {
    let terminated = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
    let silent = || Case::started().container(&terminated);
    assert_eq!(silent().actions(), [], "its log is still being read");
    let read = silent().with(|f| f.attempt.log = LogState::Complete);
    assert_eq!(read.actions(), [Action::ReadResult { last: true }]);
    let found = CaptureResult {
        version: 1,
        capture: "d-0123456789abcdef-0".to_owned(),
        steps: vec![samples::step_result()],
    };
    let found = read.with(|f| f.attempt.result = ResultFact::Found(Arc::new(found)));
    assert_eq!(found.actions(), [Action::Complete { step: 0 }]);
    let absent = found.with(|f| f.attempt.result = ResultFact::Absent);
    assert_eq!(aborted(absent).capture_outcome().1, "AgentEnded");
    let gone = Case::started().with(|f| f.pod = PodFact::Gone);
    assert_eq!(gone.actions(), [Action::ReadResult { last: true }]);
}

#[test]
fn an_agent_whose_words_were_made_with_another_key_is_not_called_idle() {
    let ended = || {
        Case::met()
            .status(|s| s.ticket_sent_at = Some(MicroTime(samples::at(1))))
            .container(&json!({"terminated": {"exitCode": 0}}))
            .with(|f| {
                f.attempt.log = LogState::Complete;
                f.attempt.result = ResultFact::Absent;
            })
    };
    let capture_outcome = |case: Case| aborted(case).capture_outcome();
    let of = |phase, code: &str| (phase, code.to_owned());
    let strange = || ended().hears_a_stranger();
    assert_eq!(capture_outcome(ended()), of(CapturePhase::Failed, "AgentDeaf"));
    assert_eq!(capture_outcome(strange()), of(CapturePhase::Failed, "AgentUnproven"));
    assert_eq!(capture_outcome(ended().cancelled()), of(CapturePhase::Cancelled, ""));
    assert_eq!(
        capture_outcome(strange().cancelled()),
        of(CapturePhase::Failed, "AgentUnproven")
    );
}

#[test]
fn the_result_of_an_agent_that_is_not_heard_is_looked_for_now_and_then() {
    let heard = |second| {
        Case::started()
            .with(|f| f.attempt.heard_at = Some(samples::at(5)))
            .at(second)
    };
    assert_eq!(heard(24).actions(), []);
    assert_eq!(heard(24).plan().wake_at, Some(samples::at(25)));
    let glance = Action::ReadResult { last: false };
    assert_eq!(heard(25).actions(), [glance]);
    let glanced = heard(30).with(|f| f.attempt.glanced_at = Some(samples::at(25)));
    assert_eq!(glanced.actions(), [], "that it is not there yet says nothing");
}

#[test]
fn a_cancel_is_cancelled_only_when_that_is_proven() {
    assert_eq!(
        Case::fresh().cancelled().capture_outcome(),
        (CapturePhase::Cancelled, String::new())
    );
    let waiting = aborted(Case::launched().container(&json!({"waiting": {}})).cancelled());
    assert_eq!(
        waiting.capture_outcome().0,
        CapturePhase::Cancelled,
        "it never got its ticket"
    );
    let running = Case::started()
        .cancelled()
        .status(|s| s.phase = CapturePhase::Cancelling);
    let cancel = Action::SendCancel {
        reason: CancelReason::Requested,
    };
    assert_eq!(running.actions(), std::slice::from_ref(&cancel));
    let told = running.with(|f| f.attempt.cancelled_at = Some((f.now, f.now)));
    assert_eq!(told.actions(), []);
    assert_eq!(
        told.plan().wake_at,
        Some(samples::at(4)),
        "told again after three seconds"
    );
    let told = told.at(4);
    assert_eq!(told.actions(), [cancel]);
    let silent = told.at(32).with(|f| f.attempt.result = ResultFact::Absent);
    assert_eq!(
        aborted(silent).capture_outcome(),
        (CapturePhase::Failed, "CancelUnproven".to_owned())
    );
    let proven = Case::started().cancelled().says(&[Event::End {
        result_sha256: String::new(),
        result_stored: false,
        cancelled: true,
    }]);
    assert_eq!(
        aborted(proven).capture_outcome(),
        (CapturePhase::Cancelled, String::new())
    );
    let missed = Case::met()
        .status(|s| s.ticket_sent_at = Some(MicroTime(samples::at(1))))
        .container(&json!({"terminated": {"exitCode": 0}}))
        .cancelled()
        .with(|f| f.attempt.log = LogState::Complete);
    assert_eq!(
        aborted(missed).capture_outcome().0,
        CapturePhase::Cancelled,
        "its whole log knows no ticket"
    );
    let late = Case::ended().stored().cancelled().with(|f| f.manifest_written = true);
    assert_eq!(
        late.capture_outcome().0,
        CapturePhase::Succeeded,
        "everything was captured before"
    );
}

#[test]
fn the_deadline_ends_a_capture_in_every_phase() {
    assert_eq!(
        Case::fresh().at(300).capture_outcome(),
        (CapturePhase::TimedOut, "Deadline".to_owned())
    );
    let launched = aborted(Case::launched().container(&json!({"waiting": {}})).at(300));
    assert_eq!(launched.capture_outcome().0, CapturePhase::TimedOut);
    let reason = CancelReason::Deadline;
    assert_eq!(Case::started().at(300).actions(), [Action::SendCancel { reason }]);
    let running = Case::started().status(|s| s.phase = CapturePhase::Running);
    let running = running.with(|f| f.attempt.heard_at = Some(samples::at(290)));
    assert_eq!(running.plan().wake_at, Some(samples::at(300)));
}

#[test]
fn a_failed_step_fails_the_capture_and_keeps_what_there_is() {
    let mut result = samples::step_result();
    result.outcome = StepOutcome::Failed {
        failure: Failure::ToolFailed,
        detail: "exit code 2".to_owned(),
    };
    let ended = Case::started().says(&[
        Event::StepEnded { result },
        Event::End {
            result_sha256: String::new(),
            result_stored: true,
            cancelled: false,
        },
    ]);
    assert_eq!(ended.actions(), [Action::Complete { step: 0 }], "the partial artifact");
    let kept = ended.stored().with(|f| f.manifest_written = true);
    assert_eq!(kept.capture_outcome(), (CapturePhase::Failed, "ToolFailed".to_owned()));
}

#[test]
fn what_can_not_be_done_for_good_becomes_the_reason() {
    let refused = Case::launched().with(|f| f.attempt.refused = Some(explain::refusal(Refusal::PodSecurity, "")));
    assert_eq!(aborted(refused).capture_outcome().1, "PodSecurity");
    let store = Case::launched().with(|f| {
        f.faults.insert(Fault::Uploads, explain::refusal(Refusal::Store, ""));
    });
    assert_eq!(aborted(store).capture_outcome().1, "Store");
    let unverified = Case::ended().with(|f| {
        f.faults
            .insert(Fault::Artifact(0), explain::refusal(Refusal::NotVerified, ""));
    });
    assert_eq!(
        aborted(unverified).capture_outcome(),
        (CapturePhase::Failed, "NotVerified".to_owned())
    );
    let pull = Case::launched()
        .container(&json!({"waiting": {"reason": "ImagePullBackOff"}}))
        .at(122);
    assert_eq!(aborted(pull).capture_outcome().1, "ImagePull");
}

#[test]
fn a_container_that_is_being_created_for_long_is_looked_at_more_closely() {
    let creating = Case::launched().container(&json!({"waiting": {"reason": "ContainerCreating"}}));
    assert_eq!(creating.actions(), []);
    assert_eq!(creating.plan().wake_at, Some(samples::at(3)));
    assert_eq!(creating.at(3).actions(), [Action::LookCloser]);
}

#[test]
fn progress_is_written_once_a_second_at_most() {
    let progress = |uploaded_bytes| Event::Progress {
        step: 0,
        captured_bytes: 9,
        uploaded_bytes,
        total_bytes: Some(9),
    };
    let case = Case::started().says(&[progress(1)]);
    assert!(case.plan().actions.is_empty(), "written just now");
    let Action::Observe(observed) = &case.at(2).plan().actions[0] else {
        panic!("a record")
    };
    assert_eq!(observed.phase, CapturePhase::Uploading);
    assert_eq!(observed.progress.as_ref().map(|p| p.uploaded_bytes), Some(1));
}

#[test]
fn what_keeps_failing_is_tried_again_and_told() {
    let away = "the store: no answer";
    let case = Case::launched()
        .status(|s| s.uploads.clear())
        .with(|f| f.trouble = Some(away.to_owned()))
        .at(2);
    let [Action::OpenUploads, .., Action::Observe(observed)] = &case.plan().actions[..] else {
        panic!("tried again, and told")
    };
    assert_eq!(observed.waiting.as_deref(), Some(away));
}

#[test]
fn a_report_of_the_bot_is_made_kept_and_told() {
    let api = |case: Case| {
        case.object(|object| object.spec.steps[0].method = StepMethod::Api)
            .pod(|pod| pod["status"]["phase"] = "Failed".into())
    };
    let first = api(Case::fresh());
    assert!(
        matches!(first.actions()[..], [Action::Attempt { number: 1, .. }]),
        "also of a pod that does not run"
    );
    let begun = api(Case::launched()).status(|s| s.uploads.clear());
    assert_eq!(begun.actions(), [Action::Report { step: 0 }]);
    assert_eq!(api(Case::launched().stored()).actions(), [Action::WriteManifest]);
    let fault = begun.with(|f| {
        f.faults.insert(Fault::Report, explain::refusal(Refusal::PodGone, ""));
    });
    assert_eq!(fault.capture_outcome(), (CapturePhase::Failed, "PodGone".to_owned()));
}

#[test]
fn an_object_that_is_deleted_is_a_request_to_stop() {
    let deleted = Case::fresh().object(|o| o.metadata.deletion_timestamp = Some(Time(samples::at(1))));
    assert_eq!(deleted.capture_outcome().0, CapturePhase::Cancelled);
}

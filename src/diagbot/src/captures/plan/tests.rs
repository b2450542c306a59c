//! What follows from which facts, row by row.

use std::sync::Arc;

use diagbot_wire::{
    journal::{Event, Hello, JournalLine},
    result::{CaptureResult, Failure, StepOutcome, Via},
};
use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use serde_json::json;

use super::*;
use crate::captures::{
    resource::{ArtifactRecord, CaptureStatus, DiagnosticCapture, Proof, UploadRecord},
    samples,
};

const KEY: &[u8] = b"key";

/// A world to change and look at.
struct Case(Facts, u64);

impl Case {
    /// Nothing has happened; the target runs.
    fn fresh() -> Self {
        let mut facts = Facts::new(Arc::new(samples::capture()), samples::at(1), 120, Arc::default());
        facts.pod = PodFact::Seen(Arc::new(samples::pod()));
        Self(facts, 0)
    }

    /// The first attempt is recorded, its upload open, its container added.
    fn launched() -> Self {
        Self::fresh()
            .status(|s| {
                s.phase = CapturePhase::Launching;
                s.attempt = 1;
                s.container = Some("diag-0123456789abcdef-0-1".to_owned());
                s.identity = Some(samples::identity());
                s.uploads.push(UploadRecord {
                    step: 0,
                    attempt: 1,
                    key: "k".to_owned(),
                    upload_id: "u".to_owned(),
                    part_size_bytes: 8 << 20,
                    closed: false,
                });
                s.trace.insert("launched".to_owned(), MicroTime(samples::at(1)));
            })
            .with(|f| {
                f.attempt.wanted = Some(Arc::new(samples::container(&samples::capture(), 1)));
                f.attempt.added_at = Some(samples::at(1));
                f.written_at = Some(samples::at(1));
            })
    }

    /// The agent has introduced itself.
    fn met() -> Self {
        Self::launched()
            .container(&json!({"running": {}}))
            .says(&[Event::Hello(samples::hello())])
    }

    /// It has its ticket.
    fn started() -> Self {
        Self::met()
            .status(|s| s.ticket_sent_at = Some(MicroTime(samples::at(1))))
            .says(&[Event::Started { processes: Vec::new() }])
    }

    /// It has said everything.
    fn ended() -> Self {
        Self::started().says(&[
            Event::StepEnded {
                result: samples::step_result(),
            },
            Event::End {
                result_sha256: String::new(),
                result_stored: true,
                cancelled: false,
            },
        ])
    }

    /// The artifact is in the store.
    fn stored(self) -> Self {
        self.status(|s| {
            s.uploads[0].closed = true;
            s.artifacts.push(ArtifactRecord {
                diagnostic: "jstack".to_owned(),
                name: "threads.txt".to_owned(),
                media_type: String::new(),
                key: "k".to_owned(),
                version: None,
                size_bytes: 5,
                sha256: String::new(),
                proof: Proof::StoreChecked,
                truncated: false,
                shortfall: None,
                sensitive: false,
                preview: String::new(),
                findings: Vec::new(),
                redaction: None,
            });
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Facts)) -> Self {
        change(&mut self.0);
        self
    }

    fn object(self, change: impl FnOnce(&mut DiagnosticCapture)) -> Self {
        self.with(|f| change(Arc::make_mut(&mut f.capture)))
    }

    fn status(self, change: impl FnOnce(&mut CaptureStatus)) -> Self {
        self.object(|object| change(object.status.get_or_insert_default()))
    }

    fn pod(self, change: impl FnOnce(&mut serde_json::Value)) -> Self {
        self.with(|f| {
            let PodFact::Seen(pod) = &f.pod else { panic!("a pod") };
            let mut value = serde_json::to_value(pod.as_ref()).expect("JSON");
            change(&mut value);
            let pod: Pod = serde_json::from_value(value).expect("a pod");
            f.pod = PodFact::Seen(Arc::new(pod));
        })
    }

    /// Our container is in the pod, in this state.
    fn container(self, state: &serde_json::Value) -> Self {
        let wanted = self.0.attempt.wanted.clone().expect("a container");
        self.pod(|pod| {
            pod["spec"]["ephemeralContainers"] = json!([wanted.as_ref()]);
            pod["status"]["ephemeralContainerStatuses"] = json!([{
                "name": wanted.name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
            }]);
        })
    }

    fn says(mut self, events: &[Event]) -> Self {
        for event in events {
            self.1 += 1;
            let line = JournalLine::seal(self.1, event, Some(KEY)).render();
            assert!(self.0.attempt.journal.take(&line, KEY), "{line}");
        }
        self
    }

    fn cancelled(self) -> Self {
        self.object(|object| {
            object
                .metadata
                .annotations
                .get_or_insert_default()
                .insert("diagbot.dev/cancel".to_owned(), String::new());
        })
    }

    fn at(self, second: i64) -> Self {
        self.with(|f| f.now = samples::at(second))
    }

    fn plan(&self) -> Plan {
        plan(&self.0)
    }

    /// The actions, without the record of progress.
    fn actions(&self) -> Vec<Action> {
        let mut actions = self.plan().actions;
        actions.retain(|a| !matches!(a, Action::Observe(_)));
        actions
    }

    fn ending(&self) -> (CapturePhase, String) {
        match self.actions().as_slice() {
            [Action::Finish(ending)] => (
                ending.phase,
                ending.reason.as_ref().map(|r| r.code.clone()).unwrap_or_default(),
            ),
            other => panic!("no end: {other:?}"),
        }
    }
}

/// The upload is not left open behind an end.
fn aborted(case: Case) -> Case {
    assert_eq!(case.actions(), [Action::AbortUploads]);
    case.status(|s| s.uploads.iter_mut().for_each(|u| u.closed = true))
}

#[test]
fn a_capture_goes_from_record_to_end_one_action_after_the_other() {
    assert!(matches!(
        Case::fresh().actions()[..],
        [Action::Attempt { number: 1, .. }]
    ));
    let recorded = Case::launched()
        .with(|f| f.attempt.added_at = None)
        .status(|s| s.uploads.clear());
    assert_eq!(
        recorded.actions(),
        [Action::OpenUploads, Action::AddContainer],
        "side by side"
    );
    assert_eq!(Case::launched().actions(), []);
    let running = Case::launched().container(&json!({"running": {}})).plan();
    assert!(running.follow && running.control && running.actions.is_empty());
    assert_eq!(Case::met().actions(), [Action::SendTicket]);
    assert_eq!(Case::started().actions(), []);
    assert_eq!(Case::ended().actions(), [Action::Complete { step: 0 }]);
    assert_eq!(Case::ended().stored().actions(), [Action::WriteManifest]);
    let done = Case::ended().stored().with(|f| f.manifest_written = true);
    assert_eq!(done.ending(), (CapturePhase::Succeeded, String::new()));
    assert!(Case::ended().status(|s| s.phase = CapturePhase::Succeeded).plan().over);
}

#[test]
fn nothing_is_added_to_a_pod_that_is_not_the_pinned_one() {
    let gone = Case::fresh().with(|f| f.pod = PodFact::Gone);
    assert_eq!(gone.ending(), (CapturePhase::Failed, "PodGone".to_owned()));
    let replaced = Case::fresh().pod(|pod| pod["metadata"]["uid"] = "other".into());
    assert_eq!(replaced.ending().1, "PodReplaced");
    let unread = Case::fresh().with(|f| f.pod = PodFact::Unknown);
    assert!(unread.plan().actions.is_empty());
    assert_eq!(
        unread.at(300).ending().0,
        CapturePhase::TimedOut,
        "never read, never for ever"
    );
}

#[test]
fn a_ticket_waits_for_the_right_process_and_the_recorded_upload() {
    let early = Case::met().status(|s| s.uploads.clear());
    assert_eq!(early.actions(), [Action::OpenUploads]);
    let sent = Case::met().with(|f| f.attempt.ticket_at = Some(samples::at(1)));
    assert_eq!(sent.actions(), [], "sent and not answered yet");
    assert_eq!(
        sent.at(3).actions(),
        [Action::SendTicket],
        "sent again after two seconds"
    );
    let other = hello_with(|h| h.processes[0].uid = 33);
    assert!(
        matches!(other.actions()[..], [Action::Attempt { number: 2, identity }] if identity.uid == 33),
        "a second attempt as the process's user"
    );
    let third = hello_with(|h| h.processes[0].uid = 33).status(|s| s.attempt = 3);
    assert_eq!(
        third.actions(),
        [Action::SendCancel {
            reason: CancelReason::TargetReplaced
        }]
    );
    let told = third
        .status(|s| s.uploads[0].closed = true)
        .with(|f| f.attempt.cancelled_at = Some((f.now, f.now)));
    assert_eq!(told.ending().1, "NoIdentity");
}

fn hello_with(change: impl FnOnce(&mut Hello)) -> Case {
    let mut hello = samples::hello();
    change(&mut hello);
    Case::launched()
        .container(&json!({"running": {}}))
        .says(&[Event::Hello(hello)])
}

#[test]
fn an_agent_that_may_have_acted_is_never_followed_by_another() {
    let ticketed =
        hello_with(|h| h.processes[0].uid = 33).status(|s| s.ticket_sent_at = Some(MicroTime(samples::at(1))));
    assert!(!ticketed.actions().iter().any(|a| matches!(a, Action::Attempt { .. })));
    let wrong = hello_with(|h| h.processes[0].container_id = "bb".to_owned());
    let wrong = wrong.with(|f| f.attempt.cancelled_at = Some((f.now, f.now)));
    assert_eq!(aborted(wrong).ending().1, "WrongContainer");
    let foreign = Case::launched().container(&json!({"running": {}})).pod(|pod| {
        pod["spec"]["ephemeralContainers"][0]["image"] = "other".into();
    });
    assert!(
        matches!(foreign.actions()[..], [Action::Attempt { number: 2, .. }]),
        "not ours: another name"
    );
}

#[test]
fn of_several_containers_processes_the_targets_own_gets_the_ticket() {
    let mut neighbour = samples::hello().processes[0].clone();
    neighbour.container_id = "bb".to_owned();
    neighbour.uid = 33;
    neighbour.pinned.pid = 7;
    let mut unknown = neighbour.clone();
    unknown.container_id = String::new();
    let mut hello = samples::hello();
    hello.processes.splice(0..0, [neighbour.clone(), unknown.clone()]);
    let facts = Case::launched().0;
    assert_eq!(chosen(&facts, &hello), [&samples::hello().processes[0]]);
    hello.processes.pop();
    assert_eq!(chosen(&facts, &hello), [&unknown], "as far as can be told");
    let met = hello_with(|h| h.processes.insert(0, neighbour));
    assert!(met.actions().iter().any(|a| matches!(a, Action::SendTicket)));
}

#[test]
fn the_deciding_check_ends_the_capture_before_anything_is_touched() {
    let refused = Case::met()
        .status(|s| s.ticket_sent_at = Some(MicroTime(samples::at(1))))
        .with(|f| f.attempt.verdict = Some(explain::refusal(Refusal::TargetReplaced, "")));
    assert_eq!(
        refused.actions(),
        [Action::SendCancel {
            reason: CancelReason::TargetReplaced
        }]
    );
    let told = refused.with(|f| f.attempt.cancelled_at = Some((f.now, f.now)));
    assert_eq!(
        aborted(told).ending(),
        (CapturePhase::Failed, "TargetReplaced".to_owned())
    );
}

#[test]
fn requests_for_urls_are_served_once_and_again_when_they_had_no_effect() {
    let asks = Case::started().says(&[Event::NeedUrls { step: 0, from_part: 5 }]);
    let urls = Action::SendUrls {
        step: 0,
        from_part: 5,
        asked: 3,
    };
    assert_eq!(asks.actions(), std::slice::from_ref(&urls));
    let served = asks.with(|f| {
        f.attempt.urls_at.insert(0, (3, f.now));
    });
    assert_eq!(served.actions(), []);
    assert_eq!(served.at(3).actions(), [urls]);
}

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
        aborted(dead).ending(),
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
    assert_eq!(aborted(absent).ending().1, "AgentEnded");
    let gone = Case::started().with(|f| f.pod = PodFact::Gone);
    assert_eq!(gone.actions(), [Action::ReadResult { last: true }]);
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
        Case::fresh().cancelled().ending(),
        (CapturePhase::Cancelled, String::new())
    );
    let waiting = aborted(Case::launched().container(&json!({"waiting": {}})).cancelled());
    assert_eq!(waiting.ending().0, CapturePhase::Cancelled, "it never got its ticket");
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
        aborted(silent).ending(),
        (CapturePhase::Failed, "CancelUnproven".to_owned())
    );
    let proven = Case::started().cancelled().says(&[Event::End {
        result_sha256: String::new(),
        result_stored: false,
        cancelled: true,
    }]);
    assert_eq!(aborted(proven).ending(), (CapturePhase::Cancelled, String::new()));
    let missed = Case::met()
        .status(|s| s.ticket_sent_at = Some(MicroTime(samples::at(1))))
        .container(&json!({"terminated": {"exitCode": 0}}))
        .cancelled()
        .with(|f| f.attempt.log = LogState::Complete);
    assert_eq!(
        aborted(missed).ending().0,
        CapturePhase::Cancelled,
        "its whole log knows no ticket"
    );
    let late = Case::ended().stored().cancelled().with(|f| f.manifest_written = true);
    assert_eq!(
        late.ending().0,
        CapturePhase::Succeeded,
        "everything was captured before"
    );
}

#[test]
fn the_deadline_ends_a_capture_in_every_phase() {
    assert_eq!(
        Case::fresh().at(300).ending(),
        (CapturePhase::TimedOut, "Deadline".to_owned())
    );
    let launched = aborted(Case::launched().container(&json!({"waiting": {}})).at(300));
    assert_eq!(launched.ending().0, CapturePhase::TimedOut);
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
    assert_eq!(kept.ending(), (CapturePhase::Failed, "ToolFailed".to_owned()));
}

#[test]
fn what_can_not_be_done_for_good_becomes_the_reason() {
    let refused = Case::launched().with(|f| f.attempt.refused = Some(explain::refusal(Refusal::PodSecurity, "")));
    assert_eq!(aborted(refused).ending().1, "PodSecurity");
    let store = Case::launched().with(|f| {
        f.faults.insert(Fault::Uploads, explain::refusal(Refusal::Store, ""));
    });
    assert_eq!(aborted(store).ending().1, "Store");
    let unverified = Case::ended().with(|f| {
        f.faults
            .insert(Fault::Artifact(0), explain::refusal(Refusal::NotVerified, ""));
    });
    assert_eq!(
        aborted(unverified).ending(),
        (CapturePhase::Failed, "NotVerified".to_owned())
    );
    let pull = Case::launched()
        .container(&json!({"waiting": {"reason": "ImagePullBackOff"}}))
        .at(122);
    assert_eq!(aborted(pull).ending().1, "ImagePull");
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
    assert_eq!(fault.ending(), (CapturePhase::Failed, "PodGone".to_owned()));
}

#[test]
fn an_object_that_is_deleted_is_a_request_to_stop() {
    let deleted = Case::fresh().object(|o| o.metadata.deletion_timestamp = Some(Time(samples::at(1))));
    assert_eq!(deleted.ending().0, CapturePhase::Cancelled);
}

//! A capture somewhere on its way, to change and look at.

use std::sync::Arc;

use diagbot_api::capture::{ArtifactRecord, CaptureStatus, DiagnosticCapture, Proof, UploadRecord};
use diagbot_wire::journal::{Event, JournalLine};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::MicroTime};
use serde_json::json;

use super::super::*;
use crate::samples;

const KEY: &[u8] = b"key";

/// A world to change and look at.
pub(super) struct Case(pub(super) Facts, u64);

impl Case {
    /// Nothing has happened; the target runs.
    pub(super) fn fresh() -> Self {
        let mut facts = Facts::new(Arc::new(samples::capture()), samples::at(1), 120, Arc::default());
        facts.pod = PodFact::Seen(Arc::new(samples::pod()));
        Self(facts, 0)
    }

    /// The first attempt is recorded, its upload open, its container added.
    pub(super) fn launched() -> Self {
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
    pub(super) fn met() -> Self {
        Self::launched()
            .container(&json!({"running": {}}))
            .says(&[Event::Hello(samples::hello())])
    }

    /// It has its ticket.
    pub(super) fn started() -> Self {
        Self::met()
            .status(|s| s.ticket_sent_at = Some(MicroTime(samples::at(1))))
            .says(&[Event::Started { processes: Vec::new() }])
    }

    /// It has said everything.
    pub(super) fn ended() -> Self {
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
    pub(super) fn stored(self) -> Self {
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

    pub(super) fn with(mut self, change: impl FnOnce(&mut Facts)) -> Self {
        change(&mut self.0);
        self
    }

    pub(super) fn object(self, change: impl FnOnce(&mut DiagnosticCapture)) -> Self {
        self.with(|f| change(Arc::make_mut(&mut f.capture)))
    }

    pub(super) fn status(self, change: impl FnOnce(&mut CaptureStatus)) -> Self {
        self.object(|object| change(object.status.get_or_insert_default()))
    }

    pub(super) fn pod(self, change: impl FnOnce(&mut serde_json::Value)) -> Self {
        self.with(|f| {
            let PodFact::Seen(pod) = &f.pod else { panic!("a pod") };
            let mut value = serde_json::to_value(pod.as_ref()).expect("JSON");
            change(&mut value);
            let pod: Pod = serde_json::from_value(value).expect("a pod");
            f.pod = PodFact::Seen(Arc::new(pod));
        })
    }

    /// Our container is in the pod, in this state.
    pub(super) fn container(self, state: &serde_json::Value) -> Self {
        let wanted = self.0.attempt.wanted.clone().expect("a container");
        self.pod(|pod| {
            pod["spec"]["ephemeralContainers"] = json!([wanted.as_ref()]);
            pod["status"]["ephemeralContainerStatuses"] = json!([{
                "name": wanted.name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
            }]);
        })
    }

    pub(super) fn says(mut self, events: &[Event]) -> Self {
        for event in events {
            self.1 += 1;
            let line = JournalLine::seal(self.1, event, Some(KEY)).render();
            assert!(self.0.attempt.journal.take(&line, KEY), "{line}");
        }
        self
    }

    /// A line that was made with another key.
    pub(super) fn hears_a_stranger(mut self) -> Self {
        let event = Event::Started { processes: Vec::new() };
        let line = JournalLine::seal(2, &event, Some(b"another key")).render();
        assert!(!self.0.attempt.journal.take(&line, KEY), "{line}");
        self
    }

    pub(super) fn cancelled(self) -> Self {
        self.object(|object| {
            object
                .metadata
                .annotations
                .get_or_insert_default()
                .insert("diagbot.dev/cancel".to_owned(), String::new());
        })
    }

    pub(super) fn at(self, second: i64) -> Self {
        self.with(|f| f.now = samples::at(second))
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&self.0)
    }

    /// The actions, without the record of progress.
    pub(super) fn actions(&self) -> Vec<Action> {
        let mut actions = self.plan().actions;
        actions.retain(|a| !matches!(a, Action::Observe(_)));
        actions
    }

    pub(super) fn capture_outcome(&self) -> (CapturePhase, String) {
        match self.actions().as_slice() {
            [Action::Finish(capture_outcome)] => (
                capture_outcome.phase,
                capture_outcome
                    .reason
                    .as_ref()
                    .map(|r| r.code.clone())
                    .unwrap_or_default(),
            ),
            other => panic!("no end: {other:?}"),
        }
    }
}

/// The upload is not left open behind an end.
pub(super) fn aborted(case: Case) -> Case {
    assert_eq!(case.actions(), [Action::AbortUploads]);
    case.status(|s| s.uploads.iter_mut().for_each(|u| u.closed = true))
}

//! What a decision is made from: values only.

use std::{collections::BTreeMap, sync::Arc};

use diagbot_api::capture::{
    ANNOTATION_CANCEL, CaptureSpec, CaptureStatus, DiagnosticCapture, Explanation, UploadRecord,
};
use diagbot_wire::result::{CaptureResult, StepResult};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{EphemeralContainer, Pod},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};

use crate::{
    container,
    identity::ImageUsers,
    journal::Journal,
    launch::{self, ContainerView},
};

/// Everything known about a capture.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The time.
    pub now: Timestamp,
    /// The object as last read or written.
    pub capture: Arc<DiagnosticCapture>,
    /// The target's pod.
    pub pod: PodFact,
    /// What is known of the attempt that the object records; begins anew with each attempt.
    pub attempt: AttemptFacts,
    /// Moments of the trace that are not recorded yet.
    pub trace: BTreeMap<&'static str, Timestamp>,
    /// When the object was last written, by us.
    pub written_at: Option<Timestamp>,
    /// What can't be done, by what it was.
    pub faults: BTreeMap<Fault, Explanation>,
    /// An action that keeps failing and may yet succeed: shown while waiting.
    pub trouble: Option<String>,
    /// Steps' artifacts are described by a manifest in the store.
    pub manifest_written: bool,
    /// Uploads may be open that are on no record: a try to open them failed half-way, or was another process's.
    pub may_hold_strays: bool,
    /// Bytes that the bot has fetched of the artifact that it relays.
    pub relayed_bytes: u64,
    /// Longest time from adding the container to its first words, in seconds.
    pub launch_limit_s: u32,
    /// Pods may write to the store themselves.
    pub direct: bool,
    /// Users of images that were met before.
    pub image_users: Arc<ImageUsers>,
}

/// The target's pod, as last seen.
#[derive(Debug, Clone, Default)]
pub(crate) enum PodFact {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// It can't be watched; why, in the API server's words.
    Unreadable(String),
    /// No pod of that name.
    Gone,
    /// There.
    Seen(Arc<Pod>),
}

/// What is known of one attempt.
#[derive(Debug, Clone, Default)]
pub(crate) struct AttemptFacts {
    /// The container that this attempt wants.
    pub wanted: Option<Arc<EphemeralContainer>>,
    /// When the API server took it, if this process added it.
    pub added_at: Option<Timestamp>,
    /// The API server refused it.
    pub refused: Option<Explanation>,
    /// Events about it, when they were last read, and their text.
    pub events: Option<(Timestamp, Vec<String>)>,
    /// What the agent said.
    pub journal: Journal,
    /// When it last said something to this process.
    pub heard_at: Option<Timestamp>,
    /// How far its log was read.
    pub log: LogState,
    /// Its result object.
    pub result: ResultFact,
    /// When the result object was last looked for though the agent may still speak.
    pub glanced_at: Option<Timestamp>,
    /// When this process last sent the ticket.
    pub ticket_at: Option<Timestamp>,
    /// The deciding check failed: no ticket was sent.
    pub verdict: Option<Explanation>,
    /// URLs sent by step: the journal line that asked for them, and when.
    pub urls_at: BTreeMap<u16, (u64, Timestamp)>,
    /// When a release was last sent, by step.
    pub released_at: BTreeMap<u16, Timestamp>,
    /// When a cancel was first and last sent.
    pub cancelled_at: Option<(Timestamp, Timestamp)>,
}

/// How far the container's log was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum LogState {
    /// More may come.
    #[default]
    Open,
    /// The container has ended and its log was read to the end.
    Complete,
    /// It can't be read any more.
    Lost,
}

/// The attempt's result object in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum ResultFact {
    /// Not looked for.
    #[default]
    Unread,
    /// There is none, or none that the agent signed.
    Absent,
    /// What it says.
    Found(Arc<CaptureResult>),
}

/// Something that can't be done, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// The container's spec or a control line can't be made.
    StatusWriter,
    /// Uploads can't be opened.
    Uploads,
    /// The ticket can't be made or sent.
    Ticket,
    /// A step's artifact can't be brought home.
    Artifact(u16),
    /// The bot's own report can't be made.
    Report,
    /// The manifest can't be written.
    Manifest,
    /// Uploads can't be aborted.
    Abort,
}

impl Facts {
    /// The facts of a process that has only read the object.
    pub(crate) fn new(
        capture: Arc<DiagnosticCapture>,
        now: Timestamp,
        launch_limit_s: u32,
        image_users: Arc<ImageUsers>,
    ) -> Self {
        let begun = capture.status.as_ref().is_some_and(|status| status.attempt > 0);
        Self {
            now,
            capture,
            pod: PodFact::Unknown,
            attempt: AttemptFacts::default(),
            trace: BTreeMap::new(),
            written_at: None,
            faults: BTreeMap::new(),
            trouble: None,
            manifest_written: false,
            may_hold_strays: begun,
            relayed_bytes: 0,
            launch_limit_s,
            direct: true,
            image_users,
        }
    }

    /// What was asked.
    pub(crate) fn spec(&self) -> &CaptureSpec {
        &self.capture.spec
    }

    /// A field of the record, without a copy of all.
    pub(crate) fn recorded<T: Default>(&self, field: impl FnOnce(&CaptureStatus) -> T) -> T {
        self.capture.status.as_ref().map(field).unwrap_or_default()
    }

    /// Whether something of this capture may be open at the store: on record, or not.
    pub(crate) fn may_hold_open_uploads(&self) -> bool {
        self.may_hold_strays || self.recorded(|s| s.uploads.iter().any(|upload| !upload.closed))
    }

    /// The attempt under way; 0 before the first.
    pub(crate) fn attempt_number(&self) -> u32 {
        self.recorded(|s| s.attempt)
    }

    /// A ticket may have reached the agent: from here on it may have acted.
    pub(crate) fn ticketed(&self) -> bool {
        self.attempt.verdict.is_none() && self.recorded(|s| s.ticket_sent_at.is_some())
    }

    /// Somebody wants it stopped: a person, or whoever deletes the object.
    pub(crate) fn cancel_requested(&self) -> bool {
        let metadata = &self.capture.metadata;
        let asked = metadata
            .annotations
            .as_ref()
            .is_some_and(|a| a.contains_key(ANNOTATION_CANCEL));
        asked || metadata.deletion_timestamp.is_some()
    }

    /// The capture's own time is over.
    pub(crate) fn deadline_passed(&self) -> bool {
        self.now >= self.spec().deadline.0
    }

    /// Name of our container, once it is recorded.
    pub(crate) fn container(&self) -> Option<&str> {
        self.capture.status.as_ref()?.container.as_deref()
    }

    /// Our container in the pod.
    pub(crate) fn view(&self) -> ContainerView {
        match (&self.pod, self.container()) {
            (PodFact::Seen(pod), Some(name)) => launch::view(pod, name),
            _ => ContainerView::Absent,
        }
    }

    /// A container has our name and is not what we would have added.
    pub(crate) fn foreign(&self) -> bool {
        let PodFact::Seen(pod) = &self.pod else { return false };
        let Some(wanted) = &self.attempt.wanted else {
            return false;
        };
        container::find(pod, &wanted.name).is_some_and(|found| !container::is_ours(found, wanted))
    }

    /// The pod as pinned, if it is still there.
    pub(crate) fn pinned_pod(&self) -> Option<&Pod> {
        match &self.pod {
            PodFact::Seen(pod) if pod.metadata.uid.as_deref() == Some(self.spec().target.pod_uid.as_str()) => Some(pod),
            _ => None,
        }
    }

    /// What the agent said about a step: in its journal, or else in its result object.
    pub(crate) fn step_result(&self, step: u16) -> Option<&StepResult> {
        self.attempt
            .journal
            .result(step)
            .or_else(|| match &self.attempt.result {
                ResultFact::Found(result) => result.steps.iter().find(|r| r.step == step),
                _ => None,
            })
    }

    /// The attempt's (last) upload of a step.
    pub(crate) fn upload(&self, step: u16) -> Option<&UploadRecord> {
        let status = self.capture.status.as_ref()?;
        let attempt = status.attempt;
        status
            .uploads
            .iter()
            .rev()
            .find(|u| u.step == step && u.attempt == attempt)
    }

    /// The step's artifact is in the store, verified and recorded.
    pub(crate) fn stored(&self, step: u16) -> bool {
        self.upload(step).is_some_and(|upload| {
            self.capture
                .status
                .iter()
                .any(|s| s.artifacts.iter().any(|a| a.key == upload.key))
        })
    }

    /// Indexes of the steps.
    pub(crate) fn steps(&self) -> impl Iterator<Item = u16> + use<> {
        0..u16::try_from(self.spec().steps.len()).unwrap_or(u16::MAX)
    }

    /// Seconds since a moment of the record; 0 for none.
    pub(crate) fn seconds_since(&self, moment: Option<Timestamp>) -> i64 {
        moment.map_or(0, |then| self.now.as_second() - then.as_second())
    }

    /// When the attempt was launched.
    pub(crate) fn launched_at(&self) -> Option<Timestamp> {
        let recorded = self.recorded(|s| s.trace.get("launched").map(|t: &MicroTime| t.0));
        self.trace.get("launched").copied().or(recorded)
    }
}

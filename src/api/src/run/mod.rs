//! `DiagnosticRun`: one accepted request as a custom resource. The spec is what a person asked and never changes; the
//! status is what became of it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    approval::{Appeal, Approval, Audience},
    capture::{ArtifactRecord, Explanation, PinnedTarget, Progress},
    decision::Decision,
    requester::Requester,
    target::TargetRef,
};

mod state;

pub use self::state::{ANNOTATION_ALERTS, ANNOTATION_NOTED};

/// Label on runs and captures: the run's name.
pub const LABEL_RUN: &str = "diagbot.dev/run";
/// Label on captures: the target's cluster.
pub const LABEL_CLUSTER: &str = "diagbot.dev/cluster";
/// Label on captures: the target's namespace.
pub const LABEL_NAMESPACE: &str = "diagbot.dev/namespace";
/// Label on captures: the target's pod, cut to what a label may hold.
pub const LABEL_POD: &str = "diagbot.dev/pod";
/// Label on captures: the diagnostic.
pub const LABEL_DIAGNOSTIC: &str = "diagbot.dev/diagnostic";
/// Condition type: people were told the current state.
pub const CONDITION_REPORTED: &str = "Reported";

/// Up to so many captures of a run are told one by one; of more, people get a table.
pub const MANY_CAPTURES: usize = 10;

/// What was asked, by whom, from where.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "diagbot.dev",
    version = "v1alpha1",
    kind = "DiagnosticRun",
    plural = "diagnosticruns",
    shortname = "drun",
    namespaced,
    status = "RunStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Diagnostic","type":"string","jsonPath":".spec.diagnostic"}"#,
    printcolumn = r#"{"name":"Target","type":"string","jsonPath":".spec.target.name"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct RunSpec {
    /// What made this request; equal keys are the same run.
    pub key: KeyRecord,
    /// Who asked.
    pub requester: Requester,
    /// Where to answer.
    pub origin: Origin,
    /// The diagnostic or runbook as typed: canonical name, alias or unique prefix. They share one set of names.
    pub diagnostic: String,
    /// Parameters as typed.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// The target as typed.
    pub target: TargetRef,
    /// Which of the pods that fit are looked at; none: what the runbook says, else exactly one must be meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Selection>,
    /// Begins only once the target was restarted; until then at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub armed_until: Option<MicroTime>,
    /// Only tell what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// The person has confirmed the impact (a click on the confirming button).
    #[serde(default)]
    pub confirmed: bool,
    /// What the person appeals to where their own right does not suffice.
    #[serde(default)]
    pub appeal: Appeal,
    /// When the request reached us.
    pub received_at: MicroTime,
}

/// Which of the pods that fit are looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selection {
    /// At most so many, the sickest; none: all of them.
    #[serde(default)]
    pub max: Option<u32>,
}

/// The request's key, as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyRecord {
    /// Kind of source.
    pub kind: KeyKind,
    /// The source's own identity of the request, canonical.
    pub id: String,
}

/// Sources of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyKind {
    /// A slash command: team and `trigger_id`.
    Command,
    /// An event: `event_id`.
    Event,
    /// A button: run and button.
    Action,
    /// A webhook: source and its id.
    Webhook,
    /// A schedule: UID and due instant.
    Schedule,
    /// A submitted form: team and view.
    Form,
    /// A terminal: a UUID.
    Cli,
}

impl KeyKind {
    /// The word that goes into a run's name. It must never change: a request that is redelivered across an upgrade would
    /// become a second run.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "Command",
            Self::Event => "Event",
            Self::Action => "Action",
            Self::Webhook => "Webhook",
            Self::Schedule => "Schedule",
            Self::Form => "Form",
            Self::Cli => "Cli",
        }
    }
}

/// Where the request came from and where its thread is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// Slack channel (`C…`, `D…`, `G…`).
    #[serde(default)]
    pub channel: String,
    /// Thread in which to answer; none: a root message of our own.
    #[serde(default)]
    pub thread_ts: Option<String>,
    /// Told only where it failed or found something.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quiet: bool,
    /// What made a trigger or a schedule ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// What made a trigger or a schedule ask. The texts are others': untrusted, and cut to a line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// The trigger's or schedule's name.
    pub source: String,
    /// The rule that fitted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rule: String,
    /// The alert in its own words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// What makes two alerts the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// The source's id of the event that made the run: a replay has the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The incident at the source, where it is told there what was captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// When the alert was raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raised_at: Option<MicroTime>,
}

/// What became of the request. Written by the leader alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// Where the run is.
    #[serde(default)]
    pub phase: Phase,
    /// Lease epoch of the leader that wrote this.
    #[serde(default)]
    pub epoch: u64,
    /// Entries of the record about this run that its store did not take yet, oldest first; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrecorded: Vec<String>,
    /// Canonical diagnostic or runbook, once known.
    #[serde(default)]
    pub diagnostic: Option<String>,
    /// What is taken, in order: the steps of a runbook with their repetitions, or the one diagnostic.
    #[serde(default)]
    pub steps: Vec<RunStep>,
    /// Complete, checked parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Things people should know though nothing is wrong: a prefix that was completed, a default that was taken.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What a run that waits for a restart has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub armed: Option<Armed>,
    /// Targets that would fit, when the request was not unique; offered as buttons. At most 10.
    #[serde(default)]
    pub candidates: Vec<Candidate>,
    /// What can be taken of the one candidate, where that was asked; offered as buttons. At most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offers: Vec<Offer>,
    /// The impact must be confirmed by a click before anything starts.
    #[serde(default)]
    pub needs_confirmation: bool,
    /// Why the run is refused, denied or failed, and what to do.
    #[serde(default)]
    pub reason: Option<Explanation>,
    /// The access decision.
    #[serde(default)]
    pub decision: Option<Decision>,
    /// The approval of a second person, where it takes one.
    #[serde(default)]
    pub approval: Option<Approval>,
    /// The review for break-glass, where the person used it.
    #[serde(default)]
    pub break_glass: Option<Decision>,
    /// Who may see what was captured; none before that is known.
    #[serde(default)]
    pub audience: Option<Audience>,
    /// What a dry run found, in lines.
    #[serde(default)]
    pub plan: Vec<String>,
    /// One summary a capture, in order.
    #[serde(default)]
    pub captures: Vec<CaptureSummary>,
    /// How many of the captures may run at a time, by the budgets as they were; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
    /// When the captures of a run with many were last summed up here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_at: Option<MicroTime>,
    /// Who cancelled.
    #[serde(default)]
    pub cancelled_by: Option<Requester>,
    /// The pause that stopped it: its place in words, where not a person but the off-switch did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_by_pause: Option<String>,
    /// When each phase began, by phase name.
    #[serde(default)]
    pub entered: BTreeMap<String, MicroTime>,
    /// What people were told, and where.
    #[serde(default)]
    pub telling: ThreadStatus,
    /// Conventional conditions; [`CONDITION_REPORTED`] among them.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Phases of a run. The last eight are final.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Recorded; nothing decided.
    #[default]
    Accepted,
    /// Diagnostic, parameters and target are looked up.
    Resolving,
    /// The access review is asked.
    Authorizing,
    /// Another person must agree.
    AwaitingApproval,
    /// Captures are under way.
    Capturing,
    /// A person asked to stop; captures are being stopped.
    Cancelling,
    /// Every capture succeeded (or a dry run was told).
    Succeeded,
    /// Some captures succeeded.
    PartlyFailed,
    /// No capture succeeded.
    Failed,
    /// A rule says no.
    Refused,
    /// A person or permission says no.
    Denied,
    /// Time ran out before anything started.
    Expired,
    /// Stopped, and proven so.
    Cancelled,
    /// The run's own deadline passed.
    TimedOut,
}

/// What a run that waits for a restart has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Armed {
    /// Restarts of each container when it was armed, by the pod's UID and the container's name.
    #[serde(default)]
    pub restarts: BTreeMap<String, i32>,
    /// UID of the pod of which a container was restarted: from then on it is a run like any other, of that pod.
    #[serde(default)]
    pub fired: Option<String>,
    /// When that was seen.
    #[serde(default)]
    pub fired_at: Option<MicroTime>,
}

/// A target that would fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Container, where the choice is one of containers.
    #[serde(default)]
    pub container: Option<String>,
    /// Why a person might want this one: `not ready, 4 restarts`.
    #[serde(default)]
    pub hint: String,
}

/// In the place of a diagnostic: what could be taken is found out and offered.
pub const OFFER: &str = "offer";

/// A diagnostic or runbook that fits a target and that the person who asked may run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// Canonical name.
    pub diagnostic: String,
    /// One line.
    pub summary: String,
    /// What the target feels of it, in words; none that a request would notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impact: Option<String>,
}

/// One step of a run, decided: a diagnostic with complete parameters, one of its repetitions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunStep {
    /// Canonical diagnostic.
    pub diagnostic: String,
    /// Every parameter with its value.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Pause before it in seconds.
    #[serde(default)]
    pub after_s: u32,
    /// Where it fails, the steps behind it are not begun.
    #[serde(default)]
    pub stop_on_error: bool,
    /// Left out, without being a failure, where the target has no process of its runtime.
    #[serde(default)]
    pub optional: bool,
}

impl RunStatus {
    /// How many of the captures may run at a time: at least one.
    pub fn at_once(&self) -> usize {
        self.at_once.map_or(usize::MAX, |most| most.max(1) as usize)
    }

    /// Canonical names of all that the run takes, each once. What an earlier version recorded has no steps: there it is the
    /// one diagnostic.
    pub fn diagnostics(&self) -> BTreeSet<&str> {
        let steps = self.steps.iter().map(|step| step.diagnostic.as_str());
        if self.steps.is_empty() {
            self.diagnostic.as_deref().into_iter().collect()
        } else {
            steps.collect()
        }
    }

    /// Canonical names of what one capture takes, each once; all of the run's where its record does not say.
    pub fn taken_by(&self, capture: &CaptureSummary) -> BTreeSet<&str> {
        let steps: Option<BTreeSet<&str>> = capture
            .steps
            .iter()
            .map(|index| self.steps.get(usize::from(*index)).map(|step| step.diagnostic.as_str()))
            .collect();
        steps
            .filter(|steps| !steps.is_empty())
            .unwrap_or_else(|| self.diagnostics())
    }
}

/// A capture as the run's readers need it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaptureSummary {
    /// Name of the capture object.
    pub name: String,
    /// UID of the capture object, once it was seen: from then on it is never made again.
    #[serde(default)]
    pub uid: Option<String>,
    /// What it looks at.
    pub target: PinnedTarget,
    /// The workload whose pod that is, by the pod's owner references: `deployment/checkout`. None: the pod is nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Which of the run's steps it takes; a target's steps by the agent and those by the bot are a capture each.
    #[serde(default)]
    pub steps: Vec<u16>,
    /// It looks at a healthy replica, to compare.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub control: bool,
    /// Its phase.
    pub phase: crate::capture::CapturePhase,
    /// Why it waits: an image that is being pulled, say.
    #[serde(default)]
    pub waiting: Option<String>,
    /// How far it is.
    #[serde(default)]
    pub progress: Option<Progress>,
    /// What it produced.
    #[serde(default)]
    pub artifacts: Vec<ArtifactRecord>,
    /// Why it failed.
    #[serde(default)]
    pub reason: Option<Explanation>,
    /// Things people should know: a fallback that was taken, lines of the journal that were not ours.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What people were told. Written by the thread's reconciler alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThreadStatus {
    /// Channel that was posted to; differs from the origin's where that could not be posted to.
    #[serde(default)]
    pub channel: Option<String>,
    /// `ts` of the root message.
    #[serde(default)]
    pub root_ts: Option<String>,
    /// Messages beside the root, by part name: their `ts`.
    #[serde(default)]
    pub parts: BTreeMap<String, String>,
    /// Digest of the content last sent, by part name (`root` for the root message).
    #[serde(default)]
    pub sent: BTreeMap<String, String>,
    /// A post whose answer was lost: its part name. The channel is read before it is repeated.
    #[serde(default)]
    pub uncertain: Option<String>,
    /// Parts that were posted again, since nobody could say whether the first post arrived: they stay marked so.
    #[serde(default)]
    pub repeated: Vec<String>,
    /// Why people could not be told; telling is tried again.
    #[serde(default)]
    pub error: Option<String>,
    /// When the final state was told.
    #[serde(default)]
    pub final_at: Option<MicroTime>,
}

/// Content of [`ANNOTATION_CANCEL`](crate::capture::ANNOTATION_CANCEL).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelRequest {
    /// Who.
    pub by: Requester,
    /// When.
    pub at: jiff::Timestamp,
}

impl Phase {
    /// True for phases that nothing follows.
    pub fn is_final(self) -> bool {
        !matches!(
            self,
            Self::Accepted
                | Self::Resolving
                | Self::Authorizing
                | Self::AwaitingApproval
                | Self::Capturing
                | Self::Cancelling
        )
    }
}

//! `DiagnosticCapture`: one target's part of a run, as a custom resource owned by the run.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::{self, End};

/// Annotation on runs and captures that asks for cancellation; on a capture its presence counts. An annotation, since a spec
/// never changes.
pub const ANNOTATION_CANCEL: &str = "diagbot.dev/cancel";

/// What to capture, decided and pinned. Never changes.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "diagbot.dev",
    version = "v1alpha1",
    kind = "DiagnosticCapture",
    plural = "diagnosticcaptures",
    shortname = "dcap",
    namespaced,
    status = "CaptureStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Run","type":"string","jsonPath":".spec.run"}"#,
    printcolumn = r#"{"name":"Pod","type":"string","jsonPath":".spec.target.pod"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct CaptureSpec {
    /// Name of the run.
    pub run: String,
    /// Position among the run's captures, from 0.
    pub index: u32,
    /// What it looks at.
    pub target: PinnedTarget,
    /// What it runs, in order; all by the same method.
    pub steps: Vec<StepSpec>,
    /// Image of the container.
    pub image: String,
    /// For the manifest: who asked, as `slack:<team>:<user>`.
    pub requester: String,
    /// For the manifest: digest of the catalog that the steps came from.
    pub catalog_sha256: String,
    /// When the capture gives up.
    pub deadline: MicroTime,
}

/// A target that can't be mistaken for another of the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PinnedTarget {
    /// Cluster.
    pub cluster: String,
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Container.
    pub container: String,
    /// ID of the running container, `containerd://…`; empty where none runs (method `api`).
    #[serde(default)]
    pub container_id: String,
    /// Restart count of the container.
    #[serde(default)]
    pub restart_count: i32,
    /// Node.
    #[serde(default)]
    pub node: String,
}

/// One diagnostic with its checked parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepSpec {
    /// Canonical name.
    pub diagnostic: String,
    /// How it is taken: `Ephemeral` or `Api`.
    pub method: StepMethod,
    /// Checked parameters, for the manifest.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// The canonical value of the agent's `--step=`; empty for method `api`.
    #[serde(default)]
    pub step: String,
    /// Capabilities beyond those that the identity implies.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// File name of the artifact.
    pub artifact: String,
    /// Media type of the artifact.
    pub media_type: String,
    /// Whether the artifact is sensitive.
    pub sensitive: bool,
    /// Most bytes.
    pub limit_bytes: u64,
    /// Longest time of the tool in seconds.
    pub deadline_s: u32,
    /// Left out, without being a failure, where the target has no process of its runtime.
    #[serde(default)]
    pub optional: bool,
}

/// How a step is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StepMethod {
    /// By the agent in an ephemeral container.
    Ephemeral,
    /// By the bot, over the Kubernetes API.
    Api,
}

/// How far the capture is. Written by the leader alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaptureStatus {
    /// Where the capture is.
    #[serde(default)]
    pub phase: CapturePhase,
    /// Lease epoch of the leader that wrote this.
    #[serde(default)]
    pub epoch: u64,
    /// Attempt under way, from 1; 0 before the first.
    #[serde(default)]
    pub attempt: u32,
    /// Name of the attempt's ephemeral container.
    #[serde(default)]
    pub container: Option<String>,
    /// As whom the attempt's container runs; recorded, since the container is recognised by it.
    #[serde(default)]
    pub identity: Option<AgentIdentity>,
    /// Why it waits.
    #[serde(default)]
    pub waiting: Option<String>,
    /// Uploads that were opened; recorded before the first URL is signed.
    #[serde(default)]
    pub uploads: Vec<UploadRecord>,
    /// The ticket was sent for this attempt.
    #[serde(default)]
    pub ticket_sent_at: Option<MicroTime>,
    /// Highest sequence number used on control lines of this attempt.
    #[serde(default)]
    pub control_seq: u64,
    /// How far it is.
    #[serde(default)]
    pub progress: Option<Progress>,
    /// What was produced, one record a step that was reached.
    #[serde(default)]
    pub artifacts: Vec<ArtifactRecord>,
    /// Why it failed.
    #[serde(default)]
    pub reason: Option<Explanation>,
    /// Things people should know.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The trace of the capture: moments by name (`launched`, `patched`, `hello`, `ticket`, `toolStarted`, `toolEnded`, `verified`, `finished`).
    #[serde(default)]
    pub trace: BTreeMap<String, MicroTime>,
    /// Conventional conditions: `Complete` or `Failed` once it is over.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl CaptureStatus {
    /// Enters a final phase, with the reason where there is one.
    pub fn end(&mut self, phase: CapturePhase, reason: Option<&Explanation>, generation: Option<i64>, now: Timestamp) {
        self.phase = phase;
        self.reason = reason.cloned();
        let end = ended(phase == CapturePhase::Succeeded, phase.as_str(), reason);
        condition::set(&mut self.conditions, end.condition(generation, now));
    }
}

/// The end that the conditions of a run or a capture tell: the reason, else the phase's name.
pub fn ended<'a>(complete: bool, phase: &'a str, reason: Option<&'a Explanation>) -> End<'a> {
    End {
        complete,
        reason: reason.map_or(phase, |reason| &reason.code),
        message: reason.map_or("", |reason| &reason.message),
    }
}

/// Phases of a capture. The last four are final.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum CapturePhase {
    /// Nothing done.
    #[default]
    Pending,
    /// The container is being added, pulled, started.
    Launching,
    /// The agent has said hello; target is checked, ticket on its way.
    Meeting,
    /// The tool runs.
    Running,
    /// Bytes are on their way to the store.
    Uploading,
    /// The store is asked for proof.
    Verifying,
    /// Being stopped.
    Cancelling,
    /// Artifacts are in the store and verified.
    Succeeded,
    /// It failed; partial artifacts may exist and are labelled so.
    Failed,
    /// Stopped, and proven so.
    Cancelled,
    /// Its deadline passed.
    TimedOut,
}

/// As whom an agent runs, and how that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentIdentity {
    /// uid.
    pub uid: i64,
    /// gid; none: the image's own.
    #[serde(default)]
    pub gid: Option<i64>,
    /// Where that is known from.
    pub source: IdentitySource,
}

/// Where an identity is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IdentitySource {
    /// `status.containerStatuses[].user.linux`.
    Status,
    /// `runAsUser` of container or pod.
    Spec,
    /// An earlier agent beside the same image.
    Learnt,
    /// Not known: this container only looks.
    Look,
    /// The `hello` of the attempt before.
    Hello,
}

/// A multipart upload that was opened for a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadRecord {
    /// Index of the step.
    pub step: u16,
    /// Attempt that it belongs to.
    pub attempt: u32,
    /// Object key.
    pub key: String,
    /// The store's upload id.
    pub upload_id: String,
    /// Bytes of a part.
    pub part_size_bytes: u64,
    /// Completed, or aborted: nothing is left to clean up.
    #[serde(default)]
    pub closed: bool,
}

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Index of the step.
    pub step: u16,
    /// Bytes the tool has put out.
    pub captured_bytes: u64,
    /// Bytes the store has taken.
    pub uploaded_bytes: u64,
    /// Final length, where known.
    #[serde(default)]
    pub total_bytes: Option<u64>,
}

/// An artifact in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactRecord {
    /// Canonical diagnostic.
    pub diagnostic: String,
    /// File name.
    pub name: String,
    /// Media type.
    pub media_type: String,
    /// Object key.
    pub key: String,
    /// Version of the object, where the store has versions.
    #[serde(default)]
    pub version: Option<String>,
    /// Length in bytes.
    pub size_bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// How the artifact was proven whole.
    pub proof: Proof,
    /// The tool's output was longer than the limit, or its tool failed half-way: never presented as whole.
    #[serde(default)]
    pub truncated: bool,
    /// Why it is not whole, where that was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortfall: Option<Shortfall>,
    /// Sensitive artifacts are never previewed.
    pub sensitive: bool,
    /// First lines of non-sensitive text.
    #[serde(default)]
    pub preview: String,
    /// What an analyzer found in non-sensitive text, most important first; at most five lines.
    #[serde(default)]
    pub findings: Vec<String>,
    /// What was removed from text. None: nothing was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redaction: Option<RedactionRecord>,
}

/// Why an artifact is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Shortfall {
    /// The tool's output was longer than the diagnostic's limit.
    Limit,
    /// The tool failed half-way, or was stopped.
    Tool,
}

/// What was removed from a text artifact before it left the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedactionRecord {
    /// How many places.
    pub count: u64,
    /// The same by rule.
    #[serde(default)]
    pub by_rule: BTreeMap<String, u64>,
    /// Length in bytes before.
    pub original_bytes: u64,
    /// HMAC-SHA256, under a key that follows from the bot's Secret, of the SHA-256 before; hexadecimal.
    pub original_digest: String,
}

/// How an artifact was proven whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// The store checked every part's MD5 and the whole object's CRC-64/NVME.
    StoreChecked,
    /// We read the object back and compared its SHA-256.
    ReadBack,
}

/// What happened and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// CamelCase word of a closed set, for metrics and tests: `TargetReplaced`.
    pub code: String,
    /// What happened, one sentence.
    pub message: String,
    /// What to do next, one sentence.
    #[serde(default)]
    pub remedy: String,
}

impl CapturePhase {
    /// True for phases that nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::TimedOut)
    }

    /// The name that `kubectl get` shows, and the metrics' label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Launching => "Launching",
            Self::Meeting => "Meeting",
            Self::Running => "Running",
            Self::Uploading => "Uploading",
            Self::Verifying => "Verifying",
            Self::Cancelling => "Cancelling",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
            Self::TimedOut => "TimedOut",
        }
    }
}

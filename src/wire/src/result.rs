//! The result object: what the agent PUTs beside the artifacts before its journal's end line, since logs die with the pod.

use serde::{Deserialize, Serialize};

use crate::{digest, digest::Digests, redaction::RedactionReport};

/// The result of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaptureResult {
    /// [`crate::VERSION`] of the agent.
    pub version: u32,
    /// `--capture` of the arguments.
    pub capture: String,
    /// One result a step that was reached, in order.
    pub steps: Vec<StepResult>,
}

/// How one step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepResult {
    /// Index of the step.
    pub step: u16,
    /// The artifact, also of a step that failed half-way (then `outcome` says so).
    pub artifact: Option<ArtifactReport>,
    /// How it ended.
    pub outcome: StepOutcome,
    /// When the tool started and ended, in milliseconds since the epoch by the pod's clock.
    pub started_ms: u64,
    /// See `started_ms`.
    pub ended_ms: u64,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum StepOutcome {
    /// The tool ended well and the artifact is whole.
    Done,
    /// The output was longer than the limit: the artifact holds its beginning.
    Truncated {
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// The tool, or what it needed, failed.
    Failed {
        /// What failed.
        failure: Failure,
        /// What is known beyond that: an errno, an exit code, the tool's last error line. Untrusted text, at most 400 bytes.
        detail: String,
    },
    /// A control line asked to stop.
    Cancelled,
    /// A word of a newer agent.
    #[serde(other)]
    Unknown,
}

/// What made a step fail. Closed, so that the bot can tell people what to do next.
///
/// A variant's name is also the code that people see: it never changes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::IntoStaticStr, strum::VariantNames,
)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// No process fits the selector.
    NoSuchProcess,
    /// The process is no longer the pinned one.
    TargetReplaced,
    /// The JVM's attach mechanism is switched off or does not answer.
    AttachRefused,
    /// The target's root file system is read-only and it has no writable temporary directory.
    ReadOnlyFileSystem,
    /// The agent's identity may not do this to the target.
    PermissionDenied,
    /// Too little room for what would be written.
    NoSpace,
    /// The agent's container has no place of its own for this much output.
    NoPrivatePlace,
    /// The tool ended with an error.
    ToolFailed,
    /// The tool's program is not in the image.
    ToolMissing,
    /// The step's deadline passed.
    TimedOut,
    /// The store refused a part or could not be reached, and relay was not possible either.
    UploadFailed,
    /// An earlier step failed, and this one was to run only after it.
    NotReached,
    /// A word of a newer agent, or a fault of the agent itself.
    #[serde(other)]
    Internal,
}

/// What the agent knows of an artifact it uploaded or staged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactReport {
    /// Length and digests of exactly the uploaded bytes.
    #[serde(flatten)]
    pub digests: Digests,
    /// Number of parts.
    pub parts: u32,
    /// The multipart ETag that follows from the parts' MD5s.
    pub etag: String,
    /// Whether the bytes are in the store (direct) or staged in the container (relay).
    pub via: Via,
    /// Name ending that tells an encoding the tool applied, e.g. `.gz` where the JVM compressed its dump; else empty.
    #[serde(default)]
    pub suffix: String,
    /// First bytes of a text artifact, at most 1,500, cut at a line; for previews of non-sensitive text. Else empty.
    #[serde(default)]
    pub preview: String,
    /// What an analyzer found in a text artifact, most important first; at most five lines of 200 characters.
    #[serde(default)]
    pub findings: Vec<String>,
    /// A fallback that was taken, in words a person can use; else empty.
    #[serde(default)]
    pub note: String,
    /// What was removed from a text artifact. None: nothing was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redaction: Option<RedactionReport>,
}

/// The way an artifact takes to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// From the pod to the store.
    Direct,
    /// Through exec into our own container and the bot.
    Relay,
}

/// The object as it is stored: the result's JSON and its HMAC under the journal key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedResult {
    /// [`CaptureResult`] as JSON text.
    pub body: String,
    /// HMAC-SHA256 of `result/` + body, hexadecimal.
    pub mac: String,
}

impl SignedResult {
    /// Signs a result.
    pub fn seal(result: &CaptureResult, journal_key: &[u8]) -> Self {
        let body = serde_json::to_string(result).expect("a result is plain data");
        let mac = hex::encode(digest::hmac_sha256(journal_key, format!("result/{body}").as_bytes()));
        Self { body, mac }
    }

    /// The result, if the HMAC is right.
    pub fn open(&self, journal_key: &[u8]) -> Option<CaptureResult> {
        digest::hmac_matches(journal_key, format!("result/{}", self.body).as_bytes(), &self.mac)
            .then(|| serde_json::from_str(&self.body).ok())
            .flatten()
    }
}

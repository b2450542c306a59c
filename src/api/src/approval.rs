//! What stands in for a person's own right, and who sees what comes of it: another person's approval, break-glass, the
//! audience. Values only; what follows from them is the plan's part.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{capture::PinnedTarget, decision::Decision, requester::Requester, run::RunStep};

/// Annotation on a run: what a person said when asked for an approval. The first one wins. Only a request: whoever leads reviews
/// that person again before it counts, and records it in the status.
pub const ANNOTATION_VERDICT: &str = "diagbot.dev/verdict";
/// Annotation on a target's namespace: diagnostics that take a second person there, separated by commas, or `all`.
pub const ANNOTATION_APPROVAL: &str = "diagbot.dev/approval";

/// What a person appeals to where their own right does not suffice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Appeal {
    /// Somebody with the verb `approve` shall decide though the person may not `run`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ask_owners: bool,
    /// Nobody shall be waited for: the reason, in the person's words. Takes the verb `break-glass`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<String>,
}

/// An approval that was asked for: what exactly it covers, and what was said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Why it takes a second person.
    pub why: String,
    /// Since when it is asked for.
    pub asked_at: MicroTime,
    /// When it is too late.
    pub expires_at: MicroTime,
    /// The targets that it covers: the very pods and containers.
    pub targets: Vec<PinnedTarget>,
    /// The parameters that it covers.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// What it covers of each target, in order, with every parameter.
    #[serde(default)]
    pub steps: Vec<RunStep>,
    /// Digest of the allowlist that it covers.
    pub catalog_sha256: String,
    /// The images that it covers.
    #[serde(default)]
    pub images: Vec<String>,
    /// What was said, once that person was reviewed.
    #[serde(default)]
    pub verdict: Option<Verdict>,
}

/// What a second person said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Who.
    pub by: Requester,
    /// Consented, or refused.
    pub approved: bool,
    /// When.
    pub at: MicroTime,
    /// The review of that person, for the verb `approve`.
    #[serde(default)]
    pub decision: Option<Decision>,
}

/// Content of [`ANNOTATION_VERDICT`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerdictRequest {
    /// Who.
    pub by: Requester,
    /// Consented, or refused.
    pub approved: bool,
    /// When.
    pub at: jiff::Timestamp,
    /// Where the button was pressed.
    pub channel: String,
}

/// Who may see what was captured, as reviewed right before launch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Audience {
    /// Everybody in the channel: its own principal has the verb `read`.
    #[serde(default)]
    pub channel: bool,
    /// The person who asked has it.
    #[serde(default)]
    pub requester: bool,
}

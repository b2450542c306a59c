//! What an access review asks for and what it decided, as recorded.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The access decision and what it was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Allowed or not.
    pub allowed: bool,
    /// The Kubernetes user that was reviewed: `slack:<team>:<user>`.
    pub user: String,
    /// The groups that were reviewed.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The authorizer's words.
    #[serde(default)]
    pub authorizer_reason: String,
    /// The diagnostic that was asked about; of several the one that was denied.
    #[serde(default)]
    pub diagnostic: String,
    /// When.
    pub at: MicroTime,
}

/// What a person wants to do; the verbs that RBAC rules name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Run a diagnostic.
    Run,
    /// Get links to what it produced.
    Read,
    /// Cancel somebody else's run.
    Cancel,
    /// See that things exist.
    List,
    /// Agree to another person's run.
    Approve,
    /// Run without waiting for anybody; counts only where the diagnostic is named, see `Access::review_named`.
    BreakGlass,
}

impl Verb {
    /// The word in RBAC rules.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Read => "read",
            Self::Cancel => "cancel",
            Self::List => "list",
            Self::Approve => "approve",
            Self::BreakGlass => "break-glass",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

//! The name of a cluster, as people type it and messages show it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Name of a cluster as people type it: `[a-z0-9][a-z0-9.-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

/// A text that is not the name of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a valid cluster name: lower-case letters, digits, dots and dashes, at most 63")]
pub struct ClusterNameError(String);

impl TryFrom<String> for ClusterName {
    type Error = ClusterNameError;

    fn try_from(name: String) -> Result<Self, ClusterNameError> {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fits = (1..=63).contains(&name.len())
            && name.bytes().next().is_some_and(word)
            && name.bytes().all(|b| word(b) || b == b'-' || b == b'.');
        if fits {
            Ok(Self(name))
        } else {
            Err(ClusterNameError(name))
        }
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

impl ClusterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

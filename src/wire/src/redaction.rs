//! Redaction as bot and agent tell it to each other: the rules in the ticket, what they removed in the report.
//!
//! Rules travel in the ticket and not in the container's arguments: what somebody considers a secret is itself worth hiding.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::hmac_sha256;

/// One rule: what a secret looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Stands in the place of what was removed: `[redacted:name]`. Lower-case letters, digits and dashes.
    pub name: String,
    /// Regular expression over one line's bytes, in the syntax of the `regex` crate without Unicode classes. Where it has a
    /// group `secret`, only that is removed.
    pub pattern: String,
    /// What is removed goes on, over lines, until this pattern matches: for blocks with a begin and an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// What the rules removed from one artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedactionReport {
    /// How many places.
    pub count: u64,
    /// The same by rule; rules that found nothing are not named.
    #[serde(default)]
    pub by_rule: BTreeMap<String, u64>,
    /// Length in bytes before.
    pub original_bytes: u64,
    /// [`original_digest`] of the text before.
    pub original_digest: String,
}

/// The digest before redaction: HMAC-SHA256 of `original/<SHA-256>` under the journal key, hexadecimal. Keyed, since a plain
/// digest beside the redacted text lets anybody try guesses at a short password.
pub fn original_digest(journal_key: &[u8], original_sha256: &str) -> String {
    hex::encode(hmac_sha256(
        journal_key,
        format!("original/{original_sha256}").as_bytes(),
    ))
}

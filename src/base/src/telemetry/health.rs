//! What readiness tells: one check a part.

use serde::Serialize;

/// One thing that must work for the bot to be of use.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// Whether it works.
    pub ok: bool,
    /// In words, without secrets.
    pub detail: String,
}

//! Who asked: a person of Slack, a trigger, or a caller with a kubeconfig of their own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who asked, by immutable id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requester {
    /// Slack team (`T…`); empty for requesters that are not Slack users.
    #[serde(default)]
    pub team: String,
    /// Slack user (`U…`/`W…`), or the name of a trigger or schedule.
    pub user: String,
}

/// Begins the user names of triggers; no Slack person's begins so.
const TRIGGER: &str = "trigger:";
/// Begins the names of those who come with a kubeconfig of their own.
const CALLER: &str = "kubernetes:";

impl Requester {
    /// A trigger, which is a principal of its own: `trigger:<name>`.
    pub fn trigger(name: &str) -> Self {
        Self {
            team: String::new(),
            user: format!("{TRIGGER}{name}"),
        }
    }

    /// Who runs a diagnostic with their own rights, by the name that the cluster knows them by. To the bot this is nobody.
    pub fn caller(user: &str) -> Self {
        Self {
            team: String::new(),
            user: format!("{CALLER}{user}"),
        }
    }

    /// Whether a trigger asked. Slack's people always have a team.
    pub fn is_trigger(&self) -> bool {
        let name = self.user.strip_prefix(TRIGGER);
        self.team.is_empty() && name.is_some_and(is_trigger_name)
    }

    /// The name: `slack:<team>:<user id>`, `trigger:<name>`, or `kubernetes:<user>` of who comes with a kubeconfig.
    pub fn user_name(&self) -> String {
        if self.is_trigger() || self.team.is_empty() && self.user.starts_with(CALLER) {
            return self.user.clone();
        }
        format!("slack:{}:{}", self.team, self.user)
    }
}

/// Names of triggers: lower-case letters, digits and dashes, at most 40.
pub fn is_trigger_name(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=40).contains(&name.len())
        && name.bytes().next().is_some_and(word)
        && name.bytes().all(|b| word(b) || b == b'-')
}

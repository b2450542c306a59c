//! What a run's targets and places are like right before launch, beyond what was typed. Values only.

use std::collections::{BTreeMap, BTreeSet};

use diagbot_api::{approval::Audience, capture::PinnedTarget, decision::Decision};

/// The answer to the plan's question.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Preflight {
    /// One for each target, in order.
    pub snapshots: Vec<TargetSnapshot>,
    /// Who may see what comes of it.
    pub audience: Audience,
    /// The review for break-glass, where the person uses it.
    pub break_glass: Option<Decision>,
    /// How many are in the channel, the bot included, where break-glass is used.
    pub members: Option<u64>,
    /// The review of a second person who said something: the verb `approve`.
    pub approver: Option<Decision>,
}

/// One target, looked at afresh.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TargetSnapshot {
    /// Labels of its namespace.
    pub labels: BTreeMap<String, String>,
    /// Annotations of its namespace.
    pub annotations: BTreeMap<String, String>,
    /// UID of the pod, and the container's ID: none where it is gone.
    pub pod_uid: Option<String>,
    /// ID of the container; empty where none runs.
    pub container_id: String,
    /// Ephemeral containers in the pod.
    pub containers: usize,
    /// UIDs of the living pods of its workload, where that counts.
    pub siblings: BTreeSet<String>,
}

impl TargetSnapshot {
    /// What has changed since the target was pinned, in words that follow its name; none where it is the same.
    pub(crate) fn change(&self, pinned: &PinnedTarget) -> Option<&'static str> {
        match &self.pod_uid {
            None => Some("is gone"),
            Some(uid) if *uid != pinned.pod_uid => Some("is another pod of the same name"),
            Some(_) if self.container_id != pinned.container_id => Some("was restarted"),
            Some(_) => None,
        }
    }
}

//! How much may be captured at a time and in an hour: of a pod, a workload, a namespace, a cluster. Pure: whoever leads
//! counts the durable runs and asks. People, schedules and triggers share the budgets.
//!
//! # Design notes
//! What can't be exceeded by waiting in line is told with the time to wait: a request that is over budget is refused at once
//! and never queued, since evidence of a later moment is other evidence. Only a request for several targets, of which some can
//! begin, takes them in a few turns.

use std::{collections::BTreeSet, fmt};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// The window over which captures are counted.
const WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// In how many turns the captures of one request may be taken, where not all of them may run at a time.
const MOST_TURNS: usize = 10;

/// Limits (`budgets:` in the configuration file).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BudgetConfig {
    /// Captures of one pod. Default: 4 at a time, 30 in an hour.
    pub pod: Limit,
    /// Captures of one workload's pods. Default: 20 at a time, 250 in an hour.
    pub workload: Limit,
    /// Captures in one namespace. Default: 40 at a time, 300 in an hour.
    pub namespace: Limit,
    /// Captures in one cluster. Default: 100 at a time, 2,000 in an hour.
    pub cluster: Limit,
    /// Replicas of one workload that may stand still at a time, whatever their number. Default: 1.
    pub paused_replicas: usize,
    /// The same as a share of the replicas, in percent; the larger of the two counts. Default: 25.
    pub paused_percent: usize,
    /// Ephemeral containers in one pod, anybody's: they stay in it until it goes. Default: 30.
    pub ephemeral_containers: usize,
}

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// At a time.
    pub concurrent: usize,
    /// Begun within an hour.
    pub per_hour: usize,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        let limit = |concurrent, per_hour| Limit { concurrent, per_hour };
        Self {
            pod: limit(4, 30),
            workload: limit(20, 250),
            namespace: limit(40, 300),
            cluster: limit(100, 2_000),
            paused_replicas: 1,
            paused_percent: 25,
            ephemeral_containers: 30,
        }
    }
}

/// A capture that was begun, as the budgets count it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Cluster.
    pub cluster: String,
    /// Namespace.
    pub namespace: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// When it was begun.
    pub at: Timestamp,
    /// It has not ended.
    pub running: bool,
    /// It makes its target stand still.
    pub pausing: bool,
}

/// A capture that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Cluster.
    pub cluster: String,
    /// Namespace.
    pub namespace: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// The pod's name, for people.
    pub pod: String,
    /// UIDs of the pods of its workload, its own among them; empty where it belongs to none.
    pub siblings: BTreeSet<String>,
    /// It makes its target stand still.
    pub pausing: bool,
    /// It adds an ephemeral container.
    pub adds_container: bool,
    /// Ephemeral containers that the pod has.
    pub containers: usize,
}

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// One pod.
    Pod,
    /// One workload's pods.
    Workload,
    /// One namespace.
    Namespace,
    /// One cluster.
    Cluster,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "pod",
            Self::Workload => "workload",
            Self::Namespace => "namespace",
            Self::Cluster => "cluster",
        })
    }
}

/// Why a capture may not begin now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverBudget {
    /// As many run as may.
    Concurrent {
        /// Counted over.
        group: Group,
        /// How many may.
        most: usize,
    },
    /// As many were begun within the hour as may.
    Hourly {
        /// Counted over.
        group: Group,
        /// How many may.
        most: usize,
        /// When the next one may, in minutes.
        minutes: i64,
    },
    /// Another capture makes the pod stand still.
    PodPaused {
        /// The pod.
        pod: String,
    },
    /// As many replicas of the workload stand still as may.
    ReplicasPaused {
        /// How many may.
        most: usize,
        /// Replicas.
        of: usize,
    },
    /// The pod holds as many ephemeral containers as it may.
    Containers {
        /// The pod.
        pod: String,
        /// How many may.
        most: usize,
    },
}

/// How many of what one request asks for may run at a time beside what was begun: at least one. An error where none may, where
/// an hour's share is too small for all, or where they would take too many turns.
pub fn check(config: &BudgetConfig, begun: &[Use], asked: &[Ask], now: Timestamp) -> Result<usize, OverBudget> {
    let mut at_once = asked.len();
    for ask in asked {
        if ask.adds_container && ask.containers >= config.ephemeral_containers {
            return Err(OverBudget::Containers {
                pod: ask.pod.clone(),
                most: config.ephemeral_containers,
            });
        }
        for crowd in crowds(config, begun, asked, ask) {
            let room = crowd.most.saturating_sub(crowd.running);
            // Whichever of them run at a time, no more of this crowd do than have room.
            let fitting = if crowd.asked <= room { asked.len() } else { room };
            if fitting == 0 || asked.len().div_ceil(fitting) > MOST_TURNS {
                return Err(crowd.over);
            }
            at_once = at_once.min(fitting);
        }
    }
    let mut counted = begun.to_vec();
    for ask in asked {
        for group in Group::ALL {
            let uses: Vec<&Use> = counted.iter().filter(|u| group.holds(ask, u)).collect();
            check_hour(group, config.limit(group), &uses, now)?;
        }
        counted.push(ask.begun(now));
    }
    Ok(at_once)
}

/// What may not all run at a time.
struct Crowd {
    most: usize,
    running: usize,
    asked: usize,
    over: OverBudget,
}

/// What one of those asked for counts with: its groups, and what stands still.
fn crowds(config: &BudgetConfig, begun: &[Use], asked: &[Ask], ask: &Ask) -> Vec<Crowd> {
    let of_group = |group: Group| {
        let most = config.limit(group).concurrent;
        Crowd {
            most,
            running: begun.iter().filter(|u| u.running && group.holds(ask, u)).count(),
            asked: asked.iter().filter(|other| group.joins(ask, other)).count(),
            over: OverBudget::Concurrent { group, most },
        }
    };
    let mut crowds: Vec<Crowd> = Group::ALL.into_iter().map(of_group).collect();
    if ask.pausing {
        crowds.extend(standing(config, begun, asked, ask));
    }
    crowds
}

/// Never two pausing steps on a pod, and never more of a workload's replicas than may.
fn standing(config: &BudgetConfig, begun: &[Use], asked: &[Ask], ask: &Ask) -> Vec<Crowd> {
    let paused = |group: Group| -> BTreeSet<&str> {
        let standing = begun.iter().filter(|u| u.running && u.pausing && group.holds(ask, u));
        standing.map(|u| u.pod_uid.as_str()).collect()
    };
    let wanted = |group: Group| {
        asked
            .iter()
            .filter(move |other| other.pausing && group.joins(ask, other))
    };
    let of_pod = Crowd {
        most: 1,
        running: paused(Group::Pod).len(),
        asked: wanted(Group::Pod).count(),
        over: OverBudget::PodPaused { pod: ask.pod.clone() },
    };
    let replicas = ask.siblings.len();
    let most = config.paused_replicas.max(replicas * config.paused_percent / 100);
    let of_workload = (replicas > 0).then(|| Crowd {
        most,
        running: paused(Group::Workload).len(),
        asked: wanted(Group::Workload).count(),
        over: OverBudget::ReplicasPaused { most, of: replicas },
    });
    [Some(of_pod), of_workload].into_iter().flatten().collect()
}

impl BudgetConfig {
    fn limit(&self, group: Group) -> Limit {
        match group {
            Group::Pod => self.pod,
            Group::Workload => self.workload,
            Group::Namespace => self.namespace,
            Group::Cluster => self.cluster,
        }
    }
}

impl Group {
    const ALL: [Self; 4] = [Self::Pod, Self::Workload, Self::Namespace, Self::Cluster];

    /// Whether the group of `ask` has that pod.
    fn has(self, ask: &Ask, cluster: &str, namespace: &str, pod_uid: &str) -> bool {
        cluster == ask.cluster
            && match self {
                Self::Pod => pod_uid == ask.pod_uid,
                Self::Workload => ask.siblings.contains(pod_uid),
                Self::Namespace => namespace == ask.namespace,
                Self::Cluster => true,
            }
    }

    fn holds(self, ask: &Ask, begun: &Use) -> bool {
        self.has(ask, &begun.cluster, &begun.namespace, &begun.pod_uid)
    }

    fn joins(self, ask: &Ask, other: &Ask) -> bool {
        self.has(ask, &other.cluster, &other.namespace, &other.pod_uid)
    }
}

impl Ask {
    fn begun(&self, at: Timestamp) -> Use {
        Use {
            cluster: self.cluster.clone(),
            namespace: self.namespace.clone(),
            pod_uid: self.pod_uid.clone(),
            at,
            running: true,
            pausing: self.pausing,
        }
    }
}

fn check_hour(group: Group, limit: Limit, uses: &[&Use], now: Timestamp) -> Result<(), OverBudget> {
    let mut recent: Vec<Timestamp> = uses.iter().map(|u| u.at).filter(|at| *at + WINDOW > now).collect();
    if recent.len() < limit.per_hour {
        return Ok(());
    }
    recent.sort();
    // The one whose leaving the window makes room.
    let leaves = recent
        .get(recent.len() - limit.per_hour)
        .map_or(now + WINDOW, |at| *at + WINDOW);
    Err(OverBudget::Hourly {
        group,
        most: limit.per_hour,
        minutes: leaves.duration_since(now).as_mins() + 1,
    })
}

#[cfg(test)]
mod tests;

//! How much may be captured at a time and in an hour: of a pod, a workload, a namespace, a cluster. Pure: whoever leads
//! counts the durable runs and asks. People, schedules and triggers share the budgets.
//!
//! # Design notes
//! What can't be exceeded by waiting in line is told with the time to wait: a request that is over budget is refused at once
//! and never queued, since evidence of a later moment is other evidence.

use std::{collections::BTreeSet, fmt};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// The window over which captures are counted.
const WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// Limits (`budgets:` in the configuration file).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BudgetConfig {
    /// Captures of one pod. Default: 4 at a time, 30 in an hour.
    pub pod: Limit,
    /// Captures of one workload's pods. Default: 20 at a time, 120 in an hour.
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
            workload: limit(20, 120),
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

/// Whether all that is asked for may begin beside what was begun.
pub fn check(config: &BudgetConfig, begun: &[Use], asked: &[Ask], now: Timestamp) -> Result<(), OverBudget> {
    let mut counted = begun.to_vec();
    for ask in asked {
        check_one(config, &counted, ask, now)?;
        counted.push(Use {
            cluster: ask.cluster.clone(),
            namespace: ask.namespace.clone(),
            pod_uid: ask.pod_uid.clone(),
            at: now,
            running: true,
            pausing: ask.pausing,
        });
    }
    Ok(())
}

fn check_one(config: &BudgetConfig, begun: &[Use], ask: &Ask, now: Timestamp) -> Result<(), OverBudget> {
    let same_cluster = |u: &&Use| u.cluster == ask.cluster;
    let of_pod = |u: &&Use| u.cluster == ask.cluster && u.pod_uid == ask.pod_uid;
    let of_workload = |u: &&Use| u.cluster == ask.cluster && ask.siblings.contains(&u.pod_uid);
    if ask.adds_container && ask.containers >= config.ephemeral_containers {
        return Err(OverBudget::Containers {
            pod: ask.pod.clone(),
            most: config.ephemeral_containers,
        });
    }
    if ask.pausing {
        check_pauses(config, begun, ask)?;
    }
    let groups: [(Group, Limit, Vec<&Use>); 4] = [
        (Group::Pod, config.pod, begun.iter().filter(of_pod).collect()),
        (
            Group::Workload,
            config.workload,
            begun.iter().filter(of_workload).collect(),
        ),
        (
            Group::Namespace,
            config.namespace,
            begun
                .iter()
                .filter(same_cluster)
                .filter(|u| u.namespace == ask.namespace)
                .collect(),
        ),
        (
            Group::Cluster,
            config.cluster,
            begun.iter().filter(same_cluster).collect(),
        ),
    ];
    for (group, limit, uses) in groups {
        check_group(group, limit, &uses, now)?;
    }
    Ok(())
}

/// Never two pausing steps on a pod, and never more of a workload's replicas than may.
fn check_pauses(config: &BudgetConfig, begun: &[Use], ask: &Ask) -> Result<(), OverBudget> {
    let standing: BTreeSet<&str> = begun
        .iter()
        .filter(|u| u.running && u.pausing && u.cluster == ask.cluster)
        .map(|u| u.pod_uid.as_str())
        .collect();
    if standing.contains(ask.pod_uid.as_str()) {
        return Err(OverBudget::PodPaused { pod: ask.pod.clone() });
    }
    let replicas = ask.siblings.len();
    let most = config.paused_replicas.max(replicas * config.paused_percent / 100);
    let paused = standing.iter().filter(|uid| ask.siblings.contains(**uid)).count();
    if replicas > 0 && paused >= most {
        return Err(OverBudget::ReplicasPaused { most, of: replicas });
    }
    Ok(())
}

fn check_group(group: Group, limit: Limit, uses: &[&Use], now: Timestamp) -> Result<(), OverBudget> {
    if uses.iter().filter(|u| u.running).count() >= limit.concurrent {
        return Err(OverBudget::Concurrent {
            group,
            most: limit.concurrent,
        });
    }
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

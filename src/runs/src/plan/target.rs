//! From found pods to one pinned target, or to candidates and a reason. Pure.

use diagbot_api::{
    capture::{CapturePhase, PinnedTarget},
    run::{Candidate, CaptureSummary},
    target::TargetRef,
};
use diagbot_cluster::resolve::{Found, How, Need, Pin, PinError, last_end, pin};
use k8s_openapi::api::core::v1::Pod;

use crate::reason::{Reason, shown};

/// Most candidates that are offered as buttons.
const CANDIDATES: usize = 10;

/// One target.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settled<'a> {
    /// The pod.
    pub(super) pod: &'a Pod,
    /// The same as a candidate, for a confirming button.
    pub(super) candidate: Candidate,
    /// The name was completed from its beginning.
    pub(super) completed: bool,
    /// What people should know.
    pub(super) notes: Vec<String>,
}

/// No single target.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unsettled {
    /// Why.
    pub(super) reason: Reason,
    /// What fits.
    pub(super) candidates: Vec<Candidate>,
}

/// Chooses among what was found.
pub(super) fn settle<'a>(found: &'a Found, typed: &TargetRef, need: Need) -> Result<Settled<'a>, Box<Unsettled>> {
    let wanted = typed.pod_uid.as_deref();
    let chosen = found
        .pods
        .iter()
        .find(|pod| pod.metadata.uid.as_deref() == wanted && wanted.is_some());
    let pod = match (chosen, found.pods.as_slice()) {
        (Some(pod), _) => pod,
        (None, [pod]) if found.count == 1 => pod,
        (None, []) => {
            return Err(Box::new(Unsettled {
                reason: unknown(found, typed),
                candidates: Vec::new(),
            }));
        }
        (None, [sickest, ..]) if typed.sickest => sickest,
        (None, pods) => {
            return Err(Box::new(Unsettled {
                reason: Reason::SeveralTargets {
                    typed: typed.to_string(),
                    count: found.count,
                },
                candidates: pods.iter().take(CANDIDATES).map(|pod| candidate(pod, None)).collect(),
            }));
        }
    };
    let pin = pin(pod, typed.container.as_deref(), wanted, need).map_err(|error| unpinned(pod, typed, error))?;
    let place = format!("{}/{}", pin.namespace, pin.pod);
    let notes = match found.how {
        _ if typed.sickest && found.count > 1 && chosen.is_none() => Some(format!(
            "`{place}` is the sickest of {} pods of `{}`: {}.",
            found.count,
            typed.name,
            hint(pod)
        )),
        How::Prefix => Some(format!("The target `{typed}` was completed to `{place}`.")),
        How::Workload(kind) => Some(format!("The {kind} `{}` has one pod that fits: `{place}`.", typed.name)),
        How::Exact if typed.namespace.is_none() => Some(format!("Found in namespace `{}`.", pin.namespace)),
        How::Selector => Some(format!("`{typed}` fits one pod: `{place}`.")),
        How::Exact | How::Nothing => None,
    };
    Ok(Settled {
        candidate: candidate(pod, Some(&pin.container)),
        completed: found.how == How::Prefix,
        notes: notes.into_iter().collect(),
        pod,
    })
}

/// The run's record of a capture before it is made.
pub(super) fn summary(run: &str, index: usize, cluster: &str, pin: Pin) -> CaptureSummary {
    CaptureSummary {
        name: format!("{run}-{index}"),
        uid: None,
        target: PinnedTarget {
            cluster: cluster.to_owned(),
            namespace: pin.namespace,
            pod: pin.pod,
            pod_uid: pin.pod_uid,
            container: pin.container,
            container_id: pin.container_id,
            restart_count: pin.restart_count,
            node: pin.node,
        },
        workload: None,
        steps: Vec::new(),
        control: false,
        phase: CapturePhase::Pending,
        waiting: None,
        progress: None,
        artifacts: Vec::new(),
        reason: None,
        notes: Vec::new(),
    }
}

pub(super) fn unknown(found: &Found, typed: &TargetRef) -> Reason {
    let place = match &typed.namespace {
        Some(namespace) => format!("in namespace `{namespace}`"),
        None => "in any namespace".to_owned(),
    };
    Reason::UnknownTarget {
        typed: typed.to_string(),
        place,
        near: found.near.clone(),
    }
}

pub(super) fn unpinned(pod: &Pod, typed: &TargetRef, error: PinError) -> Box<Unsettled> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let target = format!("{namespace}/{name}");
    let mut candidates = Vec::new();
    let reason = match error {
        PinError::Replaced => Reason::TargetReplaced { pod: target },
        PinError::NotRunning(state) => Reason::TargetNotRunning { target, state },
        PinError::Unsupported(state) => Reason::TargetUnsupported { target, state },
        PinError::HostProcesses => Reason::HostProcesses { target },
        PinError::UnknownContainer { containers } => Reason::UnknownContainer {
            typed: typed.container.clone().unwrap_or_default(),
            pod: target,
            containers,
        },
        PinError::SeveralContainers { containers } => {
            let offers = containers.iter().take(CANDIDATES);
            candidates = offers.map(|container| candidate(pod, Some(container))).collect();
            Reason::SeveralContainers {
                pod: target,
                containers,
            }
        }
    };
    Box::new(Unsettled { reason, candidates })
}

fn candidate(pod: &Pod, container: Option<&str>) -> Candidate {
    Candidate {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        pod: pod.metadata.name.clone().unwrap_or_default(),
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
        container: container.map(str::to_owned),
        hint: hint(pod),
    }
}

/// Why a person might want this one.
fn hint(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    let ready = !containers.is_empty() && containers.iter().all(|c| c.ready);
    let restarts: i32 = containers.iter().map(|c| c.restart_count).sum();
    let state = if pod.metadata.deletion_timestamp.is_some() {
        "terminating"
    } else if status.phase.as_deref() != Some("Running") {
        status.phase.as_deref().unwrap_or("unknown phase")
    } else if ready {
        "ready"
    } else {
        "not ready"
    };
    let restarts = match restarts {
        0 => String::new(),
        1 => ", 1 restart".to_owned(),
        n => format!(", {n} restarts"),
    };
    let last = containers.iter().filter_map(last_end);
    let last = last.max_by_key(|end| end.finished_at.as_ref().map(|time| time.0));
    let last = last.and_then(|end| end.reason.as_deref());
    let ended = last.map(|reason| format!(", last ended: {}", shown(reason)));
    format!("{state}{restarts}{}", ended.unwrap_or_default())
}

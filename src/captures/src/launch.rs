//! What a pod's status says about the target and about our container: can it run, does it, why not yet. Pure.
//!
//! # Design notes
//! The API server answers 200 to an ephemeral container that will never run (pod over, terminating or unscheduled; target
//! container exited; image absent), so the target is judged before and while we wait, and events are read when a container
//! stays in `ContainerCreating`.

use diagbot_api::capture::{Explanation, PinnedTarget};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, Event, Pod};

use super::{
    explain::{self, Refusal},
    identity::{container_spec, container_status},
};

/// Our container as the pod shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContainerView {
    /// Not in the spec.
    Absent,
    /// In the spec; the kubelet has not said anything.
    Unreported,
    /// Not started yet.
    Waiting {
        /// The kubelet's word: `ContainerCreating`, `ImagePullBackOff`.
        reason: String,
        /// Its sentence. Untrusted text.
        message: String,
    },
    /// Runs.
    Running,
    /// Ended.
    Terminated {
        /// Exit code.
        code: i32,
        /// `Completed`, `Error`, `OOMKilled`.
        reason: String,
    },
}

/// When our container called `name` ended, by the node's clock.
pub(super) fn ended_at(pod: &Pod, name: &str) -> Option<Timestamp> {
    let end = state(pod, name)?.terminated.as_ref()?;
    end.finished_at.as_ref().map(|time| time.0)
}

fn state<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerState> {
    let mut statuses = pod
        .status
        .iter()
        .flat_map(|s| s.ephemeral_container_statuses.iter().flatten());
    statuses.find(|s| s.name == name)?.state.as_ref()
}

/// Our container called `name`.
pub(super) fn view(pod: &Pod, name: &str) -> ContainerView {
    let in_spec = super::container::find(pod, name).is_some();
    match state(pod, name) {
        Some(ContainerState {
            terminated: Some(end), ..
        }) => ContainerView::Terminated {
            code: end.exit_code,
            reason: end.reason.clone().unwrap_or_default(),
        },
        Some(ContainerState { running: Some(_), .. }) => ContainerView::Running,
        Some(ContainerState {
            waiting: Some(waiting), ..
        }) => ContainerView::Waiting {
            reason: waiting.reason.clone().unwrap_or_default(),
            message: waiting.message.clone().unwrap_or_default(),
        },
        _ if in_spec => ContainerView::Unreported,
        _ => ContainerView::Absent,
    }
}

/// Why the pinned target can't be looked at (any more); none where it can.
pub(super) fn target_fault(pod: &Pod, target: &PinnedTarget) -> Option<Explanation> {
    if pod.metadata.uid.as_deref() != Some(target.pod_uid.as_str()) {
        return Some(explain::refusal(Refusal::PodReplaced, &target.pod));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(explain::refusal(Refusal::PodTerminating, &target.pod));
    }
    if pod.spec.as_ref().is_some_and(|spec| spec.host_pid == Some(true)) {
        return Some(explain::refusal(Refusal::HostProcesses, ""));
    }
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    if phase != "Running" {
        return Some(explain::refusal(Refusal::PodNotRunning, phase));
    }
    let Some(status) = container_status(pod, &target.container) else {
        return Some(explain::refusal(Refusal::TargetNotRunning, &target.container));
    };
    let running = status.state.as_ref().is_some_and(|s| s.running.is_some());
    let same = status.container_id.as_deref() == Some(target.container_id.as_str())
        && status.restart_count == target.restart_count;
    if !same {
        Some(explain::refusal(Refusal::TargetReplaced, &target.container))
    } else if !running {
        Some(explain::refusal(Refusal::TargetNotRunning, &target.container))
    } else {
        None
    }
}

/// The ephemeral-storage limit of the target's container, in bytes: writing more gets the pod evicted.
pub(super) fn room_bytes(pod: &Pod, container: &str) -> Option<u64> {
    let limits = container_spec(pod, container)?.resources.as_ref()?.limits.as_ref()?;
    quantity_bytes(&limits.get("ephemeral-storage")?.0)
}

/// A Kubernetes quantity as bytes: decimal digits and a suffix.
fn quantity_bytes(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let unit = match suffix {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * unit) as u64)
}

/// What to do about a container that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing is wrong so far.
    Normal,
    /// It may pass; people are told this meanwhile.
    Slow(String),
    /// It will never start.
    Never(Explanation),
}

/// Reads a waiting container's reason. `overdue`: the launch limit has passed.
pub(super) fn judge_wait(reason: &str, message: &str, events: &[String], overdue: bool) -> Wait {
    let said = if message.is_empty() {
        events.last().map_or("", String::as_str)
    } else {
        message
    };
    let refusal = match reason {
        "InvalidImageName" | "ErrImageNeverPull" => return Wait::Never(explain::refusal(Refusal::ImageAbsent, said)),
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImageInspectError" => Refusal::ImagePull,
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => Refusal::NotCreated,
        _ if events.iter().any(|e| e.contains("pull policy of Never")) => {
            return Wait::Never(explain::refusal(Refusal::ImageAbsent, said));
        }
        _ if events.iter().any(|e| e.contains("invalid target container")) => {
            return Wait::Never(explain::refusal(Refusal::TargetNotRunning, said));
        }
        // The kubelet's status can lag behind its events.
        _ if events.iter().any(|e| e.contains("ailed to pull image")) => Refusal::ImagePull,
        _ if overdue => Refusal::NotStarted,
        _ if !events.is_empty() => return Wait::Slow(said.to_owned()),
        _ => return Wait::Normal,
    };
    // A pull or a creation that failed is tried again by the kubelet; only time tells that it won't work.
    if overdue {
        Wait::Never(explain::refusal(refusal, said))
    } else if said.is_empty() {
        Wait::Slow(reason.to_owned())
    } else {
        Wait::Slow(format!("{reason}: {said}"))
    }
}

/// The messages of the events about our container, oldest first. Untrusted text.
pub(super) fn container_events(events: &[Event], name: &str) -> Vec<String> {
    let path = format!("spec.ephemeralContainers{{{name}}}");
    let mut ours: Vec<&Event> = events
        .iter()
        .filter(|e| e.involved_object.field_path.as_deref() == Some(path.as_str()))
        .filter(|e| e.type_.as_deref() == Some("Warning") || e.reason.as_deref() == Some("Pulling"))
        .collect();
    ours.sort_by_key(|e| {
        (
            e.last_timestamp.as_ref().map(|t| t.0),
            e.metadata.resource_version.clone(),
        )
    });
    ours.iter().filter_map(|e| e.message.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn fault(change: impl FnOnce(&mut serde_json::Value)) -> Option<String> {
        let mut pod = serde_json::to_value(samples::pod()).expect("JSON");
        change(&mut pod);
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        target_fault(&pod, &samples::capture().spec.target).map(|e| e.code)
    }

    #[test]
    fn only_the_pinned_container_of_a_living_pod_will_do() {
        assert_eq!(fault(|_| ()), None);
        let status = "/status/containerStatuses/0";
        let set = |path: String, value: serde_json::Value| {
            fault(|pod| *pod.pointer_mut(&path).expect("a field of the sample") = value)
        };
        assert_eq!(
            set("/metadata/uid".into(), "other".into()).as_deref(),
            Some("PodReplaced")
        );
        assert_eq!(
            set("/status/phase".into(), "Failed".into()).as_deref(),
            Some("PodNotRunning")
        );
        let restarted = set(format!("{status}/restartCount"), 4.into());
        assert_eq!(restarted.as_deref(), Some("TargetReplaced"));
        let other = set(format!("{status}/containerID"), "containerd://other".into());
        assert_eq!(other.as_deref(), Some("TargetReplaced"));
        let exited = set(
            format!("{status}/state"),
            serde_json::json!({"terminated": {"exitCode": 1}}),
        );
        assert_eq!(exited.as_deref(), Some("TargetNotRunning"));
        let leaving = fault(|pod| pod["metadata"]["deletionTimestamp"] = "2026-11-22T10:00:00Z".into());
        assert_eq!(leaving.as_deref(), Some("PodTerminating"));
        let of_the_node = fault(|pod| pod["spec"]["hostPID"] = true.into());
        assert_eq!(of_the_node.as_deref(), Some("HostProcesses"));
    }

    #[test]
    fn storage_limits_are_read_as_kubernetes_writes_them() {
        let cases = [
            ("1Gi", Some(1 << 30)),
            ("1.5k", Some(1500)),
            ("7", Some(7)),
            ("1e3", None),
            ("x", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(quantity_bytes(text), bytes, "{text}");
        }
    }

    #[test]
    fn waiting_reasons_are_told_at_once_and_become_failures_in_time() {
        let never = |wait: Wait| match wait {
            Wait::Never(explanation) => explanation.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(judge_wait("ContainerCreating", "", &[], false), Wait::Normal);
        let slow = judge_wait("ImagePullBackOff", "Back-off pulling", &[], false);
        assert_eq!(slow, Wait::Slow("ImagePullBackOff: Back-off pulling".to_owned()));
        assert_eq!(never(judge_wait("ImagePullBackOff", "x", &[], true)), "ImagePull");
        assert_eq!(never(judge_wait("ErrImageNeverPull", "x", &[], false)), "ImageAbsent");
        let exited = ["Error: … invalid target container: container \"1\" is not running".to_owned()];
        assert_eq!(
            never(judge_wait("ContainerCreating", "", &exited, false)),
            "TargetNotRunning"
        );
        let failed = ["Failed to pull image \"a@sha256:0\": not found".to_owned()];
        assert_eq!(never(judge_wait("ContainerCreating", "", &failed, true)), "ImagePull");
        assert_eq!(never(judge_wait("", "", &[], true)), "NotStarted");
    }
}

//! From a pod to one container that can't be mistaken for another, or why there is none. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec};

/// kubectl's own annotation of a pod's default container.
const ANNOTATION_DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Annotation that the kubelet puts on the API's mirror of a static pod.
const ANNOTATION_MIRROR: &str = "kubernetes.io/config.mirror";

/// What the evidence needs of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A running container, beside which another can be started.
    Running,
    /// The pod's record only.
    Record,
}

/// One container of one pod, as it was when it was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pin {
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Container.
    pub container: String,
    /// ID of the container; empty where none was ever made.
    pub container_id: String,
    /// Restart count of the container.
    pub restart_count: i32,
    /// Node; empty before the pod is scheduled.
    pub node: String,
}

/// Why a pod gives no pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The pod is another one than was chosen before.
    #[error("the pod was replaced")]
    Replaced,
    /// There is no such container.
    #[error("no such container")]
    UnknownContainer {
        /// Those that there are.
        containers: Vec<String>,
    },
    /// Several containers and no default.
    #[error("several containers")]
    SeveralContainers {
        /// Those that there are.
        containers: Vec<String>,
    },
    /// Nothing runs there; how it is, in words that follow the pod's name: `is terminating`.
    #[error("not running")]
    NotRunning(String),
    /// Kubernetes starts no ephemeral container there; why, in words that follow the pod's name.
    #[error("not supported")]
    Unsupported(String),
    /// The pod shares the processes of its node, where those of other pods are in reach.
    #[error("the pod shares the node's processes")]
    HostProcesses,
}

/// Pins the container, by name if one is given. `pod_uid`: the very pod that a person chose.
pub fn pin(pod: &Pod, container: Option<&str>, pod_uid: Option<&str>, need: Need) -> Result<Pin, PinError> {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    if pod_uid.is_some_and(|wanted| wanted != uid) {
        return Err(PinError::Replaced);
    }
    let spec = pod
        .spec
        .as_ref()
        .ok_or_else(|| PinError::NotRunning("has no spec".into()))?;
    let container = choose(pod, spec, container, need)?;
    let status = status(pod, &container);
    if need == Need::Running {
        check_pod(pod, spec)?;
        check_container(&container, status)?;
    }
    Ok(Pin {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        pod: pod.metadata.name.clone().unwrap_or_default(),
        pod_uid: uid,
        container_id: status.and_then(|s| s.container_id.clone()).unwrap_or_default(),
        restart_count: status.map_or(0, |s| s.restart_count),
        node: spec.node_name.clone().unwrap_or_default(),
        container,
    })
}

fn choose(pod: &Pod, spec: &PodSpec, wanted: Option<&str>, need: Need) -> Result<String, PinError> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut main: Vec<String> = spec.containers.iter().map(|c| c.name.clone()).collect();
    if let Some(wanted) = wanted {
        main.extend(sidecars.map(|c| c.name.clone()));
        return if main.iter().any(|name| name == wanted) {
            Ok(wanted.to_owned())
        } else {
            Err(PinError::UnknownContainer { containers: main })
        };
    }
    let annotations: Option<&BTreeMap<_, _>> = pod.metadata.annotations.as_ref();
    let default = annotations.and_then(|a| a.get(ANNOTATION_DEFAULT_CONTAINER));
    let default = default.filter(|name| main.contains(name)).cloned();
    match (default, main.as_slice()) {
        (Some(name), _) => Ok(name),
        (None, [only]) => Ok(only.clone()),
        // A record covers every container; the first stands for the pod.
        (None, [first, ..]) if need == Need::Record => Ok(first.clone()),
        (None, _) => Err(PinError::SeveralContainers { containers: main }),
    }
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let main = status.container_statuses.iter().flatten();
    let init = status.init_container_statuses.iter().flatten();
    main.chain(init).find(|s| s.name == container)
}

fn check_pod(pod: &Pod, spec: &PodSpec) -> Result<(), PinError> {
    let phase = pod
        .status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .unwrap_or("Unknown");
    if pod.metadata.deletion_timestamp.is_some() {
        return Err(PinError::NotRunning("is terminating".into()));
    }
    if phase != "Running" {
        return Err(PinError::NotRunning(format!("is in phase {phase}")));
    }
    let annotations = pod.metadata.annotations.as_ref();
    if annotations.is_some_and(|a| a.contains_key(ANNOTATION_MIRROR)) {
        return Err(PinError::Unsupported("is a static pod".into()));
    }
    let system = spec.os.as_ref().map(|os| os.name.as_str());
    let selected = spec.node_selector.as_ref().and_then(|s| s.get("kubernetes.io/os"));
    if system.or(selected.map(String::as_str)).is_some_and(|os| os != "linux") {
        return Err(PinError::Unsupported("does not run on Linux".into()));
    }
    if spec.host_pid == Some(true) {
        return Err(PinError::HostProcesses);
    }
    Ok(())
}

fn check_container(container: &str, status: Option<&ContainerStatus>) -> Result<(), PinError> {
    let Some(status) = status else {
        return Err(PinError::NotRunning(format!(
            "has not started its container {container}"
        )));
    };
    let state = status.state.clone().unwrap_or_default();
    if state.running.is_some() && status.container_id.is_some() {
        return Ok(());
    }
    let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    let how = if let Some(waiting) = state.waiting {
        let reason = waiting.reason.unwrap_or_else(|| "no reason given".into());
        match last.map(|t| t.exit_code) {
            Some(code) => format!("has its container {container} waiting ({reason}, last exit code {code})"),
            None => format!("has its container {container} waiting ({reason})"),
        }
    } else if let Some(ended) = state.terminated {
        format!("has its container {container} ended with code {}", ended.exit_code)
    } else {
        format!("has not started its container {container}")
    };
    Err(PinError::NotRunning(how))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "checkout-1", "namespace": "shop", "uid": "u1"},
            "spec": {"nodeName": "n1", "containers": [{"name": "app"}]},
            "status": {"phase": "Running", "containerStatuses": [{
                "name": "app", "containerID": "containerd://c1", "restartCount": 2, "ready": true, "image": "i",
                "imageID": "d", "state": {"running": {}}
            }]}
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_running_pod_is_pinned_to_the_very_container() {
        let pinned = pin(&pod(|_| {}), None, Some("u1"), Need::Running).unwrap();
        let wanted = Pin {
            namespace: "shop".into(),
            pod: "checkout-1".into(),
            pod_uid: "u1".into(),
            container: "app".into(),
            container_id: "containerd://c1".into(),
            restart_count: 2,
            node: "n1".into(),
        };
        assert_eq!(pinned, wanted);
    }

    #[test]
    fn pods_beside_which_nothing_can_start_are_refused_but_their_record_can_be_had() {
        type Change = fn(&mut Value);
        let cases: [(&str, Change); 6] = [
            ("is terminating", |p| {
                p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }),
            ("is in phase Pending", |p| p["status"]["phase"] = json!("Pending")),
            ("is in phase Succeeded", |p| p["status"]["phase"] = json!("Succeeded")),
            (
                "has its container app waiting (CrashLoopBackOff, last exit code 3)",
                |p| {
                    p["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
                    p["status"]["containerStatuses"][0]["lastState"] = json!({"terminated": {"exitCode": 3}});
                },
            ),
            ("has its container app ended with code 137", |p| {
                p["status"]["containerStatuses"][0]["state"] = json!({"terminated": {"exitCode": 137}});
            }),
            ("has not started its container app", |p| {
                p["status"]["containerStatuses"] = json!([]);
            }),
        ];
        for (words, change) in cases {
            let pod = pod(change);
            assert_eq!(
                pin(&pod, None, None, Need::Running),
                Err(PinError::NotRunning(words.into()))
            );
            assert!(pin(&pod, None, None, Need::Record).is_ok(), "{words}");
        }
        let mirror = pod(|p| p["metadata"]["annotations"] = json!({ANNOTATION_MIRROR: "x"}));
        let windows = pod(|p| p["spec"]["os"] = json!({"name": "windows"}));
        for pod in [mirror, windows] {
            assert!(matches!(
                pin(&pod, None, None, Need::Running),
                Err(PinError::Unsupported(_))
            ));
        }
    }

    #[test]
    fn a_pod_that_shares_its_nodes_processes_is_only_on_record() {
        let shared = pod(|p| p["spec"]["hostPID"] = json!(true));
        assert_eq!(pin(&shared, None, None, Need::Running), Err(PinError::HostProcesses));
        assert!(pin(&shared, None, None, Need::Record).is_ok());
        let own = pod(|p| p["spec"]["hostPID"] = json!(false));
        assert!(pin(&own, None, None, Need::Running).is_ok());
    }

    #[test]
    fn the_container_is_the_named_one_the_annotated_one_or_the_only_one() {
        let two: fn(&mut Value) = |p| p["spec"]["containers"] = json!([{"name": "proxy"}, {"name": "app"}]);
        let annotated = pod(|p| {
            two(p);
            p["metadata"]["annotations"] = json!({ANNOTATION_DEFAULT_CONTAINER: "app"});
        });
        let containers = vec!["proxy".to_owned(), "app".to_owned()];
        let named = |pod: &Pod, name| pin(pod, name, None, Need::Running).map(|p| p.container);
        assert_eq!(named(&annotated, None), Ok("app".into()));
        assert_eq!(named(&pod(two), Some("app")), Ok("app".into()));
        assert_eq!(
            named(&pod(two), None),
            Err(PinError::SeveralContainers {
                containers: containers.clone()
            })
        );
        assert_eq!(
            named(&pod(two), Some("ap")),
            Err(PinError::UnknownContainer { containers })
        );
        assert_eq!(
            pin(&pod(|_| {}), None, Some("u2"), Need::Running),
            Err(PinError::Replaced)
        );
    }
}

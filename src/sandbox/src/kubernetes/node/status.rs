//! What the node writes into a pod's status: container states, phase and conditions, as a kubelet does.
//!
//! Owns the shapes. Never starts or stops anything.

use serde_json::{Value, json};

use super::{container::Run, image};
use crate::kubernetes::{
    cluster::Cluster,
    pod::list,
    store::{Key, now, text},
};

/// Where in a pod a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Regular,
    Ephemeral,
}

impl Section {
    /// The list in the pod's spec.
    pub(super) fn spec_field(self) -> &'static str {
        match self {
            Self::Regular => "containers",
            Self::Ephemeral => "ephemeralContainers",
        }
    }

    fn status_field(self) -> &'static str {
        match self {
            Self::Regular => "containerStatuses",
            Self::Ephemeral => "ephemeralContainerStatuses",
        }
    }
}

/// One container's place in one pod.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) pod: Key,
    pub(super) uid: String,
    pub(super) section: Section,
    pub(super) name: String,
    pub(super) image: String,
}

/// `state` of a container that waits.
pub(super) fn waiting(reason: &str, message: &str) -> Value {
    let mut waiting = json!({ "reason": reason });
    if !message.is_empty() {
        waiting["message"] = json!(message);
    }
    json!({ "waiting": waiting })
}

/// `state` of a container that runs.
pub(super) fn running(started: &str) -> Value {
    json!({ "running": { "startedAt": started } })
}

/// `state` of a container that has ended.
pub(super) fn terminated(run: &Run, code: i32, started: &str) -> Value {
    let reason = if code == 0 { "Completed" } else { "Error" };
    json!({ "terminated": {
        "exitCode": code,
        "reason": reason,
        "startedAt": started,
        "finishedAt": now(),
        "containerID": container_id(run),
    } })
}

/// Writes that a container was created and could not be started: it waits, and its last state is the failed start.
pub(super) fn write_start_error(cluster: &Cluster, place: &Place, message: &str) {
    let id = format!("{}{}", super::ID_PREFIX, hex::encode(rand::random::<[u8; 32]>()));
    let failed = json!({ "terminated": {
        "exitCode": 128,
        "reason": "StartError",
        "message": message,
        "startedAt": "1970-01-01T00:00:00Z",
        "finishedAt": now(),
        "containerID": id,
    } });
    write_entry(cluster, place, |old| {
        let mut entry = entry(place, old, waiting("RunContainerError", message), None);
        entry["lastState"] = failed;
        entry["containerID"] = json!(id);
        entry["imageID"] = json!(image::id(&place.image));
        entry
    });
}

/// `containerID` of a run.
pub(super) fn container_id(run: &Run) -> String {
    format!("{}{}", super::ID_PREFIX, run.id)
}

/// Writes a container's state; `run` is the run that the state is about, if there is one. Keeps the rest of the entry, and
/// moves a former run's end to `lastState` when a new one starts. A pod that is gone or replaced is left alone.
pub(super) fn write(cluster: &Cluster, place: &Place, state: Value, run: Option<&Run>) {
    write_entry(cluster, place, |old| entry(place, old, state, run));
}

fn write_entry(cluster: &Cluster, place: &Place, make: impl FnOnce(Option<&Value>) -> Value) {
    let written = cluster.store.update(&place.pod, |pod| {
        if pod["metadata"]["uid"] != place.uid {
            return Ok(pod.clone());
        }
        let mut pod = pod.clone();
        let field = place.section.status_field();
        let mut entries: Vec<Value> = list(&pod["status"][field]).to_vec();
        let old = entries.iter().position(|e| e["name"] == place.name);
        let entry = make(old.map(|at| &entries[at]));
        match old {
            Some(at) => entries[at] = entry,
            None => entries.push(entry),
        }
        pod["status"][field] = Value::Array(entries);
        summarize(&mut pod);
        Ok(pod)
    });
    if let Err(error) = written {
        tracing::debug!(%error, "a pod went while its status was written");
    }
}

fn entry(place: &Place, old: Option<&Value>, state: Value, run: Option<&Run>) -> Value {
    let mut entry = old.cloned().unwrap_or_else(|| {
        json!({
            "name": place.name,
            "image": place.image,
            "imageID": "",
            "ready": false,
            "restartCount": 0,
            "state": {},
            "lastState": {},
        })
    });
    let runs = !state["running"].is_null();
    let was_over = !entry["state"]["terminated"].is_null();
    if was_over && state["terminated"].is_null() {
        entry["lastState"] = entry["state"].clone();
    }
    if let Some(run) = run {
        let id = container_id(run);
        if runs && !text(&entry["containerID"]).is_empty() && entry["containerID"] != id {
            entry["restartCount"] = json!(entry["restartCount"].as_i64().unwrap_or(0) + 1);
        }
        entry["containerID"] = json!(id);
        entry["imageID"] = json!(image::id(&place.image));
        entry["user"] = json!({ "linux": {
            "uid": run.identity.uid,
            "gid": run.identity.gid,
            "supplementalGroups": [run.identity.gid],
        } });
    }
    if place.section == Section::Regular {
        entry["ready"] = json!(runs);
        entry["started"] = json!(runs);
    }
    entry["state"] = state;
    entry
}

/// The pod after the kubelet has evicted it.
pub(super) fn evicted(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for field in ["containerStatuses", "ephemeralContainerStatuses"] {
        for entry in pod["status"][field].as_array_mut().into_iter().flatten() {
            let started = entry["state"]["running"]["startedAt"].clone();
            if started.is_null() {
                continue;
            }
            entry["ready"] = json!(false);
            entry["state"] = json!({ "terminated": {
                "exitCode": 137,
                "reason": "Error",
                "startedAt": started,
                "finishedAt": now(),
                "containerID": entry["containerID"],
            } });
        }
    }
    summarize(&mut pod);
    pod["status"]["phase"] = json!("Failed");
    pod["status"]["reason"] = json!("Evicted");
    let message = "The node was low on resource: memory.";
    pod["status"]["message"] = json!(message);
    if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
        conditions.push(json!({
            "type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": message,
            "lastTransitionTime": now(),
        }));
    }
    pod
}

/// Phase and conditions from the containers' states.
fn summarize(pod: &mut Value) {
    let entries: Vec<Value> = list(&pod["status"]["containerStatuses"]).to_vec();
    let wanted = list(&pod["spec"]["containers"]).len();
    let count = |state: &str| entries.iter().filter(|e| !e["state"][state].is_null()).count();
    let never = pod["spec"]["restartPolicy"] == "Never";
    let on_failure = pod["spec"]["restartPolicy"] == "OnFailure";
    let failed = entries
        .iter()
        .any(|e| e["state"]["terminated"]["exitCode"].as_i64().is_some_and(|c| c != 0));
    let begun = entries.iter().any(|e| {
        !e["state"]["running"].is_null()
            || !e["state"]["terminated"].is_null()
            || !e["lastState"]["terminated"].is_null()
    });
    let phase = if wanted > 0 && count("terminated") == wanted && (never || (on_failure && !failed)) {
        if failed { "Failed" } else { "Succeeded" }
    } else if begun {
        "Running"
    } else {
        "Pending"
    };
    pod["status"]["phase"] = json!(phase);
    let ready = entries.iter().filter(|e| e["ready"] == true).count() == wanted;
    for (kind, holds) in [
        ("PodReadyToStartContainers", true),
        ("Initialized", true),
        ("Ready", ready),
        ("ContainersReady", ready),
        ("PodScheduled", true),
    ] {
        set_condition(pod, kind, holds, phase);
    }
}

fn set_condition(pod: &mut Value, kind: &str, holds: bool, phase: &str) {
    let status = if holds { "True" } else { "False" };
    let mut conditions: Vec<Value> = list(&pod["status"]["conditions"]).to_vec();
    let mut condition = json!({ "type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": now() });
    if !holds {
        condition["reason"] = json!(match phase {
            "Succeeded" => "PodCompleted",
            "Failed" => "PodFailed",
            _ => "ContainersNotReady",
        });
    }
    match conditions.iter_mut().find(|c| c["type"] == kind) {
        Some(old) if old["status"] == status && old["reason"] == condition["reason"] => return,
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
    pod["status"]["conditions"] = Value::Array(conditions);
}

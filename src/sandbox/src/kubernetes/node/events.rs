//! Events about pods, recorded as the kubelet and the scheduler record them: one object a message, counted when repeated.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::status::{Place, Section};
use crate::kubernetes::{
    cluster::Cluster,
    kind,
    seed::NODE,
    store::{Key, now},
};

/// Weight of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Normal,
    Warning,
}

/// Records an event about a container.
pub(super) fn record(cluster: &Cluster, place: &Place, weight: Weight, reason: &str, message: &str) {
    let section = match place.section {
        Section::Regular => "containers",
        Section::Ephemeral => "ephemeralContainers",
    };
    let field = format!("spec.{section}{{{}}}", place.name);
    record_of_pod(cluster, &place.pod, &place.uid, &field, weight, reason, message);
}

/// Records an event about a pod; `field` names the part of it, or is empty.
pub(super) fn record_of_pod(
    cluster: &Cluster,
    pod: &Key,
    uid: &str,
    field: &str,
    weight: Weight,
    reason: &str,
    message: &str,
) {
    let digest = hex::encode(Sha256::digest(format!("{uid}/{field}/{reason}/{message}")));
    let name = format!("{}.{}", pod.name, &digest[..16]);
    let key = Key::new(&kind::EVENT, &pod.namespace, &name);
    let repeated = cluster.store.update(&key, |event| {
        let mut event = event.clone();
        event["count"] = json!(event["count"].as_i64().unwrap_or(1) + 1);
        event["lastTimestamp"] = json!(now());
        Ok(event)
    });
    if repeated.is_ok() {
        return;
    }
    let component = if reason == "Scheduled" {
        "default-scheduler"
    } else {
        "kubelet"
    };
    let mut involved = json!({
        "kind": "Pod", "apiVersion": "v1", "namespace": pod.namespace, "name": pod.name, "uid": uid,
    });
    if !field.is_empty() {
        involved["fieldPath"] = json!(field);
    }
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": name, "namespace": pod.namespace },
        "involvedObject": involved,
        "reason": reason,
        "message": message,
        "source": { "component": component, "host": NODE },
        "firstTimestamp": now(),
        "lastTimestamp": now(),
        "count": 1,
        "type": if weight == Weight::Normal { "Normal" } else { "Warning" },
        "eventTime": Value::Null,
        "reportingComponent": component,
        "reportingInstance": NODE,
    });
    if let Err(error) = cluster.store.create(&kind::EVENT, event) {
        tracing::debug!(%error, "the event was there already");
    }
}

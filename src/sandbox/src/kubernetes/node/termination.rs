//! How pods end: with grace, by eviction, by an operator's hand; and what follows them. Starts no container.

use std::{sync::Arc, time::Duration};

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::timeout;

use super::{
    Node,
    events::{Weight, record_of_pod},
    status,
};
use crate::kubernetes::{
    answer::ApiError,
    cluster::Cluster,
    kind,
    pod::list,
    seed,
    store::{Key, Removal, text},
    verbs,
};
/// What an operator or a bad day does to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kubernetes) enum Disturbance {
    /// Deleted with its grace.
    Delete,
    /// Deleted without grace.
    Replace,
    /// Ended by the kubelet for want of memory.
    Evict,
    /// One container (the first unless named) is killed.
    Restart { container: Option<String> },
}

impl Node {
    /// Does what an operator asks for through `/sandbox/pods/…`.
    pub(in crate::kubernetes) fn disturb(
        &self,
        cluster: &Arc<Cluster>,
        key: &Key,
        what: Disturbance,
    ) -> Result<(), ApiError> {
        let pod = cluster.store.get(key)?;
        let uid = text(&pod["metadata"]["uid"]);
        match what {
            Disturbance::Delete => {
                let grace = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
                cluster.store.delete(key, Some(grace), |_| Ok(())).map(|_| ())
            }
            Disturbance::Replace => cluster.store.delete(key, None, |_| Ok(())).map(|_| ()),
            Disturbance::Evict => {
                self.abandon(uid);
                cluster.store.update(key, |pod| Ok(status::evicted(pod)))?;
                let message = "The node was low on resource: memory.";
                record_of_pod(cluster, key, uid, "", Weight::Warning, "Evicted", message);
                replace(cluster, &pod);
                Ok(())
            }
            Disturbance::Restart { container } => {
                let name = container.unwrap_or_else(|| text(&pod["spec"]["containers"][0]["name"]).to_owned());
                let run = self.running(uid, &name).ok_or_else(|| {
                    ApiError::bad_request(format!("container {name} of pod {} does not run", key.name))
                })?;
                run.kill();
                Ok(())
            }
        }
    }
}

/// Ends a pod with grace, and removes it.
pub(super) async fn end_pod(cluster: Arc<Cluster>, key: Key, uid: String, grace: Duration) {
    for run in cluster.node.runs_of_pod(&uid) {
        run.signal(Signal::TERM);
    }
    let all = async {
        for run in cluster.node.runs_of_pod(&uid) {
            run.ended().await;
        }
    };
    tokio::select! {
        () = cluster.stop.cancelled() => return,
        ended = timeout(grace, all) => if ended.is_err() {
            tracing::debug!(pod = %key.name, "the grace of a pod is over");
        }
    }
    let same = |pod: &Value| {
        if pod["metadata"]["uid"] == uid {
            Ok(())
        } else {
            Err(ApiError::not_found(key.kind, &key.name))
        }
    };
    match cluster.store.delete(&key, None, same) {
        Ok(Removal::Gone(_)) => verbs::collect_dependents(&cluster.store, &uid),
        Ok(Removal::Marked(_)) => {}
        Err(error) => tracing::debug!(%error, "the pod was gone already"),
    }
}

/// The replica set's controller: a pod that is gone is followed by another of the same template.
pub(super) fn replace(cluster: &Cluster, pod: &Value) {
    if cluster.stop.is_cancelled() {
        return;
    }
    let Some(owner) = list(&pod["metadata"]["ownerReferences"])
        .iter()
        .find(|o| o["kind"] == "ReplicaSet")
    else {
        return;
    };
    let key = Key::new(
        &kind::REPLICA_SET,
        text(&pod["metadata"]["namespace"]),
        text(&owner["name"]),
    );
    let Ok(replica_set) = cluster.store.get(&key) else {
        return;
    };
    if replica_set["metadata"]["uid"] != owner["uid"] {
        return;
    }
    let name = format!("{}-{}", key.name, verbs::name_suffix());
    if let Err(error) = seed::apply(&cluster.store, seed::pod_of(&replica_set, &name)) {
        tracing::warn!(%error, "a replica set's pod can't be made anew");
    }
}

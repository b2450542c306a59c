//! What the state of pods shows of trouble: an end for want of memory, crashes in a row, failing liveness, a pod that goes.
//!
//! Owns how a pod's state is read and watched. Never decides what follows from it.
//!
//! # Design notes
//! Nothing is kept: each state is reduced to its signals as it comes, and a first list comes in pages. The same state gives
//! the same signals again and again, so each carries what tells it from another one: the pod's UID, the container and its
//! restarts.

use std::time::Duration;

use diagbot_api::target::TargetKind;
use futures::{Stream, StreamExt as _, stream::BoxStream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::{
    Api,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::Deserialize;

use super::{
    CallError, Cluster, deadline,
    resolve::{Listed, last_end},
};

/// Pods of one page of a first list: about 1 MiB.
const PAGE: u32 = 100;
/// A watch is made anew after this time, in seconds: one that went quiet is noticed then.
const WATCH_S: u32 = 30;
/// Longest wait for the pod of an event.
const CALL: Duration = Duration::from_secs(5);

/// Kinds of trouble, as a configuration names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// A container was killed for memory.
    OomKilled,
    /// A container ends again and again, and is started later each time.
    CrashLooping,
    /// The kubelet's liveness probe fails; soon it will restart the container.
    LivenessFailed,
    /// The pod is being deleted; its containers have their grace period left.
    Terminating,
    /// The node has thrown the pod out, or the cluster asks it to go: a drain, a taint, preemption.
    Evicted,
}

impl Signal {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::OomKilled,
        Self::CrashLooping,
        Self::LivenessFailed,
        Self::Terminating,
        Self::Evicted,
    ];

    /// The word of the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OomKilled => "oom-killed",
            Self::CrashLooping => "crash-looping",
            Self::LivenessFailed => "liveness-failed",
            Self::Terminating => "terminating",
            Self::Evicted => "evicted",
        }
    }
}

/// One signal of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSignal {
    /// What.
    pub signal: Signal,
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Container; empty where the pod as a whole is meant.
    pub container: String,
    /// Restarts of the container.
    pub restarts: i32,
    /// The workload: the pod's controller, or the pod itself.
    pub workload: (TargetKind, String),
    /// When it began, as the cluster tells. The same state tells the same time.
    pub at: Timestamp,
    /// The cluster's own words. Untrusted text.
    pub words: String,
}

/// Watches a namespace for these signals; never ends.
pub fn watch(cluster: &Cluster, namespace: &str, signals: &[Signal]) -> BoxStream<'static, PodSignal> {
    let wanted = |among: &[Signal]| {
        let wanted: Vec<Signal> = signals
            .iter()
            .filter(|signal| among.contains(signal))
            .copied()
            .collect();
        (!wanted.is_empty()).then_some(wanted)
    };
    let of_pods = wanted(&[
        Signal::OomKilled,
        Signal::CrashLooping,
        Signal::Terminating,
        Signal::Evicted,
    ]);
    let pods = of_pods.map(|signals| pods(cluster, namespace, signals).boxed());
    let probes = wanted(&[Signal::LivenessFailed]).map(|_| probes(cluster, namespace).boxed());
    futures::stream::select_all(pods.into_iter().chain(probes)).boxed()
}

fn pods(cluster: &Cluster, namespace: &str, signals: Vec<Signal>) -> impl Stream<Item = PodSignal> + use<> {
    let api: Api<Pod> = Api::namespaced(cluster.stream_client.clone(), namespace);
    let config = watcher::Config::default().page_size(PAGE).timeout(WATCH_S);
    watcher(api, config).default_backoff().flat_map(move |event| {
        let shown = match event {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => of_pod(&pod),
            Ok(_) => Vec::new(),
            Err(error) => {
                tracing::warn!(error = %diagbot_base::telemetry::Chain(&error), "the watch for sick pods broke and is taken up again");
                Vec::new()
            }
        };
        let wanted: Vec<PodSignal> = shown.into_iter().filter(|pod_signal| signals.contains(&pod_signal.signal)).collect();
        futures::stream::iter(wanted)
    })
}

/// Failures of probes are told by events only.
fn probes(cluster: &Cluster, namespace: &str) -> impl Stream<Item = PodSignal> + use<> {
    let api: Api<Event> = Api::namespaced(cluster.stream_client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let config = watcher::Config::default()
        .fields("reason=Unhealthy")
        .page_size(PAGE)
        .timeout(WATCH_S);
    watcher(api, config).default_backoff().filter_map(move |event| {
        let pods = pods.clone();
        async move {
            let event = match event {
                Ok(watcher::Event::Apply(event) | watcher::Event::InitApply(event)) => event,
                Ok(_) => return None,
                Err(error) => {
                    tracing::warn!(
                        error = %diagbot_base::telemetry::Chain(&error),
                        "the watch for failing probes broke and is taken up again"
                    );
                    return None;
                }
            };
            let failed = Failed::of(&event)?;
            // The event does not say whose pod it is.
            let pod: Result<Option<Pod>, CallError> = deadline(CALL, pods.get_opt(&failed.pod)).await;
            of_event(&failed, &pod.ok()??)
        }
    })
}

/// What a pod's state shows: at most one signal of each container, and one of the pod.
pub fn of_pod(pod: &Pod) -> Vec<PodSignal> {
    let Some(pod_signal) = blank(pod) else {
        return Vec::new();
    };
    let status = pod.status.clone().unwrap_or_default();
    let containers = [status.init_container_statuses, status.container_statuses];
    let mut found: Vec<PodSignal> = containers
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|container| {
            let (signal, at, words) = of_container(&container)?;
            Some(PodSignal {
                signal,
                at,
                words,
                container: container.name,
                restarts: container.restart_count,
                ..pod_signal.clone()
            })
        })
        .collect();
    if let Some((signal, at, words)) = of_the_whole(pod) {
        found.push(PodSignal {
            signal,
            at,
            words,
            ..pod_signal
        });
    }
    found
}

/// An end for want of memory counts before the loop that it leads to.
fn of_container(container: &ContainerStatus) -> Option<(Signal, Timestamp, String)> {
    let end = last_end(container)?;
    let at = end.finished_at.as_ref()?.0;
    let reason = end.reason.clone().unwrap_or_default();
    if reason == "OOMKilled" {
        return Some((Signal::OomKilled, at, reason));
    }
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let looping = waiting.and_then(|waiting| waiting.reason.as_deref()) == Some("CrashLoopBackOff");
    looping.then(|| {
        let words = format!(
            "{reason}, exit code {}, restarts: {}",
            end.exit_code, container.restart_count
        );
        (Signal::CrashLooping, at, words)
    })
}

fn of_the_whole(pod: &Pod) -> Option<(Signal, Timestamp, String)> {
    let status = pod.status.as_ref();
    if status.and_then(|status| status.reason.as_deref()) == Some("Evicted") {
        let conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
        let at = conditions
            .filter_map(|c| c.last_transition_time.as_ref())
            .map(|time| time.0)
            .max()?;
        let words = status.and_then(|status| status.message.clone()).unwrap_or_default();
        return Some((Signal::Evicted, at, words));
    }
    // The time that stands there is when the grace period ends.
    let end = pod.metadata.deletion_timestamp.as_ref()?.0;
    let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or_default());
    let at = end.checked_sub(grace).unwrap_or(end);
    let grace = format!("{} s of grace", grace.as_secs());
    Some(match disruption(pod) {
        Some(cause) => (Signal::Evicted, at, format!("{cause}; {grace}")),
        None => (Signal::Terminating, at, grace),
    })
}

/// Why the cluster itself takes the pod away: the Eviction API as `kubectl drain` uses it, a taint, preemption. Stands there
/// before the deletion does.
/// <https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions>
fn disruption(pod: &Pod) -> Option<String> {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let condition = conditions.find(|c| c.type_ == "DisruptionTarget" && c.status == "True")?;
    let words = [condition.reason.as_deref(), condition.message.as_deref()];
    Some(words.into_iter().flatten().collect::<Vec<_>>().join(": "))
}

/// A failure of a liveness probe, as an event tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failed {
    pod: String,
    pod_uid: String,
    container: String,
    at: Timestamp,
    words: String,
}

impl Failed {
    fn of(event: &Event) -> Option<Self> {
        let (object, words) = (&event.involved_object, event.message.clone()?);
        if object.kind.as_deref() != Some("Pod") || !words.starts_with("Liveness probe failed") {
            return None;
        }
        let path = object.field_path.as_deref().unwrap_or_default();
        let container = path
            .strip_prefix("spec.containers{")
            .and_then(|path| path.strip_suffix('}'));
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        Some(Self {
            pod: object.name.clone()?,
            pod_uid: object.uid.clone()?,
            container: container.unwrap_or_default().to_owned(),
            at: last.or_else(|| event.event_time.as_ref().map(|time| time.0))?,
            words,
        })
    }
}

/// The failure of a pod that is still the one that failed.
fn of_event(failed: &Failed, pod: &Pod) -> Option<PodSignal> {
    let pod_signal = blank(pod).filter(|pod_signal| pod_signal.pod_uid == failed.pod_uid)?;
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let mut of_container = statuses.filter(|status| status.name == failed.container);
    Some(PodSignal {
        signal: Signal::LivenessFailed,
        container: failed.container.clone(),
        restarts: of_container.next().map_or(0, |status| status.restart_count),
        at: failed.at,
        words: failed.words.clone(),
        ..pod_signal
    })
}

/// Everything but the signal.
fn blank(pod: &Pod) -> Option<PodSignal> {
    let listed = Listed::of(pod.metadata.clone())?;
    let own = (TargetKind::Pod, listed.name.clone());
    Some(PodSignal {
        signal: Signal::Terminating,
        workload: listed.owners.into_iter().next().unwrap_or(own),
        namespace: listed.namespace,
        pod: listed.name,
        pod_uid: pod.metadata.uid.clone()?,
        container: String::new(),
        restarts: 0,
        at: Timestamp::UNIX_EPOCH,
        words: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const AT: &str = "2026-11-23T05:00:00Z";

    fn pod(status: &Value, metadata: &Value) -> Pod {
        let mut pod = json!({
            "metadata": {
                "name": "billing-5f6b8c7d9-m4n7p", "namespace": "shop", "uid": "u1",
                "labels": { "pod-template-hash": "5f6b8c7d9" },
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "billing-5f6b8c7d9", "uid": "r", "controller": true
                }],
            },
            "status": status,
        });
        for (key, value) in metadata.as_object().into_iter().flatten() {
            pod["metadata"][key] = value.clone();
        }
        serde_json::from_value(pod).expect("a pod")
    }

    fn container(state: &Value, ended: &str) -> Value {
        json!({ "containerStatuses": [{
            "name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 4, "state": state,
            "lastState": { "terminated": { "exitCode": 137, "reason": ended, "finishedAt": AT } },
        }] })
    }

    fn signals(pod: &Pod) -> Vec<(Signal, String, i32, String)> {
        let seen = |pod_signal: PodSignal| {
            assert_eq!(pod_signal.workload, (TargetKind::Deployment, "billing".to_owned()));
            (
                pod_signal.signal,
                pod_signal.container,
                pod_signal.restarts,
                pod_signal.at.to_string(),
            )
        };
        of_pod(pod).into_iter().map(seen).collect()
    }

    #[test]
    fn an_end_for_memory_and_a_loop_are_one_sign_each_with_the_time_of_the_end() {
        let looping = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        let of = |signal| vec![(signal, "app".to_owned(), 4, AT.to_owned())];
        let killed = pod(&container(&json!({ "running": {} }), "OOMKilled"), &json!({}));
        assert_eq!(signals(&killed), of(Signal::OomKilled));
        let both = pod(&container(&looping, "OOMKilled"), &json!({}));
        assert_eq!(signals(&both), of(Signal::OomKilled));
        assert_eq!(
            signals(&pod(&container(&looping, "Error"), &json!({}))),
            of(Signal::CrashLooping)
        );
        let once = pod(&container(&json!({ "running": {} }), "Error"), &json!({}));
        assert!(signals(&once).is_empty(), "one crash is no loop");
        assert!(signals(&pod(&json!({}), &json!({}))).is_empty());
    }

    #[test]
    fn a_pod_that_goes_is_told_with_the_time_at_which_it_was_asked_to() {
        let going = json!({ "deletionTimestamp": "2026-11-23T05:00:30Z", "deletionGracePeriodSeconds": 30 });
        let whole = |signal| vec![(signal, String::new(), 0, AT.to_owned())];
        assert_eq!(signals(&pod(&json!({}), &going)), whole(Signal::Terminating));
        let drained = json!({ "conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastTransitionTime": AT,
        }] });
        let drained = pod(&drained, &going);
        assert_eq!(signals(&drained), whole(Signal::Evicted));
        assert_eq!(
            of_pod(&drained)[0].words,
            "EvictionByEvictionAPI: Eviction API: evicting; 30 s of grace"
        );
        let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource", "conditions": [
            { "type": "DisruptionTarget", "status": "True", "lastTransitionTime": AT },
        ] });
        assert_eq!(signals(&pod(&evicted, &json!({}))), whole(Signal::Evicted));
    }

    #[test]
    fn only_failures_of_liveness_of_the_very_pod_count() {
        let event = |message: &str, uid: &str| -> Event {
            serde_json::from_value(json!({
                "metadata": { "name": "e", "namespace": "shop" },
                "involvedObject": {
                    "kind": "Pod", "name": "billing-5f6b8c7d9-m4n7p", "uid": uid, "fieldPath": "spec.containers{app}"
                },
                "message": message, "reason": "Unhealthy", "lastTimestamp": AT,
            }))
            .expect("an event")
        };
        let pod = pod(&container(&json!({ "running": {} }), "Error"), &json!({}));
        let seen = |event: &Event| of_event(&Failed::of(event)?, &pod);
        let liveness = "Liveness probe failed: HTTP probe failed with statuscode: 500";
        let pod_signal = seen(&event(liveness, "u1")).expect("a symptom");
        assert_eq!((pod_signal.signal, pod_signal.restarts), (Signal::LivenessFailed, 4));
        assert_eq!(
            seen(&event(liveness, "u0")),
            None,
            "a pod of the same name that is gone"
        );
        assert_eq!(seen(&event("Readiness probe failed: x", "u1")), None);
    }
}

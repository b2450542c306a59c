//! The pods of the clusters as a small projection, so that a form can offer names while a person types.
//!
//! Owns what a pod is reduced to and how it is kept current. Never decides whom a name may be shown to, and no capture relies
//! on it: a target is always looked up anew.
//!
//! # Design notes
//! * Only metadata is watched, and of that only namespace, name and workload are kept: with 5,000 pods well under 300 bytes
//!   a pod. Names of namespaces and workloads are shared.
//! * Where a watch is refused, that cluster's pods are not offered; people can still type them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use diagbot_api::target::TargetKind;
use futures::{StreamExt as _, future::join_all};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio_util::sync::CancellationToken;

use super::{
    Cluster, Clusters,
    resolve::{Listed, Visible},
};

/// Objects of one page of the first list: about 1 MiB of metadata.
const PAGE: u32 = 500;

/// Something that a person may mean.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodEntry {
    /// Namespace.
    pub namespace: String,
    /// A pod, or a workload that pods belong to.
    pub kind: TargetKind,
    /// Its name.
    pub name: String,
}

/// The pods of every cluster. Cheap to clone.
#[derive(Clone, Default)]
pub struct PodIndex(Arc<BTreeMap<String, RwLock<Pods>>>);

impl fmt::Debug for PodIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Census").finish_non_exhaustive()
    }
}

/// The watches that feed a pod index; run them as a task.
#[derive(Debug)]
pub struct PodIndexWatch {
    pod_index: PodIndex,
    clusters: Vec<Cluster>,
}

/// Workload that a pod belongs to: its kind and shared name.
type Workload = Option<(TargetKind, Arc<str>)>;

/// Pods by namespace and name.
#[derive(Debug, Default)]
struct Pods {
    namespaces: BTreeMap<Box<str>, BTreeMap<Box<str>, Workload>>,
}

impl Pods {
    fn insert(&mut self, metadata: ObjectMeta) {
        let Some(pod) = Listed::of(metadata) else { return };
        let namespace = self.namespaces.entry(pod.namespace.into_boxed_str()).or_default();
        let workload = pod.owners.into_iter().next().map(|(kind, name)| {
            let shared = namespace
                .values()
                .flatten()
                .find(|(k, n)| *k == kind && **n == *name)
                .map(|(_, n)| Arc::clone(n));
            (kind, shared.unwrap_or_else(|| name.into()))
        });
        namespace.insert(pod.name.into_boxed_str(), workload);
    }

    fn remove(&mut self, metadata: &ObjectMeta) {
        let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) else {
            return;
        };
        if let Some(pods) = self.namespaces.get_mut(namespace.as_str()) {
            pods.remove(name.as_str());
            if pods.is_empty() {
                self.namespaces.remove(namespace.as_str());
            }
        }
    }

    /// Workloads before pods, those that begin with the text before those that hold it.
    fn search(&self, text: &Wanted<'_>, visible: &Visible, most: usize) -> Vec<PodEntry> {
        let mut found: BTreeSet<(bool, bool, PodEntry)> = BTreeSet::new();
        let seen = |namespace: &str| text.is_in(namespace) && visible.contains(namespace);
        for (namespace, pods) in self.namespaces.iter().filter(|(namespace, _)| seen(namespace)) {
            let workloads = pods.values().flatten().map(|(kind, name)| (*kind, &**name));
            let names = pods.keys().map(|name| (TargetKind::Pod, &**name));
            for (kind, name) in workloads.chain(names) {
                let Some(begins) = text.fits(kind, name) else { continue };
                let rank = (!begins, kind == TargetKind::Pod);
                // Full and not better than the last: nothing to keep, and nothing to allocate.
                if found.len() >= most
                    && found.last().is_some_and(|last| {
                        (last.0, last.1, last.2.namespace.as_str(), last.2.name.as_str())
                            <= (rank.0, rank.1, namespace, name)
                    })
                {
                    continue;
                }
                found.insert((
                    rank.0,
                    rank.1,
                    PodEntry {
                        namespace: namespace.to_string(),
                        kind,
                        name: name.to_owned(),
                    },
                ));
                if found.len() > most {
                    found.pop_last();
                }
            }
        }
        found.into_iter().map(|(.., pod_entry)| pod_entry).collect()
    }
}

/// What a person has typed so far: `[namespace/][kind/]part of a name`, as targets are typed.
struct Wanted<'a> {
    namespace: Option<&'a str>,
    kind: Option<TargetKind>,
    name: &'a str,
}

impl<'a> Wanted<'a> {
    fn of(text: &'a str) -> Self {
        let (place, name) = text.rsplit_once('/').unwrap_or(("", text));
        let (namespace, word) = match place.split_once('/') {
            Some((namespace, word)) => (Some(namespace), Some(word)),
            None if TargetKind::from_word(place).is_some() => (None, Some(place)),
            None => (Some(place).filter(|place| !place.is_empty()), None),
        };
        Self {
            namespace,
            kind: word.and_then(TargetKind::from_word),
            name,
        }
    }

    fn is_in(&self, namespace: &str) -> bool {
        self.namespace.is_none_or(|wanted| namespace.starts_with(wanted))
    }

    /// Whether the name begins with the text, or holds it; none if neither.
    fn fits(&self, kind: TargetKind, name: &str) -> Option<bool> {
        if self.kind.is_some_and(|wanted| wanted != kind) {
            return None;
        }
        if name.starts_with(self.name) {
            return Some(true);
        }
        name.contains(self.name).then_some(false)
    }
}

impl PodIndex {
    /// An empty pod index of the clusters, and the watches that fill it.
    pub fn new(clusters: &Clusters) -> (Self, PodIndexWatch) {
        let clusters: Vec<Cluster> = clusters
            .names()
            .filter_map(|name| clusters.get(name.as_str()).cloned())
            .collect();
        let pods = clusters
            .iter()
            .map(|cluster| (cluster.name.to_string(), RwLock::default()))
            .collect();
        let pod_index = Self(Arc::new(pods));
        let watch = PodIndexWatch {
            pod_index: pod_index.clone(),
            clusters,
        };
        (pod_index, watch)
    }

    /// Namespaces of the cluster that hold pods, and that fit what was typed.
    pub fn namespaces(&self, cluster: &str, text: &str) -> BTreeSet<String> {
        let wanted = Wanted::of(text);
        self.read(cluster, |pods| {
            let names = pods.namespaces.keys().filter(|namespace| wanted.is_in(namespace));
            names.map(ToString::to_string).collect()
        })
    }

    /// Pods and workloads in visible namespaces whose name fits `[namespace/][kind/]part of a name`, best first, at most `most`.
    pub fn search(&self, cluster: &str, text: &str, visible: &Visible, most: usize) -> Vec<PodEntry> {
        self.read(cluster, |pods| pods.search(&Wanted::of(text), visible, most))
    }

    /// Pods and workloads in visible namespaces whose whole name is one of the words, at most `most`.
    pub fn named(&self, cluster: &str, words: &BTreeSet<String>, visible: &Visible, most: usize) -> Vec<PodEntry> {
        self.read(cluster, |pods| {
            let seen = pods
                .namespaces
                .iter()
                .filter(|(namespace, _)| visible.contains(namespace));
            let names = seen.flat_map(|(namespace, pods)| {
                let workloads = pods.values().flatten().map(|(kind, name)| (*kind, &**name));
                let pods = pods.keys().map(|name| (TargetKind::Pod, &**name));
                workloads.chain(pods).map(move |(kind, name)| (namespace, kind, name))
            });
            let found: BTreeSet<PodEntry> = names
                .filter(|(.., name)| words.contains(*name))
                .map(|(namespace, kind, name)| PodEntry {
                    namespace: namespace.to_string(),
                    kind,
                    name: name.to_owned(),
                })
                .collect();
            found.into_iter().take(most).collect()
        })
    }

    fn read<T: Default>(&self, cluster: &str, look: impl FnOnce(&Pods) -> T) -> T {
        let Some(pods) = self.0.get(cluster) else {
            return T::default();
        };
        look(&pods.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, cluster: &str, change: impl FnOnce(&mut Pods)) {
        if let Some(pods) = self.0.get(cluster) {
            change(&mut pods.write().unwrap_or_else(PoisonError::into_inner));
        }
    }

    async fn follow(&self, cluster: &Cluster) {
        let pods: Api<PartialObjectMeta<Pod>> = Api::all(cluster.stream_client.clone());
        let config = watcher::Config::default().page_size(PAGE);
        let mut events = std::pin::pin!(watcher(pods, config).default_backoff());
        let name = cluster.name.as_str();
        // What a new list says, until it is whole.
        let mut listed = Pods::default();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed = Pods::default(),
                Ok(watcher::Event::InitApply(pod)) => listed.insert(pod.metadata),
                Ok(watcher::Event::InitDone) => self.change(name, |pods| *pods = std::mem::take(&mut listed)),
                Ok(watcher::Event::Apply(pod)) => self.change(name, |pods| pods.insert(pod.metadata)),
                Ok(watcher::Event::Delete(pod)) => self.change(name, |pods| pods.remove(&pod.metadata)),
                Err(error) => tracing::warn!(
                    error = %diagbot_base::telemetry::Chain(&error),
                    cluster = name,
                    "pods can't be offered while people type: the watch broke and is begun again"
                ),
            }
        }
    }
}

impl PodIndexWatch {
    /// Watches until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let follow = join_all(self.clusters.iter().map(|cluster| self.pod_index.follow(cluster)));
        tokio::select! {
            () = stop.cancelled() => {}
            _ = follow => stop.cancelled().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn pod(namespace: &str, name: &str, deployment: Option<&str>) -> ObjectMeta {
        let owner = deployment.map(|deployment| OwnerReference {
            controller: Some(true),
            kind: "ReplicaSet".to_owned(),
            name: format!("{deployment}-7d9f"),
            ..OwnerReference::default()
        });
        ObjectMeta {
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            labels: Some([("pod-template-hash".to_owned(), "7d9f".to_owned())].into()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    fn pod_index() -> Pods {
        let mut pods = Pods::default();
        pods.insert(pod("shop", "checkout-7d9f-a", Some("checkout")));
        pods.insert(pod("shop", "checkout-7d9f-b", Some("checkout")));
        pods.insert(pod("shop", "old-checkout", None));
        pods.insert(pod("bank", "checkers", None));
        pods
    }

    fn found(pods: &Pods, text: &str, most: usize) -> Vec<String> {
        let found = pods.search(&Wanted::of(text), &Visible::All, most);
        found
            .into_iter()
            .map(|s| format!("{}/{}/{}", s.namespace, s.kind, s.name))
            .collect()
    }

    #[test]
    fn workloads_come_first_then_beginnings_then_parts() {
        let pods = pod_index();
        assert_eq!(
            found(&pods, "check", 10),
            [
                "shop/deployment/checkout",
                "bank/pod/checkers",
                "shop/pod/checkout-7d9f-a",
                "shop/pod/checkout-7d9f-b",
                "shop/pod/old-checkout"
            ]
        );
        assert_eq!(
            found(&pods, "check", 2),
            ["shop/deployment/checkout", "bank/pod/checkers"]
        );
        assert_eq!(found(&pods, "bank/", 10), ["bank/pod/checkers"]);
        assert_eq!(found(&pods, "deploy/ch", 10), ["shop/deployment/checkout"]);
        assert_eq!(found(&pods, "shop/pod/old", 10), ["shop/pod/old-checkout"]);
        assert_eq!(found(&pods, "zzz", 10), Vec::<String>::new());
        let visible = Visible::Only(["bank".to_owned()].into());
        let seen = pods.search(&Wanted::of("check"), &visible, 1);
        assert_eq!(
            seen[0].name, "checkers",
            "what may not be seen takes no place from what may"
        );
    }

    #[test]
    fn a_pod_that_is_gone_is_not_offered_nor_is_its_workload() {
        let mut pods = pod_index();
        pods.remove(&pod("shop", "checkout-7d9f-a", None));
        assert_eq!(found(&pods, "checkout-7d9f", 10), ["shop/pod/checkout-7d9f-b"]);
        pods.remove(&pod("shop", "checkout-7d9f-b", None));
        assert_eq!(found(&pods, "checkout", 10), ["shop/pod/old-checkout"]);
    }
}

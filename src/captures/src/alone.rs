//! Captures without a controller: pursued by the process that asked for them, with their records in its memory. The same
//! pursuit, plan and acts; what differs is only where the record is, and that it ends with the process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use diagbot_api::capture::{DiagnosticCapture, Explanation};
use diagbot_base::retry;
use diagbot_cluster::{Cluster, deadline};
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};
use kube::{Api, ResourceExt as _};
use tokio::{
    sync::{Notify, RwLock, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    act::Scene,
    config::CapturesContext,
    container,
    explain::{self, Refusal},
    identity::{self, LearntUsers},
    pursuit::{self, Learnt},
    record::Record,
    relay::RELAYS,
};

/// Before a pursuit that ended early is begun again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Longest wait for the pod of a preview.
const CALL: Duration = Duration::from_secs(10);

/// The captures of one process in one cluster.
pub struct Alone {
    context: CapturesContext,
    cluster: Cluster,
    learnt: Learnt,
    relays: Arc<Semaphore>,
    places: Arc<Semaphore>,
    scenes: BTreeMap<String, Arc<Scene>>,
    pursuits: JoinSet<()>,
    news: Arc<Notify>,
}

impl Alone {
    /// No captures yet.
    pub fn new(context: CapturesContext) -> Self {
        Self {
            cluster: context.clusters.home().clone(),
            learnt: Arc::new(Mutex::default()),
            relays: Arc::new(Semaphore::new(RELAYS)),
            places: Arc::new(Semaphore::new(context.config.concurrency)),
            scenes: BTreeMap::new(),
            pursuits: JoinSet::new(),
            news: Arc::new(Notify::new()),
            context,
        }
    }

    /// Begins a capture. Dropping this ends it where it stands; what it added to a pod then ends by its own deadline.
    pub fn begin(&mut self, capture: DiagnosticCapture) {
        let name = capture.name_any();
        let scene = Arc::new(Scene {
            context: self.context.clone(),
            cluster: self.cluster.clone(),
            record: Record::in_memory(name.clone(), Arc::new(capture)),
            control: RwLock::new(None),
            numbers: tokio::sync::Mutex::new(()),
            relayed_bytes: AtomicU64::new(0),
            relays: Arc::clone(&self.relays),
        });
        self.scenes.insert(name, Arc::clone(&scene));
        let (learnt, places, news) = (
            Arc::clone(&self.learnt),
            Arc::clone(&self.places),
            Arc::clone(&self.news),
        );
        self.pursuits.spawn(async move {
            let mut changes = scene.record.watch();
            let tell = async {
                while changes.changed().await.is_ok() {
                    news.notify_one();
                }
            };
            tokio::select! {
                () = pursue(&scene, learnt, &places) => {}
                () = tell => {}
            }
            news.notify_one();
        });
    }

    /// All captures as they are now.
    pub fn all(&self) -> Vec<Arc<DiagnosticCapture>> {
        self.scenes.values().map(|scene| scene.record.current()).collect()
    }

    /// Returns when anything has changed since the last call.
    pub async fn changed(&self) {
        self.news.notified().await;
    }

    /// Asks a capture to stop.
    pub async fn cancel(&self, name: &str) {
        if let Some(scene) = self.scenes.get(name) {
            scene.record.ask_to_stop().await;
        }
    }

    /// The container that a capture would add to its pod, as far as can be told before; none where it adds none.
    pub async fn preview(&self, capture: &DiagnosticCapture) -> Result<Option<EphemeralContainer>, Explanation> {
        if capture.spec.image.is_empty() {
            return Ok(None);
        }
        let target = &capture.spec.target;
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &target.namespace);
        let pod = deadline(CALL, pods.get(&target.pod))
            .await
            .map_err(|error| explain::refusal(Refusal::Cluster, &error.to_string()))?;
        let who = identity::choose(&pod, &target.container, &LearntUsers::default());
        let pull = self.context.config.pull_policy;
        container::build(capture, &pod, 1, &who, pull, &self.context.secret)
            .map(Some)
            .map_err(|error| explain::refusal(Refusal::Invalid, &error.to_string()))
    }
}

/// Pursues a capture until it is over, again where a pursuit ended before that.
async fn pursue(scene: &Arc<Scene>, learnt: Learnt, places: &Semaphore) {
    // Closed never: it lives as long as the captures.
    let Ok(_place) = places.acquire().await else { return };
    loop {
        pursuit::pursue(Arc::clone(scene), Arc::clone(&learnt), CancellationToken::new()).await;
        let capture = scene.record.current();
        if capture.status.as_ref().is_some_and(|status| status.phase.is_final()) {
            return;
        }
        retry::pause(AGAIN_AFTER).await;
    }
}

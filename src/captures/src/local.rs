//! Captures without a controller: pursued by the process that asked for them, with their records in its memory. The same
//! task, plan and acts; what differs is only where the record is, and that it ends with the process.

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
    act::TaskContext,
    config::CapturesContext,
    container,
    explain::{self, Refusal},
    identity::{self, ImageUsers},
    relay::RELAYS,
    status_writer::StatusWriter,
    task::{self, SharedImageUsers},
};

/// Before a task that ended early is begun again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Longest wait for the pod of a preview.
const CALL: Duration = Duration::from_secs(10);

/// The captures of one process in one cluster.
pub struct Alone {
    context: CapturesContext,
    cluster: Cluster,
    image_users: SharedImageUsers,
    relays: Arc<Semaphore>,
    places: Arc<Semaphore>,
    contexts: BTreeMap<String, Arc<TaskContext>>,
    tasks: JoinSet<()>,
    news: Arc<Notify>,
}

impl Alone {
    /// No captures yet.
    pub fn new(context: CapturesContext) -> Self {
        Self {
            cluster: context.clusters.home().clone(),
            image_users: Arc::new(Mutex::default()),
            relays: Arc::new(Semaphore::new(RELAYS)),
            places: Arc::new(Semaphore::new(context.config.concurrency)),
            contexts: BTreeMap::new(),
            tasks: JoinSet::new(),
            news: Arc::new(Notify::new()),
            context,
        }
    }

    /// Begins a capture. Dropping this ends it where it stands; what it added to a pod then ends by its own deadline.
    pub fn begin(&mut self, capture: DiagnosticCapture) {
        let name = capture.name_any();
        let scene = Arc::new(TaskContext {
            context: self.context.clone(),
            cluster: self.cluster.clone(),
            status_writer: StatusWriter::in_memory(name.clone(), Arc::new(capture)),
            control: RwLock::new(None),
            numbers: tokio::sync::Mutex::new(()),
            relayed_bytes: AtomicU64::new(0),
            relays: Arc::clone(&self.relays),
        });
        self.contexts.insert(name, Arc::clone(&scene));
        let (image_users, places, news) = (
            Arc::clone(&self.image_users),
            Arc::clone(&self.places),
            Arc::clone(&self.news),
        );
        self.tasks.spawn(async move {
            let mut changes = scene.status_writer.watch();
            let tell = async {
                while changes.changed().await.is_ok() {
                    news.notify_one();
                }
            };
            tokio::select! {
                () = drive(&scene, image_users, &places) => {}
                () = tell => {}
            }
            news.notify_one();
        });
    }

    /// All captures as they are now.
    pub fn all(&self) -> Vec<Arc<DiagnosticCapture>> {
        self.contexts
            .values()
            .map(|scene| scene.status_writer.current())
            .collect()
    }

    /// Returns when anything has changed since the last call.
    pub async fn changed(&self) {
        self.news.notified().await;
    }

    /// Asks a capture to stop.
    pub async fn cancel(&self, name: &str) {
        if let Some(scene) = self.contexts.get(name) {
            scene.status_writer.ask_to_stop().await;
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
        let who = identity::choose(&pod, &target.container, &ImageUsers::default());
        let pull = self.context.config.pull_policy;
        container::build(capture, &pod, 1, &who, pull, &self.context.secret)
            .map(Some)
            .map_err(|error| explain::refusal(Refusal::Invalid, &error.to_string()))
    }
}

/// Pursues a capture until it is over, again where a task ended before that.
async fn drive(scene: &Arc<TaskContext>, image_users: SharedImageUsers, places: &Semaphore) {
    // Closed never: it lives as long as the captures.
    let Ok(_place) = places.acquire().await else { return };
    loop {
        task::drive(Arc::clone(scene), Arc::clone(&image_users), CancellationToken::new()).await;
        let capture = scene.status_writer.current();
        if capture.status.as_ref().is_some_and(|status| status.phase.is_final()) {
            return;
        }
        retry::pause(AGAIN_AFTER).await;
    }
}

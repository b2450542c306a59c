//! The captures controller: while this process leads, one task for each capture that is not over.
//!
//! # Design notes
//! Clusters don't wait for each other: each has its own bound of tasks under way. What wakes a task carries no data
//! but the object itself, and a task that ends without a final phase (a panic, a lost race) is begun again.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use diagbot_api::capture::{CapturePhase, DiagnosticCapture};
use diagbot_base::{retry, telemetry::metrics::Outcome};
use diagbot_cluster::lease::Term;
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::{
    Api, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{
    sync::{RwLock, Semaphore},
    task::{Id, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    act::TaskContext,
    config::CapturesContext,
    explain::{self, Refusal},
    pods::WATCH_S,
    relay::RELAYS,
    status_writer::StatusWriter,
    sweep,
    task::{self, SharedImageUsers},
};

/// Before a task that ended early is begun again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Reconciles captures while this process leads, until `stop`.
pub async fn run(context: CapturesContext, stop: CancellationToken) {
    let mut leadership = context.leadership.clone();
    let shared = Shared {
        image_users: Arc::new(Mutex::default()),
        relays: Arc::new(Semaphore::new(RELAYS)),
        places: context
            .clusters
            .names()
            .map(|name| (name.to_string(), Arc::new(Semaphore::new(context.config.concurrency))))
            .collect(),
        context,
    };
    loop {
        let term = leadership.current();
        tokio::select! {
            () = stop.cancelled() => return,
            // Everything of the former term is dropped with this future; the next leader takes it up from the records.
            () = leadership.changed() => {}
            () = lead(&shared, term, &stop) => {}
        }
    }
}

/// What outlives a term.
struct Shared {
    context: CapturesContext,
    image_users: SharedImageUsers,
    relays: Arc<Semaphore>,
    places: HashMap<String, Arc<Semaphore>>,
}

/// One term.
struct LeaderTerm<'a> {
    shared: &'a Shared,
    epoch: u64,
    stop: &'a CancellationToken,
    api: Api<DiagnosticCapture>,
    known: HashMap<String, Arc<DiagnosticCapture>>,
    contexts: HashMap<String, Arc<TaskContext>>,
    names: HashMap<Id, String>,
    tasks: JoinSet<()>,
}

/// Leads for a term; without one there is nothing to do.
async fn lead(shared: &Shared, term: Option<Term>, stop: &CancellationToken) {
    let Some(term) = term else {
        return std::future::pending().await;
    };
    let clusters = &shared.context.clusters;
    let streams = Api::<DiagnosticCapture>::namespaced(clusters.home().stream_client.clone(), clusters.namespace());
    let mut leader_term = LeaderTerm {
        shared,
        epoch: term.epoch,
        stop,
        api: Api::namespaced(clusters.home().client.clone(), clusters.namespace()),
        known: HashMap::new(),
        contexts: HashMap::new(),
        names: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let mut events = pin!(watcher(streams, watcher::Config::default().timeout(WATCH_S)).default_backoff());
    let mut sweeps = pin!(sweep::run(&shared.context));
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => leader_term.take(event),
                Some(Err(error)) => tracing::warn!(error = %error, "the watch of captures broke and is taken up again"),
                None => return,
            },
            Some(ended) = leader_term.tasks.join_next_with_id(), if !leader_term.tasks.is_empty() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        tracing::error!(error = %error, "a capture's task panicked");
                        error.id()
                    }
                };
                leader_term.ended(id);
            }
            () = &mut sweeps => {}
        }
    }
}

impl LeaderTerm<'_> {
    fn take(&mut self, event: watcher::Event<DiagnosticCapture>) {
        match event {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => self.look(Arc::new(object)),
            watcher::Event::Delete(object) => {
                self.known.remove(&object.name_any());
                // The task ends with its next write; its container ends by its own deadline.
                if let Some(scene) = self.contexts.get(&object.name_any()) {
                    scene.status_writer.take(Arc::new(object));
                }
            }
            watcher::Event::Init | watcher::Event::InitDone => {}
        }
    }

    fn look(&mut self, object: Arc<DiagnosticCapture>) {
        let name = object.name_any();
        if is_final(&object) {
            self.over(&object);
        } else {
            self.known.insert(name.clone(), Arc::clone(&object));
        }
        if let Some(scene) = self.contexts.get(&name) {
            scene.status_writer.take(object);
        } else if !is_final(&object) {
            self.begin(name, object, false);
        }
    }

    fn begin(&mut self, name: String, object: Arc<DiagnosticCapture>, again: bool) {
        let shared = self.shared;
        let context = &shared.context;
        let target = object.spec.target.cluster.clone();
        let cluster = context.clusters.get(&target).cloned();
        let status_writer = StatusWriter::new(
            self.api.clone(),
            name.clone(),
            context.leadership.clone(),
            self.epoch,
            object,
        );
        let span = tracing::info_span!("capture", capture.name = %name);
        let (Some(cluster), Some(places)) = (cluster, shared.places.get(&target).cloned()) else {
            let task = refuse_cluster(status_writer, target, context.clock.now());
            let id = self.tasks.spawn(tracing::Instrument::instrument(task, span)).id();
            self.names.insert(id, name);
            return;
        };
        let scene = Arc::new(TaskContext {
            context: context.clone(),
            cluster,
            status_writer,
            control: RwLock::new(None),
            numbers: tokio::sync::Mutex::new(()),
            relayed_bytes: AtomicU64::new(0),
            relays: Arc::clone(&shared.relays),
        });
        self.contexts.insert(name.clone(), Arc::clone(&scene));
        self.show_active();
        let (image_users, stop) = (Arc::clone(&shared.image_users), self.stop.clone());
        let task = async move {
            if again {
                retry::pause(AGAIN_AFTER).await;
            }
            // Closed never: the semaphore lives as long as the controller.
            let Ok(_place) = places.acquire().await else { return };
            task::drive(scene, image_users, stop).await;
        };
        let id = self.tasks.spawn(tracing::Instrument::instrument(task, span)).id();
        self.names.insert(id, name);
    }

    /// A capture that ended; the watch and its task both tell, in either order.
    fn over(&mut self, object: &DiagnosticCapture) {
        let phase = object.status.as_ref().map(|status| status.phase).unwrap_or_default();
        if self.known.remove(&object.name_any()).is_some() {
            let outcome = phase.as_str();
            let finished = &self.shared.context.metrics.captures_finished;
            finished.get_or_create(&Outcome { outcome }).inc();
        }
    }

    fn show_active(&self) {
        let count = i64::try_from(self.contexts.len()).unwrap_or(i64::MAX);
        self.shared.context.metrics.captures_active.set(count);
    }

    /// A task that ended before its capture did is begun again.
    fn ended(&mut self, id: Id) {
        let Some(name) = self.names.remove(&id) else { return };
        let latest = self.contexts.remove(&name).map(|scene| scene.status_writer.current());
        self.show_active();
        if self.stop.is_cancelled() {
            return;
        }
        if let Some(latest) = latest.filter(|latest| is_final(latest)) {
            return self.over(&latest);
        }
        if let Some(object) = self.known.get(&name).cloned() {
            self.begin(name, object, true);
        }
    }
}

impl Drop for LeaderTerm<'_> {
    /// What is under way is the next leader's.
    fn drop(&mut self) {
        self.shared.context.metrics.captures_active.set(0);
    }
}

fn is_final(object: &DiagnosticCapture) -> bool {
    object.status.as_ref().is_some_and(|s| s.phase.is_final())
}

async fn refuse_cluster(status_writer: StatusWriter, cluster: String, now: Timestamp) {
    let generation = status_writer.current().metadata.generation;
    let reason = explain::refusal(Refusal::UnknownCluster, &cluster);
    let written = status_writer
        .write(|status| status.end(CapturePhase::Failed, Some(&reason), generation, now))
        .await;
    if let Err(error) = written {
        tracing::warn!(
            error = %diagbot_base::telemetry::Chain(&error),
            "a capture in an unknown cluster could not be refused yet"
        );
    }
}

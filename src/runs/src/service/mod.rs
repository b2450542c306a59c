//! What fronts use: accept a request, cancel a run, find and list runs, get links. Works on every replica.
//!
//! Decides nothing about permissions to run: that is the controller's part, from the recorded request.

use std::{cmp::Reverse, fmt, sync::Arc, time::Duration};

use diagbot_api::{
    pause::DiagnosticPause,
    request_key::{RunName, spoken_ids},
    requester::Requester,
    run::DiagnosticRun,
    schedule::DiagnosticSchedule,
};
use diagbot_artifacts::Store;
use diagbot_audit::AuditLog;
use diagbot_base::clock::Clock;
use diagbot_catalog::Catalog;
use diagbot_cluster::{
    Clusters, deadline,
    lease::{Leadership, Term},
    pod_index::PodIndex,
};
use futures::Stream;
use jiff::Timestamp;
use kube::Api;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    access::Access,
    admission::RateLimiter,
    object_cache::{ObjectCache, Reflector, reflector},
};

mod accept;
mod alerts;
mod approval;
mod audience;
mod bundle;
mod cancel;
mod error;
mod health;
mod links;
mod offers;
mod pauses;
mod schedules;
mod sight;
mod telling;

#[cfg(feature = "failpoints")]
pub(crate) use self::accept::ACCEPT;
pub use self::{
    accept::Accepted,
    approval::ApprovalOutcome,
    bundle::Bundle,
    cancel::CancelOutcome,
    error::{AcceptError, ServiceError},
    health::Health,
    links::ArtifactLink,
    offers::Sought,
    pauses::PauseOutcome,
    schedules::Schedules,
};

/// The record of what people were told, among the actions of the bot.
pub(crate) const RECORD_TELLING: &str = "runs.record-telling";
/// Longest wait for a call that nobody's acknowledgement waits for.
const CALL: Duration = Duration::from_secs(5);
/// Which runs to list. Empty: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Beginning of the target's name, as typed or as resolved.
    pub target: Option<String>,
    /// Received then or later.
    pub since: Option<Timestamp>,
    /// Asked by this person.
    pub requester: Option<Requester>,
    /// Not yet ended.
    pub running: bool,
    /// At most so many.
    pub most: Option<usize>,
}

impl RunFilter {
    fn passes(&self, run: &DiagnosticRun) -> bool {
        let targets = |prefix: &String| {
            let captures = run.status.iter().flat_map(|status| &status.captures);
            run.spec.target.name.starts_with(prefix) || captures.into_iter().any(|c| c.target.pod.starts_with(prefix))
        };
        self.target.as_ref().is_none_or(targets)
            && self.since.is_none_or(|since| run.spec.received_at.0 >= since)
            && self.requester.as_ref().is_none_or(|by| run.spec.requester == *by)
            && !(self.running && run.phase().is_final())
    }
}

/// What the service is made from.
#[derive(Clone)]
pub struct ServiceParts {
    /// The clusters.
    pub clusters: Clusters,
    /// The allowlist.
    pub catalog: Arc<Catalog>,
    /// The reviewer.
    pub access: Access,
    /// The store, for links.
    pub store: Store,
    /// How often people may ask.
    pub rate_limiter: RateLimiter,
    /// Where everything that is done is told.
    pub audit_log: AuditLog,
    /// Whether this process leads.
    pub leadership: Leadership,
    /// The pods, for what people are offered while typing.
    pub pod_index: PodIndex,
    /// The time.
    pub clock: Clock,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct RunService(Arc<ServiceState>);

struct ServiceState {
    parts: ServiceParts,
    api: Api<DiagnosticRun>,
    cache: ObjectCache<DiagnosticRun>,
    pause_api: Api<DiagnosticPause>,
    pauses: ObjectCache<DiagnosticPause>,
    schedules: ObjectCache<DiagnosticSchedule>,
    /// One for each bundle that may be made at a time.
    bundling: Semaphore,
}

/// The watch behind the service's view of the runs; run it as a task.
pub struct RunWatch {
    api: Api<DiagnosticRun>,
    reflector: Reflector<DiagnosticRun>,
    pause_api: Api<DiagnosticPause>,
    pauses: Reflector<DiagnosticPause>,
    schedules: (Api<DiagnosticSchedule>, Reflector<DiagnosticSchedule>),
}

impl RunWatch {
    /// Watches until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let (api, schedules) = self.schedules;
        tokio::join!(
            self.reflector.run(self.api, stop.clone()),
            self.pauses.run(self.pause_api, stop.clone()),
            schedules.run(api, stop)
        );
    }
}

impl fmt::Debug for RunService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunService").finish_non_exhaustive()
    }
}

impl RunService {
    /// The service and the watch that feeds it.
    pub fn new(parts: ServiceParts) -> (Self, RunWatch) {
        let home = parts.clusters.home();
        let namespace = parts.clusters.namespace();
        let (cache, runs) = reflector();
        let (pauses, of_pauses) = reflector();
        let (schedules, followed) = reflector();
        let watch = RunWatch {
            api: Api::namespaced(home.stream_client.clone(), namespace),
            reflector: runs,
            pause_api: Api::namespaced(home.stream_client.clone(), namespace),
            pauses: of_pauses,
            schedules: (Api::namespaced(home.stream_client.clone(), namespace), followed),
        };
        let api = Api::namespaced(home.client.clone(), namespace);
        let pause_api = Api::namespaced(home.client.clone(), namespace);
        let inner = ServiceState {
            parts,
            api,
            cache,
            pause_api,
            pauses,
            schedules,
            bundling: Semaphore::new(bundle::AT_ONCE),
        };
        (Self(Arc::new(inner)), watch)
    }

    /// The run of exactly that name.
    pub fn get(&self, name: &RunName) -> Option<Arc<DiagnosticRun>> {
        self.0.cache.get(self.0.parts.clusters.namespace(), name.as_str())
    }

    /// The runs of that id, short id or beginning of one, newest first. Who asks is not known here: see [`Self::told_of`].
    pub fn named(&self, spoken: &str) -> Vec<Arc<DiagnosticRun>> {
        let ids = spoken_ids(spoken);
        let mut named = self.all();
        named.retain(|run| run.name().is_some_and(|name| name.matches(&ids)));
        named
    }

    /// The newest run whose thread this is.
    pub fn find_by_thread(&self, channel: &str, thread_ts: &str) -> Option<Arc<DiagnosticRun>> {
        self.all().into_iter().find(|run| run.is_told_in(channel, thread_ts))
    }

    /// Runs that pass the filter, newest first.
    pub fn list(&self, filter: &RunFilter) -> Vec<Arc<DiagnosticRun>> {
        let mut runs = self.all();
        runs.retain(|run| filter.passes(run));
        runs.truncate(filter.most.unwrap_or(usize::MAX));
        runs
    }

    /// Every run, newest first.
    fn all(&self) -> Vec<Arc<DiagnosticRun>> {
        let mut runs = self.0.cache.all();
        runs.sort_by_key(|run| Reverse(run.spec.received_at.0));
        runs
    }

    /// The allowlist in force.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.0.parts.catalog
    }

    /// The clusters.
    pub fn clusters(&self) -> &Clusters {
        &self.0.parts.clusters
    }

    /// Wake-ups: a run that changed, was removed, or may have changed.
    pub fn changes(&self) -> impl Stream<Item = Arc<DiagnosticRun>> + Send + use<> {
        self.0.cache.changes()
    }

    /// Whether this process leads.
    pub fn leadership(&self) -> Leadership {
        self.0.parts.leadership.clone()
    }

    /// Whether the runs were read once, so that look-ups can be trusted.
    pub fn ready(&self) -> bool {
        self.0.cache.ready() && self.0.pauses.ready()
    }

    /// The time, as the service sees it.
    pub fn now(&self) -> Timestamp {
        self.0.parts.clock.now()
    }

    /// Where everything that is done is told.
    pub(super) fn audit_log(&self) -> &AuditLog {
        &self.0.parts.audit_log
    }

    /// Wake-ups: a pause that was made or removed.
    pub(super) fn pause_changes(&self) -> impl Stream<Item = Arc<DiagnosticPause>> + Send + use<> {
        self.0.pauses.changes()
    }

    /// The reviewer, for the controller.
    pub(super) fn access(&self) -> &Access {
        &self.0.parts.access
    }

    /// The reflected runs, for the controller.
    pub(super) fn cache(&self) -> &ObjectCache<DiagnosticRun> {
        &self.0.cache
    }

    /// The runs as the API server has them, for the controller.
    pub(super) fn api(&self) -> &Api<DiagnosticRun> {
        &self.0.api
    }

    async fn fresh(&self, name: &RunName) -> Result<DiagnosticRun, ServiceError> {
        deadline(CALL, self.0.api.get_opt(name.as_str()))
            .await
            .map_err(|source| ServiceError::Call {
                doing: "read the run",
                source,
            })?
            .ok_or(ServiceError::NotFound)
    }

    fn check_term(run: &DiagnosticRun, term: &Term) -> Result<(), ServiceError> {
        let written = run.status.as_ref().map_or(0, |status| status.epoch);
        if term.remaining().is_zero() || written > term.epoch {
            return Err(ServiceError::NotLeading);
        }
        Ok(())
    }
}

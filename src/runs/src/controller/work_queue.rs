//! Which runs are looked at when, and by whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use diagbot_api::request_key::RunName;
use diagbot_base::retry::{self, Backoff};
use futures::StreamExt as _;
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::reconciler::{Reconciler, Requeue};
use crate::unrecorded;

/// Runs that are looked at at once.
const PARALLEL: usize = 16;
/// How often everything is looked at though nothing said so.
const TICK: Duration = Duration::from_secs(5);
/// How often finished runs are swept.
const SWEEP: Duration = Duration::from_mins(1);

/// Which runs are to be looked at, and who looks.
pub(super) struct WorkQueue {
    reconciler: Arc<Reconciler>,
    due: BTreeSet<RunName>,
    in_flight: BTreeSet<RunName>,
    later: BTreeMap<RunName, Instant>,
    failures: BTreeMap<RunName, Backoff>,
    reconciles: JoinSet<(RunName, Requeue)>,
}

impl WorkQueue {
    pub(super) fn new(reconciler: Arc<Reconciler>) -> Self {
        Self {
            reconciler,
            due: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            later: BTreeMap::new(),
            failures: BTreeMap::new(),
            reconciles: JoinSet::new(),
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let service = self.reconciler.ctx.service.clone();
        let mut leadership = service.leadership();
        let mut runs = Box::pin(service.changes());
        let mut captures = Box::pin(self.reconciler.cache.changes());
        let mut pauses = Box::pin(service.pause_changes());
        let mut switched = self.reconciler.switch.changes();
        let mut tick = tokio::time::interval(TICK);
        let mut sweep = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = self.later.values().min().copied();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(run) = runs.next() => self.due.extend(run.name()),
                Some(capture) = captures.next() => self.due.extend(capture.spec.run.parse::<RunName>()),
                () = leadership.changed() => self.everything(),
                Some(_) = pauses.next() => self.everything_now(),
                Ok(()) = switched.changed() => self.everything_now(),
                _ = tick.tick() => {
                    self.everything();
                    unrecorded::settle(&service).await;
                }
                _ = sweep.tick() => self.reconciler.sweep().await,
                () = until(next) => self.take_due(),
                Some(looked) = self.reconciles.join_next() => match looked {
                    Ok((name, look)) => self.looked(name, look),
                    Err(error) => tracing::error!(error = %diagbot_base::telemetry::Chain(&error), "a look at a run did not end well"),
                },
            }
            self.start();
        }
        // Actions are bounded by the term; what is under way may end.
        while self.reconciles.join_next().await.is_some() {}
    }

    /// Marks every run that is not over.
    fn everything(&mut self) {
        let runs = self.reconciler.ctx.service.cache().all();
        let running = runs.iter().filter(|run| !run.phase().is_final());
        let waiting = |name: &RunName| !self.later.contains_key(name);
        self.due.extend(running.filter_map(|run| run.name()).filter(waiting));
    }

    /// Marks every run that is not over, also those that wait for their time.
    fn everything_now(&mut self) {
        self.later.clear();
        self.everything();
    }

    fn take_due(&mut self) {
        let now = Instant::now();
        let due: Vec<RunName> = self
            .later
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.later.remove(&name);
            self.due.insert(name);
        }
    }

    fn start(&mut self) {
        if self.reconciler.ctx.service.leadership().current().is_none() {
            return;
        }
        while self.reconciles.len() < PARALLEL {
            let Some(name) = self.due.iter().find(|name| !self.in_flight.contains(*name)).cloned() else {
                return;
            };
            self.due.remove(&name);
            self.later.remove(&name);
            self.in_flight.insert(name.clone());
            let reconciler = Arc::clone(&self.reconciler);
            self.reconciles.spawn(async move {
                let look = reconciler.look(&name).await;
                (name, look)
            });
        }
    }

    fn looked(&mut self, name: RunName, look: Requeue) {
        self.in_flight.remove(&name);
        if look != Requeue::Failed {
            self.failures.remove(&name);
        }
        match look {
            Requeue::Rest => {}
            Requeue::Again => {
                self.due.insert(name);
            }
            Requeue::At(time) => {
                let wait = time.duration_since(self.reconciler.ctx.service.now());
                let wait = Duration::try_from(wait).unwrap_or_default();
                self.later.insert(name, Instant::now() + wait);
            }
            Requeue::Failed => {
                let fresh = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
                let wait = self.failures.entry(name.clone()).or_insert(fresh).next_delay();
                self.later.insert(name, Instant::now() + wait);
            }
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => retry::pause(time.saturating_duration_since(Instant::now())).await,
        None => std::future::pending().await,
    }
}

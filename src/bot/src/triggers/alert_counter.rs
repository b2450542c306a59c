//! Alerts that came besides: counted here, written to their run every few seconds, so that a storm of alerts is no storm of
//! writes. A count that was not written yet is lost with the process; captures never depend on it.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use diagbot_api::request_key::RunName;
use diagbot_runs::service::{RunService, ServiceError};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Between writes.
const PACE: Duration = Duration::from_secs(2);
/// Events that are remembered.
const REMEMBERED: usize = 10_000;

/// Counts by run. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AlertCounter(Arc<Mutex<BTreeMap<RunName, u64>>>);

impl AlertCounter {
    /// One more alert of that run.
    pub fn add(&self, run: &RunName) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(run.clone()).or_default() += 1;
    }

    /// Writes the counts until `stop`, and once more then.
    pub async fn run(self, service: RunService, stop: CancellationToken) {
        let mut tick = interval(PACE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = tick.tick() => {}
            }
            self.write(&service).await;
        }
    }

    async fn write(&self, service: &RunService) {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (run, more) in counts {
            match service.count_alerts(&run, more).await {
                Ok(()) | Err(ServiceError::NotFound) => {}
                Err(error) => {
                    tracing::warn!(run.id = %run, error = %diagbot_base::telemetry::Chain(&error), "alerts are counted later");
                    let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                    *counts.entry(run).or_default() += more;
                }
            }
        }
    }
}

/// The events that this process took lately, so that a replay is not counted as another alert.
#[derive(Debug, Default)]
pub(super) struct Seen {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// Whether it is remembered.
    pub(super) fn knows(&self, event: &str) -> bool {
        self.known.contains(event)
    }

    /// Remembers it; false where it was known.
    pub(super) fn is_new(&mut self, event: &str) -> bool {
        if !self.known.insert(event.to_owned()) {
            return false;
        }
        self.order.push_back(event.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

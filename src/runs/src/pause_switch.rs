//! The off-switches as the leader sees them: the pauses on record, and a label on the bot's own namespace that whoever runs
//! the cluster can set without Slack. Owns the look at that label; decides nothing.

use std::time::Duration;

use diagbot_api::pause::{LABEL_PAUSED, Pause};
use diagbot_cluster::{CallError, deadline};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::service::RunService;

/// Between looks at the label.
const EVERY: Duration = Duration::from_secs(3);
/// Longest wait for one look.
const CALL: Duration = Duration::from_secs(5);

/// The switches.
#[derive(Debug)]
pub(super) struct PauseSwitch {
    namespaces: Api<Namespace>,
    own: String,
    labelled: watch::Sender<bool>,
}

impl PauseSwitch {
    pub(super) fn new(client: Client, own: &str) -> Self {
        Self {
            namespaces: Api::all(client),
            own: own.to_owned(),
            labelled: watch::Sender::new(false),
        }
    }

    /// Every pause that holds.
    pub(super) fn pauses(&self, service: &RunService) -> Vec<Pause> {
        let label = self.labelled.borrow().then(Pause::by_label);
        label.into_iter().chain(service.pauses()).collect()
    }

    /// Wakes when the label is set or taken away.
    pub(super) fn changes(&self) -> watch::Receiver<bool> {
        self.labelled.subscribe()
    }

    /// Looks at the label until `stop`, so that what runs is stopped. Where it can't be read, what was read last holds.
    pub(super) async fn follow(&self, service: &RunService, stop: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            if let Err(error) = self.look(service, CALL).await {
                tracing::warn!(
                    error = %diagbot_base::telemetry::Chain(&error),
                    "whether the label on the bot's namespace pauses it can't be read"
                );
            }
        }
    }

    /// Looks at the label once: right before anything starts too, so that nothing does after it was set.
    ///
    /// Each change is on record as this process saw it. The label names nobody: the API server's audit log does.
    pub(super) async fn look(&self, service: &RunService, limit: Duration) -> Result<(), CallError> {
        let namespace = deadline(limit, self.namespaces.get(&self.own)).await?;
        let labels = namespace.metadata.labels.unwrap_or_default();
        let paused = labels.get(LABEL_PAUSED).is_some_and(|value| value == "true");
        let set = |known: &mut bool| std::mem::replace(known, paused) != paused;
        if self.labelled.send_if_modified(set) {
            let label = Pause::by_label();
            service.record_switch(&label.place, &label.by.user, paused);
            tracing::warn!(paused, "the label on the bot's namespace was changed");
        }
        Ok(())
    }
}

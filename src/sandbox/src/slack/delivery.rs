//! Delivery of envelopes: at least once, to any open connection, acknowledged within 3 s or sent again.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};

use super::{
    config::{RedeliveredEnvelope, Redelivery},
    faults::FaultKind,
    workspace::Workspace,
};

/// Type of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EnvelopeType {
    SlashCommand,
    Event,
    Interaction,
}

impl EnvelopeType {
    fn name(self) -> &'static str {
        match self {
            EnvelopeType::SlashCommand => "slash_commands",
            EnvelopeType::Event => "events_api",
            EnvelopeType::Interaction => "interactive",
        }
    }
}

/// What became of a delivery.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Acknowledged in time, with this payload (null if none).
    Acked { payload: Value, after: Duration },
    /// Written to a connection, never acknowledged in time.
    Unacked,
    /// No connection was open.
    NoConnection,
}

/// An envelope that waits for its acknowledgement.
#[derive(Debug)]
pub(super) struct Waiting {
    answer: oneshot::Sender<Value>,
    sent: Instant,
    log_entry: u64,
    lost: bool,
}

/// One payload on its way.
#[derive(Clone, Debug)]
struct Parcel {
    kind: EnvelopeType,
    payload: Value,
    accepts_response_payload: bool,
}

impl Workspace {
    /// Delivers a payload and waits for its acknowledgement, at most for the ack limit. What is not acknowledged is sent again
    /// in the background.
    pub(super) async fn deliver(self: &Arc<Self>, kind: EnvelopeType, payload: Value) -> Outcome {
        // Documented for slash_commands and for view_submission, block_suggestion and block_actions.
        let accepts_response_payload = match kind {
            EnvelopeType::SlashCommand => true,
            EnvelopeType::Event => false,
            EnvelopeType::Interaction => payload["type"] != "message_action" && payload["type"] != "view_closed",
        };
        let parcel = Parcel {
            kind,
            payload,
            accepts_response_payload,
        };
        let first = Instant::now();
        let envelope_id = self.envelope_id();
        let outcome = self.send_and_wait(&parcel, &envelope_id, 0).await;
        match &outcome {
            // While no connection is open an event is lost (facts of the Socket Mode page).
            Outcome::NoConnection => {}
            Outcome::Unacked => {
                let schedule = match kind {
                    EnvelopeType::Event => self.config.event_redelivery.clone(),
                    EnvelopeType::SlashCommand | EnvelopeType::Interaction => {
                        self.config.interaction_redelivery.clone()
                    }
                };
                let workspace = Arc::clone(self);
                self.tasks
                    .spawn(async move { workspace.redeliver(parcel, envelope_id, first, schedule).await });
            }
            Outcome::Acked { .. } => self.duplicate(&parcel, &envelope_id),
        }
        outcome
    }

    /// Repeats an acknowledged delivery where a fault says so.
    fn duplicate(self: &Arc<Self>, parcel: &Parcel, envelope_id: &str) {
        let name = parcel.kind.name();
        let (same, new) = self.change(|state| {
            let same = state.faults.strikes_envelope(name, &FaultKind::DuplicateSameEnvelope);
            (
                same,
                state.faults.strikes_envelope(name, &FaultKind::DuplicateNewEnvelope),
            )
        });
        let repeats = [(same, envelope_id.to_owned(), 0), (new, self.envelope_id(), 1)];
        for (_, envelope_id, attempt) in repeats.into_iter().filter(|(wanted, ..)| *wanted) {
            let (workspace, parcel) = (Arc::clone(self), parcel.clone());
            self.tasks
                .spawn(async move { workspace.send_and_wait(&parcel, &envelope_id, attempt).await });
        }
    }

    async fn redeliver(&self, parcel: Parcel, first_id: String, first: Instant, schedule: Vec<Redelivery>) {
        let mut attempt = 0;
        for step in schedule {
            tokio::select! {
                () = sleep_until(first + step.after) => {}
                () = self.stop.cancelled() => return,
            }
            let outcome = match step.envelope {
                RedeliveredEnvelope::Same => self.send_and_wait(&parcel, &first_id, 0).await,
                RedeliveredEnvelope::New => {
                    attempt += 1;
                    self.send_and_wait(&parcel, &self.envelope_id(), attempt).await
                }
            };
            if matches!(outcome, Outcome::Acked { .. }) {
                return;
            }
        }
    }

    fn envelope_id(&self) -> String {
        let id = self.change(|state| state.id(""));
        // The shape of a UUID, as in Slack's envelopes.
        let digits = format!("{id:0>32}").to_lowercase();
        let parts = [
            &digits[..8],
            &digits[8..12],
            &digits[12..16],
            &digits[16..20],
            &digits[20..32],
        ];
        parts.join("-")
    }

    async fn send_and_wait(&self, parcel: &Parcel, envelope_id: &str, attempt: u32) -> Outcome {
        let mut envelope = json!({
            "envelope_id": envelope_id, "type": parcel.kind.name(), "payload": parcel.payload,
            "accepts_response_payload": parcel.accepts_response_payload,
        });
        if parcel.kind == EnvelopeType::Event {
            envelope["retry_attempt"] = json!(attempt);
            envelope["retry_reason"] = json!(if attempt == 0 { "" } else { "timeout" });
        }
        let sent = Instant::now();
        let (answer, answered) = oneshot::channel();
        let written = self.change(|state| {
            let connection = state.links.send(&envelope)?;
            let log_entry = state.calls.envelope(&envelope, connection);
            let lost = state.faults.strikes_envelope(parcel.kind.name(), &FaultKind::LostAck);
            state.waiting.insert(
                envelope_id.to_owned(),
                Waiting {
                    answer,
                    sent,
                    log_entry,
                    lost,
                },
            );
            Some(())
        });
        if written.is_none() {
            return Outcome::NoConnection;
        }
        let acked = tokio::select! {
            acked = timeout(self.config.ack_limit, answered) => acked,
            () = self.stop.cancelled() => return Outcome::Unacked,
        };
        if let Ok(Ok(payload)) = acked {
            return Outcome::Acked {
                payload,
                after: sent.elapsed(),
            };
        }
        self.change(|state| state.waiting.remove(envelope_id));
        Outcome::Unacked
    }

    /// A client acknowledged an envelope. A late or repeated acknowledgement changes nothing.
    pub(super) fn acknowledge(&self, envelope_id: &str, payload: Value) {
        self.change(|state| {
            if state.waiting.get(envelope_id).is_none_or(|waiting| waiting.lost) {
                return;
            }
            if let Some(waiting) = state.waiting.remove(envelope_id) {
                let after_ms = u64::try_from(waiting.sent.elapsed().as_millis()).unwrap_or(u64::MAX);
                state.calls.acknowledged(waiting.log_entry, after_ms);
                // Nobody may be waiting any more: the person has gone.
                let _ = waiting.answer.send(payload);
            }
        });
    }
}

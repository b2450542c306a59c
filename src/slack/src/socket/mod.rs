//! Socket Mode: a few WebSocket connections to Slack that are replaced before they go, noticed when they die, and opened at a
//! pace that Slack accepts.
//!
//! Owns connections, acknowledgements and readiness. Never looks into a payload: the handler gets each envelope, in a task of
//! its own, and says how to acknowledge it. Addresses of connections are secrets and are never logged.
//!
//! # Design notes
//! Each slot keeps one connection and, while Slack asks it to leave, opens the next before the old one ends. Permits bound
//! the process to one connection more than slots, so that the worst rollout stays within Slack's ten (see
//! [`crate::config`]). A handler that panics costs its own envelope, which Slack delivers again.

mod connection;
mod envelope;
mod health;
mod supervisor;
mod throttle;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use diagbot_base::{clock::Clock, telemetry::metrics::Metrics};
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use self::{envelope::Envelope, health::SocketHealth};
use self::{supervisor::ConnectionSupervisor, throttle::ConnectThrottle};
use crate::{api::SlackApi, config::SlackConfig};

/// How an envelope is acknowledged.
#[derive(Debug, Clone, PartialEq)]
pub enum Ack {
    /// Without an answer.
    Plain,
    /// With an answer, where the envelope takes one.
    With(Value),
    /// Not at all: Slack delivers it again, also to another replica.
    Withheld,
}

/// Takes an envelope; called in a task of its own.
pub type Handler = Arc<dyn Fn(Envelope) -> BoxFuture<'static, Ack> + Send + Sync>;

/// What the socket needs.
#[derive(Clone)]
pub struct SocketParts {
    /// For `apps.connections.open`, and its dialer.
    pub api: SlackApi,
    /// Takes envelopes.
    pub handler: Handler,
    /// What a person gets whose command meets a full queue.
    pub busy: Value,
    /// Where readiness is read.
    pub health: SocketHealth,
    /// Counters.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
}

/// Keeps the configured number of connections until `stop`. After a fatal answer of Slack (a revoked token, Socket Mode
/// switched off) no connection is opened any more; health and log say why.
pub async fn run(config: &SlackConfig, parts: SocketParts, stop: CancellationToken) {
    parts.health.expect(config.usual_connections());
    let throttle = Arc::new(ConnectThrottle::new(parts.api.clone()));
    let permits = Arc::new(Semaphore::new(config.connections + 1));
    let mut slots = JoinSet::new();
    for _ in 0..config.connections {
        let supervisor = ConnectionSupervisor {
            parts: parts.clone(),
            throttle: Arc::clone(&throttle),
            permits: Arc::clone(&permits),
            stop: stop.clone(),
        };
        slots.spawn(supervisor.keep());
    }
    while let Some(ended) = slots.join_next().await {
        if let Err(error) = ended {
            tracing::error!(
                error = %diagbot_base::telemetry::Chain(&error),
                "a Slack connection's keeper failed"
            );
        }
    }
    stop.cancelled().await;
}

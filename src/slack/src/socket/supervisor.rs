//! One slot: keeps one connection up, and opens the next before the old one ends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use diagbot_base::retry::{Backoff, Permanence as _};
use secrecy::ExposeSecret as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, protocol::WebSocketConfig},
};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    SocketParts,
    connection::{self, Connection, End},
    throttle::{ConnectThrottle, OpenError},
};
use crate::dial::{DialError, Stream};

/// Longest wait for the WebSocket handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Longest message that is read: a click carries the message it was made on, some hundred kilobytes at most.
const MESSAGE_BYTES: usize = 4 << 20;
/// Waits between attempts, from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// The least wait after Slack counted too many connections: others must go first.
const CROWDED_WAIT: Duration = Duration::from_secs(30);
/// A connection that lived so long was a success; one that did not is a failure whatever ended it.
const SETTLED: Duration = Duration::from_secs(30);

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("the address is no WebSocket address")]
    Address,
    #[error("reach Slack")]
    Dial(#[source] DialError),
    #[error("shake hands over WebSocket")]
    Handshake(#[source] Box<tungstenite::Error>),
    #[error("the WebSocket handshake took longer than {HANDSHAKE:?}")]
    TooLong,
}

/// One slot.
pub(super) struct ConnectionSupervisor {
    pub(super) parts: SocketParts,
    pub(super) throttle: Arc<ConnectThrottle>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) stop: CancellationToken,
}

impl ConnectionSupervisor {
    /// Keeps a connection until the stop signal, or until Slack's refusal is final and the last connection has ended.
    pub(super) async fn keep(self) {
        let mut links = JoinSet::new();
        let (leaving_tx, mut leaving) = mpsc::channel(8);
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut current: Option<(u64, Instant)> = None;
        loop {
            let stopping = self.stop.is_cancelled();
            if stopping || self.parts.health.failed() {
                if links.join_next().await.is_none() {
                    return;
                }
                continue;
            }
            if current.is_none() {
                let opened = tokio::select! {
                    () = self.stop.cancelled() => continue,
                    opened = self.open(&mut backoff) => opened,
                };
                let Some((socket, permit)) = opened else { continue };
                let id = self.parts.health.opened();
                current = Some((id, Instant::now()));
                let connection = Connection {
                    id,
                    parts: self.parts.clone(),
                    leaving: leaving_tx.clone(),
                    stop: self.stop.clone(),
                };
                links.spawn(async move {
                    let end = connection::serve(connection, socket).await;
                    drop(permit);
                    (id, end)
                });
            }
            let (id, end) = tokio::select! {
                () = self.stop.cancelled() => continue,
                Some(id) = leaving.recv() => (id, End::Replaced),
                Some(ended) = links.join_next() => match ended {
                    Ok(ended) => ended,
                    Err(error) => {
                        tracing::error!(error = %diagbot_base::telemetry::Chain(&error), "a Slack connection's task failed");
                        (current.map_or(0, |(id, _)| id), End::Broken("its task failed"))
                    }
                },
            };
            if let Some((_, since)) = current.take_if(|(present, _)| *present == id) {
                self.react(end, since.elapsed(), &mut backoff).await;
            }
        }
    }

    /// What to do before the next connection is opened.
    async fn react(&self, end: End, lived: Duration, backoff: &mut Backoff) {
        match end {
            End::Replaced => tracing::info!("Slack asks to replace a connection"),
            End::Broken(why) => tracing::warn!(lived_ms = lived.as_millis(), "a Slack connection ended: {why}"),
            End::Stopped => return,
            End::Disabled => {
                let reason = "Socket Mode is switched off for this app: switch it on in the app's settings and restart";
                return self.parts.health.fail(reason);
            }
            End::Crowded => {
                tracing::error!("Slack counts too many connections for this app: is the app token in use elsewhere?");
            }
        }
        if lived >= SETTLED {
            backoff.reset();
            return;
        }
        let asked = matches!(end, End::Crowded).then_some(CROWDED_WAIT);
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = backoff.wait(asked) => {}
        }
    }

    /// A connection; none after a failure, whose wait is over then.
    async fn open(&self, backoff: &mut Backoff) -> Option<(WebSocketStream<Stream>, OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the permits are never closed");
        let address = match self.throttle.open().await {
            Ok(address) => address,
            Err(OpenError::Fatal(reason)) => {
                self.parts.health.fail(&reason);
                return None;
            }
            Err(OpenError::Retry(error)) => {
                drop(permit);
                tracing::warn!(
                    error = %diagbot_base::telemetry::Chain(&error),
                    "no Slack connection can be opened"
                );
                backoff.wait(error.retry_after()).await;
                return None;
            }
        };
        match self.connect(address.expose_secret()).await {
            Ok(socket) => Some((socket, permit)),
            Err(error) => {
                drop(permit);
                tracing::warn!(error = %diagbot_base::telemetry::Chain(&error), "a Slack connection failed");
                backoff.wait(None).await;
                None
            }
        }
    }

    async fn connect(&self, address: &str) -> Result<WebSocketStream<Stream>, ConnectError> {
        let url = Url::parse(address).map_err(|_| ConnectError::Address)?;
        let tls = match url.scheme() {
            "wss" => true,
            "ws" => false,
            _ => return Err(ConnectError::Address),
        };
        let host = url.host_str().ok_or(ConnectError::Address)?;
        let port = url.port_or_known_default().ok_or(ConnectError::Address)?;
        let stream = self
            .parts
            .api
            .dialer()
            .dial(host, port, tls)
            .await
            .map_err(ConnectError::Dial)?;
        let limits = WebSocketConfig::default()
            .read_buffer_size(16 << 10)
            .max_message_size(Some(MESSAGE_BYTES))
            .max_frame_size(Some(MESSAGE_BYTES));
        let shaken = timeout(HANDSHAKE, client_async_with_config(address, stream, Some(limits))).await;
        match shaken {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(error)) => Err(ConnectError::Handshake(Box::new(error))),
            Err(_) => Err(ConnectError::TooLong),
        }
    }
}

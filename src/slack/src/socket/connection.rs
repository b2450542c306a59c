//! One connection: reads, hands envelopes over, acknowledges, pings, and ends when Slack goes or falls silent.

use std::{collections::HashMap, time::Duration};

use futures::{SinkExt as _, StreamExt as _};
use tokio::{
    sync::mpsc,
    task::{Id, JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};
use tokio_util::sync::CancellationToken;

use super::{
    Ack, SocketParts,
    envelope::{Disconnect, Envelope, Frame},
};
use crate::dial::Stream;

/// Between pings.
const PING: Duration = Duration::from_secs(5);
/// Pings that may stay unanswered before the connection counts as dead.
const MISSED_PINGS: u32 = 2;
/// Longest wait for `hello`.
const HELLO: Duration = Duration::from_secs(10);
/// Longest wait for a frame to be taken.
const WRITE: Duration = Duration::from_secs(5);
/// How long a connection that Slack asked to leave is still served: Slack closes about 10 s after the warning.
const DRAIN: Duration = Duration::from_secs(30);
/// How long envelopes under way may take after the stop signal.
const FINISH: Duration = Duration::from_secs(3);
/// Envelopes under way on one connection; above 200 people's commands at once.
const UNDER_WAY: usize = 256;

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Slack asked to replace it.
    Replaced,
    /// It broke, or fell silent.
    Broken(&'static str),
    /// Socket Mode was switched off.
    Disabled,
    /// Slack counts too many connections.
    Crowded,
    /// We were told to stop.
    Stopped,
}

/// What a connection needs.
pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) parts: SocketParts,
    /// Told once, when Slack asks to replace the connection.
    pub(super) leaving: mpsc::Sender<u64>,
    pub(super) stop: CancellationToken,
}

/// Acknowledgements under way: the envelope's id and whether it takes an answer, by task.
#[derive(Default)]
struct UnderWay {
    /// `hello` came.
    greeted: bool,
    tasks: JoinSet<Ack>,
    envelopes: HashMap<Id, (String, bool)>,
}

/// Serves the connection until it ends.
pub(super) async fn serve(connection: Connection, mut socket: WebSocketStream<Stream>) -> End {
    let mut under_way = UnderWay::default();
    let end = connection.converse(&mut socket, &mut under_way).await;
    if matches!(end, End::Replaced | End::Stopped) {
        let finished = timeout(FINISH, connection.finish(&mut socket, &mut under_way)).await;
        if finished.is_err() {
            tracing::warn!("envelopes were not acknowledged in time; Slack delivers them again");
        }
        // The other side may be gone already.
        let _ = timeout(WRITE, socket.close(None)).await;
    }
    connection.parts.health.closed(connection.id);
    if under_way.greeted {
        connection.parts.metrics.slack_connections.dec();
    }
    end
}

impl Connection {
    async fn converse(&self, socket: &mut WebSocketStream<Stream>, under_way: &mut UnderWay) -> End {
        let mut pings = interval_at(Instant::now() + PING, PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missed = 0;
        // Until `hello`: when it must have come. After a warning: when we go in any case.
        let mut limit = Some((Instant::now() + HELLO, End::Broken("no hello came")));
        loop {
            let over = limit.map_or_else(|| Instant::now() + Duration::from_hours(24), |(at, _)| at);
            tokio::select! {
                () = self.stop.cancelled() => return End::Stopped,
                () = sleep_until(over) => {
                    if let Some((_, end)) = limit {
                        return end;
                    }
                }
                _ = pings.tick() => {
                    if missed >= MISSED_PINGS {
                        return End::Broken("pings were not answered");
                    }
                    missed += 1;
                    if let Err(end) = send(socket, Message::Ping(Vec::new().into())).await {
                        return end;
                    }
                }
                Some(done) = under_way.tasks.join_next_with_id() => {
                    if let Err(end) = acknowledge(socket, under_way.finished(done)).await {
                        return end;
                    }
                }
                frame = socket.next() => {
                    missed = 0;
                    self.parts.health.heard(self.id);
                    let text = match frame {
                        Some(Ok(Message::Text(text))) => text,
                        Some(Ok(Message::Close(_))) | None => return End::Broken("Slack closed it"),
                        Some(Ok(_)) => continue,
                        Some(Err(_)) => return End::Broken("reading failed"),
                    };
                    match Frame::read(&text) {
                        Frame::Hello { connections } => {
                            limit = limit.filter(|_| under_way.greeted);
                            self.greet(under_way, connections);
                        }
                        Frame::Disconnect(Disconnect::LinkDisabled) => return End::Disabled,
                        Frame::Disconnect(Disconnect::TooMany) => return End::Crowded,
                        Frame::Disconnect(Disconnect::Leaving) => {
                            limit = Some((Instant::now() + DRAIN, End::Replaced));
                            // A full channel means that the slot has been told.
                            let _ = self.leaving.try_send(self.id);
                        }
                        Frame::Envelope(envelope) => {
                            let refused = self.hand_over(under_way, envelope);
                            if let Err(end) = acknowledge(socket, refused).await {
                                return end;
                            }
                        }
                        Frame::Unknown(kind) => tracing::warn!(kind, "Slack sent a frame that we don't know"),
                    }
                }
            }
        }
    }

    fn greet(&self, under_way: &mut UnderWay, connections: Option<usize>) {
        self.parts.health.hello(self.id, connections);
        if !under_way.greeted {
            under_way.greeted = true;
            self.parts.metrics.slack_connections.inc();
            self.parts
                .metrics
                .slack_hello_timestamp
                .set(self.parts.clock.now().as_second());
            tracing::info!(connections, "a Slack connection is up");
        }
    }

    /// Starts the handler. Where too much is under way: the acknowledgement that says so, or none, so that Slack delivers
    /// again.
    fn hand_over(&self, under_way: &mut UnderWay, envelope: Envelope) -> Option<String> {
        if under_way.tasks.len() >= UNDER_WAY {
            tracing::warn!(kind = envelope.kind, "too many envelopes are under way");
            let busy = Ack::With(self.parts.busy.clone());
            return envelope
                .accepts_response_payload
                .then(|| Envelope::ack(&envelope.envelope_id, true, busy))
                .flatten();
        }
        let known = (envelope.envelope_id.clone(), envelope.accepts_response_payload);
        let handler = self.parts.handler.clone();
        let metrics = self.parts.metrics.clone();
        let received = Instant::now();
        let task = under_way.tasks.spawn(async move {
            let ack = handler(envelope).await;
            metrics.ack_seconds.observe(received.elapsed().as_secs_f64());
            ack
        });
        under_way.envelopes.insert(task.id(), known);
        None
    }

    /// Acknowledges what is under way, without reading more.
    async fn finish(&self, socket: &mut WebSocketStream<Stream>, under_way: &mut UnderWay) {
        while let Some(done) = under_way.tasks.join_next_with_id().await {
            if acknowledge(socket, under_way.finished(done)).await.is_err() {
                return;
            }
        }
    }
}

impl UnderWay {
    /// The acknowledgement of a handler that ended; none where it wants none and after a panic, so that Slack delivers again.
    fn finished(&mut self, done: Result<(Id, Ack), JoinError>) -> Option<String> {
        match done {
            Ok((task, ack)) => {
                let (id, accepts) = self.envelopes.remove(&task)?;
                Envelope::ack(&id, accepts, ack)
            }
            Err(error) => {
                self.envelopes.remove(&error.id());
                tracing::error!(
                    error = %diagbot_base::telemetry::Chain(&error),
                    "the handler of an envelope failed"
                );
                None
            }
        }
    }
}

async fn acknowledge(socket: &mut WebSocketStream<Stream>, ack: Option<String>) -> Result<(), End> {
    match ack {
        Some(text) => send(socket, Message::text(text)).await,
        None => Ok(()),
    }
}

async fn send(socket: &mut WebSocketStream<Stream>, message: Message) -> Result<(), End> {
    match timeout(WRITE, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Broken("writing failed")),
        Err(_) => Err(End::Broken("a frame was not taken in time")),
    }
}

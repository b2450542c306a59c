//! Socket Mode connections: single-use tickets, the cap of ten, `hello`, pings, `disconnect` with its reasons, and connections
//! that die without a word.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{SinkExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, interval_at, sleep_until},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message as Frame, protocol::Role},
};

use super::{directory::APP, workspace::Workspace};

/// Orders waiting for one connection. Twice the largest burst of the load story (200 commands at once); a connection that takes
/// none of them counts as stuck and is passed over.
const ORDERS: usize = 512;
/// How long a connection without any sign of life is kept.
const SILENCE: Duration = Duration::from_mins(1);

/// What the server tells a connection's task.
#[derive(Debug)]
enum Order {
    Send(String),
    CloseAt(Instant),
    /// The TCP connection ends without a close frame.
    Break,
    /// Neither read nor written any more, but still open: a half-open link.
    Freeze,
}

/// Why Slack ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DisconnectReason {
    Warning,
    RefreshRequested,
    LinkDisabled,
    TooManyWebsockets,
}

impl DisconnectReason {
    /// From its name on the wire.
    pub(super) fn parse(name: &str) -> Option<DisconnectReason> {
        Some(match name {
            "warning" => DisconnectReason::Warning,
            "refresh_requested" => DisconnectReason::RefreshRequested,
            "link_disabled" => DisconnectReason::LinkDisabled,
            "too_many_websockets" => DisconnectReason::TooManyWebsockets,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            DisconnectReason::Warning => "warning",
            DisconnectReason::RefreshRequested => "refresh_requested",
            DisconnectReason::LinkDisabled => "link_disabled",
            DisconnectReason::TooManyWebsockets => "too_many_websockets",
        }
    }

    /// Whether the connection stays usable for a while.
    fn has_grace(self) -> bool {
        matches!(self, DisconnectReason::Warning | DisconnectReason::RefreshRequested)
    }

    fn envelope(self) -> String {
        json!({"type": "disconnect", "reason": self.name(), "debug_info": {"host": "applink-sandbox"}}).to_string()
    }
}

/// How a connection is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outage {
    /// The TCP connection breaks.
    Break,
    /// The connection stays open and dead.
    HalfOpen,
}

#[derive(Debug)]
struct Link {
    orders: mpsc::Sender<Order>,
    receives: bool,
}

/// The open connections of the app, by number.
#[derive(Debug, Default)]
pub(super) struct Links {
    opened: u64,
    last_used: u64,
    open: BTreeMap<u64, Link>,
    tickets: HashSet<String>,
}

impl Links {
    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// How many were ever opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// A ticket was handed out.
    pub(super) fn issue(&mut self, ticket: String) {
        self.tickets.insert(ticket);
    }

    /// Uses a ticket up; false if it is not one, or was used before.
    pub(super) fn redeem(&mut self, ticket: &str) -> bool {
        self.tickets.remove(ticket)
    }

    /// Writes an envelope to the next connection in turn. Returns its number, `None` if there is none.
    pub(super) fn send(&mut self, envelope: &Value) -> Option<u64> {
        let text = envelope.to_string();
        let turn: Vec<u64> = self
            .open
            .range(self.last_used + 1..)
            .chain(self.open.range(..=self.last_used))
            .filter(|(_, link)| link.receives)
            .map(|(number, _)| *number)
            .collect();
        let taken = turn.into_iter().find(|number| {
            self.open
                .get(number)
                .is_some_and(|link| link.orders.try_send(Order::Send(text.clone())).is_ok())
        })?;
        self.last_used = taken;
        Some(taken)
    }

    /// Announces the end of up to `most` connections, oldest first. Returns how many were told.
    pub(super) fn disconnect(&mut self, reason: DisconnectReason, most: usize, grace: Duration) -> usize {
        let mut told = 0;
        for link in self.open.values_mut().take(most) {
            let end = Instant::now() + if reason.has_grace() { grace } else { Duration::ZERO };
            link.receives = reason.has_grace();
            let sent = link.orders.try_send(Order::Send(reason.envelope())).is_ok();
            told += usize::from(sent && link.orders.try_send(Order::CloseAt(end)).is_ok());
        }
        told
    }

    /// Makes up to `most` connections fail, oldest first. Returns how many.
    pub(super) fn fail(&mut self, outage: Outage, most: usize) -> usize {
        let order = |outage| match outage {
            Outage::Break => Order::Break,
            Outage::HalfOpen => Order::Freeze,
        };
        self.open
            .values()
            .take(most)
            .filter(|link| link.orders.try_send(order(outage)).is_ok())
            .count()
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve(workspace: Arc<Workspace>, upgraded: hyper::upgrade::Upgraded) {
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let (orders, inbox) = mpsc::channel(ORDERS);
    let registered = workspace.change(|state| {
        let links = &mut state.links;
        if links.count() >= workspace.config.connection_cap {
            return None;
        }
        links.opened += 1;
        links.open.insert(links.opened, Link { orders, receives: true });
        Some((links.opened, links.count()))
    });
    let Some((number, connections)) = registered else {
        // A client that has gone needs no farewell.
        let _ = socket
            .send(Frame::text(DisconnectReason::TooManyWebsockets.envelope()))
            .await;
        let _ = socket.close(None).await;
        return;
    };
    let hello = json!({
        "type": "hello", "num_connections": connections, "connection_info": {"app_id": APP},
        "debug_info": {"host": "applink-sandbox", "started": jiff::Timestamp::now().to_string(), "build_number": 1,
            "approximate_connection_time": 18060},
    });
    if socket.send(Frame::text(hello.to_string())).await.is_ok() {
        converse(&workspace, &mut socket, inbox).await;
    }
    workspace.change(|state| state.links.open.remove(&number));
}

async fn converse(
    workspace: &Workspace,
    socket: &mut WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    mut inbox: mpsc::Receiver<Order>,
) {
    let period = workspace.config.ping_interval;
    let mut pings = interval_at(Instant::now() + period, period);
    let mut close_at = None;
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            () = workspace.stop.cancelled() => {
                let _ = socket.close(None).await;
                return;
            }
            () = due(close_at) => {
                let _ = socket.close(None).await;
                return;
            }
            order = inbox.recv() => match order {
                Some(Order::Send(text)) => {
                    if socket.send(Frame::text(text)).await.is_err() {
                        return;
                    }
                }
                Some(Order::CloseAt(at)) => close_at = Some(at),
                Some(Order::Break) | None => return,
                Some(Order::Freeze) => return freeze(workspace, inbox).await,
            },
            _ = pings.tick() => {
                let silent = heard.elapsed() > SILENCE;
                if silent || socket.send(Frame::Ping("Ping from applink-sandbox".into())).await.is_err() {
                    return;
                }
            }
            frame = socket.next() => {
                heard = Instant::now();
                match frame {
                    Some(Ok(Frame::Text(text))) => hear(workspace, &text),
                    Some(Ok(Frame::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                }
            }
        }
    }
}

/// Ends when the moment has come; never, if there is none.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A half-open connection: it takes envelopes and loses them, until it is broken or the server stops.
async fn freeze(workspace: &Workspace, mut inbox: mpsc::Receiver<Order>) {
    loop {
        tokio::select! {
            () = workspace.stop.cancelled() => return,
            order = inbox.recv() => match order {
                Some(Order::Break) | None => return,
                Some(Order::CloseAt(_) | Order::Send(_) | Order::Freeze) => {}
            },
        }
    }
}

/// A client said something; all that Slack listens to is an acknowledgement.
fn hear(workspace: &Workspace, text: &str) {
    let Ok(said) = serde_json::from_str::<Value>(text) else {
        return;
    };
    if let Some(envelope_id) = said["envelope_id"].as_str() {
        workspace.acknowledge(envelope_id, said["payload"].clone());
    }
}

use std::time::{Duration, Instant};

use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

use super::*;
use crate::config::SlackTokens;

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A Slack that is played by the test: answers `apps.connections.open`, hands connections out, and is its own proxy.
struct Stub {
    port: u16,
    sockets: mpsc::Receiver<WebSocketStream<TcpStream>>,
    opens: mpsc::Receiver<Instant>,
    tunnels: mpsc::Receiver<()>,
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Ends {
    sockets: mpsc::Sender<WebSocketStream<TcpStream>>,
    opens: mpsc::Sender<Instant>,
    tunnels: mpsc::Sender<()>,
    answer: String,
}

impl Stub {
    async fn start(answer: Option<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = answer.unwrap_or_else(|| json!({ "ok": true, "url": format!("ws://127.0.0.1:{port}/link") }));
        let ((to_sockets, sockets), (to_opens, opens)) = (mpsc::channel(16), mpsc::channel(64));
        let (to_tunnels, tunnels) = mpsc::channel(64);
        let ends = Ends {
            sockets: to_sockets,
            opens: to_opens,
            tunnels: to_tunnels,
            answer: answer.to_string(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                serving.spawn(serve(stream, ends.clone()));
            }
        });
        Self {
            port,
            sockets,
            opens,
            tunnels,
            _tasks: tasks,
        }
    }

    /// The next connection, greeted.
    async fn greet(&mut self) -> WebSocketStream<TcpStream> {
        let mut socket = timeout(PATIENCE, self.sockets.recv()).await.unwrap().unwrap();
        socket
            .send(Message::text(r#"{"type":"hello","num_connections":1}"#))
            .await
            .unwrap();
        socket
    }
}

async fn serve(mut stream: TcpStream, ends: Ends) {
    let mut first = [0; 4];
    while stream.peek(&mut first).await.is_ok_and(|n| n < 4) {}
    if &first == b"CONN" {
        read_head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            .await
            .unwrap();
        ends.tunnels.try_send(()).unwrap();
        while stream.peek(&mut first).await.is_ok_and(|n| n < 4) {}
    }
    if &first == b"GET " {
        let socket = accept_async(stream).await.unwrap();
        ends.sockets.send(socket).await.unwrap();
        return;
    }
    ends.opens.try_send(Instant::now()).unwrap();
    read_head(&mut stream).await;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
        ends.answer.len(),
        ends.answer
    );
    stream.write_all(head.as_bytes()).await.unwrap();
}

async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
}

/// The socket under test.
struct Tested {
    health: SocketHealth,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

fn start(stub: &Stub, proxied: bool, handler: Handler) -> Tested {
    let proxy = proxied.then(|| format!("http://127.0.0.1:{}", stub.port));
    let config: SlackConfig = serde_json::from_value(json!({
        "apiUrl": format!("http://127.0.0.1:{}/api", stub.port), "botTokenFile": "/b", "appTokenFile": "/a",
        "connections": 1, "proxy": proxy,
    }))
    .unwrap();
    let tokens = SlackTokens {
        bot: SecretString::from("xoxb-1"),
        app: SecretString::from("xapp-1"),
    };
    let metrics = Metrics::new();
    let health = SocketHealth::default();
    let parts = SocketParts {
        api: SlackApi::new(&config, &tokens, metrics.clone()).unwrap(),
        handler,
        busy: json!({ "text": "busy" }),
        health: health.clone(),
        metrics,
        clock: Clock::System,
    };
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let stopped = stop.clone();
    tasks.spawn(async move { run(&config, parts, stopped).await });
    Tested { health, stop, tasks }
}

impl Tested {
    async fn end(mut self) {
        self.stop.cancel();
        timeout(PATIENCE, self.tasks.join_next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

fn answering() -> Handler {
    Arc::new(|_| async { Ack::Plain }.boxed())
}

fn envelope(id: &str, kind: &str) -> Message {
    Message::text(json!({ "envelope_id": id, "type": kind, "payload": {} }).to_string())
}

/// The id of the next acknowledgement.
async fn acknowledged(socket: &mut WebSocketStream<TcpStream>) -> String {
    let wait = async {
        loop {
            if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
                let ack: Value = serde_json::from_str(&text).unwrap();
                return ack["envelope_id"].as_str().unwrap().to_owned();
            }
        }
    };
    timeout(PATIENCE, wait).await.unwrap()
}

#[tokio::test]
async fn a_handler_that_panics_or_hangs_costs_only_its_own_envelope() {
    let mut stub = Stub::start(None).await;
    let handler: Handler = Arc::new(|envelope| {
        async move {
            match envelope.kind.as_str() {
                "panics" => panic!("as told"),
                "hangs" => std::future::pending().await,
                _ => Ack::Plain,
            }
        }
        .boxed()
    });
    let tested = start(&stub, false, handler);
    let mut socket = stub.greet().await;
    for (id, kind) in [
        ("1", "panics"),
        ("2", "hangs"),
        ("3", "slash_commands"),
        ("4", "never heard of"),
    ] {
        socket.send(envelope(id, kind)).await.unwrap();
    }
    socket.send(Message::text("no JSON")).await.unwrap();
    socket.send(envelope("5", "interactive")).await.unwrap();
    let mut acks = [
        acknowledged(&mut socket).await,
        acknowledged(&mut socket).await,
        acknowledged(&mut socket).await,
    ];
    acks.sort();
    assert_eq!(acks, ["3", "4", "5"]);
    tested.end().await;
}

#[tokio::test]
async fn a_warning_opens_the_next_connection_and_the_old_one_is_served_until_it_closes() {
    let mut stub = Stub::start(None).await;
    let tested = start(&stub, false, answering());
    let mut old = stub.greet().await;
    old.send(Message::text(r#"{"type":"disconnect","reason":"warning"}"#))
        .await
        .unwrap();
    let mut new = stub.greet().await;
    old.send(envelope("late", "slash_commands")).await.unwrap();
    assert_eq!(acknowledged(&mut old).await, "late");
    new.send(envelope("next", "slash_commands")).await.unwrap();
    assert_eq!(acknowledged(&mut new).await, "next");
    assert!(tested.health.report().0);
    tested.end().await;
}

#[tokio::test]
async fn a_revoked_token_ends_the_attempts_and_says_what_to_do() {
    let mut stub = Stub::start(Some(json!({ "ok": false, "error": "invalid_auth" }))).await;
    let tested = start(&stub, false, answering());
    let wait = async {
        while !tested.health.failed() {
            stub.opens.recv().await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let _ = timeout(Duration::from_secs(2), wait).await;
    let (ready, why) = tested.health.report();
    assert!(
        !ready && why.contains("invalid_auth") && why.contains("restart"),
        "{why}"
    );
    assert!(stub.opens.try_recv().is_err(), "one call is enough");
    tested.end().await;
}

#[tokio::test]
async fn connections_that_end_at_once_are_opened_ever_more_slowly() {
    let mut stub = Stub::start(None).await;
    let tested = start(&stub, false, answering());
    let begun = Instant::now();
    for _ in 0..4 {
        let mut socket = timeout(PATIENCE, stub.sockets.recv()).await.unwrap().unwrap();
        socket.close(None).await.unwrap();
    }
    // Half of 500 ms, 1 s and 2 s, at the least.
    assert!(begun.elapsed() >= Duration::from_millis(1_750), "{:?}", begun.elapsed());
    tested.end().await;
}

#[tokio::test]
async fn everything_goes_through_the_proxy_where_there_is_one() {
    let mut stub = Stub::start(None).await;
    let tested = start(&stub, true, answering());
    let mut socket = stub.greet().await;
    socket.send(envelope("1", "slash_commands")).await.unwrap();
    assert_eq!(acknowledged(&mut socket).await, "1");
    for what in ["the Web API", "the socket"] {
        timeout(PATIENCE, stub.tunnels.recv()).await.expect(what).expect(what);
    }
    tested.end().await;
}

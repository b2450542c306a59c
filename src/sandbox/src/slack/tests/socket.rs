//! Socket Mode: tickets, the cap, turns, redelivery, and ends of connections.

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message as Frame};

use super::{Bench, PATIENCE, SlackConfig};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The next envelope; `None` when the connection has ended.
async fn next(socket: &mut Socket) -> Option<Value> {
    loop {
        match timeout(PATIENCE, socket.next())
            .await
            .expect("something happens in time")
        {
            Some(Ok(Frame::Text(text))) => return Some(serde_json::from_str(&text).expect("an envelope is JSON")),
            Some(Ok(Frame::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}

/// A connection that has been greeted.
async fn connect(bench: &Bench) -> (Socket, Value) {
    let (mut socket, _) = connect_async(bench.ticket().await).await.expect("the ticket is good");
    let hello = next(&mut socket).await.expect("a greeting");
    (socket, hello)
}

async fn ack(socket: &mut Socket, envelope: &Value) {
    let ack = json!({"envelope_id": envelope["envelope_id"]}).to_string();
    socket.send(Frame::text(ack)).await.expect("the connection is open");
}

fn command(text: &str) -> Value {
    json!({"user": "ada", "channel": "incidents", "text": text})
}

#[tokio::test]
async fn a_ticket_is_good_for_one_connection() {
    let bench = Bench::new(SlackConfig::default()).await;
    let url = bench.ticket().await;
    let (mut socket, _) = connect_async(&url).await.expect("the first use is good");
    assert_eq!(next(&mut socket).await.expect("a greeting")["type"], "hello");
    assert!(connect_async(&url).await.is_err(), "the second use is refused");
    bench.server.stop().await;
}

#[tokio::test]
async fn the_eleventh_connection_is_told_that_there_are_too_many() {
    let bench = Bench::new(SlackConfig::default()).await;
    let mut open = Vec::new();
    for number in 1..=10 {
        let (socket, hello) = connect(&bench).await;
        assert_eq!(hello["num_connections"], number);
        open.push(socket);
    }
    let (mut socket, told) = connect(&bench).await;
    assert_eq!(
        (&told["type"], &told["reason"]),
        (&json!("disconnect"), &json!("too_many_websockets"))
    );
    assert_eq!(next(&mut socket).await, None);
    bench.server.stop().await;
}

#[tokio::test]
async fn envelopes_take_turns_over_the_connections() {
    let bench = Bench::new(SlackConfig::default()).await;
    let (mut one, _) = connect(&bench).await;
    let (mut two, _) = connect(&bench).await;
    for _ in 0..2 {
        for socket in [&mut one, &mut two] {
            let acknowledge = async {
                let envelope = next(socket).await.expect("an envelope");
                ack(socket, &envelope).await;
            };
            let (reply, ()) = tokio::join!(bench.act("command", command("/diag x")), acknowledge);
            assert_eq!(reply["delivered"], true);
        }
    }
    bench.server.stop().await;
}

#[tokio::test]
async fn an_unacknowledged_event_comes_again_under_a_new_and_then_the_same_envelope() {
    let bench = Bench::impatient().await;
    let (mut socket, _) = connect(&bench).await;
    let mention = json!({"user": "ada", "channel": "incidents", "text": "@diag help"});
    let ignore = async {
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(next(&mut socket).await.expect("an envelope"));
        }
        seen
    };
    let (reply, seen) = tokio::join!(bench.act("message", mention), ignore);
    assert_eq!(reply["delivered"], false);
    let (first, new, same) = (&seen[0], &seen[1], &seen[2]);
    assert_eq!(
        (&first["retry_attempt"], &new["retry_attempt"], &same["retry_attempt"]),
        (&json!(0), &json!(1), &json!(0))
    );
    assert_eq!(new["retry_reason"], "timeout");
    assert_ne!(first["envelope_id"], new["envelope_id"]);
    assert_eq!(first["envelope_id"], same["envelope_id"]);
    assert_eq!(first["payload"]["event_id"], new["payload"]["event_id"]);
    bench.server.stop().await;
}

#[tokio::test]
async fn an_unacknowledged_command_tells_the_person_and_comes_again_with_its_trigger() {
    let bench = Bench::impatient().await;
    let (mut socket, _) = connect(&bench).await;
    let (reply, first) = tokio::join!(bench.act("command", command("/diag x")), next(&mut socket));
    assert_eq!(reply["error"], "operation_timeout");
    let shown = bench
        .look("/channels/incidents?as=ada&contains=operation_timeout&wait_ms=5000")
        .await;
    assert_eq!(shown["matched"], true);
    let again = next(&mut socket).await.expect("an envelope");
    assert_eq!(
        first.expect("an envelope")["payload"]["trigger_id"],
        again["payload"]["trigger_id"]
    );
    bench.server.stop().await;
}

#[tokio::test]
async fn a_warned_connection_still_receives_and_then_ends() {
    let bench = Bench::impatient().await;
    let (mut socket, _) = connect(&bench).await;
    bench.act("disconnect", json!({"reason": "warning"})).await;
    assert_eq!(next(&mut socket).await.expect("a warning")["reason"], "warning");
    let acknowledge = async {
        let envelope = next(&mut socket).await.expect("an envelope within the grace");
        ack(&mut socket, &envelope).await;
    };
    let (reply, ()) = tokio::join!(bench.act("command", command("/diag x")), acknowledge);
    assert_eq!(reply["delivered"], true);
    assert_eq!(next(&mut socket).await, None);
    let closed = bench.look("/connections?at_most=0&wait_ms=5000").await;
    assert_eq!(closed["matched"], true);
    bench.server.stop().await;
}

#[tokio::test]
async fn a_disabled_link_ends_at_once_and_commands_fail_visibly() {
    let bench = Bench::impatient().await;
    let (mut socket, _) = connect(&bench).await;
    bench.act("disconnect", json!({"reason": "link_disabled"})).await;
    assert_eq!(next(&mut socket).await.expect("a reason")["reason"], "link_disabled");
    assert_eq!(next(&mut socket).await, None);
    assert_eq!(
        bench.act("command", command("/diag x")).await["error"],
        "dispatch_failed"
    );
    bench.server.stop().await;
}

#[tokio::test]
async fn a_half_open_connection_swallows_envelopes_without_a_word() {
    let bench = Bench::impatient().await;
    let (_socket, _) = connect(&bench).await;
    bench.act("outage", json!({"kind": "half_open"})).await;
    assert_eq!(
        bench.act("command", command("/diag x")).await["error"],
        "operation_timeout"
    );
    assert_eq!(
        bench.look("/connections").await["connections"],
        1,
        "Slack still counts it"
    );
    bench.server.stop().await;
}

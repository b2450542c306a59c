//! The local Slack as a client meets it: over HTTP and WebSocket, with the clocks turned up.

mod morphism;
mod socket;

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

use super::{RedeliveredEnvelope, Redelivery, SlackConfig, SlackServer};

/// Enough for a step on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server and someone to talk to it.
struct Bench {
    server: SlackServer,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Bench {
    async fn new(config: SlackConfig) -> Bench {
        let server = SlackServer::start(config).await.expect("a free port on loopback");
        Bench {
            server,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// With an ack limit of 200 ms and redelivery after 300 ms (new envelope) and 600 ms (the same).
    async fn impatient() -> Bench {
        let redeliver = |millis, envelope| Redelivery {
            after: Duration::from_millis(millis),
            envelope,
        };
        let schedule = vec![
            redeliver(300, RedeliveredEnvelope::New),
            redeliver(600, RedeliveredEnvelope::Same),
        ];
        Bench::new(SlackConfig {
            ack_limit: Duration::from_millis(200),
            event_redelivery: schedule.clone(),
            interaction_redelivery: schedule,
            disconnect_grace: Duration::from_millis(500),
            ..SlackConfig::default()
        })
        .await
    }

    async fn request(
        &self,
        method: Method,
        url: String,
        token: &str,
        body: String,
    ) -> Result<(StatusCode, Value), String> {
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(Full::from(body))
            .expect("a well-formed request");
        let answer = self.client.request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = answer
            .into_body()
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// A call of the Web API with the bot token.
    async fn api(&self, method: &str, args: Value) -> Result<(StatusCode, Value), String> {
        let url = format!("{}/{method}", self.server.api_url());
        self.request(Method::POST, url, self.server.bot_token(), args.to_string())
            .await
    }

    /// Something a person does.
    async fn act(&self, what: &str, body: Value) -> Value {
        let url = format!("{}/people/{what}", self.server.people_url());
        let (status, reply) = self
            .request(Method::POST, url, "", body.to_string())
            .await
            .expect("an answer");
        assert_eq!(status, StatusCode::OK, "{what}: {reply}");
        reply
    }

    /// Something a person looks at.
    async fn look(&self, path: &str) -> Value {
        let url = format!("{}/people{path}", self.server.people_url());
        self.request(Method::GET, url, "", String::new())
            .await
            .expect("an answer")
            .1
    }

    /// A WebSocket address with a fresh ticket.
    async fn ticket(&self) -> String {
        let url = format!("{}/apps.connections.open", self.server.api_url());
        let (_, answer) = self
            .request(Method::POST, url, self.server.app_token(), String::new())
            .await
            .expect("an answer");
        answer["url"].as_str().expect("an address").to_owned()
    }
}

#[tokio::test]
async fn a_lost_answer_leaves_the_message_posted() {
    let bench = Bench::new(SlackConfig::default()).await;
    bench
        .act("faults", json!({"method": "chat.postMessage", "kind": "lost_answer"}))
        .await;
    let metadata = json!({"event_type": "run", "event_payload": {"run": "d-1"}});
    let args = json!({"channel": "C0INCIDENT", "text": "once", "metadata": metadata});
    bench
        .api("chat.postMessage", args.clone())
        .await
        .expect_err("the connection breaks");
    let read = json!({"channel": "C0INCIDENT", "include_all_metadata": true});
    let (_, history) = bench.api("conversations.history", read).await.expect("an answer");
    assert_eq!(history["messages"].as_array().map(Vec::len), Some(1));
    assert_eq!(history["messages"][0]["metadata"], metadata);
    bench.server.stop().await;
}

#[tokio::test]
async fn a_fault_strikes_as_often_as_it_was_armed_and_does_nothing_else() {
    let bench = Bench::new(SlackConfig::default()).await;
    bench
        .act(
            "faults",
            json!({"method": "chat.update", "kind": "status_500", "count": 2}),
        )
        .await;
    let args = json!({"channel": "C0INCIDENT", "ts": "1.000001", "text": "x"});
    for status in [500, 500, 200] {
        assert_eq!(
            bench
                .api("chat.update", args.clone())
                .await
                .expect("an answer")
                .0
                .as_u16(),
            status
        );
    }
    bench.server.stop().await;
}

#[tokio::test]
async fn a_method_outside_the_scopes_names_the_one_it_needs() {
    let scopes = vec!["commands".to_owned()];
    let bench = Bench::new(SlackConfig {
        scopes,
        ..SlackConfig::default()
    })
    .await;
    let (_, answer) = bench
        .api("chat.postMessage", json!({"channel": "C0INCIDENT", "text": "x"}))
        .await
        .expect("an answer");
    assert_eq!(
        answer,
        json!({"ok": false, "error": "missing_scope", "needed": "chat:write", "provided": "commands"})
    );
    bench.server.stop().await;
}

#[tokio::test]
async fn people_can_only_click_what_they_see() {
    let bench = Bench::new(SlackConfig::default()).await;
    let button = json!({"type": "button", "text": {"type": "plain_text", "text": "Go"}, "action_id": "go"});
    let blocks = json!([{"type": "actions", "elements": [button]}]);
    let (_, posted) = bench
        .api(
            "chat.postMessage",
            json!({"channel": "C0WARROOM1", "text": "x", "blocks": blocks}),
        )
        .await
        .expect("an answer");
    let click = |user: &str, label: &str| {
        json!({"user": user, "channel": "war-room", "ts": posted["ts"], "label": label}).to_string()
    };
    for (body, what) in [
        (click("linus", "Go"), "linus is not in war-room"),
        (click("ada", "Stop"), "that is not in the message"),
    ] {
        let url = format!("{}/people/click", bench.server.people_url());
        let (status, reply) = bench.request(Method::POST, url, "", body).await.expect("an answer");
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(
            reply["error"].as_str().is_some_and(|error| error.contains(what)),
            "{reply}"
        );
    }
    bench.server.stop().await;
}

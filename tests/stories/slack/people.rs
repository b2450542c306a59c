//! People at the local Slack: they type, click and read over its people API.

#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

/// The people of one local Slack.
pub(crate) struct People {
    url: String,
    client: Client<HttpConnector, Full<bytes::Bytes>>,
}

impl People {
    pub(crate) fn of(url: String) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { url, client }
    }

    async fn call(&self, request: http::request::Builder, body: String) -> Value {
        let request = request.body(Full::from(body)).unwrap();
        let answer = self.client.request(request).await.unwrap();
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert!(status.is_success(), "{value}");
        value
    }

    pub(crate) async fn see(&self, path: &str) -> Value {
        let request = http::Request::get(format!("{}/people/{path}", self.url));
        self.call(request, String::new()).await
    }

    pub(crate) async fn act(&self, what: &str, body: Value) -> Value {
        let request = http::Request::post(format!("{}/people/{what}", self.url));
        self.call(request, body.to_string()).await
    }

    /// Types a command; gives the acknowledgement's text. It must come within a second.
    pub(crate) async fn command(&self, user: &str, channel: &str, text: &str) -> String {
        let body = json!({ "user": user, "channel": channel, "text": format!("/diag {text}") });
        let reply = self.act("command", body).await;
        assert_eq!(reply["delivered"], true, "{reply}");
        assert!(reply["ack_ms"].as_u64().unwrap() < 1_000, "{reply}");
        reply["ack"]["text"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) async fn click(&self, user: &str, channel: &str, ts: &str, label: &str) {
        let body = json!({ "user": user, "channel": channel, "ts": ts, "label": label });
        let reply = self.act("click", body).await;
        assert_eq!(reply["delivered"], true, "{reply}");
    }

    pub(crate) async fn fault(&self, method: &str, kind: &str, count: u32) {
        self.act("faults", json!({ "method": method, "kind": kind, "count": count }))
            .await;
    }

    /// How often the bot has called a method.
    pub(crate) async fn calls(&self, method: &str) -> usize {
        let log = self.see(&format!("log?method={method}")).await;
        log["calls"].as_array().unwrap().len()
    }

    /// Waits until the bot has acknowledged so many envelopes of a type.
    pub(crate) async fn acknowledges(&self, kind: &str, count: usize) {
        let arrived = diagbot_sandbox::wait::until(Duration::from_secs(20), "envelopes are acknowledged", || async {
            let log = self.see("log").await;
            let envelopes = log["envelopes"].as_array().into_iter().flatten();
            let acknowledged = envelopes.filter(|e| e["type"] == kind && e["ack_ms"].is_u64()).count();
            Ok((acknowledged >= count).then_some(()))
        });
        arrived.await.unwrap();
    }

    /// Waits until a message of the channel holds the text; gives all messages, as plain lines.
    pub(crate) async fn reads(&self, channel: &str, text: &str) -> Vec<Message> {
        let wait = Duration::from_secs(20).as_millis();
        let query: String = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("plain", "1")
            .append_pair("contains", text)
            .append_pair("wait_ms", &wait.to_string())
            .finish();
        let seen = self.see(&format!("channels/{channel}?{query}")).await;
        let messages: Vec<Message> = seen["messages"].as_array().unwrap().iter().map(Message::of).collect();
        assert_eq!(
            seen["matched"], true,
            "nobody read {text:?} in {channel}: {messages:#?}"
        );
        messages
    }
}

/// A message as people see it.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) ts: String,
    pub(crate) thread_ts: Option<String>,
    pub(crate) text: String,
    pub(crate) by_bot: bool,
    pub(crate) ephemeral: bool,
    pub(crate) blocks: usize,
    pub(crate) part: Option<String>,
    pub(crate) edits: usize,
}

impl Message {
    fn of(value: &Value) -> Self {
        let lines = value["plain"].as_array().cloned().unwrap_or_default();
        let lines: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
        Self {
            ts: value["ts"].as_str().unwrap_or_default().to_owned(),
            thread_ts: value["thread_ts"].as_str().map(str::to_owned),
            text: lines.join("\n"),
            by_bot: value["user"] == "U0DIAG0001",
            ephemeral: value["ephemeral_to"].is_string(),
            blocks: value["blocks"].as_array().map_or(0, Vec::len),
            part: value["metadata"]["event_payload"]["part"].as_str().map(str::to_owned),
            edits: value["history"].as_array().map_or(0, Vec::len),
        }
    }
}

/// The bot's messages that everybody sees.
pub(crate) fn public(messages: &[Message]) -> Vec<&Message> {
    messages.iter().filter(|m| m.by_bot && !m.ephemeral).collect()
}

//! A client of the local Slack's people API: what a person in a channel would type, click and read.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// Longest wait for an answer of the local Slack; it holds a command's answer back for Slack's own 3 s.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// A person's way into the local Slack.
#[derive(Debug, Clone)]
pub struct People {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A message as people see it.
#[derive(Debug, Clone, Deserialize)]
pub struct Message {
    /// Slack's id of the message.
    pub ts: String,
    /// The thread it stands in.
    #[serde(default)]
    pub thread_ts: Option<String>,
    /// Who wrote it.
    #[serde(default)]
    pub user: String,
    /// Its text.
    #[serde(default)]
    pub text: String,
    /// Its blocks.
    #[serde(default)]
    pub blocks: Value,
    /// Its metadata.
    #[serde(default)]
    pub metadata: Value,
    /// The only reader, for an ephemeral message.
    #[serde(default)]
    pub ephemeral_to: Option<String>,
    /// The message as lines of plain text.
    #[serde(default)]
    pub plain: Vec<String>,
}

impl People {
    /// People of the local Slack at `base`, `http://127.0.0.1:port`.
    pub fn at(base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// Types a slash command; returns what the local Slack says of its delivery, with the ack.
    pub async fn command(&self, user: &str, channel: &str, text: &str) -> anyhow::Result<Value> {
        self.post(
            "/people/command",
            &json!({ "user": user, "channel": channel, "text": text }),
        )
        .await
    }

    /// Writes a message, into a thread if one is given; returns its `ts`.
    pub async fn message(
        &self,
        user: &str,
        channel: &str,
        text: &str,
        thread_ts: Option<&str>,
    ) -> anyhow::Result<String> {
        let mut body = json!({ "user": user, "channel": channel, "text": text });
        if let Some(ts) = thread_ts {
            body["thread_ts"] = json!(ts);
        }
        let answer = self.post("/people/message", &body).await?;
        answer["ts"]
            .as_str()
            .map(str::to_owned)
            .context("the message has no ts")
    }

    /// Clicks the button with this label, or with this action id.
    pub async fn click(&self, user: &str, channel: &str, ts: &str, button: Button<'_>) -> anyhow::Result<Value> {
        let mut body = json!({ "user": user, "channel": channel, "ts": ts });
        match button {
            Button::Label(label) => body["label"] = json!(label),
            Button::Action(action) => body["action_id"] = json!(action),
        }
        self.post("/people/click", &body).await
    }

    /// Reads a channel, oldest message first.
    pub async fn read(&self, channel: &str) -> anyhow::Result<Vec<Message>> {
        let answer = self.get(&format!("/people/channels/{channel}?plain=1")).await?;
        serde_json::from_value(answer["messages"].clone()).context("read the channel's messages")
    }

    /// Makes the next calls of a Web API method fail: see the people API's `faults`.
    pub async fn fault(&self, fault: &Value) -> anyhow::Result<Value> {
        self.post("/people/faults", fault).await
    }

    /// Every Web API call so far.
    pub async fn log(&self) -> anyhow::Result<Value> {
        self.get("/people/log").await
    }

    /// Posts to any other part of the people API.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, Bytes::from(body.to_string())).await
    }

    /// Gets any other part of the people API.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Value> {
        let uri: Uri = format!("{}{path}", self.base).parse().context("build the address")?;
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .context("build the request")?;
        let exchange = async {
            let response = self.client.request(request).await.context("call the local Slack")?;
            let status = response.status();
            let body = response
                .into_body()
                .collect()
                .await
                .context("read the local Slack's answer")?
                .to_bytes();
            anyhow::Ok((status, body))
        };
        let (status, body) = tokio::time::timeout(ANSWER_DEADLINE, exchange)
            .await
            .context("the local Slack did not answer")??;
        if status != StatusCode::OK {
            bail!(
                "the local Slack answered {status} to {path}: {}",
                String::from_utf8_lossy(&body)
            );
        }
        serde_json::from_slice(&body).context("read the local Slack's JSON")
    }
}

/// Opens a link as a person's browser would; the whole body comes into memory.
pub async fn fetch(url: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client
        .get(url.parse().context("read the link")?)
        .await
        .context("open the link")?;
    let status = response.status();
    Ok((
        status,
        response
            .into_body()
            .collect()
            .await
            .context("read the artifact")?
            .to_bytes(),
    ))
}

/// Which button.
#[derive(Debug, Clone, Copy)]
pub enum Button<'a> {
    /// By what stands on it.
    Label(&'a str),
    /// By its action id.
    Action(&'a str),
}

impl Message {
    /// Every link `<url|label>` of the message's text and blocks, and every URL of a button, with its label.
    pub fn links(&self) -> Vec<(String, String)> {
        let mut links = Vec::new();
        collect_links(&self.blocks, &mut links);
        if links.is_empty() {
            links_of_text(&self.text, &mut links);
        }
        links
    }
}

fn collect_links(value: &Value, links: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => links_of_text(text, links),
        Value::Array(items) => items.iter().for_each(|item| collect_links(item, links)),
        Value::Object(fields) => {
            if let (Some(url), Some(label)) = (fields.get("url").and_then(Value::as_str), fields.get("text")) {
                links.push((url.to_owned(), label["text"].as_str().unwrap_or_default().to_owned()));
            }
            fields
                .iter()
                .filter(|(key, _)| *key != "url")
                .for_each(|(_, item)| collect_links(item, links));
        }
        _ => {}
    }
}

/// Slack's `<http…|label>`; Slack wants `&` in it written as `&amp;`.
fn links_of_text(text: &str, links: &mut Vec<(String, String)>) {
    let mut rest = text;
    while let Some(start) = rest.find("<http") {
        rest = &rest[start + 1..];
        let Some(end) = rest.find('>') else { break };
        let (url, label) = rest[..end].split_once('|').unwrap_or((&rest[..end], ""));
        links.push((url.replace("&amp;", "&"), label.to_owned()));
        rest = &rest[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_in_text_and_buttons() {
        let message: Message = serde_json::from_value(json!({
            "ts": "1.2",
            "blocks": [
                { "type": "section", "text": { "type": "mrkdwn", "text": "see <http://a/?x=1&amp;y=2|threads.txt> now" } },
                { "type": "actions", "elements": [{ "type": "button", "url": "http://b/", "text": { "type": "plain_text", "text": "Open" } }] },
            ],
        }))
        .expect("a message");
        assert_eq!(
            message.links(),
            [
                ("http://a/?x=1&y=2".to_owned(), "threads.txt".to_owned()),
                ("http://b/".to_owned(), "Open".to_owned())
            ]
        );
    }
}

//! The methods that write, and those about ourselves.

use secrecy::SecretString;
use serde_json::{Value, json};

use super::{ApiError, CallArguments, SlackApi, Token};
use crate::views::Message;

/// Type of our message metadata.
const METADATA_EVENT: &str = "diagbot_run";

/// Who we are, as `auth.test` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Our team (`T…`).
    pub team: String,
    /// Our bot user (`U…`).
    pub user: String,
    /// Our bot (`B…`), which messages name besides.
    pub bot: String,
}

impl Identity {
    /// Whether we wrote a message. Metadata proves nothing: other apps read it and can post the same.
    pub(super) fn wrote(&self, message: &Value) -> bool {
        let is = |key: &str, own: &str| !own.is_empty() && message[key] == own;
        is("user", &self.user) && (message["bot_id"].is_null() || is("bot_id", &self.bot))
    }
}

/// A message that was posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The channel it really went to: posting to a person opens a direct message.
    pub channel: String,
    /// Its time stamp, which names it.
    pub ts: String,
}

/// What a post carries so that it can be found again. Readable by other apps, so no secrets; texts only, since a
/// non-text value breaks other clients' clicks on the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Name of the run.
    pub run: String,
    /// Part of the run's thread.
    pub part: String,
    /// Which try at posting it.
    pub generation: String,
}

impl Metadata {
    fn json(&self) -> Value {
        json!({
            "event_type": METADATA_EVENT,
            "event_payload": { "run": self.run, "part": self.part, "generation": self.generation },
        })
    }

    /// Reads it back from a message; other apps' metadata is none of ours.
    pub(super) fn read(message: &Value) -> Option<Self> {
        let metadata = &message["metadata"];
        let text = |key: &str| metadata["event_payload"][key].as_str().map(str::to_owned);
        if metadata["event_type"] != METADATA_EVENT {
            return None;
        }
        Some(Self {
            run: text("run")?,
            part: text("part")?,
            generation: text("generation").unwrap_or_default(),
        })
    }
}

impl SlackApi {
    /// `auth.test`.
    pub async fn auth_test(&self) -> Result<Identity, ApiError> {
        let answer = self.call("auth.test", Token::Bot, CallArguments::Form(&[])).await?;
        Ok(Identity {
            team: text(&answer["team_id"]),
            user: text(&answer["user_id"]),
            bot: text(&answer["bot_id"]),
        })
    }

    /// Who we are; asked for once.
    pub(super) async fn identity(&self) -> Result<&Identity, ApiError> {
        self.identity.get_or_try_init(|| self.auth_test()).await
    }

    /// `apps.connections.open`: a single-use address of a Socket Mode connection. A secret: it carries a ticket.
    pub async fn open_connection(&self) -> Result<SecretString, ApiError> {
        let answer = self
            .call("apps.connections.open", Token::App, CallArguments::Form(&[]))
            .await?;
        Ok(SecretString::from(text(&answer["url"])))
    }

    /// `chat.postMessage`. `channel` may be a person (`U…`): that is a direct message and needs no further scope.
    pub async fn post(
        &self,
        channel: &str,
        thread_ts: Option<&str>,
        message: &Message,
        metadata: Option<&Metadata>,
    ) -> Result<Posted, ApiError> {
        let mut body = message.json();
        body["channel"] = json!(channel);
        body["unfurl_links"] = json!(false);
        body["unfurl_media"] = json!(false);
        if let Some(ts) = thread_ts {
            body["thread_ts"] = json!(ts);
        }
        if let Some(metadata) = metadata {
            body["metadata"] = metadata.json();
        }
        let answer = self
            .call("chat.postMessage", Token::Bot, CallArguments::Json(&body))
            .await?;
        let channel = answer["channel"].as_str().unwrap_or(channel).to_owned();
        Ok(Posted {
            channel,
            ts: text(&answer["ts"]),
        })
    }

    /// `chat.update`: repeatable.
    pub async fn update(&self, at: &Posted, message: &Message, metadata: &Metadata) -> Result<(), ApiError> {
        let mut body = message.json();
        body["channel"] = json!(at.channel);
        body["ts"] = json!(at.ts);
        body["metadata"] = metadata.json();
        self.call("chat.update", Token::Bot, CallArguments::Json(&body))
            .await
            .map(|_| ())
    }

    /// `chat.postEphemeral`: only `user` sees it.
    pub async fn post_ephemeral(
        &self,
        channel: &str,
        user: &str,
        thread_ts: Option<&str>,
        message: &Message,
    ) -> Result<(), ApiError> {
        let mut body = message.json();
        body["channel"] = json!(channel);
        body["user"] = json!(user);
        body["unfurl_links"] = json!(false);
        body["unfurl_media"] = json!(false);
        if let Some(ts) = thread_ts {
            body["thread_ts"] = json!(ts);
        }
        self.call("chat.postEphemeral", Token::Bot, CallArguments::Json(&body))
            .await
            .map(|_| ())
    }
}

/// A text of an answer; empty where it is missing.
pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

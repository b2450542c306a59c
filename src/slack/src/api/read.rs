//! The methods that read: messages of a channel or thread, people, user groups, channels.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    ApiError, CallArguments, Identity, SlackApi, Token,
    methods::{Metadata, text},
};

/// Messages read back when a post is uncertain: more than a busy channel gets between a post and its check.
const MESSAGES: &str = "100";

/// A message of ours as read back from a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenMessage {
    /// Its time stamp.
    pub ts: String,
    /// Our metadata.
    pub metadata: Metadata,
}

impl SlackApi {
    /// The latest messages of ours with our metadata in a channel, or in a thread. Needs a history scope.
    pub async fn seen(&self, channel: &str, thread_ts: Option<&str>) -> Result<Vec<SeenMessage>, ApiError> {
        let own = self.identity().await?;
        let mut form = vec![
            ("channel", channel),
            ("limit", MESSAGES),
            ("include_all_metadata", "true"),
        ];
        let method = match thread_ts {
            Some(ts) => {
                form.push(("ts", ts));
                "conversations.replies"
            }
            None => "conversations.history",
        };
        let answer = self.call(method, Token::Bot, CallArguments::Form(&form)).await?;
        let messages = answer["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(written_by(own, messages))
    }

    /// `users.info`: the user object.
    pub async fn user(&self, user: &str) -> Result<Value, ApiError> {
        let mut answer = self
            .call("users.info", Token::Bot, CallArguments::Form(&[("user", user)]))
            .await?;
        Ok(answer["user"].take())
    }

    /// `conversations.info`: the channel object, with the number of its members.
    pub async fn channel(&self, channel: &str) -> Result<Value, ApiError> {
        let mut answer = self
            .call(
                "conversations.info",
                Token::Bot,
                CallArguments::Form(&[("channel", channel), ("include_num_members", "true")]),
            )
            .await?;
        Ok(answer["channel"].take())
    }

    /// The members of every enabled user group, by group id (`S…`). One call: members come with the list.
    pub async fn usergroups(&self) -> Result<BTreeMap<String, Vec<String>>, ApiError> {
        let form = [("include_users", "true"), ("include_disabled", "false")];
        let answer = self
            .call("usergroups.list", Token::Bot, CallArguments::Form(&form))
            .await?;
        let groups = answer["usergroups"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(groups
            .iter()
            .map(|group| {
                let users = group["users"].as_array().map(Vec::as_slice).unwrap_or_default();
                (text(&group["id"]), users.iter().map(text).collect())
            })
            .collect())
    }
}

/// Those that we wrote ourselves, with our metadata.
fn written_by(own: &Identity, messages: &[Value]) -> Vec<SeenMessage> {
    messages
        .iter()
        .filter(|message| own.wrote(message))
        .filter_map(|message| {
            Some(SeenMessage {
                ts: message["ts"].as_str()?.to_owned(),
                metadata: Metadata::read(message)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn another_apps_message_is_not_ours_whatever_it_says() {
        let own = Identity {
            team: "T1".to_owned(),
            user: "UBOT".to_owned(),
            bot: "BBOT".to_owned(),
        };
        let message = |author: Value| {
            let mut message = author;
            message["ts"] = json!("1.1");
            message["metadata"] = json!({
                "event_type": "diagbot_run",
                "event_payload": {"run": "d-1", "part": "root", "generation": ""},
            });
            message
        };
        let adopted = |own: &Identity, author: Value| !written_by(own, &[message(author)]).is_empty();
        assert!(adopted(&own, json!({"user": "UBOT", "bot_id": "BBOT", "app_id": "A1"})));
        assert!(adopted(&own, json!({"user": "UBOT"})));
        for author in [
            json!({"user": "UELSE", "bot_id": "BELSE", "app_id": "A2"}),
            json!({"user": "UELSE", "bot_id": "BBOT"}),
            json!({"user": "UBOT", "bot_id": "BELSE"}),
            json!({"bot_id": "BELSE"}),
            json!({}),
        ] {
            assert!(!adopted(&own, author.clone()), "{author}");
        }
        let unknown = Identity {
            user: String::new(),
            bot: String::new(),
            ..own
        };
        assert!(!adopted(&unknown, json!({"user": "", "bot_id": ""})));
    }
}

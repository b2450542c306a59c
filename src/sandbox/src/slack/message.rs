//! One message, the log of a channel, and how the Web API and the people API describe a message.

use serde_json::{Value, json};

use super::{
    directory::{APP, BOT, BOT_USER, Directory, TEAM},
    plain,
};

/// A message as the workspace keeps it.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) ts: String,
    pub(super) thread_ts: Option<String>,
    pub(super) user: String,
    pub(super) text: String,
    pub(super) blocks: Vec<Value>,
    pub(super) attachments: Vec<Value>,
    pub(super) files: Vec<Value>,
    pub(super) metadata: Option<Value>,
    pub(super) edited: bool,
    /// Only this user sees it; it is in no history.
    pub(super) ephemeral_to: Option<String>,
    /// What it said before each edit, as plain text.
    pub(super) history: Vec<String>,
}

impl Message {
    /// A new message without anything but text.
    pub(super) fn new(ts: String, user: &str, text: &str) -> Message {
        Message {
            ts,
            thread_ts: None,
            user: user.to_owned(),
            text: text.to_owned(),
            blocks: Vec::new(),
            attachments: Vec::new(),
            files: Vec::new(),
            metadata: None,
            edited: false,
            ephemeral_to: None,
            history: Vec::new(),
        }
    }

    /// Whether it stands in the channel itself and not in a thread.
    pub(super) fn is_root(&self) -> bool {
        self.thread_ts.as_ref().is_none_or(|parent| *parent == self.ts)
    }

    /// As the Web API and interaction payloads show it.
    pub(super) fn view(&self, with_metadata: bool) -> Value {
        let mut view = json!({
            "type": "message", "user": self.user, "text": self.text, "ts": self.ts, "team": TEAM,
        });
        if self.user == BOT_USER {
            view["bot_id"] = json!(BOT);
            view["app_id"] = json!(APP);
            view["bot_profile"] = json!({"id": BOT, "app_id": APP, "name": "diag", "deleted": false, "updated": 0, "team_id": TEAM,
                "icons": {}});
        }
        let lists = [
            ("blocks", &self.blocks),
            ("attachments", &self.attachments),
            ("files", &self.files),
        ];
        for (name, list) in lists {
            if !list.is_empty() {
                view[name] = json!(list);
            }
        }
        if let Some(thread) = &self.thread_ts {
            view["thread_ts"] = json!(thread);
        }
        if self.edited {
            view["edited"] = json!({"user": self.user, "ts": self.ts});
        }
        if let (true, Some(metadata)) = (with_metadata, &self.metadata) {
            view["metadata"] = metadata.clone();
        }
        view
    }

    /// As people (tests, the page) see it.
    pub(super) fn people_view(&self, directory: &Directory) -> Value {
        let mut view = json!({
            "ts": self.ts, "user": self.user, "text": self.text, "blocks": self.blocks, "edited": self.edited,
            "history": self.history, "notifies": plain::notifies(self),
            "user_name": directory.user(&self.user).map(|user| &user.name),
        });
        let optional = [("thread_ts", &self.thread_ts), ("ephemeral_to", &self.ephemeral_to)];
        for (name, value) in optional {
            if let Some(value) = value {
                view[name] = json!(value);
            }
        }
        for (name, list) in [("attachments", &self.attachments), ("files", &self.files)] {
            if !list.is_empty() {
                view[name] = json!(list);
            }
        }
        if let Some(metadata) = &self.metadata {
            view["metadata"] = metadata.clone();
        }
        view
    }
}

/// The messages of one channel, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct ChannelLog {
    pub(super) messages: Vec<Message>,
}

impl ChannelLog {
    /// The message of this time stamp, ephemeral ones included.
    pub(super) fn find(&self, ts: &str) -> Option<&Message> {
        self.messages.iter().find(|message| message.ts == ts)
    }

    /// The same, to change it.
    pub(super) fn find_mut(&mut self, ts: &str) -> Option<&mut Message> {
        self.messages.iter_mut().find(|message| message.ts == ts)
    }

    /// Takes a message away.
    pub(super) fn remove(&mut self, ts: &str) -> Option<Message> {
        let at = self.messages.iter().position(|message| message.ts == ts)?;
        Some(self.messages.remove(at))
    }

    /// The root of the thread that this time stamp names: Slack files a reply to a reply under the root.
    pub(super) fn thread_root(&self, ts: &str) -> Option<String> {
        let named = self
            .messages
            .iter()
            .find(|message| message.ts == ts && message.ephemeral_to.is_none())?;
        Some(named.thread_ts.clone().unwrap_or_else(|| named.ts.clone()))
    }

    /// A message with what its thread adds to it (`reply_count`, `latest_reply`).
    pub(super) fn view(&self, message: &Message, with_metadata: bool) -> Value {
        let mut view = message.view(with_metadata);
        let replies: Vec<&Message> = self
            .messages
            .iter()
            .filter(|reply| reply.thread_ts.as_ref() == Some(&message.ts) && reply.ts != message.ts)
            .filter(|reply| reply.ephemeral_to.is_none())
            .collect();
        if let Some(latest) = replies.last() {
            view["thread_ts"] = json!(message.ts);
            view["reply_count"] = json!(replies.len());
            view["latest_reply"] = json!(latest.ts);
        }
        view
    }
}

//! The payloads that Slack puts into envelopes. Shapes follow what the official SDKs accept and log.

use serde_json::{Value, json};

use super::{
    directory::{APP, BOT_USER, ChannelKind, TEAM, TEAM_DOMAIN},
    workspace::{State, Workspace},
};

/// Verification token that old payloads still carry; nothing checks it.
const VERIFICATION_TOKEN: &str = "sandbox-verification-token";

/// Who did something, where; ids.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) user: &'a str,
    pub(super) channel: &'a str,
}

impl Workspace {
    /// A slash command.
    pub(super) fn slash_command(&self, state: &mut State, place: Place<'_>, command: &str, text: &str) -> Value {
        let trigger_id = state.trigger(place.user);
        let response_url = format!("{}{}", self.base, state.response_path(place.channel, place.user, None));
        let user = state.directory.user(place.user);
        json!({
            "token": VERIFICATION_TOKEN, "team_id": user.map(|user| &user.team), "team_domain": TEAM_DOMAIN,
            "channel_id": place.channel, "channel_name": channel_name(state, place.channel), "user_id": place.user,
            "user_name": user.map(|user| &user.name), "command": command, "text": text, "api_app_id": APP,
            "is_enterprise_install": self.config.enterprise_install.to_string(), "response_url": response_url,
            "trigger_id": trigger_id,
        })
    }

    /// An event about a message.
    pub(super) fn message_event(&self, state: &mut State, place: Place<'_>, kind: &str, ts: &str) -> Value {
        let channel = state.directory.channel(place.channel);
        let (external, direct) = channel.map_or((false, false), |channel| {
            (channel.external, channel.kind == ChannelKind::Direct)
        });
        let user = state.directory.user(place.user);
        let (team, bot) = (user.map(|user| user.team.clone()), user.is_some_and(|user| user.bot));
        let mut event = json!({
            "type": kind, "user": place.user, "ts": ts, "event_ts": ts, "channel": place.channel, "team": team,
            "client_msg_id": format!("{}-{ts}", place.user), "user_team": team, "source_team": team,
        });
        if let Some(message) = state.log(place.channel).find(ts) {
            event["text"] = json!(message.text);
            if let Some(thread) = &message.thread_ts {
                event["thread_ts"] = json!(thread);
            }
        }
        if bot {
            event["bot_id"] = json!(place.user.replacen('U', "B", 1));
        }
        if kind == "message" {
            event["channel_type"] = json!(if direct { "im" } else { "channel" });
        }
        let seconds = ts
            .split('.')
            .next()
            .and_then(|seconds| seconds.parse::<i64>().ok())
            .unwrap_or_default();
        json!({
            "token": VERIFICATION_TOKEN, "team_id": TEAM, "context_team_id": TEAM, "context_enterprise_id": null,
            "api_app_id": APP, "event": event, "type": "event_callback", "event_id": state.id("Ev"), "event_time": seconds,
            "authorizations": [{"enterprise_id": null, "team_id": TEAM, "user_id": BOT_USER, "is_bot": true,
                "is_enterprise_install": self.config.enterprise_install}],
            "is_ext_shared_channel": external, "event_context": format!("4-{kind}-{ts}"),
        })
    }

    /// What every interaction carries. `None` for the place of a modal.
    fn interaction(&self, state: &mut State, user: &str, channel: Option<&str>, kind: &str) -> Value {
        let trigger_id = state.trigger(user);
        let person = state.directory.user(user);
        let team = person.map(|user| user.team.clone());
        let mut payload = json!({
            "type": kind, "api_app_id": APP, "token": VERIFICATION_TOKEN, "trigger_id": trigger_id, "enterprise": null,
            "user": {"id": user, "username": person.map(|user| &user.name), "name": person.map(|user| &user.name),
                "team_id": team},
            "team": {"id": TEAM, "domain": TEAM_DOMAIN}, "is_enterprise_install": self.config.enterprise_install,
        });
        if self.config.enterprise_install {
            payload["team"] = Value::Null;
            payload["enterprise"] = json!({"id": "E0DIAG0001", "name": "sandbox"});
        }
        if let Some(channel) = channel {
            payload["channel"] = json!({"id": channel, "name": channel_name(state, channel)});
        }
        payload
    }

    /// A click on something in a message.
    pub(super) fn message_click(&self, state: &mut State, place: Place<'_>, ts: &str, action: &Value) -> Value {
        let mut payload = self.interaction(state, place.user, Some(place.channel), "block_actions");
        let response_path = state.response_path(place.channel, place.user, Some(ts));
        payload["response_url"] = json!(format!("{}{response_path}", self.base));
        payload["container"] =
            json!({"type": "message", "message_ts": ts, "channel_id": place.channel, "is_ephemeral": false});
        payload["state"] = json!({"values": {}});
        payload["actions"] = json!([action]);
        let log = state.log(place.channel);
        if let Some(message) = log.find(ts) {
            if let Some(thread) = &message.thread_ts {
                payload["container"]["thread_ts"] = json!(thread);
            }
            // Slack does not send the content of an ephemeral message back.
            if message.ephemeral_to.is_some() {
                payload["container"]["is_ephemeral"] = json!(true);
            } else {
                payload["message"] = log.view(message, true);
            }
        }
        payload
    }

    /// A click on something in a modal.
    pub(super) fn view_click(&self, state: &mut State, user: &str, view: &Value, action: &Value) -> Value {
        let mut payload = self.interaction(state, user, None, "block_actions");
        payload["container"] = json!({"type": "view", "view_id": view["id"]});
        payload["view"] = view.clone();
        payload["actions"] = json!([action]);
        payload
    }

    /// Someone typed into an external select, in a message or in a modal.
    pub(super) fn suggestion(
        &self,
        state: &mut State,
        user: &str,
        within: Within<'_>,
        (block_id, action_id, value): (&Value, &str, &str),
    ) -> Value {
        let mut payload = match within {
            Within::Message(place, ts) => {
                let mut payload = self.interaction(state, user, Some(place.channel), "block_suggestion");
                payload["container"] = json!({"type": "message", "message_ts": ts, "channel_id": place.channel,
                    "is_ephemeral": false});
                if let Some(message) = state.log(place.channel).find(ts) {
                    payload["message"] = message.view(true);
                }
                payload
            }
            Within::View(view) => {
                let mut payload = self.interaction(state, user, None, "block_suggestion");
                payload["container"] = json!({"type": "view", "view_id": view["id"]});
                payload["view"] = view.clone();
                payload
            }
        };
        payload["action_id"] = json!(action_id);
        payload["block_id"] = block_id.clone();
        payload["value"] = json!(value);
        payload
    }

    /// A shortcut in the menu of a message.
    pub(super) fn message_action(&self, state: &mut State, place: Place<'_>, ts: &str, callback_id: &str) -> Value {
        let mut payload = self.interaction(state, place.user, Some(place.channel), "message_action");
        let response_path = state.response_path(place.channel, place.user, Some(ts));
        payload["response_url"] = json!(format!("{}{response_path}", self.base));
        payload["callback_id"] = json!(callback_id);
        payload["action_ts"] = json!(state.ts());
        payload["message_ts"] = json!(ts);
        let log = state.log(place.channel);
        if let Some(message) = log.find(ts) {
            payload["message"] = log.view(message, true);
        }
        payload
    }

    /// A modal was submitted.
    pub(super) fn view_submission(&self, state: &mut State, user: &str, view: &Value) -> Value {
        let mut payload = self.interaction(state, user, None, "view_submission");
        payload["view"] = view.clone();
        payload["response_urls"] = json!([]);
        payload
    }

    /// A modal was closed without being submitted.
    pub(super) fn view_closed(&self, state: &mut State, user: &str, view: &Value) -> Value {
        let mut payload = self.interaction(state, user, None, "view_closed");
        payload["view"] = view.clone();
        payload["is_cleared"] = json!(false);
        payload
    }
}

/// Where an element stands.
#[derive(Clone, Copy)]
pub(super) enum Within<'a> {
    /// In the message of this time stamp.
    Message(Place<'a>, &'a str),
    /// In this modal.
    View(&'a Value),
}

/// Slack calls direct and private conversations by a common name here.
fn channel_name(state: &State, id: &str) -> String {
    state
        .directory
        .channel(id)
        .map_or_else(String::new, |channel| match channel.kind {
            ChannelKind::Public => channel.name.clone(),
            ChannelKind::Private => "privategroup".to_owned(),
            ChannelKind::Direct => "directmessage".to_owned(),
        })
}

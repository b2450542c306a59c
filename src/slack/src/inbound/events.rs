//! Slash commands and events.

use serde_json::Value;

use super::{
    Command, Inbound, Mention,
    read::{first, person, response_url, shown},
};

pub(super) fn command(payload: &Value) -> Inbound {
    let by = person(payload, &["/user_id"], &["/team_id", "/enterprise_id"]);
    let trigger_id = first(payload, &["/trigger_id"]);
    let (Some(by), Some(trigger_id)) = (by, trigger_id) else {
        return Inbound::Unknown("a command without user_id or trigger_id".to_owned());
    };
    Inbound::Command(Command {
        by,
        trigger_id,
        channel: first(payload, &["/channel_id"]).unwrap_or_default(),
        text: first(payload, &["/text"]).unwrap_or_default(),
        response_url: response_url(payload),
    })
}

pub(super) fn event(payload: &Value) -> Inbound {
    let event = &payload["event"];
    let kind = event["type"].as_str().unwrap_or_default();
    // Messages of bots, ours among them: answering those makes loops.
    if event["bot_id"].is_string() || event["subtype"] == "bot_message" {
        return Inbound::Ignored;
    }
    if kind != "app_mention" {
        return Inbound::Unknown(shown(kind));
    }
    let by = person(
        payload,
        &["/event/user"],
        &["/event/user_team", "/event/team", "/team_id"],
    );
    let event_id = first(payload, &["/event_id"]);
    let channel = first(payload, &["/event/channel"]);
    let ts = first(payload, &["/event/ts"]);
    let (Some(by), Some(event_id), Some(channel), Some(ts)) = (by, event_id, channel, ts) else {
        return Inbound::Unknown("a mention without user, event_id, channel or ts".to_owned());
    };
    Inbound::Mention(Mention {
        event_id,
        by,
        channel,
        ts,
        text: first(payload, &["/event/text"]).unwrap_or_default(),
        thread_ts: first(payload, &["/event/thread_ts"]),
        bot: first(payload, &["/authorizations/0/user_id"]),
    })
}

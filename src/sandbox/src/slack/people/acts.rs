//! What people do in channels: send a command, write, click, use a shortcut.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    super::{
        api::Draft,
        args::Args,
        delivery::{EnvelopeType, Outcome},
        directory::{BOT_USER, ChannelKind, SLACKBOT},
        message::Message,
        payloads::{Place, Within},
        workspace::{State, Workspace},
    },
    Refusal, Reply, channel_id, field, modal, text, told,
};

/// The ids of the person and the channel that a body names, if the person may be there.
fn presence(state: &mut State, body: &Value) -> Result<(String, String), Refusal> {
    let user = person(state, body)?;
    let channel = channel_id(state, field(body, "channel")?)?;
    let place = state
        .directory
        .channel(&channel)
        .ok_or_else(|| Refusal::new("the channel is gone"))?;
    let outsider = state
        .directory
        .user(&user)
        .is_none_or(|user| user.foreign() || user.restricted);
    let open = place.kind == ChannelKind::Public && !outsider;
    if !open && !place.has(&user) {
        return Err(Refusal::new(format!(
            "{} is not in {}",
            field(body, "user")?,
            place.name
        )));
    }
    if place.archived {
        return Err(Refusal::new(format!("{} is archived", place.name)));
    }
    Ok((user, channel))
}

/// The id of the person that a body names; the app and Slack itself are nobody's hands.
pub(super) fn person(state: &State, body: &Value) -> Result<String, Refusal> {
    let key = field(body, "user")?;
    let user = state.directory.user(key);
    let user = user.filter(|user| ![BOT_USER, SLACKBOT].contains(&user.id.as_str()));
    user.map(|user| user.id.clone())
        .ok_or_else(|| Refusal::new(format!("no person is called {key:?}")))
}

/// `POST /people/command` `{user, channel, text}`: types a slash command and waits for its acknowledgement.
pub(super) async fn command(workspace: &Arc<Workspace>, body: &Value) -> Reply {
    if body.get("thread_ts").is_some() {
        return Err(Refusal::new("slash commands cannot be used in threads"));
    }
    let typed = field(body, "text")?.trim();
    let (command, rest) = typed.split_once(char::is_whitespace).unwrap_or((typed, ""));
    if !command.starts_with('/') || command.len() < 2 {
        return Err(Refusal::new("a command starts with a slash"));
    }
    let (user, channel, payload) = workspace.change(|state| {
        let (user, channel) = presence(state, body)?;
        let text = text::encode(rest.trim(), &state.directory, true);
        let place = Place {
            user: &user,
            channel: &channel,
        };
        let payload = workspace.slash_command(state, place, command, &text);
        Ok((user, channel, payload))
    })?;
    let trigger_id = payload["trigger_id"].clone();
    let outcome = workspace.deliver(EnvelopeType::SlashCommand, payload).await;
    workspace.change(|state| match &outcome {
        Outcome::Acked { payload, .. } => show_ack(state, &channel, &user, command, payload),
        Outcome::Unacked => complain(state, &channel, &user, command, "operation_timeout"),
        Outcome::NoConnection => complain(state, &channel, &user, command, "dispatch_failed"),
    });
    let mut reply = told(&outcome);
    reply["trigger_id"] = trigger_id;
    Ok(reply)
}

fn complain(state: &mut State, channel: &str, user: &str, what: &str, error: &str) {
    state.slackbot_says(channel, user, &format!("{what} failed with the error \"{error}\""));
}

/// The payload of a command's acknowledgement is a message, ephemeral unless it says otherwise.
fn show_ack(state: &mut State, channel: &str, user: &str, command: &str, payload: &Value) {
    let args = Args::from_payload(payload);
    if args.all().is_empty() {
        return;
    }
    match Draft::read(state, &args) {
        Ok(draft) => {
            let ephemeral_to = (args.text("response_type") != Some("in_channel")).then(|| user.to_owned());
            let ts = state.ts();
            let message = Message {
                ephemeral_to,
                ..draft.into_message(ts)
            };
            state.log_mut(channel).messages.push(message);
        }
        Err(error) => complain(state, channel, user, command, &error.name),
    }
}

/// `POST /people/message` `{user, channel, text, thread_ts?}`: writes a message; one that mentions the bot becomes an event.
pub(super) async fn message(workspace: &Arc<Workspace>, body: &Value) -> Reply {
    let typed = field(body, "text")?;
    let (ts, event) = workspace.change(|state| {
        let (user, channel) = presence(state, body)?;
        let thread_ts = match body["thread_ts"].as_str() {
            Some(ts) => Some(
                state
                    .log(&channel)
                    .thread_root(ts)
                    .ok_or_else(|| Refusal::new("there is no such thread"))?,
            ),
            None => None,
        };
        let (ts, encoded) = (state.ts(), text::encode(typed, &state.directory, false));
        let message = Message {
            thread_ts,
            ..Message::new(ts.clone(), &user, &encoded)
        };
        state.log_mut(&channel).messages.push(message);
        let place = Place {
            user: &user,
            channel: &channel,
        };
        let event = event_type(workspace, state, &channel, &encoded)
            .map(|kind| workspace.message_event(state, place, kind, &ts));
        Ok::<_, Refusal>((ts, event))
    })?;
    let Some(event) = event else {
        return Ok(json!({"ts": ts, "delivered": false}));
    };
    let event_id = event["event_id"].clone();
    let mut reply = told(&workspace.deliver(EnvelopeType::Event, event).await);
    reply["ts"] = json!(ts);
    reply["event_id"] = event_id;
    Ok(reply)
}

/// The event that a message becomes; the bot hears only of channels it is in, and only what it subscribed to.
fn event_type(workspace: &Workspace, state: &State, channel: &str, encoded: &str) -> Option<&'static str> {
    let place = state
        .directory
        .channel(channel)
        .filter(|channel| channel.has(BOT_USER))?;
    let subscribed = |event: &str| workspace.config.events.iter().any(|subscribed| subscribed == event);
    if text::mentions_bot(encoded) && subscribed("app_mention") {
        return Some("app_mention");
    }
    let event = match place.kind {
        ChannelKind::Public => "message.channels",
        ChannelKind::Private => "message.groups",
        ChannelKind::Direct => "message.im",
    };
    subscribed(event).then_some("message")
}

/// `POST /people/click` `{user, channel, ts, action_id | label, value?, block_id?, selected?}`, or with `view_id` in place of
/// channel and ts: clicks something that is really there.
pub(super) async fn click(workspace: &Arc<Workspace>, body: &Value) -> Reply {
    let (place, payload) = workspace.change(|state| {
        if body["view_id"].is_string() {
            let (user, mut view) = modal::open_view(state, body)?;
            let action = action(state, &view["blocks"], body)?;
            modal::remember(state, &mut view, &action);
            return Ok((None, workspace.view_click(state, &user, &view, &action)));
        }
        let (user, channel) = presence(state, body)?;
        let ts = field(body, "ts")?;
        let action = action(state, &clickable(state, &user, &channel, ts)?, body)?;
        let place = Place {
            user: &user,
            channel: &channel,
        };
        let payload = workspace.message_click(state, place, ts, &action);
        Ok::<_, Refusal>((Some((user, channel)), payload))
    })?;
    let (trigger_id, url) = (payload["trigger_id"].clone(), payload["actions"][0]["url"].clone());
    let outcome = workspace.deliver(EnvelopeType::Interaction, payload).await;
    if let (Some((user, channel)), Outcome::Unacked | Outcome::NoConnection) = (place, &outcome) {
        workspace.change(|state| complain(state, &channel, &user, "The button", "operation_timeout"));
    }
    let mut reply = told(&outcome);
    reply["trigger_id"] = trigger_id;
    reply["url"] = url;
    Ok(reply)
}

/// The blocks of a message that this person sees.
fn clickable(state: &State, user: &str, channel: &str, ts: &str) -> Result<Value, Refusal> {
    let message = state
        .log(channel)
        .find(ts)
        .ok_or_else(|| Refusal::new("there is no such message"))?;
    if message.ephemeral_to.as_ref().is_some_and(|to| to != user) {
        return Err(Refusal::new("only somebody else sees that message"));
    }
    let attached = message
        .attachments
        .iter()
        .filter_map(|attachment| attachment["blocks"].as_array())
        .flatten();
    Ok(json!(message.blocks.iter().chain(attached).collect::<Vec<&Value>>()))
}

/// The action of a click on the element that a body describes.
fn action(state: &mut State, blocks: &Value, body: &Value) -> Result<Value, Refusal> {
    let named = |key: &str, actual: &Value| body[key].is_null() || body[key] == *actual;
    if body["action_id"].is_null() && body["label"].is_null() {
        return Err(Refusal::new("action_id or label is missing"));
    }
    let found = elements(blocks).into_iter().find(|(block, element)| {
        named("block_id", &block["block_id"])
            && named("action_id", &element["action_id"])
            && named("label", &element["text"]["text"])
            && named("value", &element["value"])
    });
    let Some((block, element)) = found else {
        let there: Vec<String> = elements(blocks)
            .iter()
            .map(|(_, element)| format!("{} {}", element["action_id"], element["text"]["text"]))
            .collect();
        return Err(Refusal::new(format!(
            "that is not in the message; there is: {}",
            there.join(", ")
        )));
    };
    let mut action = json!({
        "type": element["type"], "action_id": element["action_id"], "block_id": block["block_id"], "action_ts": state.ts(),
    });
    for key in ["text", "value", "style", "url", "confirm", "placeholder"] {
        if let Some(part) = element.get(key) {
            action[key] = part.clone();
        }
    }
    select(&mut action, &element, body)?;
    Ok(action)
}

/// What was chosen in a select, overflow or picker.
fn select(action: &mut Value, element: &Value, body: &Value) -> Result<(), Refusal> {
    let key = match element["type"].as_str().unwrap_or_default() {
        "button" => return Ok(()),
        "static_select" | "overflow" | "radio_buttons" => {
            let wanted = field(body, "selected")?;
            let option = element["options"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|option| option["value"] == wanted);
            action["selected_option"] = option.cloned().ok_or_else(|| Refusal::new("there is no such option"))?;
            return Ok(());
        }
        "external_select" => {
            let wanted = field(body, "selected")?;
            action["selected_option"] = json!({"text": {"type": "plain_text", "text": wanted}, "value": wanted});
            return Ok(());
        }
        "users_select" => "selected_user",
        "conversations_select" => "selected_conversation",
        "channels_select" => "selected_channel",
        "datepicker" => "selected_date",
        other => return Err(Refusal::new(format!("nobody can click a {other} here"))),
    };
    action[key] = json!(field(body, "selected")?);
    Ok(())
}

/// Every interactive element with its block.
fn elements(blocks: &Value) -> Vec<(Value, Value)> {
    let mut found = Vec::new();
    for block in blocks.as_array().into_iter().flatten() {
        let single = [&block["accessory"], &block["element"]];
        let many = block["elements"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|_| block["type"] == "actions");
        for element in many.chain(single).filter(|element| element.is_object()) {
            found.push((block.clone(), element.clone()));
        }
    }
    found
}

/// `POST /people/shortcut` `{user, channel, ts, callback_id}`: uses a message shortcut.
pub(super) async fn shortcut(workspace: &Arc<Workspace>, body: &Value) -> Reply {
    let payload = workspace.change(|state| {
        let (user, channel) = presence(state, body)?;
        let ts = field(body, "ts")?;
        clickable(state, &user, &channel, ts)?;
        let place = Place {
            user: &user,
            channel: &channel,
        };
        Ok::<_, Refusal>(workspace.message_action(state, place, ts, field(body, "callback_id")?))
    })?;
    let trigger_id = payload["trigger_id"].clone();
    let mut reply = told(&workspace.deliver(EnvelopeType::Interaction, payload).await);
    reply["trigger_id"] = trigger_id;
    Ok(reply)
}

/// `POST /people/suggest` `{user, channel, ts | view_id, action_id, value}`: types into an external select; `ack.options` is what it
/// offers.
pub(super) async fn suggest(workspace: &Arc<Workspace>, body: &Value) -> Reply {
    let payload = workspace.change(|state| {
        let (action_id, value) = (field(body, "action_id")?, body["value"].as_str().unwrap_or_default());
        if body["view_id"].is_string() {
            let (user, view) = modal::open_view(state, body)?;
            let block = holder(&view["blocks"], action_id)?;
            return Ok(workspace.suggestion(state, &user, Within::View(&view), (&block, action_id, value)));
        }
        let (user, channel) = presence(state, body)?;
        let ts = field(body, "ts")?;
        let block = holder(&clickable(state, &user, &channel, ts)?, action_id)?;
        let within = Within::Message(
            Place {
                user: &user,
                channel: &channel,
            },
            ts,
        );
        Ok::<_, Refusal>(workspace.suggestion(state, &user, within, (&block, action_id, value)))
    })?;
    Ok(told(&workspace.deliver(EnvelopeType::Interaction, payload).await))
}

/// The id of the block that holds an element.
fn holder(blocks: &Value, action_id: &str) -> Result<Value, Refusal> {
    let found = elements(blocks)
        .into_iter()
        .find(|(_, element)| element["action_id"] == action_id);
    found
        .map(|(block, _)| block["block_id"].clone())
        .ok_or_else(|| Refusal::new("there is no such element"))
}

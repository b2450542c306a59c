//! The people API: what a person can see and do, as JSON over HTTP, for tests, scripts and the page.
//!
//! It acts for people only: nothing here does what the app should do. Waits have deadlines and end at the first change that
//! fulfils them, so that callers need not sleep.
//!
//! Users and channels go by id or name (`ada`, `incidents`); `@ada` is ada's direct conversation with the bot. What a person cannot do
//! answers 400 with `{"error": …}`. What reaches the app answers `{delivered, ack, ack_ms, error?}` once it is acknowledged, or after
//! 3 s with `operation_timeout` (no acknowledgement) or at once with `dispatch_failed` (no connection).
//!
//! | `GET /people…` | |
//! | --- | --- |
//! | (nothing more) | users, channels, groups, number of connections |
//! | `/channels/X?thread=&as=&plain=1&contains=&count=&wait_ms=` | messages; waits until `count` of them contain the text |
//! | `/connections?at_least=&at_most=&opened=&wait_ms=` | waits for Socket Mode connections |
//! | `/events?since=&wait_ms=` | waits for any change after a version |
//! | `/views?user=` | open modals |
//! | `/log?method=` | `calls` of the Web API and `envelopes`, without tokens |
//!
//! | `POST /people/…` | body |
//! | --- | --- |
//! | `command` | `user, channel, text` |
//! | `message` | `user, channel, text, thread_ts?` |
//! | `click` | `user, channel, ts` or `view_id`; `action_id` or `label`; `value?, block_id?, selected?` |
//! | `shortcut` | `user, channel, ts, callback_id` |
//! | `suggest` | `user, channel, ts` or `view_id`; `action_id, value` |
//! | `submit`, `close` | `user, view_id, values?` |
//! | `faults` | `method?, kind, count?, retry_after?`; kinds: see [`super::FaultKind`]; `none` disarms |
//! | `disconnect` | `reason, count?` |
//! | `outage` | `kind`: `break` or `half_open`; `count?` |
//! | `membership`, `group`, `archive` | `channel, user, member`; `group, users`; `channel, archived` |
//! | `account` | `user`; `restricted?, bot?, deleted?, confirmed?, email?, name?, team?` |
//! | `tokens` | the live ones: `app?, bot?` |

mod acts;
mod modal;
mod setting;
mod text;

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    delivery::Outcome,
    directory::{BOT_USER, ChannelKind, TEAM},
    plain,
    server::{Answer, Call, json_answer},
    workspace::{State, Workspace},
};

/// Longest wait of one call.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Why a person cannot do this.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

impl Refusal {
    fn new(what: impl Into<String>) -> Refusal {
        Refusal(what.into())
    }
}

type Reply = Result<Value, Refusal>;

/// Answers a call of the people API: 200 with JSON, or 400 with `{"error": …}`.
pub(super) async fn answer(workspace: &Arc<Workspace>, call: &Call) -> Answer {
    let path = call.path.trim_start_matches("/people").trim_matches('/');
    let reply = if call.method == Method::GET {
        look(workspace, path, call).await
    } else if call.method == Method::POST {
        match serde_json::from_slice::<Value>(&call.body) {
            Ok(body) if body.is_object() => act(workspace, path, &body).await,
            _ => Err(Refusal::new("the body is not a JSON object")),
        }
    } else {
        Err(Refusal::new("only GET and POST are served"))
    };
    match reply {
        Ok(body) => json_answer(StatusCode::OK, &body),
        Err(refusal) => json_answer(StatusCode::BAD_REQUEST, &json!({"error": refusal.to_string()})),
    }
}

async fn look(workspace: &Arc<Workspace>, path: &str, call: &Call) -> Reply {
    if let Some(channel) = path.strip_prefix("channels/") {
        return messages(workspace, &decode(channel), call).await;
    }
    match path {
        "" => Ok(overview(workspace)),
        "log" => Ok(workspace.read(|state| state.calls.view(call.parameter("method").as_deref()))),
        "events" => Ok(events(workspace, call).await),
        "connections" => Ok(connections(workspace, call).await),
        "views" => Ok(modal::list(workspace, call.parameter("user").as_deref())),
        other => Err(Refusal::new(format!("there is nothing to see at {other:?}"))),
    }
}

async fn act(workspace: &Arc<Workspace>, path: &str, body: &Value) -> Reply {
    match path {
        "command" => acts::command(workspace, body).await,
        "message" => acts::message(workspace, body).await,
        "click" => acts::click(workspace, body).await,
        "shortcut" => acts::shortcut(workspace, body).await,
        "suggest" => acts::suggest(workspace, body).await,
        "submit" => modal::submit(workspace, body).await,
        "close" => modal::close(workspace, body).await,
        "faults" => setting::faults(workspace, body),
        "disconnect" => setting::disconnect(workspace, body),
        "outage" => setting::outage(workspace, body),
        "membership" => setting::membership(workspace, body),
        "group" => setting::group(workspace, body),
        "archive" => setting::archive(workspace, body),
        "account" => setting::account(workspace, body),
        "tokens" => setting::tokens(workspace, body),
        other => Err(Refusal::new(format!("nobody can do {other:?}"))),
    }
}

/// A text field that must be there.
fn field<'a>(body: &'a Value, name: &str) -> Result<&'a str, Refusal> {
    body[name]
        .as_str()
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Refusal::new(format!("{name} is missing")))
}

/// Percent-decoding of a path segment.
fn decode(segment: &str) -> String {
    // A name from a path is decoded like a form value, except that `+` stands for itself.
    let form = format!("x={}", segment.replace('+', "%2B"));
    url::form_urlencoded::parse(form.as_bytes())
        .next()
        .map_or_else(String::new, |(_, value)| value.into_owned())
}

fn deadline(call: &Call) -> Instant {
    let asked = call
        .parameter("wait_ms")
        .and_then(|wait| wait.parse().ok())
        .map_or(Duration::ZERO, Duration::from_millis);
    Instant::now() + asked.min(LONGEST_WAIT)
}

/// The id of a channel, by id, by name, or `@user` for the direct conversation of a user with the bot.
fn channel_id(state: &mut State, key: &str) -> Result<String, Refusal> {
    if let Some(user) = key.strip_prefix('@') {
        return state
            .directory
            .direct(user)
            .ok_or_else(|| Refusal::new(format!("no user is called {user:?}")));
    }
    let channel = state.directory.channel(key).map(|channel| channel.id.clone());
    channel.ok_or_else(|| Refusal::new(format!("no channel is called {key:?}")))
}

fn overview(workspace: &Workspace) -> Value {
    workspace.read(|state| {
        let users: Vec<Value> = state
            .directory
            .users
            .iter()
            .map(|user| {
                json!({"id": user.id, "name": user.name, "bot": user.bot, "restricted": user.restricted,
                "stranger": user.stranger()})
            })
            .collect();
        let channels: Vec<Value> = state
            .directory
            .channels
            .iter()
            .map(|channel| {
                json!({"id": channel.id, "name": channel.name, "bot_is_member": channel.has(BOT_USER),
                "private": channel.kind == ChannelKind::Private, "direct": channel.kind == ChannelKind::Direct,
                "archived": channel.archived, "external": channel.external, "members": channel.members})
            })
            .collect();
        let groups: Vec<Value> = state
            .directory
            .groups
            .iter()
            .map(|group| json!({"id": group.id, "handle": group.handle, "members": group.members}))
            .collect();
        json!({"team": TEAM, "bot_user": BOT_USER, "users": users, "channels": channels, "groups": groups,
            "connections": state.links.count()})
    })
}

/// `GET /people/channels/X?thread=&as=&plain=1&contains=&count=&wait_ms=`: the messages of a channel. With `contains`, waits
/// until `count` (1 if not given) of the shown messages contain that text; `matched` says whether that came true.
async fn messages(workspace: &Arc<Workspace>, channel: &str, call: &Call) -> Reply {
    // Looking must not count as a change: those who wait for one would never rest.
    let open = workspace.read(|state| state.directory.channel(channel).map(|channel| channel.id.clone()));
    let channel = match open {
        Some(id) => id,
        None => workspace.change(|state| channel_id(state, channel))?,
    };
    let (thread, viewer) = (call.parameter("thread"), call.parameter("as"));
    let contains = call.parameter("contains");
    let wanted = call
        .parameter("count")
        .and_then(|count| count.parse::<usize>().ok())
        .unwrap_or(1);
    let with_plain = call.parameter("plain").is_some_and(|flag| flag != "0");
    let show = |state: &State| {
        let viewer = viewer
            .as_deref()
            .and_then(|viewer| state.directory.user(viewer))
            .map(|user| user.id.clone());
        let mut matching = 0;
        let mut shown = Vec::new();
        for message in &state.log(&channel).messages {
            let in_thread = thread
                .as_ref()
                .is_none_or(|ts| message.ts == *ts || message.thread_ts.as_ref() == Some(ts));
            let visible = match (&message.ephemeral_to, &viewer) {
                (Some(to), Some(viewer)) => to == viewer,
                _ => true,
            };
            if !in_thread || !visible {
                continue;
            }
            let mut view = message.people_view(&state.directory);
            let lines = plain::lines(message, &state.directory);
            matching += usize::from(contains.as_ref().is_some_and(|text| lines.join("\n").contains(text)));
            if with_plain {
                view["plain"] = json!(lines);
            }
            shown.push(view);
        }
        (matching >= wanted, shown)
    };
    let matched = match &contains {
        Some(_) => workspace
            .wait(deadline(call), |state| show(state).0.then_some(()))
            .await
            .is_some(),
        None => true,
    };
    let shown = workspace.read(|state| show(state).1);
    Ok(json!({"channel": channel, "matched": matched, "messages": shown}))
}

/// `GET /people/events?since=N&wait_ms=`: returns as soon as anything has changed after version N.
async fn events(workspace: &Workspace, call: &Call) -> Value {
    let since = call
        .parameter("since")
        .and_then(|since| since.parse::<u64>().ok())
        .unwrap_or_default();
    workspace
        .wait(deadline(call), |_| (workspace.version() > since).then_some(()))
        .await;
    json!({"version": workspace.version()})
}

/// `GET /people/connections?at_least=N&at_most=N&opened=M&wait_ms=`: waits until so many connections are open and M were ever opened.
async fn connections(workspace: &Workspace, call: &Call) -> Value {
    let number = |name| call.parameter(name).and_then(|text| text.parse::<u64>().ok());
    let (at_least, at_most) = (number("at_least").unwrap_or(0), number("at_most").unwrap_or(u64::MAX));
    let opened = number("opened").unwrap_or(0);
    let fits = |state: &State| {
        let open = (at_least..=at_most).contains(&(state.links.count() as u64));
        (open && state.links.opened() >= opened).then_some(())
    };
    let matched = workspace.wait(deadline(call), fits).await.is_some();
    workspace
        .read(|state| json!({"connections": state.links.count(), "opened": state.links.opened(), "matched": matched}))
}

/// What became of a delivery, for the person who caused it.
fn told(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Acked { payload, after } => {
            json!({"delivered": true, "ack": payload, "ack_ms": u64::try_from(after.as_millis()).unwrap_or(u64::MAX)})
        }
        Outcome::Unacked => json!({"delivered": false, "ack": null, "ack_ms": null, "error": "operation_timeout"}),
        Outcome::NoConnection => json!({"delivered": false, "ack": null, "ack_ms": null, "error": "dispatch_failed"}),
    }
}

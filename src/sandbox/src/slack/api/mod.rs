//! The Web API: tokens, scopes, rate limits and faults around the methods.
//!
//! A method is a function from the state and its arguments to a JSON object or an [`ApiError`]; it sees neither HTTP nor tokens.

mod chat;
mod conversations;
mod files;
mod users;
mod views;

use std::{sync::Arc, time::Duration};

pub(super) use chat::Draft;
pub(super) use files::upload;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
pub(super) use views::keep as keep_view;

use super::{
    args::Args,
    directory::{APP, BOT, BOT_USER, TEAM},
    faults::{Fault, FaultKind},
    server::{Answer, Broken, Call, NEVER, json_answer, text_answer},
    workspace::{State, Workspace},
};

/// Why a method refuses.
#[derive(Debug)]
pub(super) struct ApiError {
    /// Slack's name of the error.
    pub(super) name: String,
    /// What stands beside it.
    extra: Value,
}

impl ApiError {
    /// An error with nothing beside its name.
    pub(super) fn named(name: impl Into<String>) -> ApiError {
        ApiError {
            name: name.into(),
            extra: Value::Null,
        }
    }

    /// `invalid_blocks`, with the reasons where clients look for them.
    pub(super) fn invalid_blocks(reasons: &[String]) -> ApiError {
        let messages: Vec<String> = reasons.iter().map(|reason| format!("[ERROR] {reason}")).collect();
        ApiError {
            name: "invalid_blocks".to_owned(),
            extra: json!({"errors": reasons, "response_metadata": {"messages": messages}}),
        }
    }

    fn missing_argument(name: &str) -> ApiError {
        let message = format!("[ERROR] missing required field: {name}");
        ApiError {
            name: "invalid_arguments".to_owned(),
            extra: json!({"response_metadata": {"messages": [message]}}),
        }
    }

    fn body(&self) -> Value {
        let mut body = json!({"ok": false, "error": self.name});
        merge(&mut body, &self.extra);
        body
    }
}

/// Outcome of a method: the fields beside `"ok": true`.
type Outcome = Result<Value, ApiError>;

fn merge(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

/// Which token a method takes, and which scopes (any one of them).
struct Gate {
    app_level: bool,
    scopes: &'static [&'static str],
}

/// The methods served here. `None` is Slack's `unknown_method`.
fn gate(method: &str) -> Option<Gate> {
    let bot = |scopes| {
        Some(Gate {
            app_level: false,
            scopes,
        })
    };
    match method {
        "apps.connections.open" => Some(Gate {
            app_level: true,
            scopes: &[],
        }),
        "auth.test" | "chat.getPermalink" | "views.open" | "views.update" | "views.push" => bot(&[]),
        "chat.postMessage" | "chat.update" | "chat.postEphemeral" | "chat.delete" => bot(&["chat:write"]),
        "conversations.info" | "conversations.list" | "conversations.members" => {
            bot(&["channels:read", "groups:read", "im:read"])
        }
        "conversations.history" | "conversations.replies" => bot(&["channels:history", "groups:history", "im:history"]),
        "conversations.open" => bot(&["im:write"]),
        "conversations.join" => bot(&["channels:join"]),
        "users.info" | "users.list" => bot(&["users:read"]),
        "users.lookupByEmail" => bot(&["users:read.email"]),
        "usergroups.list" | "usergroups.users.list" => bot(&["usergroups:read"]),
        "files.getUploadURLExternal" | "files.completeUploadExternal" => bot(&["files:write"]),
        _ => None,
    }
}

/// Answers a call of the Web API.
pub(super) async fn answer(workspace: &Arc<Workspace>, method: &str, call: &Call) -> Result<Answer, Broken> {
    let read = Args::read(&call.query, call.header(header::CONTENT_TYPE), &call.body);
    let args = read.as_ref().ok().cloned().unwrap_or_default();
    let number = workspace.change(|state| state.calls.call(method, args.all()));
    let fault = workspace.change(|state| state.faults.strike_call(method));
    let early = match &fault {
        Some(fault) => strike(workspace, fault).await?,
        None => None,
    };
    let (answer, error) = early.unwrap_or_else(|| {
        let admitted = read.map_err(|error| ApiError::named(error.name())).and_then(|args| {
            admit(workspace, method, call, &args)?;
            Ok(args)
        });
        match admitted {
            Ok(args) => match limited(workspace, method, &args) {
                Some(wait) => (rate_limited(wait), Some("ratelimited".to_owned())),
                None => finished(perform(workspace, method, &args)),
            },
            Err(error) => finished(Err(error)),
        }
    });
    let status = answer.status().as_u16();
    workspace.change(|state| state.calls.answered(number, status, error.as_deref()));
    match fault.map(|fault| fault.kind) {
        Some(FaultKind::LostAnswer) => return Err(Broken),
        Some(FaultKind::Slow(delay)) => {
            // Ends early only when the server stops.
            let _ = timeout(delay, workspace.stop.cancelled()).await;
        }
        _ => {}
    }
    Ok(with_scopes(workspace, method, answer))
}

/// An answer and the name of the error in it.
type Told = (Answer, Option<String>);

fn finished(outcome: Outcome) -> Told {
    match outcome {
        Ok(fields) => {
            let mut body = json!({"ok": true});
            merge(&mut body, &fields);
            (json_answer(StatusCode::OK, &body), None)
        }
        Err(error) => (json_answer(StatusCode::OK, &error.body()), Some(error.name)),
    }
}

fn rate_limited(wait: Duration) -> Answer {
    let body = json!({"ok": false, "error": "ratelimited"});
    let mut answer = json_answer(StatusCode::TOO_MANY_REQUESTS, &body);
    answer
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    answer
}

/// What a fault answers in the method's place. `None`: the method is carried out.
pub(super) async fn strike(workspace: &Workspace, fault: &Fault) -> Result<Option<Told>, Broken> {
    match &fault.kind {
        FaultKind::Status500 => {
            let answer = text_answer(StatusCode::INTERNAL_SERVER_ERROR, "internal error");
            Ok(Some((answer, Some("status_500".to_owned()))))
        }
        FaultKind::RateLimited => Ok(Some((
            rate_limited(Duration::from_secs(fault.retry_after)),
            Some("ratelimited".to_owned()),
        ))),
        FaultKind::Error(name) => Ok(Some(finished(Err(ApiError::named(name))))),
        FaultKind::Timeout => {
            // Ends early only when the server stops.
            let _ = timeout(NEVER, workspace.stop.cancelled()).await;
            Err(Broken)
        }
        _ => Ok(None),
    }
}

/// Checks token and scopes.
fn admit(workspace: &Workspace, method: &str, call: &Call, args: &Args) -> Result<(), ApiError> {
    if method == "api.test" {
        return Ok(());
    }
    let gate = gate(method).ok_or_else(|| ApiError::named("unknown_method"))?;
    let bearer = call
        .header(header::AUTHORIZATION)
        .strip_prefix("Bearer ")
        .map(str::to_owned);
    // An app-level token is taken from the header only.
    let token = bearer.or_else(|| args.text("token").map(str::to_owned).filter(|_| !gate.app_level));
    let token = token.ok_or_else(|| ApiError::named("not_authed"))?;
    let config = &workspace.config;
    let (app, bot) = workspace.read(|state| (state.tokens.app.contains(&token), state.tokens.bot.contains(&token)));
    if !app && !bot {
        return Err(ApiError::named("invalid_auth"));
    }
    if gate.app_level != app {
        return Err(ApiError::named("not_allowed_token_type"));
    }
    if !gate.scopes.is_empty() && !gate.scopes.iter().any(|scope| workspace.has_scope(scope)) {
        let extra = json!({"needed": gate.scopes[0], "provided": config.scopes.join(",")});
        return Err(ApiError {
            name: "missing_scope".to_owned(),
            extra,
        });
    }
    Ok(())
}

fn limited(workspace: &Workspace, method: &str, args: &Args) -> Option<Duration> {
    if !workspace.config.rate_limited {
        return None;
    }
    let channel = args.text("channel").unwrap_or_default();
    workspace.change(|state| state.limits.take(method, channel, Instant::now()).err())
}

fn with_scopes(workspace: &Workspace, method: &str, mut answer: Answer) -> Answer {
    let accepted = gate(method).map(|gate| gate.scopes.join(",")).unwrap_or_default();
    for (name, scopes) in [
        ("x-oauth-scopes", workspace.config.scopes.join(",")),
        ("x-accepted-oauth-scopes", accepted),
    ] {
        if let Ok(value) = HeaderValue::from_str(&scopes) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

impl Workspace {
    /// Whether the app was granted this scope.
    pub(super) fn has_scope(&self, scope: &str) -> bool {
        self.config.scopes.iter().any(|granted| granted == scope)
    }
}

/// Carries a method out.
fn perform(workspace: &Workspace, method: &str, args: &Args) -> Outcome {
    workspace.change(|state| match method {
        "api.test" => Ok(json!({"args": args.all()})),
        "auth.test" => Ok(json!({
            "url": format!("{}/", workspace.base), "team": "Sandbox", "user": workspace.config.bot_name, "team_id": TEAM,
            "user_id": BOT_USER, "bot_id": BOT, "is_enterprise_install": workspace.config.enterprise_install, "app_id": APP,
        })),
        "apps.connections.open" => Ok(open_connection(workspace, state)),
        "chat.postMessage" => chat::post_message(workspace, state, args),
        "chat.postEphemeral" => chat::post_ephemeral(workspace, state, args),
        "chat.update" => chat::update(workspace, state, args),
        "chat.delete" => chat::delete(workspace, state, args),
        "chat.getPermalink" => chat::permalink(workspace, state, args),
        "conversations.info" => conversations::info(state, args),
        "conversations.list" => conversations::list(state, args),
        "conversations.members" => conversations::members(state, args),
        "conversations.open" => conversations::open(state, args),
        "conversations.join" => conversations::join(state, args),
        "conversations.history" => conversations::history(state, args),
        "conversations.replies" => conversations::replies(state, args),
        "users.info" => users::info(workspace, state, args),
        "users.list" => Ok(users::list(workspace, state)),
        "users.lookupByEmail" => users::lookup_by_email(workspace, state, args),
        "usergroups.list" => Ok(users::groups(state, args)),
        "usergroups.users.list" => users::group_users(state, args),
        "views.open" => views::open(state, args),
        "views.push" => views::push(state, args),
        "views.update" => views::update(state, args),
        "files.getUploadURLExternal" => files::upload_url(workspace, state, args),
        "files.completeUploadExternal" => files::complete(state, args),
        _ => Err(ApiError::named("unknown_method")),
    })
}

/// Hands out a single-use ticket inside a WebSocket address.
fn open_connection(workspace: &Workspace, state: &mut State) -> Value {
    let ticket = state.id("ticket-");
    state.links.issue(ticket.clone());
    let host = workspace.base.trim_start_matches("http://");
    json!({"url": format!("ws://{host}/link/?ticket={ticket}&app_id={APP}")})
}

//! `response_url`: five answers in half an hour, also in channels that the bot is not in.

use std::sync::Arc;

use http::{Method, StatusCode, header};
use serde_json::json;

use super::{
    api::{ApiError, Draft, strike},
    args::Args,
    faults::FaultKind,
    message::Message,
    plain,
    server::{Answer, Broken, Call, json_answer, text_answer},
    workspace::{ResponseUrl, State, Workspace},
};

/// The name under which faults and the log know these calls.
const METHOD: &str = "response_url";

/// Answers a POST to a `response_url`.
pub(super) async fn answer(workspace: &Arc<Workspace>, call: &Call) -> Result<Answer, Broken> {
    let Ok(args) = Args::read("", call.header(header::CONTENT_TYPE), &call.body) else {
        return Ok(text_answer(StatusCode::BAD_REQUEST, "invalid_payload"));
    };
    let number = workspace.change(|state| state.calls.call(METHOD, args.all()));
    let fault = workspace.change(|state| state.faults.strike_call(METHOD));
    if let Some(fault) = &fault
        && let Some((answer, error)) = strike(workspace, fault).await?
    {
        workspace.change(|state| state.calls.answered(number, answer.status().as_u16(), error.as_deref()));
        return Ok(answer);
    }
    let outcome = workspace.change(|state| {
        if call.method != Method::POST {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed".to_owned()));
        }
        let response = state
            .spend_response(&call.path)
            .map_err(|name| (StatusCode::NOT_FOUND, name.to_owned()))?;
        respond(state, &response, &args).map_err(|error| (StatusCode::BAD_REQUEST, error.name))
    });
    let (answer, error) = match outcome {
        Ok(()) => (text_answer(StatusCode::OK, "ok"), None),
        Err((status, name)) => (json_answer(status, &json!({"ok": false, "error": name})), Some(name)),
    };
    workspace.change(|state| state.calls.answered(number, answer.status().as_u16(), error.as_deref()));
    if fault.is_some_and(|fault| fault.kind == FaultKind::LostAnswer) {
        return Err(Broken);
    }
    Ok(answer)
}

/// Posts, replaces or deletes. There is no cumulative limit here (slackapi/bolt-js#2867).
fn respond(state: &mut State, response: &ResponseUrl, args: &Args) -> Result<(), ApiError> {
    let origin = response.origin.as_deref();
    if args.flag("delete_original") {
        if let Some(ts) = origin {
            state.log_mut(&response.channel).remove(ts);
        }
        return Ok(());
    }
    let draft = Draft::read(state, args)?;
    if let (true, Some(ts)) = (args.flag("replace_original"), origin)
        && let Some(message) = state.log(&response.channel).find(ts).cloned()
    {
        let before = plain::text(&message, &state.directory);
        if let Some(message) = state.log_mut(&response.channel).find_mut(ts) {
            draft.apply(message, before);
        }
        return Ok(());
    }
    let in_channel = args.text("response_type") == Some("in_channel");
    let thread_ts = args
        .text("thread_ts")
        .and_then(|ts| state.log(&response.channel).thread_root(ts));
    let ts = state.ts();
    let ephemeral_to = (!in_channel).then(|| response.user.clone());
    let message = Message {
        thread_ts,
        ephemeral_to,
        ..draft.into_message(ts)
    };
    state.log_mut(&response.channel).messages.push(message);
    Ok(())
}

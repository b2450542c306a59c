//! Modals as people meet them: see, submit, close.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    super::{
        api::keep_view,
        delivery::{EnvelopeType, Outcome},
        workspace::{State, Workspace},
    },
    Refusal, Reply, acts, field, told,
};

/// `GET /people/views?user=`: the modals that are open, the topmost last.
pub(super) fn list(workspace: &Workspace, user: Option<&str>) -> Value {
    workspace.read(|state| {
        let wanted = user.and_then(|user| state.directory.user(user)).map(|user| &user.id);
        let views: Vec<Value> = state
            .views
            .values()
            .filter(|view| wanted.is_none_or(|user| view.user == *user))
            .map(|view| json!({"user": view.user, "view": view.value}))
            .collect();
        json!({"views": views})
    })
}

/// The person and the open view that a body names.
pub(super) fn open_view(state: &State, body: &Value) -> Result<(String, Value), Refusal> {
    let user = acts::person(state, body)?;
    let view = state
        .views
        .get(field(body, "view_id")?)
        .filter(|view| view.user == user);
    let view = view.ok_or_else(|| Refusal::new("no such modal is open for that person"))?;
    Ok((user, view.value.clone()))
}

/// What was chosen in a modal stays chosen: Slack sends the state of all its inputs with every action in it.
pub(super) fn remember(state: &mut State, view: &mut Value, action: &Value) {
    let (Some(block), Some(id)) = (action["block_id"].as_str(), action["action_id"].as_str()) else {
        return;
    };
    if action["selected_option"].is_object() {
        let chosen = json!({"type": action["type"], "selected_option": action["selected_option"]});
        view["state"]["values"][block] = json!({ id: chosen });
        let kept = view["id"].as_str().and_then(|id| state.views.get_mut(id));
        if let Some(kept) = kept {
            kept.value["state"] = view["state"].clone();
        }
    }
}

/// `POST /people/submit` `{user, view_id, values: {block_id: {action_id: {type, value}}}}`: submits a modal and does what the answer
/// says (`response_action`).
pub(super) async fn submit(workspace: &Arc<Workspace>, body: &Value) -> Reply {
    let (user, view, payload) = workspace.change(|state| {
        let (user, mut view) = open_view(state, body)?;
        if body["values"].is_object() {
            view["state"] = json!({"values": body["values"]});
        }
        let payload = workspace.view_submission(state, &user, &view);
        Ok::<_, Refusal>((user, view, payload))
    })?;
    let trigger_id = payload["trigger_id"].clone();
    let outcome = workspace.deliver(EnvelopeType::Interaction, payload).await;
    if let Outcome::Acked { payload, .. } = &outcome {
        workspace.change(|state| respond(state, &user, &view, payload));
    }
    let mut reply = told(&outcome);
    reply["trigger_id"] = trigger_id;
    Ok(reply)
}

/// Follows the `response_action` of a submission; without one the view closes.
fn respond(state: &mut State, user: &str, view: &Value, answer: &Value) {
    let id = view["id"].as_str().unwrap_or_default().to_owned();
    match answer["response_action"].as_str() {
        Some("errors") => {}
        Some("update") => {
            keep_view(state, id, user, &answer["view"], None);
        }
        Some("push") => {
            let pushed = state.id("V");
            keep_view(state, pushed, user, &answer["view"], Some(view));
        }
        Some("clear") => state.views.retain(|_, open| open.user != user),
        _ => {
            state.views.remove(&id);
        }
    }
}

/// `POST /people/close` `{user, view_id}`: closes a modal; the app hears of it if it asked to.
pub(super) async fn close(workspace: &Arc<Workspace>, body: &Value) -> Reply {
    let payload = workspace.change(|state| {
        let (user, view) = open_view(state, body)?;
        state.views.remove(view["id"].as_str().unwrap_or_default());
        let notify = view["notify_on_close"] == true;
        Ok::<_, Refusal>(notify.then(|| workspace.view_closed(state, &user, &view)))
    })?;
    match payload {
        Some(payload) => Ok(told(&workspace.deliver(EnvelopeType::Interaction, payload).await)),
        None => Ok(json!({"delivered": false})),
    }
}

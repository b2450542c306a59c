//! `views.*`: modals as state. A person submits or closes them over the people API.

use serde_json::{Value, json};

use super::{
    super::{
        args::Args,
        block_kit::{self, Surface},
        directory::{APP, BOT, TEAM},
        workspace::{State, View},
    },
    ApiError, Outcome,
};

/// Largest view in bytes. Slack: 250 kB.
const VIEW_LIMIT: usize = 250_000;
/// Most views on top of each other. Slack: 3.
const STACK: usize = 3;

/// The `view` argument, checked.
fn checked(state: &mut State, view: &Value) -> Result<Value, ApiError> {
    if view.to_string().len() > VIEW_LIMIT {
        return Err(ApiError::named("view_too_large"));
    }
    let titled = view["title"]["type"] == "plain_text"
        && view["title"]["text"]
            .as_str()
            .is_some_and(|title| (1..=24).contains(&title.chars().count()));
    if view["type"] != "modal" || !titled {
        let message = "[ERROR] a modal needs a plain_text title of 1 to 24 characters [json-pointer:/view/title]";
        let extra = json!({"response_metadata": {"messages": [message]}});
        return Err(ApiError {
            name: "invalid_arguments".to_owned(),
            extra,
        });
    }
    let mut blocks = view["blocks"].as_array().cloned().unwrap_or_default();
    block_kit::check(&blocks, Surface::View).map_err(|reasons| {
        let messages: Vec<String> = reasons.iter().map(|reason| format!("[ERROR] {reason}")).collect();
        ApiError {
            name: "invalid_arguments".to_owned(),
            extra: json!({"response_metadata": {"messages": messages}}),
        }
    })?;
    state.name_blocks(&mut blocks);
    let mut view = view.clone();
    view["blocks"] = json!(blocks);
    Ok(view)
}

/// Keeps a view under its id and returns what Slack shows of it.
pub(in super::super) fn keep(state: &mut State, id: String, user: &str, view: &Value, parent: Option<&Value>) -> Value {
    let mut value = json!({
        "id": id, "team_id": TEAM, "hash": state.id("hash."), "app_id": APP, "bot_id": BOT, "app_installed_team_id": TEAM,
        "state": {"values": {}}, "private_metadata": "", "callback_id": "", "clear_on_close": false, "notify_on_close": false,
        "close": null, "submit": null, "external_id": "", "previous_view_id": parent.map(|parent| &parent["id"]),
        "root_view_id": parent.map_or(json!(id), |parent| parent["root_view_id"].clone()),
    });
    super::merge(&mut value, view);
    state.views.insert(
        id,
        View {
            user: user.to_owned(),
            value: value.clone(),
        },
    );
    value
}

fn spend(state: &mut State, args: &Args) -> Result<String, ApiError> {
    let trigger = args
        .text("trigger_id")
        .ok_or_else(|| ApiError::missing_argument("trigger_id"))?;
    state.spend_trigger(trigger).map_err(ApiError::named)
}

fn argument(args: &Args) -> Result<&Value, ApiError> {
    args.json("view").ok_or_else(|| ApiError::missing_argument("view"))
}

pub(super) fn open(state: &mut State, args: &Args) -> Outcome {
    let view = checked(state, argument(args)?)?;
    let user = spend(state, args)?;
    let id = state.id("V");
    Ok(json!({"view": keep(state, id, &user, &view, None)}))
}

pub(super) fn push(state: &mut State, args: &Args) -> Outcome {
    let view = checked(state, argument(args)?)?;
    let user = spend(state, args)?;
    let stack: Vec<Value> = state
        .views
        .values()
        .filter(|open| open.user == user)
        .map(|open| open.value.clone())
        .collect();
    let Some(top) = stack.last() else {
        return Err(ApiError::named("not_found"));
    };
    if stack.len() >= STACK {
        return Err(ApiError::named("push_limit_reached"));
    }
    let id = state.id("V");
    Ok(json!({"view": keep(state, id, &user, &view, Some(top))}))
}

pub(super) fn update(state: &mut State, args: &Args) -> Outcome {
    let view = checked(state, argument(args)?)?;
    let open = match (args.text("view_id"), args.text("external_id")) {
        (Some(id), _) => state.views.get(id).cloned(),
        (None, Some(external)) => state
            .views
            .values()
            .find(|open| open.value["external_id"] == external)
            .cloned(),
        (None, None) => return Err(ApiError::missing_argument("view_id")),
    };
    let open = open.ok_or_else(|| ApiError::named("not_found"))?;
    if args.text("hash").is_some_and(|hash| open.value["hash"] != hash) {
        return Err(ApiError::named("hash_conflict"));
    }
    let id = open.value["id"].as_str().unwrap_or_default().to_owned();
    Ok(json!({"view": keep(state, id, &open.user, &view, None)}))
}

//! `users.*` and `usergroups.*`: who people are.

use serde_json::{Value, json};

use super::{
    super::{
        args::Args,
        directory::User,
        workspace::{State, Workspace},
    },
    ApiError, Outcome,
};

/// An address is shown only to apps with the scope for it.
fn view(workspace: &Workspace, user: &User) -> Value {
    user.view(workspace.has_scope("users:read.email"))
}

pub(super) fn info(workspace: &Workspace, state: &State, args: &Args) -> Outcome {
    let id = args.text("user").unwrap_or_default();
    let user = state.directory.users.iter().find(|user| user.id == id);
    let user = user.ok_or_else(|| ApiError::named("user_not_found"))?;
    Ok(json!({"user": view(workspace, user)}))
}

pub(super) fn list(workspace: &Workspace, state: &State) -> Value {
    let members: Vec<Value> = state.directory.users.iter().map(|user| view(workspace, user)).collect();
    json!({"members": members, "cache_ts": 0, "response_metadata": {"next_cursor": ""}})
}

pub(super) fn lookup_by_email(workspace: &Workspace, state: &State, args: &Args) -> Outcome {
    let email = args.text("email").unwrap_or_default();
    let user = state
        .directory
        .user_by_email(email)
        .ok_or_else(|| ApiError::named("users_not_found"))?;
    Ok(json!({"user": view(workspace, user)}))
}

pub(super) fn groups(state: &State, args: &Args) -> Value {
    let groups: Vec<Value> = state
        .directory
        .groups
        .iter()
        .map(|group| group.view(args.flag("include_users")))
        .collect();
    json!({"usergroups": groups})
}

pub(super) fn group_users(state: &State, args: &Args) -> Outcome {
    let id = args.text("usergroup").unwrap_or_default();
    let group = state.directory.groups.iter().find(|group| group.id == id);
    let group = group.ok_or_else(|| ApiError::named("no_such_subteam"))?;
    Ok(json!({"users": group.members}))
}

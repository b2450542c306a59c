//! What a test changes about the workspace and about Slack itself: faults, outages, memberships, accounts, tokens.

use serde_json::{Value, json};

use super::{
    super::{
        faults::Fault,
        link::{DisconnectReason, Outage},
        workspace::Workspace,
    },
    Refusal, Reply, field,
};

/// `POST /people/faults` `{method?, kind, count?, retry_after?, percent?, seed?}`: arms a fault; `{"kind": "none"}` disarms all.
pub(super) fn faults(workspace: &Workspace, body: &Value) -> Reply {
    if body["kind"] == "none" {
        workspace.change(|state| state.faults.clear());
    } else {
        let fault = Fault::parse(body).map_err(Refusal::new)?;
        workspace.change(|state| state.faults.arm(fault));
    }
    Ok(json!({"ok": true}))
}

/// How many connections a body means: all, if it does not say.
fn most(body: &Value) -> usize {
    body["count"]
        .as_u64()
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or(usize::MAX)
}

/// `POST /people/disconnect` `{reason, count?}`: Slack ends connections, oldest first.
pub(super) fn disconnect(workspace: &Workspace, body: &Value) -> Reply {
    let reason = field(body, "reason")?;
    let reason = DisconnectReason::parse(reason).ok_or_else(|| Refusal::new(format!("{reason:?} is no reason")))?;
    let grace = workspace.config.disconnect_grace;
    let told = workspace.change(|state| state.links.disconnect(reason, most(body), grace));
    Ok(json!({"connections": told}))
}

/// `POST /people/outage` `{kind: "break" | "half_open", count?}`: connections die without a word, oldest first.
pub(super) fn outage(workspace: &Workspace, body: &Value) -> Reply {
    let outage = match field(body, "kind")? {
        "break" => Outage::Break,
        "half_open" => Outage::HalfOpen,
        other => return Err(Refusal::new(format!("no outage is called {other:?}"))),
    };
    let struck = workspace.change(|state| state.links.fail(outage, most(body)));
    Ok(json!({"connections": struck}))
}

/// `POST /people/membership` `{channel, user, member: bool}`: someone (the bot too) joins or leaves a channel.
pub(super) fn membership(workspace: &Workspace, body: &Value) -> Reply {
    let joins = body["member"]
        .as_bool()
        .ok_or_else(|| Refusal::new("member is missing"))?;
    workspace.change(|state| {
        let user = field(body, "user")?;
        let user = state.directory.user(user).map(|user| user.id.clone());
        let user = user.ok_or_else(|| Refusal::new("there is no such user"))?;
        let channel = state.directory.channel_mut(field(body, "channel")?);
        let channel = channel.ok_or_else(|| Refusal::new("there is no such channel"))?;
        if joins {
            channel.members.insert(user);
        } else {
            channel.members.remove(&user);
        }
        Ok(json!({"ok": true}))
    })
}

/// `POST /people/group` `{group, users: […]}`: sets who is in a user group (by handle or id).
pub(super) fn group(workspace: &Workspace, body: &Value) -> Reply {
    let named = body["users"]
        .as_array()
        .ok_or_else(|| Refusal::new("users is missing"))?;
    workspace.change(|state| {
        let members = named
            .iter()
            .map(|name| {
                state
                    .directory
                    .user(name.as_str().unwrap_or_default())
                    .map(|user| user.id.clone())
            })
            .collect::<Option<Vec<String>>>()
            .ok_or_else(|| Refusal::new("one of the users does not exist"))?;
        let key = field(body, "group")?;
        let group = state
            .directory
            .groups
            .iter_mut()
            .find(|group| group.handle == key || group.id == key);
        group.ok_or_else(|| Refusal::new("there is no such group"))?.members = members;
        Ok(json!({"ok": true}))
    })
}

/// `POST /people/account` `{user, restricted?, bot?, deleted?, confirmed?, email?, name?, team?: "grid"}`: changes an account.
pub(super) fn account(workspace: &Workspace, body: &Value) -> Reply {
    workspace.change(|state| {
        let user = state.directory.user_mut(field(body, "user")?);
        user.ok_or_else(|| Refusal::new("there is no such user"))?.change(body);
        Ok(json!({"ok": true}))
    })
}

/// `POST /people/tokens` `{app?: […], bot?: […]}`: sets which tokens are live; others are revoked. Connections stay open.
pub(super) fn tokens(workspace: &Workspace, body: &Value) -> Reply {
    let named = |kind: &str| -> Option<Vec<String>> {
        let tokens = body[kind].as_array()?.iter();
        Some(tokens.filter_map(Value::as_str).map(str::to_owned).collect())
    };
    let (app, bot) = (named("app"), named("bot"));
    if app.is_none() && bot.is_none() {
        return Err(Refusal::new("app or bot is missing"));
    }
    workspace.change(|state| {
        state.tokens.app = app.unwrap_or_else(|| std::mem::take(&mut state.tokens.app));
        state.tokens.bot = bot.unwrap_or_else(|| std::mem::take(&mut state.tokens.bot));
    });
    Ok(json!({"ok": true}))
}

/// `POST /people/archive` `{channel, archived: bool}`.
pub(super) fn archive(workspace: &Workspace, body: &Value) -> Reply {
    let archived = body["archived"].as_bool().unwrap_or(true);
    workspace.change(|state| {
        let channel = state.directory.channel_mut(field(body, "channel")?);
        channel
            .ok_or_else(|| Refusal::new("there is no such channel"))?
            .archived = archived;
        Ok(json!({"ok": true}))
    })
}

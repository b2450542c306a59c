//! `conversations.*`: what the bot can see of channels and read in them.

use serde_json::{Value, json};

use super::{
    super::{
        args::Args,
        directory::{BOT_USER, Channel, ChannelKind},
        message::Message,
        workspace::State,
    },
    ApiError, Outcome,
};

/// Messages or members on a page, where the caller names no number.
const PAGE: usize = 100;

/// A channel that the bot can see: public ones, and those it is in.
fn visible<'a>(state: &'a State, args: &Args) -> Result<&'a Channel, ApiError> {
    let channel = state.directory.channel(args.text("channel").unwrap_or_default());
    channel
        .filter(|channel| channel.kind == ChannelKind::Public || channel.has(BOT_USER))
        .ok_or_else(|| ApiError::named("channel_not_found"))
}

/// One page of a list and the cursor of the next one (empty at the end). The cursor is an offset.
fn page<T: Clone>(items: &[T], args: &Args) -> Result<(Vec<T>, String), ApiError> {
    let start = match args.text("cursor") {
        Some(cursor) => cursor.parse().map_err(|_| ApiError::named("invalid_cursor"))?,
        None => 0,
    };
    let limit = args
        .number("limit")
        .filter(|limit| *limit > 0)
        .unwrap_or(PAGE)
        .min(1000);
    let shown: Vec<T> = items.iter().skip(start).take(limit).cloned().collect();
    let next = start + shown.len();
    Ok((
        shown,
        if next < items.len() {
            next.to_string()
        } else {
            String::new()
        },
    ))
}

pub(super) fn info(state: &State, args: &Args) -> Outcome {
    let with_members = args.flag("include_num_members");
    Ok(json!({"channel": visible(state, args)?.info(with_members)}))
}

pub(super) fn list(state: &State, args: &Args) -> Outcome {
    let types = args.text("types").unwrap_or("public_channel");
    let wanted = |kind| match kind {
        ChannelKind::Public => types.contains("public_channel"),
        ChannelKind::Private => types.contains("private_channel"),
        ChannelKind::Direct => types.split(',').any(|kind| kind.trim() == "im"),
    };
    let channels: Vec<Value> = state
        .directory
        .channels
        .iter()
        .filter(|channel| wanted(channel.kind))
        .filter(|channel| channel.kind == ChannelKind::Public || channel.has(BOT_USER))
        .filter(|channel| !(channel.archived && args.flag("exclude_archived")))
        .map(Channel::view)
        .collect();
    let (channels, next) = page(&channels, args)?;
    Ok(json!({"channels": channels, "response_metadata": {"next_cursor": next}}))
}

pub(super) fn members(state: &State, args: &Args) -> Outcome {
    let members: Vec<&String> = visible(state, args)?.members.iter().collect();
    let (members, next) = page(&members, args)?;
    Ok(json!({"members": members, "response_metadata": {"next_cursor": next}}))
}

pub(super) fn open(state: &mut State, args: &Args) -> Outcome {
    let users = args
        .text("users")
        .ok_or_else(|| ApiError::named("users_list_not_supplied"))?
        .to_owned();
    if users.contains(',') {
        return Err(ApiError::named("not_enough_users"));
    }
    let id = state
        .directory
        .direct(&users)
        .ok_or_else(|| ApiError::named("user_not_found"))?;
    Ok(json!({"channel": {"id": id}}))
}

pub(super) fn join(state: &mut State, args: &Args) -> Outcome {
    let channel = state.directory.channel_mut(args.text("channel").unwrap_or_default());
    let channel = channel.ok_or_else(|| ApiError::named("channel_not_found"))?;
    match channel.kind {
        ChannelKind::Public if channel.archived => Err(ApiError::named("is_archived")),
        ChannelKind::Public => {
            channel.members.insert(BOT_USER.to_owned());
            Ok(json!({"channel": channel.view()}))
        }
        ChannelKind::Private | ChannelKind::Direct => Err(ApiError::named("method_not_supported_for_channel_type")),
    }
}

/// A channel whose messages the bot may read.
fn readable<'a>(state: &'a State, args: &Args) -> Result<&'a Channel, ApiError> {
    let channel = visible(state, args)?;
    if channel.has(BOT_USER) {
        Ok(channel)
    } else {
        Err(ApiError::named("not_in_channel"))
    }
}

/// Whether a time stamp lies in the asked window.
fn within(args: &Args, ts: &str) -> bool {
    let inclusive = args.flag("inclusive");
    // Time stamps have one length, so their order is that of their text; a whole number of seconds may lack the fraction.
    let bound = |name| {
        args.text(name).filter(|bound| *bound != "0").map(|bound| {
            if bound.contains('.') {
                bound.to_owned()
            } else {
                format!("{bound}.000000")
            }
        })
    };
    let after = bound("oldest").is_none_or(|oldest| ts > oldest.as_str() || (inclusive && ts == oldest));
    let before = bound("latest").is_none_or(|latest| ts < latest.as_str() || (inclusive && ts == latest));
    after && before
}

pub(super) fn history(state: &State, args: &Args) -> Outcome {
    let channel = readable(state, args)?;
    let log = state.log(&channel.id);
    let mut messages: Vec<Value> = log
        .messages
        .iter()
        .filter(|message| message.ephemeral_to.is_none() && message.is_root() && within(args, &message.ts))
        .map(|message| log.view(message, args.flag("include_all_metadata")))
        .collect();
    messages.reverse();
    let (messages, next) = page(&messages, args)?;
    Ok(
        json!({"messages": messages, "has_more": !next.is_empty(), "pin_count": 0,
        "response_metadata": {"next_cursor": next}}),
    )
}

pub(super) fn replies(state: &State, args: &Args) -> Outcome {
    let channel = readable(state, args)?;
    let log = state.log(&channel.id);
    let ts = args.text("ts").ok_or_else(|| ApiError::missing_argument("ts"))?;
    let root = log.thread_root(ts).ok_or_else(|| ApiError::named("thread_not_found"))?;
    let belongs = |message: &&Message| {
        message.ephemeral_to.is_none() && (message.ts == root || message.thread_ts.as_ref() == Some(&root))
    };
    let messages: Vec<Value> = log
        .messages
        .iter()
        .filter(belongs)
        // The root comes with every window.
        .filter(|message| message.ts == root || within(args, &message.ts))
        .map(|message| log.view(message, args.flag("include_all_metadata")))
        .collect();
    let (messages, next) = page(&messages, args)?;
    Ok(json!({"messages": messages, "has_more": !next.is_empty(), "response_metadata": {"next_cursor": next}}))
}

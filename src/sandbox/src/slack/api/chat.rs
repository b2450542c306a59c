//! `chat.*`: posting, editing and removing messages, with the refusals of a real channel.

use serde_json::{Value, json};

use super::{
    super::{
        args::Args,
        block_kit::{self, Surface},
        directory::{BOT_USER, ChannelKind},
        message::Message,
        plain,
        workspace::{State, Workspace},
    },
    ApiError, Outcome,
};

/// Message text is truncated above this many characters.
const TEXT_LIMIT: usize = 40_000;
/// `chat.update` refuses longer text (`msg_too_long`), by its own page.
const UPDATE_TEXT_LIMIT: usize = 4_000;

/// The content of a message that an app sends.
pub(in super::super) struct Draft {
    pub(in super::super) text: String,
    pub(in super::super) blocks: Vec<Value>,
    attachments: Vec<Value>,
    metadata: Option<Value>,
}

impl Draft {
    /// From arguments; blocks are checked, the cumulative length is not.
    pub(in super::super) fn read(state: &mut State, args: &Args) -> Result<Draft, ApiError> {
        let blocks = checked_blocks(state, args)?;
        let text: String = args.text("text").unwrap_or_default().chars().take(TEXT_LIMIT).collect();
        let attachments = args.list("attachments");
        if text.is_empty() && blocks.is_empty() && attachments.is_empty() {
            return Err(ApiError::named("no_text"));
        }
        let metadata = match args.json("metadata") {
            None => None,
            Some(metadata) if metadata["event_type"].is_string() && metadata["event_payload"].is_object() => {
                Some(metadata.clone())
            }
            Some(_) => return Err(ApiError::named("invalid_metadata_format")),
        };
        Ok(Draft {
            text,
            blocks,
            attachments,
            metadata,
        })
    }

    /// The message it becomes.
    pub(in super::super) fn into_message(self, ts: String) -> Message {
        Message {
            blocks: self.blocks,
            attachments: self.attachments,
            metadata: self.metadata,
            ..Message::new(ts, BOT_USER, &self.text)
        }
    }

    /// Replaces the content of a message. Text without blocks takes the blocks away; only text alone leaves "(edited)".
    pub(in super::super) fn apply(self, message: &mut Message, before: String) {
        message.history.push(before);
        message.edited |= self.blocks.is_empty();
        message.text = self.text;
        message.blocks = self.blocks;
        message.attachments = self.attachments;
        if let Some(metadata) = self.metadata {
            // An empty object is how metadata is taken away.
            message.metadata = Some(metadata).filter(|metadata| metadata != &json!({}));
        }
    }
}

/// The `blocks` argument, checked and each block with an id.
fn checked_blocks(state: &mut State, args: &Args) -> Result<Vec<Value>, ApiError> {
    if args.json("blocks").is_some_and(|blocks| !blocks.is_array()) {
        return Err(ApiError::named("invalid_blocks_format"));
    }
    let mut blocks = args.list("blocks");
    block_kit::check(&blocks, Surface::Message).map_err(|reasons| ApiError::invalid_blocks(&reasons))?;
    state.name_blocks(&mut blocks);
    Ok(blocks)
}

/// The channel to write to, if the bot may. A user's id means the direct conversation.
fn writable(workspace: &Workspace, state: &mut State, args: &Args) -> Result<String, ApiError> {
    let key = args
        .text("channel")
        .ok_or_else(|| ApiError::named("channel_not_found"))?;
    if key.starts_with('U') {
        return state
            .directory
            .direct(key)
            .ok_or_else(|| ApiError::named("channel_not_found"));
    }
    let channel = state
        .directory
        .channel(key)
        .ok_or_else(|| ApiError::named("channel_not_found"))?;
    if !channel.has(BOT_USER) {
        match channel.kind {
            ChannelKind::Public if workspace.has_scope("chat:write.public") => {}
            ChannelKind::Public => return Err(ApiError::named("not_in_channel")),
            ChannelKind::Private | ChannelKind::Direct => return Err(ApiError::named("channel_not_found")),
        }
    }
    if channel.archived {
        return Err(ApiError::named("is_archived"));
    }
    Ok(channel.id.clone())
}

/// The root of the thread that an argument names.
fn thread(state: &State, channel: &str, args: &Args) -> Result<Option<String>, ApiError> {
    let Some(ts) = args.text("thread_ts") else {
        return Ok(None);
    };
    let root = state
        .log(channel)
        .thread_root(ts)
        .ok_or_else(|| ApiError::named("cannot_reply_to_message"))?;
    Ok(Some(root))
}

pub(super) fn post_message(workspace: &Workspace, state: &mut State, args: &Args) -> Outcome {
    let channel = writable(workspace, state, args)?;
    let draft = Draft::read(state, args)?;
    if block_kit::too_long(&draft.blocks) {
        return Err(ApiError::named("msg_blocks_too_long"));
    }
    let thread_ts = thread(state, &channel, args)?;
    let ts = state.ts();
    let message = Message {
        thread_ts,
        ..draft.into_message(ts.clone())
    };
    let view = message.view(true);
    state.log_mut(&channel).messages.push(message);
    Ok(json!({"channel": channel, "ts": ts, "message": view}))
}

pub(super) fn post_ephemeral(workspace: &Workspace, state: &mut State, args: &Args) -> Outcome {
    let channel = writable(workspace, state, args)?;
    let user = args
        .text("user")
        .ok_or_else(|| ApiError::missing_argument("user"))?
        .to_owned();
    if !state
        .directory
        .channel(&channel)
        .is_some_and(|channel| channel.has(&user))
    {
        return Err(ApiError::named("user_not_in_channel"));
    }
    let draft = Draft::read(state, args)?;
    let thread_ts = thread(state, &channel, args)?;
    let ts = state.ts();
    let message = Message {
        thread_ts,
        ephemeral_to: Some(user),
        ..draft.into_message(ts.clone())
    };
    state.log_mut(&channel).messages.push(message);
    Ok(json!({"message_ts": ts}))
}

/// A message of the bot that `chat.update` and `chat.delete` may touch.
fn own_message(state: &State, channel: &str, args: &Args, refusal: &str) -> Result<Message, ApiError> {
    let ts = args.text("ts").ok_or_else(|| ApiError::missing_argument("ts"))?;
    // Ephemeral messages are in no history: neither method finds them.
    let message = state
        .log(channel)
        .find(ts)
        .filter(|message| message.ephemeral_to.is_none());
    let message = message.ok_or_else(|| ApiError::named("message_not_found"))?;
    if message.user == BOT_USER {
        Ok(message.clone())
    } else {
        Err(ApiError::named(refusal))
    }
}

pub(super) fn update(workspace: &Workspace, state: &mut State, args: &Args) -> Outcome {
    let channel = writable(workspace, state, args)?;
    let message = own_message(state, &channel, args, "cant_update_message")?;
    if args
        .text("text")
        .is_some_and(|text| text.chars().count() > UPDATE_TEXT_LIMIT)
    {
        return Err(ApiError::named("msg_too_long"));
    }
    let removes_metadata = args.json("metadata") == Some(&json!({}));
    let mut draft = if removes_metadata {
        Draft::read(state, &args.without("metadata"))?
    } else {
        Draft::read(state, args)?
    };
    if removes_metadata {
        draft.metadata = Some(json!({}));
    }
    let before = plain::text(&message, &state.directory);
    let text = draft.text.clone();
    let Some(message) = state.log_mut(&channel).find_mut(&message.ts) else {
        return Err(ApiError::named("message_not_found"));
    };
    draft.apply(message, before);
    let (ts, view) = (message.ts.clone(), message.view(true));
    Ok(json!({"channel": channel, "ts": ts, "text": text, "message": view}))
}

pub(super) fn delete(workspace: &Workspace, state: &mut State, args: &Args) -> Outcome {
    let channel = writable(workspace, state, args)?;
    let message = own_message(state, &channel, args, "cant_delete_message")?;
    state.log_mut(&channel).remove(&message.ts);
    Ok(json!({"channel": channel, "ts": message.ts}))
}

pub(super) fn permalink(workspace: &Workspace, state: &State, args: &Args) -> Outcome {
    let key = args.text("channel").unwrap_or_default();
    let channel = state
        .directory
        .channel(key)
        .ok_or_else(|| ApiError::named("channel_not_found"))?;
    let ts = args
        .text("message_ts")
        .ok_or_else(|| ApiError::missing_argument("message_ts"))?;
    let found = state
        .log(&channel.id)
        .find(ts)
        .filter(|message| message.ephemeral_to.is_none());
    let message = found.ok_or_else(|| ApiError::named("message_not_found"))?;
    let mut link = format!(
        "{}/archives/{}/p{}",
        workspace.base,
        channel.id,
        message.ts.replace('.', "")
    );
    if let Some(thread) = message.thread_ts.as_ref().filter(|_| !message.is_root()) {
        link = format!("{link}?thread_ts={thread}&cid={}", channel.id);
    }
    Ok(json!({"channel": channel.id, "permalink": link}))
}

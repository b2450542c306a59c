//! The upload of a file in three steps: ask for a URL, send the bytes there, complete.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    super::{
        args::Args,
        directory::BOT_USER,
        message::Message,
        server::{Answer, Broken, Call, text_answer},
        workspace::{State, Upload, Workspace},
    },
    ApiError, Outcome, strike,
};

pub(super) fn upload_url(workspace: &Workspace, state: &mut State, args: &Args) -> Outcome {
    let name = args
        .text("filename")
        .ok_or_else(|| ApiError::missing_argument("filename"))?
        .to_owned();
    let length = args
        .number("length")
        .ok_or_else(|| ApiError::missing_argument("length"))?;
    let id = state.id("F");
    state.uploads.insert(
        id.clone(),
        Upload {
            name,
            length,
            content: None,
        },
    );
    Ok(json!({"upload_url": format!("{}/upload/{id}", workspace.base), "file_id": id}))
}

/// Takes the bytes of an announced file.
pub(in super::super) async fn upload(workspace: &Arc<Workspace>, call: &Call) -> Result<Answer, Broken> {
    let fault = workspace.change(|state| state.faults.strike_call("upload"));
    if let Some(fault) = &fault
        && let Some((answer, _)) = strike(workspace, fault).await?
    {
        return Ok(answer);
    }
    let id = call.path.trim_start_matches("/upload/");
    let taken = workspace.change(|state| {
        let upload = state.uploads.get_mut(id).filter(|_| call.method == Method::POST)?;
        upload.content = Some(call.body.to_vec());
        Some(call.body.len())
    });
    Ok(match taken {
        Some(length) => text_answer(StatusCode::OK, format!("OK - {length}")),
        None => text_answer(StatusCode::NOT_FOUND, "no such upload"),
    })
}

pub(super) fn complete(state: &mut State, args: &Args) -> Outcome {
    let mut files = Vec::new();
    for named in args.list("files") {
        let id = named["id"].as_str().unwrap_or_default();
        let upload = state.uploads.get(id).ok_or_else(|| ApiError::named("file_not_found"))?;
        let content = upload
            .content
            .as_ref()
            .ok_or_else(|| ApiError::named("file_not_found"))?;
        // A multipart body carries more than the file.
        if content.len() < upload.length {
            return Err(ApiError::named("file_upload_size_mismatch"));
        }
        let title = named["title"].as_str().unwrap_or(&upload.name);
        files.push(json!({"id": id, "name": upload.name, "title": title, "size": upload.length}));
    }
    if let Some(channel) = args.text("channel_id") {
        share(state, channel, args, &files)?;
    }
    Ok(json!({"files": files}))
}

fn share(state: &mut State, channel: &str, args: &Args, files: &[Value]) -> Result<(), ApiError> {
    let channel = state.directory.channel(channel).filter(|channel| channel.has(BOT_USER));
    let id = channel.ok_or_else(|| ApiError::named("channel_not_found"))?.id.clone();
    let thread_ts = args.text("thread_ts").and_then(|ts| state.log(&id).thread_root(ts));
    let ts = state.ts();
    let text = args.text("initial_comment").unwrap_or_default();
    let message = Message {
        thread_ts,
        files: files.to_vec(),
        ..Message::new(ts, BOT_USER, text)
    };
    state.log_mut(&id).messages.push(message);
    Ok(())
}

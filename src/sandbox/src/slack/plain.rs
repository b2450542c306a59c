//! Messages as plain text: what a person without Block Kit would read. Used by `?plain=1`, waits and `--once`.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

use super::{directory::Directory, message::Message};

/// Slack's angle-bracket notation: `<what>` or `<what|label>`.
static ANGLE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"<([^<>|]+)(?:\|([^<>]*))?>").expect("the pattern is a constant"));

/// The lines of a message: its blocks, or its text where it has none.
pub(super) fn lines(message: &Message, directory: &Directory) -> Vec<String> {
    let mut lines = Vec::new();
    if message.blocks.is_empty() {
        push_text(&mut lines, &mrkdwn(&message.text, directory));
    }
    for block in &message.blocks {
        push_block(&mut lines, block, directory);
    }
    for attachment in &message.attachments {
        for block in attachment["blocks"].as_array().into_iter().flatten() {
            push_block(&mut lines, block, directory);
        }
        for key in ["pretext", "title", "text", "fallback"] {
            if let Some(text) = attachment[key].as_str() {
                push_text(&mut lines, &mrkdwn(text, directory));
                break;
            }
        }
    }
    for file in &message.files {
        lines.push(format!("[file] {}", file["name"].as_str().unwrap_or("?")));
    }
    lines
}

/// The same as one string.
pub(super) fn text(message: &Message, directory: &Directory) -> String {
    lines(message, directory).join("\n")
}

/// Whom the message calls: `channel`, `here`, `everyone`, and ids of users and user groups.
pub(super) fn notifies(message: &Message) -> Vec<String> {
    let mut called = Vec::new();
    let mut look = |text: &str| {
        for found in ANGLE.captures_iter(text) {
            let what = &found[1];
            let target = match what.split_once('^') {
                Some(("!subteam", group)) => Some(group),
                _ => what.strip_prefix('@').or_else(|| {
                    what.strip_prefix('!')
                        .filter(|name| ["channel", "here", "everyone"].contains(name))
                }),
            };
            if let Some(target) = target.map(str::to_owned).filter(|target| !called.contains(target)) {
                called.push(target);
            }
        }
    };
    if message.blocks.is_empty() {
        look(&message.text);
    }
    for block in &message.blocks {
        each_mrkdwn(block, &mut look);
    }
    called
}

/// Slack's mrkdwn without its notation: links as `label (url)`, mentions as names, entities decoded.
pub(super) fn mrkdwn(text: &str, directory: &Directory) -> String {
    let shown = ANGLE.replace_all(text, |found: &Captures<'_>| {
        let (what, label) = (&found[1], found.get(2).map(|label| label.as_str()));
        if let Some(id) = what.strip_prefix('@') {
            return format!("@{}", directory.user(id).map_or(id, |user| &user.name));
        }
        if let Some(id) = what.strip_prefix('#') {
            return format!("#{}", directory.channel(id).map_or(id, |channel| &channel.name));
        }
        match (what.strip_prefix('!'), label) {
            (Some(_), Some(label)) => label.to_owned(),
            (Some(special), None) => format!("@{special}"),
            (None, Some(label)) => format!("{label} ({what})"),
            (None, None) => what.to_owned(),
        }
    });
    unescape(&shown)
}

/// Decodes the three entities that Slack uses.
pub(super) fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// Encodes the three characters that Slack's notation reserves.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn push_text(lines: &mut Vec<String>, text: &str) {
    lines.extend(text.lines().map(str::to_owned));
}

/// A text object: mrkdwn is decoded, plain text is taken as it is.
fn text_object(object: &Value, directory: &Directory) -> String {
    let text = object["text"].as_str().unwrap_or_default();
    if object["type"] == "mrkdwn" {
        mrkdwn(text, directory)
    } else {
        text.to_owned()
    }
}

fn push_block(lines: &mut Vec<String>, block: &Value, directory: &Directory) {
    match block["type"].as_str().unwrap_or_default() {
        "section" => {
            if block["text"].is_object() {
                push_text(lines, &text_object(&block["text"], directory));
            }
            for field in block["fields"].as_array().into_iter().flatten() {
                push_text(lines, &text_object(field, directory));
            }
            if block["accessory"].is_object() {
                lines.push(element(&block["accessory"], directory));
            }
        }
        "header" => push_text(lines, &text_object(&block["text"], directory)),
        "context" => {
            let shown: Vec<String> = block["elements"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|part| element(part, directory))
                .collect();
            push_text(lines, &shown.join("  "));
        }
        "actions" => {
            let shown: Vec<String> = block["elements"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|part| element(part, directory))
                .collect();
            lines.push(shown.join(" "));
        }
        "markdown" => push_text(lines, block["text"].as_str().unwrap_or_default()),
        "rich_text" => push_text(lines, &rich_text(block, directory)),
        "divider" | "image" => {}
        other => lines.push(format!("(a block of type {other})")),
    }
}

fn element(element: &Value, directory: &Directory) -> String {
    match element["type"].as_str().unwrap_or_default() {
        "mrkdwn" | "plain_text" => text_object(element, directory),
        "button" => {
            let label = text_object(&element["text"], directory);
            element["url"]
                .as_str()
                .map_or_else(|| format!("[{label}]"), |url| format!("[{label}] ({url})"))
        }
        "image" => String::new(),
        other => format!("[{other}]"),
    }
}

/// The texts of a `rich_text` block in order; sections end lines.
fn rich_text(value: &Value, directory: &Directory) -> String {
    let mut text = String::new();
    for part in value["elements"].as_array().into_iter().flatten() {
        match part["type"].as_str().unwrap_or_default() {
            "text" => text.push_str(part["text"].as_str().unwrap_or_default()),
            "link" => text.push_str(part["text"].as_str().or(part["url"].as_str()).unwrap_or_default()),
            "user" => {
                let id = part["user_id"].as_str().unwrap_or_default();
                text.push('@');
                text.push_str(directory.user(id).map_or(id, |user| &user.name));
            }
            _ => {
                text.push_str(&rich_text(part, directory));
                text.push('\n');
            }
        }
    }
    text
}

/// Calls `look` with every mrkdwn text inside a block.
fn each_mrkdwn(value: &Value, look: &mut impl FnMut(&str)) {
    match value {
        Value::Object(object) => {
            if object.get("type").is_some_and(|kind| kind == "mrkdwn")
                && let Some(text) = object.get("text").and_then(Value::as_str)
            {
                look(text);
            }
            object.values().for_each(|inner| each_mrkdwn(inner, look));
        }
        Value::Array(items) => items.iter().for_each(|inner| each_mrkdwn(inner, look)),
        _ => {}
    }
}

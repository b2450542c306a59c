//! Clicks, shortcuts, forms.

use diagbot_api::requester::Requester;
use serde_json::Value;

use super::{
    Click, FormAct, FormState, Inbound, Shortcut,
    read::{first, person, response_url, shown},
};

/// Bytes of a message's texts that are looked at.
const MOST_WORDS: usize = 16 << 10;

pub(super) fn interaction(payload: &Value) -> Inbound {
    let kind = payload["type"].as_str().unwrap_or_default();
    // An organisation-wide installation sends `"team": null`.
    let by = person(payload, &["/user/id"], &["/user/team_id", "/team/id", "/enterprise/id"]);
    let Some(by) = by else {
        return Inbound::Unknown(format!("{} without a user", shown(kind)));
    };
    let channel = first(payload, &["/channel/id", "/container/channel_id"]).unwrap_or_default();
    match kind {
        "block_actions" if payload["container"]["type"] == "view" => Inbound::FormChanged(act(payload, by)),
        "block_actions" => Inbound::Click(Click {
            by,
            channel,
            thread_ts: first(
                payload,
                &[
                    "/container/thread_ts",
                    "/message/thread_ts",
                    "/container/message_ts",
                    "/message/ts",
                ],
            ),
            actions: actions(payload),
            response_url: response_url(payload),
        }),
        "message_action" | "shortcut" => Inbound::Shortcut(Shortcut {
            by,
            channel,
            thread_ts: first(payload, &["/message/thread_ts", "/message/ts", "/message_ts"]),
            message: words(payload),
            trigger_id: first(payload, &["/trigger_id"]).unwrap_or_default(),
            response_url: response_url(payload),
        }),
        "block_suggestion" => {
            let typed = first(payload, &["/value"]).unwrap_or_default();
            Inbound::Suggestion(act(payload, by), typed)
        }
        "view_submission" => Inbound::Submission(act(payload, by)),
        "view_closed" => Inbound::Ignored,
        other => Inbound::Unknown(shown(other)),
    }
}

fn act(payload: &Value, by: Requester) -> FormAct {
    FormAct {
        by,
        form: FormState::read(payload),
    }
}

/// Every text of the message: alerts of other bots keep theirs in attachments and blocks.
fn words(payload: &Value) -> String {
    let mut out = String::new();
    collect(&payload["message"], &mut out);
    out
}

fn collect(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(text) if matches!(key.as_str(), "text" | "title" | "fallback" | "pretext" | "value") => {
                        if out.len() < MOST_WORDS {
                            out.push_str(text);
                            out.push('\n');
                        }
                    }
                    _ => collect(value, out),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, out)),
        _ => {}
    }
}

fn actions(payload: &Value) -> Vec<(String, String)> {
    let actions = payload["actions"].as_array().map(Vec::as_slice).unwrap_or_default();
    actions
        .iter()
        .filter_map(|action| {
            let id = first(action, &["/action_id"])?;
            let value = first(action, &["/value", "/selected_option/value"]).unwrap_or_default();
            Some((id, value))
        })
        .collect()
}

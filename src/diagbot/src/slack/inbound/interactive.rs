//! Clicks, shortcuts, forms.

use serde_json::Value;

use super::{
    Click, Inbound, Shortcut,
    read::{first, person, response_url, shown},
};

pub(super) fn interaction(payload: &Value) -> Inbound {
    let kind = payload["type"].as_str().unwrap_or_default();
    // An organisation-wide installation sends `"team": null`.
    let by = person(payload, &["/user/id"], &["/user/team_id", "/team/id", "/enterprise/id"]);
    let Some(by) = by else {
        return Inbound::Unknown(format!("{} without a user", shown(kind)));
    };
    let channel = first(payload, &["/channel/id", "/container/channel_id"]).unwrap_or_default();
    match kind {
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
            response_url: response_url(payload),
        }),
        "block_suggestion" => Inbound::Suggestion,
        "view_submission" | "view_closed" => Inbound::Ignored,
        other => Inbound::Unknown(shown(other)),
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

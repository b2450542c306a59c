//! Slack's server-side check of Block Kit: the limits that make it answer `invalid_blocks` or `msg_blocks_too_long`.
//!
//! Numbers are those of the Block Kit reference; the texts are worded as Slack words them in the wild
//! (`must be less than 3001 characters [json-pointer:/blocks/0/text/text]`).

use std::collections::HashSet;

use serde_json::Value;

/// Blocks of one message.
const MESSAGE_BLOCKS: usize = 50;
/// Blocks of one modal or home tab.
const VIEW_BLOCKS: usize = 100;
/// Characters of all blocks of one `chat.postMessage` together. Undocumented: 9,597 were accepted and 11,341 refused
/// (slackapi/bolt-js#2867); the true edge lies between and moves with the content.
const CUMULATIVE: usize = 11_000;
/// The same where there is only markdown (and dividers): refused from about 13,200 (slackapi/bolt-js#2509).
const CUMULATIVE_MARKDOWN: usize = 13_000;
/// Block types that Slack knows and that are not looked into here.
const OPAQUE: &[&str] = &[
    "rich_text",
    "video",
    "file",
    "table",
    "context_actions",
    "alert",
    "card",
    "carousel",
    "plan",
    "task_card",
];

/// Where blocks are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Surface {
    Message,
    View,
}

/// Checks blocks. `Err` holds one line a fault.
pub(super) fn check(blocks: &[Value], surface: Surface) -> Result<(), Vec<String>> {
    let mut check = Check {
        faults: Vec::new(),
        block_ids: HashSet::new(),
    };
    let most = if surface == Surface::Message {
        MESSAGE_BLOCKS
    } else {
        VIEW_BLOCKS
    };
    if blocks.len() > most {
        check.fault("/blocks", &format!("no more than {most} items allowed"));
    }
    for (at, block) in blocks.iter().enumerate() {
        check.block(block, &format!("/blocks/{at}"));
    }
    if check.faults.is_empty() {
        Ok(())
    } else {
        Err(check.faults)
    }
}

/// Whether all blocks together are too long for one `chat.postMessage`.
pub(super) fn too_long(blocks: &[Value]) -> bool {
    let markdown = blocks
        .iter()
        .all(|block| block["type"] == "markdown" || block["type"] == "divider");
    let limit = if markdown { CUMULATIVE_MARKDOWN } else { CUMULATIVE };
    blocks.iter().map(text_length).sum::<usize>() > limit
}

/// Characters of every `text` string inside.
fn text_length(value: &Value) -> usize {
    match value {
        Value::Object(object) => object
            .iter()
            .map(|(key, inner)| match inner.as_str() {
                Some(text) if key == "text" => text.chars().count(),
                _ => text_length(inner),
            })
            .sum(),
        Value::Array(items) => items.iter().map(text_length).sum(),
        _ => 0,
    }
}

struct Check {
    faults: Vec<String>,
    block_ids: HashSet<String>,
}

impl Check {
    fn fault(&mut self, pointer: &str, what: &str) {
        self.faults.push(format!("{what} [json-pointer:{pointer}]"));
    }

    fn block(&mut self, block: &Value, at: &str) {
        let Some(kind) = block["type"].as_str() else {
            return self.fault(at, "missing required field: type");
        };
        if let Some(id) = block["block_id"].as_str() {
            self.length(&block["block_id"], 255, &format!("{at}/block_id"));
            if !self.block_ids.insert(id.to_owned()) {
                self.fault(
                    &format!("{at}/block_id"),
                    &format!("block_id `{id}` already exists for another block"),
                );
            }
        }
        match kind {
            "section" => self.section(block, at),
            "header" => self.text(&block["text"], Some("plain_text"), 150, &format!("{at}/text")),
            "context" => {
                let each = |check: &mut Check, element: &Value, at: &str| match element["type"].as_str() {
                    Some("image") => check.image(element, at),
                    _ => check.text(element, None, 3000, at),
                };
                self.items(&block["elements"], 10, &format!("{at}/elements"), each);
            }
            "actions" => self.actions(block, at),
            "image" => self.image(block, at),
            "markdown" => self.length(&block["text"], 12_000, &format!("{at}/text")),
            "input" => {
                self.text(&block["label"], Some("plain_text"), 2000, &format!("{at}/label"));
                if block["hint"].is_object() {
                    self.text(&block["hint"], Some("plain_text"), 2000, &format!("{at}/hint"));
                }
                self.element(&block["element"], &format!("{at}/element"));
            }
            "divider" => {}
            known if OPAQUE.contains(&known) => {}
            other => self.fault(&format!("{at}/type"), &format!("unsupported type: {other}")),
        }
    }

    fn section(&mut self, block: &Value, at: &str) {
        let (text, fields) = (&block["text"], &block["fields"]);
        if text.is_null() && fields.is_null() {
            self.fault(at, "must define either `text` or `fields`");
        }
        if !text.is_null() {
            self.text(text, None, 3000, &format!("{at}/text"));
        }
        if !fields.is_null() {
            self.items(fields, 10, &format!("{at}/fields"), |check, field, at| {
                check.text(field, None, 2000, at);
            });
        }
        if !block["accessory"].is_null() {
            self.element(&block["accessory"], &format!("{at}/accessory"));
        }
    }

    fn actions(&mut self, block: &Value, at: &str) {
        self.items(&block["elements"], 25, &format!("{at}/elements"), Check::element);
        let mut ids = HashSet::new();
        for (n, element) in block["elements"].as_array().into_iter().flatten().enumerate() {
            if let Some(id) = element["action_id"].as_str()
                && !ids.insert(id)
            {
                let at = format!("{at}/elements/{n}/action_id");
                self.fault(&at, &format!("action_id `{id}` already exists for another element"));
            }
        }
    }

    fn element(&mut self, element: &Value, at: &str) {
        let Some(kind) = element["type"].as_str() else {
            return self.fault(at, "missing required field: type");
        };
        if !element["action_id"].is_null() {
            self.length(&element["action_id"], 255, &format!("{at}/action_id"));
        }
        match kind {
            "button" => {
                self.text(&element["text"], Some("plain_text"), 75, &format!("{at}/text"));
                self.at_most(&element["value"], 2000, &format!("{at}/value"));
                self.url(&element["url"], &format!("{at}/url"));
                let style = &element["style"];
                if !style.is_null() && style != "primary" && style != "danger" {
                    self.fault(&format!("{at}/style"), "must be one of: primary, danger");
                }
            }
            "image" => self.image(element, at),
            "static_select" | "multi_static_select" | "radio_buttons" | "checkboxes" | "overflow" => {
                let most = match kind {
                    "overflow" => 5,
                    "radio_buttons" | "checkboxes" => 10,
                    _ => 100,
                };
                if element["option_groups"].is_null() {
                    self.items(
                        &element["options"],
                        most,
                        &format!("{at}/options"),
                        |check, option, at| {
                            check.text(&option["text"], None, 75, &format!("{at}/text"));
                            check.length(&option["value"], 150, &format!("{at}/value"));
                        },
                    );
                }
            }
            _ => {}
        }
        if element["placeholder"].is_object() {
            self.text(
                &element["placeholder"],
                Some("plain_text"),
                150,
                &format!("{at}/placeholder"),
            );
        }
        if element["confirm"].is_object() {
            let at = format!("{at}/confirm");
            for (part, kind, most) in [
                ("title", Some("plain_text"), 100),
                ("text", None, 300),
                ("confirm", Some("plain_text"), 30),
                ("deny", Some("plain_text"), 30),
            ] {
                self.text(&element["confirm"][part], kind, most, &format!("{at}/{part}"));
            }
        }
    }

    fn image(&mut self, image: &Value, at: &str) {
        self.length(&image["alt_text"], 2000, &format!("{at}/alt_text"));
        if image["slack_file"].is_null() {
            self.length(&image["image_url"], 3000, &format!("{at}/image_url"));
        }
    }

    fn url(&mut self, url: &Value, at: &str) {
        self.at_most(url, 3000, at);
        if let Some(text) = url.as_str()
            && url::Url::parse(text).is_err()
        {
            self.fault(at, "must be a valid URL");
        }
    }

    fn items(&mut self, items: &Value, most: usize, at: &str, each: impl Fn(&mut Check, &Value, &str)) {
        let Some(items) = items.as_array() else {
            return self.fault(at, "missing required field");
        };
        if items.is_empty() {
            self.fault(at, "no fewer than 1 items allowed");
        }
        if items.len() > most {
            self.fault(at, &format!("no more than {most} items allowed"));
        }
        for (n, item) in items.iter().enumerate() {
            each(self, item, &format!("{at}/{n}"));
        }
    }

    /// A text object of the wanted kind (either kind, if none is named).
    fn text(&mut self, object: &Value, kind: Option<&str>, most: usize, at: &str) {
        let actual = object["type"].as_str().unwrap_or_default();
        let fits = kind.map_or(actual == "plain_text" || actual == "mrkdwn", |kind| actual == kind);
        if !fits {
            let what = if object.is_null() {
                "missing required field"
            } else {
                "unsupported type for a text object"
            };
            return self.fault(at, what);
        }
        self.length(&object["text"], most, &format!("{at}/text"));
    }

    /// A string of 1 to `most` characters.
    fn length(&mut self, value: &Value, most: usize, at: &str) {
        match value.as_str() {
            None => self.fault(at, "missing required field"),
            Some("") => self.fault(at, "must be more than 0 characters"),
            Some(_) => self.at_most(value, most, at),
        }
    }

    /// A string of up to `most` characters, if it is there.
    fn at_most(&mut self, value: &Value, most: usize, at: &str) {
        if value.as_str().is_some_and(|text| text.chars().count() > most) {
            self.fault(at, &format!("must be less than {} characters", most + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn section(length: usize) -> Value {
        json!({"type": "section", "text": {"type": "mrkdwn", "text": "x".repeat(length)}})
    }

    #[test]
    fn a_section_over_3000_characters_is_refused_as_slack_words_it() {
        check(&[section(3000)], Surface::Message).expect("3,000 are allowed");
        let faults = check(&[section(3001)], Surface::Message).expect_err("3,001 are not");
        assert_eq!(
            faults,
            ["must be less than 3001 characters [json-pointer:/blocks/0/text/text]"]
        );
    }

    #[test]
    fn every_limit_of_a_message_is_enforced() {
        let button =
            |id: &str| json!({"type": "button", "action_id": id, "text": {"type": "plain_text", "text": "Go"}});
        let with = |key: &str, value: Value| {
            let mut button = button("a");
            button[key] = value;
            json!({"type": "actions", "elements": [button]})
        };
        let context =
            |n: usize| json!({"type": "context", "elements": vec![json!({"type": "mrkdwn", "text": "a"}); n]});
        let buttons: Vec<Value> = (0..26).map(|n| button(&n.to_string())).collect();
        let refused = [
            vec![json!({"type": "divider"}); 51],
            vec![json!({"type": "header", "text": {"type": "plain_text", "text": "h".repeat(151)}})],
            vec![json!({"type": "header", "text": {"type": "mrkdwn", "text": "h"}})],
            vec![context(11)],
            vec![context(0)],
            vec![json!({"type": "actions", "elements": buttons})],
            vec![json!({"type": "actions", "elements": [button("a"), button("a")]})],
            vec![with("value", json!("v".repeat(2001)))],
            vec![with("url", json!(format!("http://a/{}", "u".repeat(3000))))],
            vec![with("action_id", json!("i".repeat(256)))],
            vec![with("text", json!({"type": "plain_text", "text": "t".repeat(76)}))],
            vec![with("confirm", json!({"title": {"type": "plain_text", "text": "t"}}))],
            vec![json!({"type": "section", "fields": vec![json!({"type": "mrkdwn", "text": "f"}); 11]})],
            vec![json!({"type": "section"})],
            vec![json!({"type": "sectoin"})],
            vec![
                json!({"type": "divider", "block_id": "b"}),
                json!({"type": "divider", "block_id": "b"}),
            ],
        ];
        for blocks in refused {
            assert!(
                check(&blocks, Surface::Message).is_err(),
                "accepted: {}",
                Value::from(blocks)
            );
        }
    }

    #[test]
    fn many_blocks_of_allowed_length_are_too_long_together() {
        assert!(!too_long(&[section(3000), section(3000), section(2900)]));
        assert!(too_long(&[section(3000), section(3000), section(3000), section(2341)]));
    }
}

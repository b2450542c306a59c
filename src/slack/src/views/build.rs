//! A message and how it is put together within Slack's limits.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use slack_morphism::prelude::*;

use crate::button::Button;

/// Most characters over all blocks: `msg_blocks_too_long` was seen from 11,341 on (slackapi/bolt-js#2867).
const MESSAGE_CHARACTERS: usize = 9_000;
/// Most blocks of a message is 50; the rest is for buttons and the closing line.
const MESSAGE_BLOCKS: usize = 46;
/// Most characters of a section.
const SECTION_CHARACTERS: usize = 3_000;
/// Most characters of the plain text: `chat.update` refuses more than 4,000.
const TEXT_CHARACTERS: usize = 3_800;
/// Most characters on a button.
const BUTTON_CHARACTERS: usize = 75;
/// Most buttons in a block.
const BUTTONS: usize = 25;

/// A message: blocks, and the same as plain text for notifications and for when Slack refuses the blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Empty for plain text.
    pub blocks: Vec<SlackBlock>,
    /// mrkdwn, escaped.
    pub text: String,
}

impl Message {
    /// Arguments of the Web API, without a place.
    pub fn json(&self) -> Value {
        let mut body = json!({ "text": self.text });
        if !self.blocks.is_empty() {
            body["blocks"] = json!(self.blocks);
        }
        body
    }

    /// The same without blocks.
    #[must_use]
    pub fn plain(&self) -> Self {
        Self {
            blocks: Vec::new(),
            text: self.text.clone(),
        }
    }

    /// The answer to a slash command: only the person sees it.
    pub fn ephemeral(&self) -> Value {
        let mut body = self.json();
        body["response_type"] = json!("ephemeral");
        body
    }

    /// Digest of the content.
    pub fn digest(&self) -> String {
        hex::encode(&Sha256::digest(self.json().to_string().as_bytes())[..8])
    }
}

/// Puts a message together, cutting what exceeds a limit and saying so.
#[derive(Debug, Default)]
pub struct Builder {
    blocks: Vec<SlackBlock>,
    text: String,
    characters: usize,
    cut: bool,
}

impl Builder {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    /// A paragraph of mrkdwn.
    #[must_use]
    pub fn section(mut self, mrkdwn: &str) -> Self {
        if let Some(part) = self.admit(mrkdwn) {
            let text = SlackBlockMarkDownText::new(part.clone()).with_verbatim(true);
            self.blocks.push(SlackSectionBlock::new().with_text(text.into()).into());
            self.say(&part);
        }
        self
    }

    /// A small grey line of mrkdwn.
    #[must_use]
    pub fn context(mut self, mrkdwn: &str) -> Self {
        if let Some(part) = self.admit(mrkdwn) {
            let text = SlackBlockMarkDownText::new(part.clone()).with_verbatim(true);
            self.blocks.push(SlackContextBlock::new(vec![text.into()]).into());
            self.say(&part);
        }
        self
    }

    /// A row of buttons; none is no row.
    #[must_use]
    pub fn buttons(mut self, buttons: &[(Button, String)]) -> Self {
        let elements: Vec<SlackActionBlockElement> = buttons
            .iter()
            .take(BUTTONS)
            .map(|(button, label)| {
                let element = SlackBlockButtonElement::new(cut(label, BUTTON_CHARACTERS).into())
                    .with_action_id(button.action_id().into())
                    .with_value(button.value());
                let element = match button {
                    Button::Confirm { .. } | Button::Refuse { .. } => element.with_style(SlackBlockButtonStyle::Danger),
                    Button::Approve { .. } => element.with_style(SlackBlockButtonStyle::Primary),
                    _ => element,
                };
                element.into()
            })
            .collect();
        if !elements.is_empty() {
            self.blocks.push(SlackActionsBlock::new(elements).into());
        }
        self
    }

    /// One button that belongs to no run.
    #[must_use]
    pub fn button(mut self, action_id: &str, value: &str, label: &str) -> Self {
        let element = SlackBlockButtonElement::new(cut(label, BUTTON_CHARACTERS).into())
            .with_action_id(action_id.to_owned().into())
            .with_value(value.to_owned());
        self.blocks.push(SlackActionsBlock::new(vec![element.into()]).into());
        self
    }

    /// The message.
    pub fn build(mut self) -> Message {
        if self.cut {
            let text = SlackBlockMarkDownText::new("_Too long to be shown whole._".to_owned());
            self.blocks.push(SlackContextBlock::new(vec![text.into()]).into());
        }
        Message {
            text: cut(&self.text, TEXT_CHARACTERS),
            blocks: self.blocks,
        }
    }

    fn admit(&mut self, mrkdwn: &str) -> Option<String> {
        let room = MESSAGE_CHARACTERS
            .saturating_sub(self.characters)
            .min(SECTION_CHARACTERS);
        if mrkdwn.is_empty() {
            return None;
        }
        if room == 0 || self.blocks.len() >= MESSAGE_BLOCKS {
            self.cut = true;
            return None;
        }
        let part = cut(mrkdwn, room);
        self.characters += part.chars().count();
        Some(part)
    }

    fn say(&mut self, part: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(part);
    }
}

/// The first `most` characters, with `…` where something is missing. A code block that is cut is closed.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(most.saturating_sub(5)).collect();
    // Half of an entity, of a link or of a code mark would show as something else.
    if let Some(open) = out.rfind(['&', '<'])
        && !out[open..].contains([';', '>'])
    {
        out.truncate(open);
    }
    out.push('…');
    if !out.matches("```").count().is_multiple_of(2) {
        out.push_str("\n```");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_exceeds_slacks_limits() {
        let mut builder = Builder::new();
        for _ in 0..200 {
            builder = builder.section(&format!("```{}", "é&amp;".repeat(2_000)));
        }
        let message = builder.build();
        assert!(message.blocks.len() <= 50);
        assert!(message.text.chars().count() <= TEXT_CHARACTERS);
        let texts: Vec<String> = json!(message.blocks)
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|block| Some(block["text"]["text"].as_str()?.to_owned()))
            .collect();
        assert!(texts.iter().all(|t| t.chars().count() <= SECTION_CHARACTERS));
        assert!(texts.iter().map(|t| t.chars().count()).sum::<usize>() <= MESSAGE_CHARACTERS);
        assert!(texts[0].ends_with("…\n```"));
    }

    #[test]
    fn nothing_is_cut_in_half_that_would_then_mean_something_else() {
        assert_eq!(cut("abc &amp; def", 10), "abc …");
        assert_eq!(cut("see <https://x|label> now", 12), "see …");
        assert_eq!(cut("short", 10), "short");
    }
}

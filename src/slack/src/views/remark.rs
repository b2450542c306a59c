//! Remarks on top of a message: why it stands here, why it stands here twice.

use slack_morphism::prelude::*;

use super::{Message, escape::code};

/// A message that may be there already.
pub fn repeated(message: Message) -> Message {
    remark(
        message,
        "_Sent again: Slack did not say whether the first one arrived, and the bot may not read this channel._",
    )
}

/// A message that was meant for a channel which the bot can't post to, or can't see whether it did.
pub fn invitation(message: Message, channel: &str) -> Message {
    let is_id = !channel.is_empty() && channel.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    let place = if is_id { format!("<#{channel}>") } else { code(channel) };
    remark(
        message,
        &format!(
            "_This comes to you directly: the bot can't post in {place}, or can't tell whether it did. Invite it there \
             (`/invite` and its name), or ask in a channel that it is in._"
        ),
    )
}

fn remark(mut message: Message, words: &str) -> Message {
    let text = SlackBlockMarkDownText::new(words.to_owned()).with_verbatim(true);
    if !message.blocks.is_empty() {
        message
            .blocks
            .insert(0, SlackContextBlock::new(vec![text.into()]).into());
    }
    message.text = format!("{words}\n{}", message.text);
    message
}

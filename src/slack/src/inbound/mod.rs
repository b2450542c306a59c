//! Envelopes as a closed set of things that people do. Own lenient structs: Slack leaves fields out, adds kinds, and sends
//! `null` where documents show objects; nothing of that may make a command or a click vanish.

mod events;
mod form;
mod interactive;
mod read;

#[cfg(test)]
mod tests;

use diagbot_api::requester::Requester;
use secrecy::SecretString;

pub use self::form::FormState;
use crate::socket::Envelope;

/// What a person did.
#[derive(Debug, Clone)]
pub enum Inbound {
    /// A slash command.
    Command(Command),
    /// The bot was mentioned.
    Mention(Mention),
    /// A button was pressed.
    Click(Click),
    /// A shortcut was chosen.
    Shortcut(Shortcut),
    /// A type-ahead field of a form asks for options for what was typed.
    Suggestion(FormAct, String),
    /// Something was chosen in a form.
    FormChanged(FormAct),
    /// A form was submitted.
    Submission(FormAct),
    /// Nothing that we answer: an event by a bot, a closed form.
    Ignored,
    /// A kind that we don't know; named for the log.
    Unknown(String),
}

/// A slash command.
#[derive(Debug, Clone)]
pub struct Command {
    /// Who.
    pub by: Requester,
    /// Channel (`C…`, `D…`, `G…`).
    pub channel: String,
    /// What follows the command's name.
    pub text: String,
    /// New for each command, equal in redeliveries.
    pub trigger_id: String,
    /// For late answers, five within 30 minutes. A secret.
    pub response_url: Option<SecretString>,
}

/// A mention of the bot.
#[derive(Debug, Clone)]
pub struct Mention {
    /// Equal in redeliveries.
    pub event_id: String,
    /// Who.
    pub by: Requester,
    /// Channel.
    pub channel: String,
    /// The whole message.
    pub text: String,
    /// The message.
    pub ts: String,
    /// Its thread, if it stands in one.
    pub thread_ts: Option<String>,
    /// Our own user id, where Slack says it.
    pub bot: Option<String>,
}

/// A button that was pressed.
#[derive(Debug, Clone)]
pub struct Click {
    /// Who.
    pub by: Requester,
    /// Channel; empty in a form.
    pub channel: String,
    /// Thread of the message, or the message itself.
    pub thread_ts: Option<String>,
    /// `action_id` and `value` of each.
    pub actions: Vec<(String, String)>,
    /// For answers. A secret.
    pub response_url: Option<SecretString>,
}

/// A shortcut.
#[derive(Debug, Clone)]
pub struct Shortcut {
    /// Who.
    pub by: Requester,
    /// Channel; empty for a global shortcut.
    pub channel: String,
    /// Thread of the message, or the message itself.
    pub thread_ts: Option<String>,
    /// Text of the message, with that of its attachments; foreign.
    pub message: String,
    /// Good for one form, for 3 s.
    pub trigger_id: String,
    /// For answers. A secret.
    pub response_url: Option<SecretString>,
}

/// Something done in a form.
#[derive(Debug, Clone)]
pub struct FormAct {
    /// Who.
    pub by: Requester,
    /// The form as it is now.
    pub form: FormState,
}

impl Inbound {
    /// Reads an envelope. Total.
    pub fn read(envelope: &Envelope) -> Self {
        let payload = &envelope.payload;
        match envelope.kind.as_str() {
            "slash_commands" => events::command(payload),
            "events_api" => events::event(payload),
            "interactive" => interactive::interaction(payload),
            other => Self::Unknown(read::shown(other)),
        }
    }
}

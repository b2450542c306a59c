//! Frames of Socket Mode, read leniently: a frame of an unknown shape is named and acknowledged, never fatal.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Ack;

/// One delivery. At least once: redeliveries come with the same and with new envelope ids.
#[derive(Clone, Deserialize)]
pub struct Envelope {
    /// To acknowledge it.
    pub envelope_id: String,
    /// `slash_commands`, `events_api`, `interactive`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The acknowledgement may carry an answer.
    #[serde(default)]
    pub accepts_response_payload: bool,
    /// The content; secret parts in it (`response_url`) are why `Debug` does not show it.
    #[serde(default)]
    pub payload: Value,
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Envelope {
    /// The acknowledgement as a frame, if there is one.
    pub(super) fn ack(id: &str, accepts_payload: bool, ack: Ack) -> Option<String> {
        let frame = match ack {
            Ack::Withheld => return None,
            Ack::With(payload) if accepts_payload => json!({ "envelope_id": id, "payload": payload }),
            Ack::With(_) | Ack::Plain => json!({ "envelope_id": id }),
        };
        Some(frame.to_string())
    }
}

/// A text frame.
#[derive(Debug)]
pub(super) enum Frame {
    /// The connection is up.
    Hello {
        /// Connections that Slack counts for the app.
        connections: Option<usize>,
    },
    /// Slack is about to close, or won't serve.
    Disconnect(Disconnect),
    /// A delivery.
    Envelope(Envelope),
    /// Anything else; its type, shortened.
    Unknown(String),
}

/// Why Slack ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disconnect {
    /// About ten seconds are left, or the periodic refresh is due: replace it first.
    Leaving,
    /// Socket Mode was switched off.
    LinkDisabled,
    /// The app has more connections than Slack allows.
    TooMany,
}

impl Frame {
    /// Reads a text frame.
    pub(super) fn read(text: &str) -> Self {
        let Ok(value) = serde_json::from_str::<Value>(text) else {
            return Self::Unknown("no JSON".to_owned());
        };
        let kind = value["type"].as_str().unwrap_or_default().to_owned();
        match kind.as_str() {
            "hello" => Self::Hello {
                connections: value["num_connections"].as_u64().and_then(|n| usize::try_from(n).ok()),
            },
            "disconnect" => Self::Disconnect(match value["reason"].as_str() {
                Some("link_disabled") => Disconnect::LinkDisabled,
                Some("too_many_websockets") => Disconnect::TooMany,
                _ => Disconnect::Leaving,
            }),
            _ => serde_json::from_value(value)
                .map_or_else(|_| Self::Unknown(diagbot_wire::text::word(&kind, 40)), Self::Envelope),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_frames_are_named_and_unknown_envelopes_can_be_acknowledged() {
        assert!(matches!(Frame::read("{"), Frame::Unknown(_)));
        assert!(matches!(Frame::read(r#"{"type":"new\u202e thing"}"#), Frame::Unknown(name) if name == "newthing"));
        let envelope = Frame::read(r#"{"type":"app_rate_limited","envelope_id":"e1"}"#);
        assert!(matches!(envelope, Frame::Envelope(e) if e.envelope_id == "e1"));
        let leaving = Frame::read(r#"{"type":"disconnect","reason":"warning"}"#);
        assert!(matches!(leaving, Frame::Disconnect(Disconnect::Leaving)));
        assert!(matches!(
            Frame::read(r#"{"type":"disconnect","reason":"a new one"}"#),
            Frame::Disconnect(Disconnect::Leaving)
        ));
    }

    #[test]
    fn an_answer_is_sent_only_where_it_is_taken() {
        let with = || Ack::With(json!({"text": "x"}));
        let answers = |takes, ack| Envelope::ack("e", takes, ack).map(|frame| frame.contains("payload"));
        assert_eq!(answers(true, with()), Some(true));
        assert_eq!(answers(false, with()), Some(false));
        assert_eq!(answers(true, Ack::Plain), Some(false));
        assert_eq!(answers(true, Ack::Withheld), None);
    }
}

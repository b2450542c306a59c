//! What can go wrong with a call, by what the caller does next.

use std::{error::Error, time::Duration};

use diagbot_base::retry::Permanence;
use http::StatusCode;
use serde_json::Value;

/// Why a call has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Slack asks to come again later.
    #[error("Slack asks to wait {after:?}")]
    RateLimited {
        /// How long.
        after: Duration,
    },
    /// Slack refused; nothing happened.
    #[error("Slack refused: {0}")]
    Refused(Rejection),
    /// The call did not reach Slack; nothing happened.
    #[error("Slack can't be reached")]
    NotSent {
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The call was sent and its answer is unknown: it may have happened.
    #[error("Slack's answer was lost")]
    LostAnswer {
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Slack's words for "no", by what we do about them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The bot is not in that public channel.
    #[error("not_in_channel")]
    NotInChannel,
    /// A private channel without the bot in it, or none.
    #[error("channel_not_found")]
    ChannelNotFound,
    /// The channel is archived, or posting in it is restricted.
    #[error("{0}")]
    ChannelClosed(String),
    /// The blocks are refused; plain text may pass.
    #[error("{0}")]
    Blocks(String),
    /// The message to edit, or the thread, is gone.
    #[error("{0}")]
    MessageGone(String),
    /// The app lacks a scope.
    #[error("missing_scope ({0})")]
    MissingScope(String),
    /// The token does not work, for ever: revoked, app removed, account inactive.
    #[error("{0}")]
    Token(String),
    /// The link for an answer has been used up or is too old.
    #[error("{0}")]
    ResponseUrl(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Rejection {
    /// From Slack's `error`, and `needed` of a missing scope.
    fn of(code: &str, needed: &str) -> Self {
        match code {
            "not_in_channel" => Self::NotInChannel,
            "channel_not_found" => Self::ChannelNotFound,
            "is_archived"
            | "restricted_action"
            | "restricted_action_read_only_channel"
            | "restricted_action_thread_only_channel"
            | "restricted_action_non_threadable_channel"
            | "ekm_access_denied" => Self::ChannelClosed(code.to_owned()),
            "invalid_blocks" | "invalid_blocks_format" | "msg_blocks_too_long" | "msg_too_long" => {
                Self::Blocks(code.to_owned())
            }
            "message_not_found" | "cant_update_message" | "thread_not_found" | "cannot_reply_to_message" => {
                Self::MessageGone(code.to_owned())
            }
            "missing_scope" => Self::MissingScope(needed.to_owned()),
            "not_authed"
            | "invalid_auth"
            | "account_inactive"
            | "user_removed_from_team"
            | "team_disabled"
            | "token_revoked"
            | "token_expired"
            | "not_allowed_token_type"
            | "no_permission"
            | "org_login_required"
            | "app_uninstalled" => Self::Token(code.to_owned()),
            "used_url" | "expired_url" => Self::ResponseUrl(code.to_owned()),
            // The name is Slack's, but nothing is trusted to be short.
            other => Self::Other(diagbot_wire::text::word(other, 80)),
        }
    }
}

impl ApiError {
    /// Metric label.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "rate_limited",
            Self::Refused(_) => "refused",
            Self::NotSent { .. } | Self::LostAnswer { .. } => "unavailable",
        }
    }

    /// The call may have happened although there is no good answer.
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::LostAnswer { .. })
    }
}

impl Permanence for ApiError {
    fn is_permanent(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { after } => Some(*after),
            _ => None,
        }
    }
}

/// Reads an answer: HTTP status, Retry-After, body.
pub(super) fn answer(status: StatusCode, after: Duration, body: &[u8]) -> Result<Value, ApiError> {
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Err(ApiError::RateLimited { after });
    }
    if status.is_server_error() {
        let source = format!("HTTP status {}", status.as_u16()).into();
        return Err(ApiError::LostAnswer { source });
    }
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(_) if status.is_client_error() => {
            return Err(ApiError::Refused(Rejection::Other(format!("http_{}", status.as_u16()))));
        }
        Err(error) => return Err(ApiError::LostAnswer { source: error.into() }),
    };
    if value["ok"].as_bool() == Some(true) {
        return Ok(value);
    }
    match value["error"].as_str().unwrap_or("unknown_error") {
        "ratelimited" | "rate_limited" => Err(ApiError::RateLimited { after }),
        // Slack's own failures: what was asked may have happened.
        code @ ("internal_error" | "fatal_error" | "service_unavailable" | "request_timeout") => {
            Err(ApiError::LostAnswer { source: code.into() })
        }
        code => {
            let needed = value["needed"].as_str().unwrap_or_default();
            Err(ApiError::Refused(Rejection::of(code, needed)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_what_surely_did_not_happen_from_what_may_have() {
        let read = |status: u16, body: &str| {
            answer(
                StatusCode::from_u16(status).unwrap(),
                Duration::from_secs(7),
                body.as_bytes(),
            )
        };
        assert!(read(200, r#"{"ok":true}"#).is_ok());
        for (status, body) in [
            (500, ""),
            (200, "<html>"),
            (200, r#"{"ok":false,"error":"internal_error"}"#),
        ] {
            assert!(read(status, body).unwrap_err().is_uncertain(), "{status} {body}");
        }
        for (status, body) in [(429, ""), (200, r#"{"ok":false,"error":"ratelimited"}"#)] {
            let error = read(status, body).unwrap_err();
            assert_eq!(error.retry_after(), Some(Duration::from_secs(7)), "{status} {body}");
        }
        let refused = read(200, r#"{"ok":false,"error":"not_in_channel"}"#).unwrap_err();
        assert!(matches!(refused, ApiError::Refused(Rejection::NotInChannel)));
    }
}

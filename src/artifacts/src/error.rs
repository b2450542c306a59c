//! What can go wrong with the store, by what the caller does next. Never holds a URL, a header or a credential.

use std::{error::Error, time::Duration};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use diagbot_base::retry::Permanence;
use diagbot_wire::text;

/// Longest text that we take over from a cause or from the store's answer, in characters.
const LONGEST_DETAIL: usize = 120;

/// Why the store did not do something. `call` says what was asked, as words: `complete the upload`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such object, upload or bucket.
    #[error("{call}: the store has no such object, upload or bucket ({code})")]
    NotFound {
        /// What was asked.
        call: &'static str,
        /// The store's own word.
        code: String,
    },
    /// The store does not allow it.
    #[error("{call}: the store refused it ({code})")]
    Refused {
        /// What was asked.
        call: &'static str,
        /// The store's own word.
        code: String,
    },
    /// The store asks for fewer calls.
    #[error("{call}: the store is busy and asks to slow down")]
    SlowDown {
        /// What was asked.
        call: &'static str,
    },
    /// There are no credentials, or they have run out.
    #[error("{call}: the store's credentials are missing or have expired")]
    ExpiredCredentials {
        /// What was asked.
        call: &'static str,
    },
    /// The bucket is in another region than configured.
    #[error("{call}: the bucket is in another region than `store.region` says")]
    WrongRegion {
        /// What was asked.
        call: &'static str,
    },
    /// The store has no room.
    #[error("{call}: the store has no room left")]
    DiskFull {
        /// What was asked.
        call: &'static str,
    },
    /// No answer: whether the call had an effect is not known.
    #[error("{call}: no answer from the store ({detail})")]
    Unreachable {
        /// What was asked.
        call: &'static str,
        /// The innermost cause.
        detail: String,
    },
    /// What we sent arrived changed; the store did not take it.
    #[error("{call}: what was sent was damaged on its way to the store")]
    Damaged {
        /// What was asked.
        call: &'static str,
    },
    /// What the store holds is not what was captured.
    #[error("{call}: what the store holds is not what was captured ({detail})")]
    Mismatch {
        /// What was asked.
        call: &'static str,
        /// What differs.
        detail: String,
    },
    /// The object is longer than the caller wants to read.
    #[error("{call}: the object is longer than {limit_bytes} bytes")]
    TooLong {
        /// What was asked.
        call: &'static str,
        /// The caller's limit.
        limit_bytes: u64,
    },
    /// A file of this machine can't be written or read.
    #[error("{call}: {detail}")]
    File {
        /// What was done.
        call: &'static str,
        /// The system's words.
        detail: String,
    },
    /// The settings can't be used.
    #[error("the settings of the store can't be used: {}", .0.join("; "))]
    Config(Vec<String>),
    /// Anything else the store said.
    #[error("{call}: the store answered {code} (status {status})")]
    Other {
        /// What was asked.
        call: &'static str,
        /// The store's own word.
        code: String,
        /// HTTP status; 0 where there was none.
        status: u16,
    },
}

impl Permanence for StoreError {
    fn is_permanent(&self) -> bool {
        match self {
            // A provider of credentials that fails now may answer in a moment.
            Self::SlowDown { .. }
            | Self::Unreachable { .. }
            | Self::ExpiredCredentials { .. }
            | Self::Damaged { .. } => false,
            Self::Other { status, .. } => *status < 500,
            Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::WrongRegion { .. }
            | Self::DiskFull { .. }
            | Self::Mismatch { .. }
            | Self::TooLong { .. }
            | Self::File { .. }
            | Self::Config(_) => true,
        }
    }
}

impl StoreError {
    pub(super) fn mismatch(call: &'static str, detail: impl Into<String>) -> Self {
        Self::Mismatch {
            call,
            detail: detail.into(),
        }
    }

    /// The same for bytes that we still have: a digest that does not fit them tells of the way, not of the store.
    pub(super) fn while_sending(self) -> Self {
        match self {
            Self::Mismatch { call, .. } => Self::Damaged { call },
            other => other,
        }
    }

    pub(super) fn file(call: &'static str, error: &std::io::Error) -> Self {
        Self::File {
            call,
            detail: text::line(&error.to_string(), LONGEST_DETAIL),
        }
    }

    pub(super) fn unreachable(call: &'static str, cause: &(dyn Error + 'static)) -> Self {
        Self::Unreachable {
            call,
            detail: innermost(cause),
        }
    }

    pub(super) fn late(call: &'static str, limit: Duration) -> Self {
        Self::Unreachable {
            call,
            detail: format!("nothing within {} s", limit.as_secs()),
        }
    }

    /// The SDK's error as ours.
    pub(super) fn from_sdk<E>(call: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if let SdkError::ServiceError(answer) = error {
            return classify(call, answer.err().code(), answer.raw().status().as_u16());
        }
        if is_about_credentials(error) {
            return Self::ExpiredCredentials { call };
        }
        match error {
            SdkError::ConstructionFailure(_) => Self::Other {
                call,
                code: innermost(error),
                status: 0,
            },
            _ => Self::unreachable(call, error),
        }
    }
}

/// The store's answer as an error. HEAD answers have no body, hence no code.
fn classify(call: &'static str, code: Option<&str>, status: u16) -> StoreError {
    let word = text::line(code.unwrap_or("no code"), LONGEST_DETAIL);
    match code.unwrap_or_default() {
        "NoSuchKey" | "NoSuchUpload" | "NoSuchBucket" | "NoSuchVersion" | "NotFound" => {
            StoreError::NotFound { call, code: word }
        }
        "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken" | "RequestExpired" => {
            StoreError::ExpiredCredentials { call }
        }
        "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException"
        | "TemporaryRedirect" => StoreError::WrongRegion { call },
        "SlowDown" | "ServiceUnavailable" | "RequestLimitExceeded" | "TooManyRequests" | "Busy" => {
            StoreError::SlowDown { call }
        }
        "BadDigest"
        | "InvalidPart"
        | "InvalidPartOrder"
        | "InvalidDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "EntityTooSmall" => StoreError::mismatch(call, word),
        "InsufficientStorage" | "XMinioStorageFull" | "QuotaExceeded" => StoreError::DiskFull { call },
        _ => match status {
            404 => StoreError::NotFound { call, code: word },
            301 | 307 => StoreError::WrongRegion { call },
            401 | 403 => StoreError::Refused { call, code: word },
            429 | 503 => StoreError::SlowDown { call },
            507 => StoreError::DiskFull { call },
            _ => StoreError::Other {
                call,
                code: word,
                status,
            },
        },
    }
}

fn is_about_credentials(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(<dyn Error>::is::<CredentialsError>)
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let cause: &'a (dyn Error + 'static) = next?;
        next = cause.source();
        Some(cause)
    })
}

/// The innermost cause as text; a text that could hold an address is not shown.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let text = causes(error).last().map(ToString::to_string).unwrap_or_default();
    if text.contains("://") || text.contains("X-Amz") {
        return "details withheld, they hold an address".to_owned();
    }
    text::line(&text, LONGEST_DETAIL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_what_to_do_next() {
        let what = |code: Option<&str>, status| classify("call", code, status);
        assert!(matches!(what(Some("NoSuchUpload"), 404), StoreError::NotFound { .. }));
        assert!(matches!(what(None, 404), StoreError::NotFound { .. }));
        assert!(matches!(what(Some("AccessDenied"), 403), StoreError::Refused { .. }));
        assert!(matches!(
            what(Some("ExpiredToken"), 400),
            StoreError::ExpiredCredentials { .. }
        ));
        assert!(matches!(
            what(Some("PermanentRedirect"), 301),
            StoreError::WrongRegion { .. }
        ));
        assert!(matches!(
            what(Some("InsufficientStorage"), 507),
            StoreError::DiskFull { .. }
        ));
        assert!(!what(Some("SlowDown"), 503).is_permanent());
        assert!(!what(Some("InternalError"), 500).is_permanent());
        assert!(what(Some("InvalidRequest"), 400).is_permanent());
        assert!(what(Some("BadDigest"), 400).is_permanent());
    }

    #[test]
    fn an_address_in_a_cause_is_withheld() {
        let cause = std::io::Error::other("GET https://store/x?X-Amz-Signature=abc failed");
        let error = StoreError::unreachable("read the object", &cause);
        assert!(!format!("{error} {error:?}").contains("Signature"), "{error:?}");
    }
}

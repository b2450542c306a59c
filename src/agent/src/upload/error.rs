//! Why a part did not arrive. Never shows a URL.

use std::{io, time::Duration};

/// How long a store that can't be reached is tried.
const UNREACHABLE_PATIENCE: Duration = Duration::from_secs(3);
/// The same where the system itself says that there is no way: that seldom changes within seconds.
const NO_ROUTE_PATIENCE: Duration = Duration::from_millis(100);

/// Why a part did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// No way to the store from here.
    #[error("the store can't be reached from the pod: {0}")]
    Unreachable(String),
    /// The system knows no way to the store, or may not take it.
    #[error("the store can't be reached from the pod: {0}")]
    NoRoute(String),
    /// The connection broke.
    #[error("the connection to the store broke: {0}")]
    Broken(String),
    /// The URL has expired, or its credentials have or are gone.
    #[error("the store does not take the upload URL any more: it, or the credential behind it, has expired")]
    Expired,
    /// The store said no.
    #[error("the store answered {status} {code}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// S3 error code.
        code: String,
    },
    /// The file holds other bytes than were written into it.
    #[error("the captured bytes were changed after they were written: something else writes to the agent's files")]
    Changed,
    /// The store is out of reach, and the bot can't fetch the file either.
    #[error(
        "{store}, and the bot can't fetch it from the agent's container: no private folder for the relay ({relay})"
    )]
    NoRelay {
        /// Why the store is out of reach.
        store: String,
        /// Why there is no relay.
        relay: String,
    },
    /// The file can't be read.
    #[error("read the captured file: {0}")]
    Read(#[source] io::Error),
    /// A fault of our own.
    #[error("{0}")]
    Internal(String),
}

impl UploadError {
    /// Whether the same part may well arrive at another try, when the tries have taken so long. A store that can't be reached
    /// is given up sooner: there is another way.
    pub(crate) fn is_passing(&self, taken: Duration) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Unreachable(_) => taken < UNREACHABLE_PATIENCE,
            Self::NoRoute(_) => taken < NO_ROUTE_PATIENCE,
            Self::Refused { status, code } => *status >= 500 || *status == 429 || code == "BadDigest",
            _ => false,
        }
    }

    /// Whether another way (through the bot) may work where this one does not. A refusal without an S3 error code comes from
    /// something between us and the store, such as a proxy.
    pub(crate) fn wants_relay(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::NoRoute(_) | Self::Broken(_) | Self::Expired => true,
            Self::Refused { status, code } => *status >= 500 || code.is_empty(),
            Self::Changed | Self::NoRelay { .. } | Self::Read(_) | Self::Internal(_) => false,
        }
    }
}

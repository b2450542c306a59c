//! Why the service did not do what it was asked, and what of that people are told.

use diagbot_api::{capture::Explanation, request_key::RunName};
use diagbot_artifacts::StoreError;
use diagbot_cluster::CallError;

use crate::{access::AccessError, reason::Reason};

/// Why a request is not recorded, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// No answer in time: go on with [`RunService::confirm`](super::RunService::confirm).
    #[error("whether {name} was recorded is not known")]
    Unconfirmed {
        /// Name of the run.
        name: RunName,
        /// What happened instead of an answer.
        #[source]
        source: CallError,
    },
    /// The process had to stop before the answer was certain.
    #[error("whether {name} was recorded is not known, and it is not tried again")]
    GivenUp {
        /// Name of the run.
        name: RunName,
    },
    /// The request breaks a rule before it is recorded.
    #[error("{}", .0.message)]
    Rejected(Explanation),
    /// Another request has this name: never seen, since names are 80 bits of a hash.
    #[error("{name} is the name of another request")]
    NameTaken {
        /// The name.
        name: RunName,
    },
    /// The API server refused the record.
    #[error("the API server refused to record {name}")]
    Refused {
        /// Name of the run.
        name: RunName,
        /// Its answer.
        #[source]
        source: CallError,
    },
}

/// Why a service call failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no such run (any more).
    #[error("there is no such run")]
    NotFound,
    /// The person may not.
    #[error("{}", .0.message)]
    Denied(Explanation),
    /// The permission could not be checked.
    #[error("the permission could not be checked")]
    Review(#[source] AccessError),
    /// The store signed no link.
    #[error("the store signed no link")]
    Store(#[from] StoreError),
    /// The home cluster did not do it.
    #[error("{doing}")]
    Call {
        /// What was tried.
        doing: &'static str,
        /// Its answer.
        #[source]
        source: CallError,
    },
    /// Others kept writing at the same time.
    #[error("the run was being changed by others; try again")]
    Contended,
    /// We don't lead any more, or a newer leader has written.
    #[error("this replica does not lead any more")]
    NotLeading,
}

impl From<AccessError> for ServiceError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Identity(error) => Self::Denied(Reason::IdentityRefused(error).explain()),
            error => Self::Review(error),
        }
    }
}

impl ServiceError {
    /// What the person is told of it; none where there is nothing to tell but that it failed.
    pub fn explanation(&self) -> Option<Explanation> {
        match self {
            Self::Denied(reason) => Some(reason.clone()),
            Self::Review(error) => Some(
                Reason::ReviewFailed {
                    what: error.to_string(),
                }
                .explain(),
            ),
            _ => None,
        }
    }
}

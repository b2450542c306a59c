//! The time, taken at the edge. Owns the only call for the wall clock; decisions take a [`jiff::Timestamp`] as a value.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// Where the time comes from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that a test moves.
    Test(Arc<Mutex<Timestamp>>),
}

impl Clock {
    /// The time.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Test(time) => *time.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Moves a test clock; the machine's clock stays as it is.
    pub fn advance(&self, by: SignedDuration) {
        if let Self::Test(time) = self {
            let mut time = time.lock().unwrap_or_else(PoisonError::into_inner);
            *time = time.saturating_add(by).unwrap_or(Timestamp::MAX);
        }
    }
}

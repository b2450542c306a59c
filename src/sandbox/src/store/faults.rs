//! Faults of the store that a test or a person asks for.
//!
//! Owns what is armed and how often. Never carries one out.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::Operation;
use crate::SeededFaults;

/// One armed fault: what goes wrong, where, how often, how likely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// Only in this operation; any unless given.
    #[serde(default)]
    pub operation: Option<Operation>,
    /// Only for keys that hold this text; any but the bot's own unless given: its
    /// probe holds `/_probe/`, its record `/record/`.
    #[serde(default)]
    pub key: Option<String>,
    /// How often.
    #[serde(default = "once")]
    pub count: u32,
    /// How likely, each time.
    #[serde(default)]
    pub seeded: SeededFaults,
}

fn once() -> u32 {
    1
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum FaultKind {
    /// Performed after a pause.
    Slow {
        /// The pause in milliseconds.
        millis: u64,
    },
    /// 503 `SlowDown`; nothing is performed.
    SlowDown,
    /// 500 `InternalError`; nothing is performed.
    InternalError,
    /// 403 `AccessDenied`; nothing is performed.
    AccessDenied,
    /// 403 `AccessDenied` "Request has expired", as for a presigned URL whose time is over.
    ExpiredUrl,
    /// 400 `ExpiredToken`, as for credentials whose time is over.
    ExpiredCredentials,
    /// 301 `PermanentRedirect`, as for a bucket of another region.
    WrongRegion,
    /// 507, as from a store without room.
    DiskFull,
    /// No answer until the client gives up; nothing is performed.
    Timeout,
    /// The connection breaks at once; nothing is performed.
    Broken,
    /// The connection breaks after so many bytes of the request's body, or of the answer's where the request has none.
    Cut {
        /// Bytes before it.
        after_bytes: u64,
    },
    /// Performed; the connection breaks instead of an answer.
    LostAnswer,
    /// One byte of the request's body arrives changed; of the answer's where the request has none.
    Corrupt,
    /// One byte of the request's body arrives changed, and the digest beside it is missing: the store can't notice.
    Forged,
}

/// What is armed.
#[derive(Debug)]
pub(super) struct Faults {
    armed: Mutex<Vec<Fault>>,
}

impl Faults {
    pub(super) fn new(armed: Vec<Fault>) -> Self {
        Self {
            armed: Mutex::new(armed),
        }
    }

    pub(super) fn arm(&self, fault: Fault) {
        self.with(|armed| armed.push(fault));
    }

    pub(super) fn clear(&self) {
        self.with(Vec::clear);
    }

    pub(super) fn list(&self) -> Vec<Fault> {
        self.with(|armed| armed.clone())
    }

    /// Uses up one armed fault that fits.
    pub(super) fn take(&self, operation: Operation, path: &str) -> Option<FaultKind> {
        self.with(|armed| {
            let index = armed
                .iter_mut()
                .position(|f| f.count > 0 && f.fits(operation, path) && f.seeded.strikes())?;
            let kind = armed[index].kind;
            armed[index].count -= 1;
            if armed[index].count == 0 {
                armed.remove(index);
            }
            Some(kind)
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<Fault>) -> T) -> T {
        act(&mut self.armed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Fault {
    /// A fault that strikes once, anywhere but in the bot's probe; narrow it with the other methods.
    pub fn of(kind: FaultKind) -> Self {
        Self {
            kind,
            operation: None,
            key: None,
            count: 1,
            seeded: SeededFaults::default(),
        }
    }

    /// Only in this operation.
    #[must_use]
    pub fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only for keys that hold this text.
    #[must_use]
    pub fn of_key(mut self, part: &str) -> Self {
        self.key = Some(part.to_owned());
        self
    }

    /// So often.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// So likely.
    #[must_use]
    pub fn with(mut self, seeded: SeededFaults) -> Self {
        self.seeded = seeded;
        self
    }

    fn fits(&self, operation: Operation, path: &str) -> bool {
        self.operation.is_none_or(|wanted| wanted == operation)
            && match &self.key {
                Some(part) => path.contains(part.as_str()),
                None => !path.contains("/_probe/") && !path.contains("/record/"),
            }
    }
}

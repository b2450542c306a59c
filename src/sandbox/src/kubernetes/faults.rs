//! Faults that a test or a person asks for, at construction or through `POST /sandbox/faults`.
//!
//! Owns what is armed and how often. Never carries one out: the place that would fail asks [`Faults::take`].

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::SeededFaults;

/// One armed fault: what goes wrong, where, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// Only for this verb (`get`, `patch`, …); any unless given.
    #[serde(default)]
    pub verb: Option<String>,
    /// Only for this resource, with its subresource: `pods/ephemeralcontainers`; any unless given.
    #[serde(default)]
    pub resource: Option<String>,
    /// Only for objects whose name starts so; any unless given.
    #[serde(default)]
    pub name: Option<String>,
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
    /// 429 with Retry-After.
    TooManyRequests,
    /// 500.
    InternalError,
    /// 503, as while the server starts.
    Unavailable,
    /// 409 of a write, as if somebody else had just written.
    Conflict,
    /// 410: the revision asked for is gone.
    Gone,
    /// A policy of the cluster refuses, in the real server's words.
    PolicyDenies,
    /// Pod Security refuses, in the real server's words.
    PodSecurityDenies,
    /// The kubelet can't be reached: logs, exec and attach get the API server's 500.
    KubeletGone,
    /// No answer until the client gives up; nothing is performed.
    Timeout,
    /// The request is performed, the connection is dropped instead of an answer.
    LostAnswer,
    /// A watch ends, as at a load balancer's limit. Open watches too.
    WatchCloses,
    /// A watch delivers nothing more and stays open. Open watches too.
    WatchQuiet,
    /// The TCP connection of an exec or attach is reset after so many bytes of output.
    StreamReset {
        /// Bytes of output before it.
        after_bytes: u64,
    },
    /// An exec or attach ends with a clean WebSocket close and no status after so many bytes.
    StreamEndsEarly {
        /// Bytes of output before it.
        after_bytes: u64,
    },
    /// An exec or attach falls silent after so many bytes, and stays open.
    StreamSilent {
        /// Bytes of output before it.
        after_bytes: u64,
    },
    /// The connection of a log request is dropped after so many bytes.
    LogCut {
        /// Bytes before it.
        after_bytes: u64,
    },
    /// A log falls silent after so many bytes, and stays open.
    LogSilent {
        /// Bytes before it.
        after_bytes: u64,
    },
    /// An image can't be pulled; `name` is the image.
    PullFails,
    /// Pulling takes so long; `name` is the image.
    SlowPull {
        /// Duration in milliseconds.
        millis: u64,
    },
}

impl FaultKind {
    /// Whether it befalls a whole request to a stored resource.
    pub(super) fn is_of_a_request(self) -> bool {
        self.is_of_any_request()
            || matches!(
                self,
                Self::Conflict | Self::Gone | Self::PolicyDenies | Self::PodSecurityDenies | Self::KubeletGone
            )
    }

    /// Whether it befalls a whole request, of any kind, access reviews included.
    pub(super) fn is_of_any_request(self) -> bool {
        matches!(
            self,
            Self::TooManyRequests | Self::InternalError | Self::Unavailable | Self::Timeout | Self::LostAnswer
        )
    }
}

/// Where a fault could strike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Occasion<'a> {
    pub(super) verb: &'a str,
    pub(super) resource: &'a str,
    pub(super) name: &'a str,
}

/// What is armed.
#[derive(Debug)]
pub(super) struct Faults {
    armed: Mutex<Vec<Fault>>,
    changed: watch::Sender<()>,
}

impl Faults {
    pub(super) fn new(armed: Vec<Fault>) -> Self {
        Self {
            armed: Mutex::new(armed),
            changed: watch::Sender::new(()),
        }
    }

    /// Arms one more.
    pub(super) fn arm(&self, fault: Fault) {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
        self.changed.send_replace(());
    }

    /// Disarms everything.
    pub(super) fn clear(&self) {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What is still armed.
    pub(super) fn list(&self) -> Vec<Fault> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Wakes when a fault is armed.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Uses up one armed fault that fits the occasion and is of a kind that `relevant` names.
    pub(super) fn take(&self, occasion: Occasion<'_>, relevant: impl Fn(FaultKind) -> bool) -> Option<FaultKind> {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let index = armed
            .iter_mut()
            .position(|f| f.count > 0 && relevant(f.kind) && f.fits(occasion) && f.seeded.strikes())?;
        let kind = armed[index].kind;
        armed[index].count -= 1;
        if armed[index].count == 0 {
            armed.remove(index);
        }
        Some(kind)
    }
}

impl Fault {
    /// A fault that strikes once, anywhere; narrow it with the other methods.
    pub fn of(kind: FaultKind) -> Self {
        Self {
            kind,
            verb: None,
            resource: None,
            name: None,
            count: 1,
            seeded: SeededFaults::default(),
        }
    }

    /// Only for this verb and resource: `patch`, `pods/ephemeralcontainers`.
    #[must_use]
    pub fn on(mut self, verb: &str, resource: &str) -> Self {
        self.verb = Some(verb.to_owned());
        self.resource = Some(resource.to_owned());
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

    fn fits(&self, occasion: Occasion<'_>) -> bool {
        self.verb.as_deref().is_none_or(|v| v == occasion.verb)
            && self.resource.as_deref().is_none_or(|r| r == occasion.resource)
            && self.name.as_deref().is_none_or(|n| occasion.name.starts_with(n))
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, FaultKind, Faults, Occasion};

    #[test]
    fn a_fault_strikes_where_it_fits_and_as_often_as_it_says() {
        let armed = r#"{"kind":"internalError","verb":"patch","resource":"pods/ephemeralcontainers","count":2}"#;
        let fault: Fault = serde_json::from_str(armed).expect("a fault");
        let faults = Faults::new(vec![fault]);
        let take = |verb| {
            let occasion = Occasion {
                verb,
                resource: "pods/ephemeralcontainers",
                name: "p",
            };
            faults.take(occasion, |kind| kind == FaultKind::InternalError)
        };
        assert_eq!(take("get"), None);
        assert!(take("patch").is_some() && take("patch").is_some());
        assert_eq!(take("patch"), None);
        let silent: Fault = serde_json::from_str(r#"{"kind":{"streamSilent":{"afterBytes":10}}}"#).expect("a fault");
        assert_eq!(silent.kind, FaultKind::StreamSilent { after_bytes: 10 });
    }
}

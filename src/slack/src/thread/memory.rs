//! What the leader remembers of a run's telling between two looks; lost with the term, since all that counts is recorded.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use diagbot_api::run::ThreadStatus;
use diagbot_base::retry::Backoff;

use super::desired::{DesiredMessage, ROOT};

/// Between two edits of one run's messages (Slack's advice; the whole app has 50 a minute).
pub(super) const BETWEEN_EDITS: Duration = Duration::from_secs(3);

/// When to look at a run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Everything is told, for good.
    Done,
    /// When it changes.
    Idle,
    /// Then at the latest.
    At(Instant),
}

/// The memory of one run.
#[derive(Debug)]
pub(super) struct Memory {
    /// What is recorded; none until it was read in this term.
    pub(super) telling: Option<ThreadStatus>,
    /// Digests of what was last sent, by part; ahead of the record.
    pub(super) sent: BTreeMap<String, String>,
    /// The last post or edit.
    pub(super) sent_at: Option<Instant>,
    /// The last edit.
    pub(super) edited_at: Option<Instant>,
    /// Slack or the cluster asked for, or deserves, a pause until then.
    pub(super) not_before: Option<Instant>,
    /// The post that is recorded as uncertain was not made after all.
    pub(super) unmade: bool,
    /// Slack refuses the blocks: plain text.
    pub(super) plain: bool,
    /// The thread is gone: post beside it.
    pub(super) unthreaded: bool,
    /// The channel can't be posted to: tell the person.
    pub(super) direct: bool,
    /// The root message was gone once and posted again.
    pub(super) reposted: bool,
    /// Slack refuses what we send, and would refuse it again.
    pub(super) refused: bool,
    /// Waits after failures.
    pub(super) backoff: Backoff,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            telling: None,
            sent: BTreeMap::new(),
            sent_at: None,
            edited_at: None,
            not_before: None,
            unmade: false,
            plain: false,
            unthreaded: false,
            direct: false,
            reposted: false,
            refused: false,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_mins(1)),
        }
    }
}

impl Memory {
    /// A change may be looked at now.
    pub(super) fn may_wake(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|until| until <= now)
    }

    /// Whether no younger run has to wait for its first message: it stands, was given up, or is refused for itself.
    pub(super) fn needs_no_turn(&self) -> bool {
        let posted = self.telling.as_ref().is_some_and(|telling| telling.root_ts.is_some());
        posted || self.refused || self.sent.contains_key(ROOT)
    }

    /// Waits after a failure.
    pub(super) fn later(&mut self, asked: Option<Duration>) -> Next {
        let wait = self.backoff.next_delay().max(asked.unwrap_or_default());
        self.pause(wait)
    }

    /// Waits that long.
    pub(super) fn pause(&mut self, wait: Duration) -> Next {
        let until = Instant::now() + wait;
        self.not_before = Some(until);
        Next::At(until)
    }

    /// A message was sent.
    pub(super) fn note_sent(&mut self, desired: &DesiredMessage<'_>, now: Instant) {
        self.backoff = Self::default().backoff;
        self.sent_at = Some(now);
        self.sent.insert(desired.part.clone(), desired.digest.clone());
    }

    /// When an edit may be made. Progress waits since the last post or edit; the end of a run only since the last edit, so
    /// that a quick run is told at once.
    pub(super) fn edit_due(&self, settled: bool) -> Option<Instant> {
        let last = if settled { self.edited_at } else { self.sent_at };
        last.map(|at| at + BETWEEN_EDITS)
    }
}

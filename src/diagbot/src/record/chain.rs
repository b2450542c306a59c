//! This process's chain: numbers and links entries, and holds them until the store has them.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::entry::{Entry, Event, Head, Line, VERSION};
use crate::clock::Clock;

/// Most entries that wait for the store. Beyond half of them no request is taken; the rest is for what is under way.
const MOST_WAITING: usize = 4_096;
/// Most entries that are held on one run.
const MOST_HELD: usize = 32;
/// How long the oldest entry may wait before the store counts as away.
const PATIENCE: Duration = Duration::from_secs(30);

/// The store does not take the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record can't be kept: its store does not answer")]
pub struct SinkAway;

/// Where everything that happens is told. Cheap to clone.
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    writer: String,
    clock: Clock,
    state: Mutex<State>,
    added: Notify,
}

struct State {
    seq: u64,
    former: String,
    waiting: VecDeque<Waiting>,
    /// Somebody brings entries to a store.
    kept: bool,
    /// The last attempt failed.
    failing: bool,
}

/// An entry that the store does not have yet.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) head: Head,
    pub(super) line: Line,
    run: Option<String>,
    since: Instant,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("writer", &self.0.writer)
            .finish_non_exhaustive()
    }
}

impl Recorder {
    /// A new chain. `writer` must differ between processes, also between two starts of one pod.
    pub fn new(writer: &str, clock: Clock) -> Self {
        let recorder = Self(Arc::new(Shared {
            writer: writer.to_owned(),
            clock,
            state: Mutex::new(State {
                seq: 0,
                former: String::new(),
                waiting: VecDeque::new(),
                kept: false,
                failing: false,
            }),
            added: Notify::new(),
        }));
        recorder.add(Event::Began {
            program: env!("CARGO_PKG_VERSION").to_owned(),
        });
        recorder
    }

    /// The chain's name.
    pub fn writer(&self) -> &str {
        &self.0.writer
    }

    /// Records what happened. Never fails and never waits: the entry is in the log at once, and in the store soon.
    pub fn add(&self, event: Event) {
        let mut state = self.state();
        let entry = Entry {
            version: VERSION,
            writer: self.0.writer.clone(),
            seq: state.seq + 1,
            former: std::mem::take(&mut state.former),
            at: self.0.clock.now(),
            event,
        };
        let line = Line::of(&entry);
        tracing::info!(target: "record", sha256 = line.sha256, entry = line.entry);
        state.seq = entry.seq;
        state.former.clone_from(&line.sha256);
        if state.waiting.len() == MOST_WAITING {
            state.waiting.pop_front();
            tracing::error!("the record's store was away for too long: an entry is only in the log");
        }
        state.waiting.push_back(Waiting {
            head: Head {
                seq: entry.seq,
                sha256: line.sha256.clone(),
                at: entry.at,
            },
            line,
            run: entry.event.run().map(str::to_owned),
            since: Instant::now(),
        });
        drop(state);
        self.0.added.notify_one();
    }

    /// Whether something new may begin: what is sensitive only while the store takes entries, all else while there is room
    /// to hold them.
    pub fn room_for(&self, sensitive: bool) -> Result<(), SinkAway> {
        let state = self.state();
        let late = state
            .waiting
            .front()
            .is_some_and(|oldest| oldest.since.elapsed() > PATIENCE);
        let away = state.kept && (state.failing || late);
        let full = state.kept && state.waiting.len() > MOST_WAITING / 2;
        if full || (sensitive && away) {
            return Err(SinkAway);
        }
        Ok(())
    }

    /// While the store is away: the lines of a run that wait for it, oldest first, to be held on the run.
    pub fn held(&self, run: &str) -> Vec<String> {
        if self.room_for(true).is_ok() {
            return Vec::new();
        }
        let state = self.state();
        let of_run = state
            .waiting
            .iter()
            .filter(|waiting| waiting.run.as_deref() == Some(run));
        of_run.take(MOST_HELD).map(|waiting| waiting.line.render()).collect()
    }

    /// Whether a line is this chain's own.
    pub fn is_own(&self, line: &str) -> bool {
        let entry = Line::parse(line).and_then(|line| serde_json::from_str::<Entry>(&line.entry).ok());
        entry.is_some_and(|entry| entry.writer == self.0.writer)
    }

    /// Somebody brings the entries to a store from now on.
    pub(super) fn attach(&self) {
        self.state().kept = true;
    }

    /// Returns when an entry was added since the last call.
    pub(super) async fn added(&self) {
        self.0.added.notified().await;
    }

    /// The oldest entries that wait, at most so many.
    pub(super) fn waiting(&self, most: usize) -> Vec<Waiting> {
        self.state().waiting.iter().take(most).cloned().collect()
    }

    /// The store has everything up to that number.
    pub(super) fn stored(&self, seq: u64) {
        let mut state = self.state();
        state.failing = false;
        while state.waiting.front().is_some_and(|oldest| oldest.head.seq <= seq) {
            state.waiting.pop_front();
        }
    }

    /// The store did not take them.
    pub(super) fn failed(&self) {
        self.state().failing = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_numbered_and_each_holds_the_hash_of_the_former() {
        let recorder = Recorder::new("w", Clock::default());
        recorder.add(Event::Stopped);
        let waiting = recorder.waiting(9);
        let entries: Vec<Entry> = waiting
            .iter()
            .map(|w| serde_json::from_str(&w.line.entry).expect("an entry"))
            .collect();
        assert_eq!(entries.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(entries[1].former, waiting[0].line.sha256);
        assert!(entries[0].former.is_empty() && waiting.iter().all(|w| w.line.is_intact()));
    }

    #[test]
    fn sensitive_things_wait_for_the_store_and_others_go_on_while_there_is_room() {
        let recorder = Recorder::new("w", Clock::default());
        recorder.attach();
        assert_eq!(recorder.room_for(true), Ok(()));
        recorder.failed();
        assert_eq!(recorder.room_for(true), Err(SinkAway));
        assert_eq!(recorder.room_for(false), Ok(()));
        recorder.stored(1);
        assert_eq!(recorder.room_for(true), Ok(()));
        recorder.failed();
        for _ in 0..=MOST_WAITING {
            recorder.add(Event::Stopped);
        }
        assert_eq!(recorder.room_for(false), Err(SinkAway));
        assert_eq!(recorder.waiting(usize::MAX).len(), MOST_WAITING);
    }
}

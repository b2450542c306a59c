//! This process's chain: numbers and links entries, and holds them until the store has them.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use diagbot_base::clock::Clock;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::entry::{Entry, Event, Head, Line, VERSION};

/// Most entries that wait for the store. Beyond half of them no request is taken; the rest is for what is under way.
const MOST_WAITING: usize = 4_096;
/// Most entries that are held on one run.
const MOST_HELD: usize = 32;
/// How long the oldest entry may wait before the store counts as away.
const GRACE_PERIOD: Duration = Duration::from_secs(30);

/// The store does not take the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record can't be kept: its store does not answer")]
pub struct SinkAway;

/// Where everything that happens is told. Cheap to clone.
#[derive(Clone)]
pub struct AuditLog(Arc<Shared>);

struct Shared {
    clock: Clock,
    state: Mutex<State>,
    added: Notify,
}

struct State {
    writer: String,
    /// Chains of this process that could not go on.
    displaced: Vec<String>,
    /// The last entry of the chain that the store has.
    stored: Option<Head>,
    seq: u64,
    former: String,
    waiting: VecDeque<Waiting>,
    /// Somebody brings entries to a store.
    kept: bool,
    /// Why the last attempt failed, if it did.
    failing: Option<Failure>,
}

/// Why an attempt to store entries failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// The store did not take them.
    Away,
    /// Somebody else's object stood there. The chain of the new name is not in the store yet.
    Displaced,
}

/// How the record gets on, for readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkState {
    /// The store takes entries. How often another's object stood in the way before.
    Works(usize),
    /// The store does not take them.
    Away,
    /// Somebody else's object stands under the name of the next one.
    Displaced,
}

/// An entry that the store does not have yet.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) head: Head,
    pub(super) line: Line,
    event: Event,
    since: Instant,
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("writer", &self.writer())
            .finish_non_exhaustive()
    }
}

impl AuditLog {
    /// A new chain. `writer` must differ between processes, also between two starts of one pod.
    pub fn new(writer: &str, clock: Clock) -> Self {
        let audit_log = Self(Arc::new(Shared {
            clock,
            state: Mutex::new(State {
                writer: writer.to_owned(),
                displaced: Vec::new(),
                stored: None,
                seq: 0,
                former: String::new(),
                waiting: VecDeque::new(),
                kept: false,
                failing: None,
            }),
            added: Notify::new(),
        }));
        audit_log.add(Event::Began {
            program: env!("CARGO_PKG_VERSION").to_owned(),
        });
        audit_log
    }

    /// The chain's name.
    pub fn writer(&self) -> String {
        self.state().writer.clone()
    }

    /// Records what happened. Never fails and never waits: the entry is in the log at once, and in the store soon.
    pub fn add(&self, event: Event) {
        self.state().append(event, self.0.clock.now(), Instant::now());
        self.0.added.notify_one();
    }

    /// Whether something new may begin: what is sensitive only while the store takes entries, all else while there is room
    /// to hold them.
    pub fn room_for(&self, sensitive: bool) -> Result<(), SinkAway> {
        let state = self.state();
        let late = state
            .waiting
            .front()
            .is_some_and(|oldest| oldest.since.elapsed() > GRACE_PERIOD);
        let away = state.kept && (state.failing.is_some() || late);
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
        let of_run = state.waiting.iter().filter(|waiting| waiting.event.run() == Some(run));
        of_run.take(MOST_HELD).map(|waiting| waiting.line.render()).collect()
    }

    /// Whether a line is of a chain of this process.
    pub fn is_own(&self, line: &str) -> bool {
        let entry = Line::parse(line).and_then(|line| serde_json::from_str::<Entry>(&line.entry).ok());
        let state = self.state();
        entry.is_some_and(|entry| entry.writer == state.writer || state.displaced.contains(&entry.writer))
    }

    /// How the record gets on.
    pub fn sink_state(&self) -> SinkState {
        let state = self.state();
        match state.failing {
            Some(Failure::Away) => SinkState::Away,
            Some(Failure::Displaced) => SinkState::Displaced,
            None => SinkState::Works(state.displaced.len()),
        }
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
        state.failing = None;
        while state.waiting.front().is_some_and(|oldest| oldest.head.seq <= seq) {
            state.stored = state.waiting.pop_front().map(|waiting| waiting.head);
        }
    }

    /// The store did not take them.
    pub(super) fn failed(&self) {
        let mut state = self.state();
        // That a chain was displaced is told until the next one is in the store.
        state.failing.get_or_insert(Failure::Away);
    }

    /// Somebody else's object stands under the name of the next one: a new chain takes over all entries that wait, told anew
    /// with the times they had.
    pub(super) fn displaced(&self, writer: String, object: String) {
        let now = self.0.clock.now();
        let mut state = self.state();
        let former = std::mem::replace(&mut state.writer, writer);
        let event = Event::Displaced {
            chain: former.clone(),
            stored: state.stored.take(),
            object,
        };
        let waiting = std::mem::take(&mut state.waiting);
        state.displaced.push(former);
        (state.seq, state.former) = (0, String::new());
        state.failing = Some(Failure::Displaced);
        state.append(event, now, Instant::now());
        for Waiting { head, event, since, .. } in waiting {
            state.append(event, head.at, since);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Numbers and links an entry, logs it, and lets it wait for the store.
    fn append(&mut self, event: Event, at: Timestamp, since: Instant) {
        let entry = Entry {
            version: VERSION,
            writer: self.writer.clone(),
            seq: self.seq + 1,
            former: std::mem::take(&mut self.former),
            at,
            event,
        };
        let line = Line::of(&entry);
        tracing::info!(target: "record", sha256 = line.sha256, entry = line.entry);
        self.seq = entry.seq;
        self.former.clone_from(&line.sha256);
        if self.waiting.len() == MOST_WAITING {
            self.waiting.pop_front();
            tracing::error!("the record's store was away for too long: an entry is only in the log");
        }
        self.waiting.push_back(Waiting {
            head: Head {
                seq: entry.seq,
                sha256: line.sha256.clone(),
                at,
            },
            line,
            event: entry.event,
            since,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_numbered_and_each_holds_the_hash_of_the_former() {
        let audit_log = AuditLog::new("w", Clock::default());
        audit_log.add(Event::Stopped);
        let waiting = audit_log.waiting(9);
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
        let audit_log = AuditLog::new("w", Clock::default());
        audit_log.attach();
        assert_eq!(audit_log.room_for(true), Ok(()));
        audit_log.failed();
        assert_eq!(audit_log.room_for(true), Err(SinkAway));
        assert_eq!(audit_log.room_for(false), Ok(()));
        audit_log.stored(1);
        assert_eq!(audit_log.room_for(true), Ok(()));
        audit_log.failed();
        for _ in 0..=MOST_WAITING {
            audit_log.add(Event::Stopped);
        }
        assert_eq!(audit_log.room_for(false), Err(SinkAway));
        assert_eq!(audit_log.waiting(usize::MAX).len(), MOST_WAITING);
    }
    #[test]
    fn a_displaced_chain_goes_on_under_a_new_name_without_a_loss() {
        let audit_log = AuditLog::new("w", Clock::default());
        audit_log.attach();
        let first = audit_log.waiting(1).remove(0).head;
        audit_log.stored(1);
        let cancel = |run: &str| Event::Cancel {
            run: run.to_owned(),
            person: "slack:T1:U1".to_owned(),
        };
        audit_log.add(cancel("d-1"));
        audit_log.add(cancel("d-2"));
        let before = audit_log.waiting(9);
        audit_log.displaced("w2".to_owned(), "record/w/2".to_owned());
        assert_eq!(
            (audit_log.sink_state(), audit_log.room_for(true)),
            (SinkState::Displaced, Err(SinkAway))
        );
        audit_log.failed();
        assert_eq!(audit_log.sink_state(), SinkState::Displaced);
        let after: Vec<Entry> = audit_log
            .waiting(9)
            .iter()
            .map(|w| serde_json::from_str(&w.line.entry).expect("an entry"))
            .collect();
        assert_eq!(
            after[0].event,
            Event::Displaced {
                chain: "w".to_owned(),
                stored: Some(first),
                object: "record/w/2".to_owned(),
            }
        );
        assert!(after.iter().all(|entry| entry.writer == "w2"));
        assert_eq!(after.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3]);
        for (was, is) in before.iter().zip(&after[1..]) {
            assert_eq!((&was.event, was.head.at), (&is.event, is.at));
            assert!(audit_log.is_own(&was.line.render()), "not told again as another's");
        }
        audit_log.stored(3);
        assert_eq!(
            (audit_log.sink_state(), audit_log.room_for(true)),
            (SinkState::Works(1), Ok(()))
        );
    }
}

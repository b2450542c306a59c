//! Telling people what becomes of their runs: its own reconciler, on the leader only.
//!
//! From a run follow the messages that people should see (`desired`, pure); what is recorded as told is taken away; the rest
//! is sent (`tell`). Owns pace, order and repetition of posts. Never changes a run but its record of what was told.
//!
//! # Design notes
//! `chat.postMessage` has no idempotency key. So a post is recorded as uncertain before it is made and carries the run and
//! the part as metadata; when its answer is lost, the channel is read before it is made again, and without the right to read
//! it is repeated once, marked. Edits are repeatable and need no record before. Records of what was told are written at
//! posts and at the final edit only; a new leader repeats at most one edit.
//!
//! First messages go to a channel in the order of the requests, also after an hour without Slack: a run whose first message
//! can't be posted yet holds up the younger ones of its channel, unless Slack refuses that very message. A quiet run takes no
//! turn: while it lasts nobody knows whether it will have a message at all.

mod budget;
mod deliver;
mod desired;
mod memory;
mod parts;
mod tell;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use diagbot_api::{request_key::RunName, run::DiagnosticRun};
use diagbot_cluster::lease::Term;
use diagbot_runs::service::RunFilter;
use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    memory::{Memory, Next},
    parts::NotifierParts,
};
use crate::context::SlackContext;

/// The names of all that people are told by.
#[cfg(feature = "failpoints")]
pub(super) const ACTIONS: &[&str] = &[deliver::POST, deliver::EDIT];

/// Runs that are told about at a time.
const AT_ONCE: usize = 16;
/// Between looks at every run, in case a wake-up was lost.
const SWEEP: Duration = Duration::from_secs(30);
/// What telling under way may take after leadership was lost or the stop signal came.
const FINISH: Duration = Duration::from_secs(5);

/// Tells people until `stop`, while this process leads.
pub async fn run(context: SlackContext, stop: CancellationToken) {
    let mut leadership = context.service.leadership();
    let mut changes = std::pin::pin!(context.service.changes());
    let parts = Arc::new(NotifierParts::new(context.clone()));
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut notifier = Notifier::default();
    loop {
        notifier.lead(leadership.current(), &context);
        notifier.start_due(&parts);
        let next_due = notifier.next_due();
        tokio::select! {
            () = stop.cancelled() => break,
            () = leadership.changed() => {}
            _ = sweep.tick() => notifier.look_at_all(&context),
            Some(run) = changes.next() => notifier.wake(&context, &run),
            Some(done) = notifier.under_way.join_next() => match done {
                Ok((name, memory, next)) => notifier.put_back(&name, memory, next),
                Err(error) => tracing::error!(error = %diagbot_base::telemetry::Chain(&error), "telling about a run failed"),
            },
            () = sleep_until(next_due.into()) => {}
        }
    }
    let finish = async { while notifier.under_way.join_next().await.is_some() {} };
    if timeout(FINISH, finish).await.is_err() {
        tracing::info!("telling was cut off by the end of the process; the next leader goes on");
    }
}

/// The runs that people are being told about.
#[derive(Default)]
struct Notifier {
    term: Option<Term>,
    entries: HashMap<RunName, RunEntry>,
    under_way: JoinSet<(RunName, Memory, Next)>,
}

/// One run that people are being told about.
#[derive(Default)]
struct RunEntry {
    /// None while its telling is under way.
    memory: Option<Memory>,
    /// When to look again.
    due: Option<Instant>,
    /// It changed while its telling was under way.
    changed: bool,
    /// The channel of its first message, and when it was asked for; none once that message needs no turn any more.
    queued: Option<(String, Timestamp)>,
}

/// The oldest request of each channel whose first message is to be posted.
type Heads<'a> = HashMap<&'a str, (Timestamp, &'a RunName)>;

impl RunEntry {
    /// Whether no older run's first message comes first.
    fn has_turn(&self, name: &RunName, heads: &Heads<'_>) -> bool {
        let head = self
            .queued
            .as_ref()
            .and_then(|(channel, _)| heads.get(channel.as_str()));
        head.is_none_or(|(_, head)| *head == name)
    }
}

/// The place of a run whose first message does not stand yet, and is sure to come.
fn queued(run: &DiagnosticRun) -> Option<(String, Timestamp)> {
    let posted = run
        .status
        .as_ref()
        .is_some_and(|status| status.telling.root_ts.is_some());
    let certain = !posted && !run.spec.origin.quiet;
    certain.then(|| (run.spec.origin.channel.clone(), run.spec.received_at.0))
}

impl Notifier {
    /// Follows leadership: a new term begins from what is recorded.
    fn lead(&mut self, term: Option<Term>, context: &SlackContext) {
        let before = self.term.map(|term| term.epoch);
        self.term = term;
        if before == term.map(|term| term.epoch) {
            return;
        }
        // Telling under way ends by itself, since each act checks its own term; its result meets no entry.
        self.entries.clear();
        self.look_at_all(context);
    }

    fn look_at_all(&mut self, context: &SlackContext) {
        if self.term.is_none() || !context.service.ready() {
            return;
        }
        // Oldest first, so that people are told in order after an outage.
        for run in context.service.list(&RunFilter::default()).iter().rev() {
            self.wake(context, run);
        }
    }

    /// A run changed, or another one that its buttons started.
    fn wake(&mut self, context: &SlackContext, run: &DiagnosticRun) {
        if self.term.is_none() {
            return;
        }
        let name = run.name();
        let predecessor = desired::pressed(&run.spec.key).map(|button| button.run().clone());
        for name in name.into_iter().chain(predecessor) {
            let run = context.service.get(&name);
            let told = run
                .as_ref()
                .is_none_or(|run| desired::is_told(run, &parts::successors(context, run)));
            if told && !self.entries.contains_key(&name) {
                continue;
            }
            let run_entry = self.entries.entry(name).or_insert_with(|| RunEntry {
                memory: Some(Memory::default()),
                queued: run.as_deref().and_then(queued),
                ..RunEntry::default()
            });
            run_entry.changed |= run_entry.memory.is_none();
            let now = Instant::now();
            if run_entry.memory.as_ref().is_some_and(|memory| memory.may_wake(now)) {
                run_entry.due = Some(now);
            }
        }
    }

    /// Starts what is due, as far as there is room.
    fn start_due(&mut self, parts: &Arc<NotifierParts>) {
        let Some(term) = self.term else { return };
        let now = Instant::now();
        let heads = self.heads();
        let mut due: Vec<(Instant, RunName)> = self
            .entries
            .iter()
            .filter(|(name, run_entry)| run_entry.has_turn(name, &heads))
            .filter_map(|(name, run_entry)| Some((run_entry.due.filter(|due| *due <= now)?, name.clone())))
            .collect();
        due.sort();
        for (_, name) in due {
            if self.under_way.len() >= AT_ONCE {
                return;
            }
            let Some(run_entry) = self.entries.get_mut(&name) else {
                continue;
            };
            run_entry.due = None;
            let Some(memory) = run_entry.memory.take() else {
                continue;
            };
            let parts = Arc::clone(parts);
            self.under_way.spawn(async move {
                let (memory, next) = parts.tell(&name, memory, term.epoch).await;
                (name, memory, next)
            });
        }
    }

    fn put_back(&mut self, name: &RunName, memory: Memory, next: Next) {
        let Some(run_entry) = self.entries.get_mut(name) else {
            return;
        };
        let changed = std::mem::take(&mut run_entry.changed);
        if memory.needs_no_turn() {
            run_entry.queued = None;
        }
        match next {
            Next::Done if !changed => {
                self.entries.remove(name);
                return;
            }
            Next::Done | Next::Idle => run_entry.due = changed.then(Instant::now),
            Next::At(due) => run_entry.due = Some(due),
        }
        run_entry.memory = Some(memory);
    }

    fn next_due(&self) -> Instant {
        let far = Instant::now() + Duration::from_hours(1);
        if self.under_way.len() >= AT_ONCE {
            return far;
        }
        let heads = self.heads();
        let ready = self
            .entries
            .iter()
            .filter(|(name, run_entry)| run_entry.has_turn(name, &heads));
        ready.filter_map(|(_, run_entry)| run_entry.due).min().unwrap_or(far)
    }

    fn heads(&self) -> Heads<'_> {
        let mut heads = Heads::new();
        for (name, run_entry) in &self.entries {
            if let Some((channel, asked)) = &run_entry.queued {
                let head = heads.entry(channel).or_insert((*asked, name));
                *head = (*head).min((*asked, name));
            }
        }
        heads
    }
}

//! Telling people what becomes of their runs: its own reconciler, on the leader only.
//!
//! From a run follow the messages that people should see (`wanted`, pure); what is recorded as told is taken away; the rest
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
mod desk;
mod memory;
mod tell;
mod wanted;

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
    desk::Desk,
    memory::{Memory, Next},
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
    let desk = Arc::new(Desk::new(context.clone()));
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut board = Board::default();
    loop {
        board.lead(leadership.current(), &context);
        board.start_due(&desk);
        let next_due = board.next_due();
        tokio::select! {
            () = stop.cancelled() => break,
            () = leadership.changed() => {}
            _ = sweep.tick() => board.look_at_all(&context),
            Some(run) = changes.next() => board.wake(&context, &run),
            Some(done) = board.under_way.join_next() => match done {
                Ok((name, memory, next)) => board.put_back(&name, memory, next),
                Err(error) => tracing::error!(error = %diagbot_base::telemetry::Chain(&error), "telling about a run failed"),
            },
            () = sleep_until(next_due.into()) => {}
        }
    }
    let finish = async { while board.under_way.join_next().await.is_some() {} };
    if timeout(FINISH, finish).await.is_err() {
        tracing::info!("telling was cut off by the end of the process; the next leader goes on");
    }
}

/// The runs that people are being told about.
#[derive(Default)]
struct Board {
    term: Option<Term>,
    cards: HashMap<RunName, Card>,
    under_way: JoinSet<(RunName, Memory, Next)>,
}

/// One run on the board.
#[derive(Default)]
struct Card {
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

impl Card {
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

impl Board {
    /// Follows leadership: a new term begins from what is recorded.
    fn lead(&mut self, term: Option<Term>, context: &SlackContext) {
        let before = self.term.map(|term| term.epoch);
        self.term = term;
        if before == term.map(|term| term.epoch) {
            return;
        }
        // Telling under way ends by itself, since each act checks its own term; its result meets no card.
        self.cards.clear();
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
        let predecessor = wanted::pressed(&run.spec.key).map(|button| button.run().clone());
        for name in name.into_iter().chain(predecessor) {
            let run = context.service.get(&name);
            let told = run
                .as_ref()
                .is_none_or(|run| wanted::is_told(run, &desk::successors(context, run)));
            if told && !self.cards.contains_key(&name) {
                continue;
            }
            let card = self.cards.entry(name).or_insert_with(|| Card {
                memory: Some(Memory::default()),
                queued: run.as_deref().and_then(queued),
                ..Card::default()
            });
            card.changed |= card.memory.is_none();
            let now = Instant::now();
            if card.memory.as_ref().is_some_and(|memory| memory.may_wake(now)) {
                card.due = Some(now);
            }
        }
    }

    /// Starts what is due, as far as there is room.
    fn start_due(&mut self, desk: &Arc<Desk>) {
        let Some(term) = self.term else { return };
        let now = Instant::now();
        let heads = self.heads();
        let mut due: Vec<(Instant, RunName)> = self
            .cards
            .iter()
            .filter(|(name, card)| card.has_turn(name, &heads))
            .filter_map(|(name, card)| Some((card.due.filter(|due| *due <= now)?, name.clone())))
            .collect();
        due.sort();
        for (_, name) in due {
            if self.under_way.len() >= AT_ONCE {
                return;
            }
            let Some(card) = self.cards.get_mut(&name) else {
                continue;
            };
            card.due = None;
            let Some(memory) = card.memory.take() else { continue };
            let desk = Arc::clone(desk);
            self.under_way.spawn(async move {
                let (memory, next) = desk.tell(&name, memory, term.epoch).await;
                (name, memory, next)
            });
        }
    }

    fn put_back(&mut self, name: &RunName, memory: Memory, next: Next) {
        let Some(card) = self.cards.get_mut(name) else { return };
        let changed = std::mem::take(&mut card.changed);
        if memory.needs_no_turn() {
            card.queued = None;
        }
        match next {
            Next::Done if !changed => {
                self.cards.remove(name);
                return;
            }
            Next::Done | Next::Idle => card.due = changed.then(Instant::now),
            Next::At(due) => card.due = Some(due),
        }
        card.memory = Some(memory);
    }

    fn next_due(&self) -> Instant {
        let far = Instant::now() + Duration::from_hours(1);
        if self.under_way.len() >= AT_ONCE {
            return far;
        }
        let heads = self.heads();
        let ready = self.cards.iter().filter(|(name, card)| card.has_turn(name, &heads));
        ready.filter_map(|(_, card)| card.due).min().unwrap_or(far)
    }

    fn heads(&self) -> Heads<'_> {
        let mut heads = Heads::new();
        for (name, card) in &self.cards {
            if let Some((channel, asked)) = &card.queued {
                let head = heads.entry(channel).or_insert((*asked, name));
                *head = (*head).min((*asked, name));
            }
        }
        heads
    }
}

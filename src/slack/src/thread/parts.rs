//! What telling needs, and the look-ups around it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use diagbot_api::{
    request_key::{RequestKey, RunName},
    run::{DiagnosticRun, Phase, ThreadStatus},
};
use diagbot_cluster::lease::Term;
use diagbot_runs::{access::Directory as _, service::ServiceError};

use super::{budget::Budget, desired};
use crate::{
    button::{ATTEMPTS, Button},
    context::SlackContext,
    directory::SlackDirectory,
    views::Successor,
};

/// The least that must be left of a term for an act that the world can see.
const LEAST_TERM: Duration = Duration::from_secs(2);
/// Buttons in a row that are followed back to the run of a sick replica.
const LINKS: usize = 5;

/// What each telling of the notifier works with.
#[derive(Debug)]
pub(super) struct NotifierParts {
    pub(super) context: SlackContext,
    directory: SlackDirectory,
    budget: Mutex<Budget>,
}

impl NotifierParts {
    pub(super) fn new(context: SlackContext) -> Self {
        Self {
            directory: SlackDirectory::new(context.api.clone()),
            context,
            budget: Mutex::new(Budget::new(Instant::now())),
        }
    }

    /// The term of that epoch as it stands now, while there is enough of it for an act that the world can see.
    pub(super) fn term(&self, epoch: u64) -> Option<Term> {
        let term = self.context.service.leadership().current();
        term.filter(|term| term.epoch == epoch && term.remaining() >= LEAST_TERM)
    }

    /// Records what people were told, and whether that is the run's present state.
    pub(super) async fn record(
        &self,
        run: &RunName,
        telling: &ThreadStatus,
        reported: bool,
        epoch: u64,
    ) -> Result<(), ServiceError> {
        let term = self.term(epoch).ok_or(ServiceError::NotLeading)?;
        let service = &self.context.service;
        service.record_telling(run, telling.clone(), reported, &term).await
    }

    /// Asks the budget.
    pub(super) fn budget<T>(&self, ask: impl FnOnce(&mut Budget, Instant) -> T) -> T {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&mut budget, Instant::now())
    }

    /// Whether a link may stand there: a link is a bearer secret, so not in a channel that other organisations read. A
    /// direct message is the person's own.
    pub(super) async fn may_hold_links(&self, channel: &str) -> bool {
        if !channel.starts_with(['C', 'G']) {
            return true;
        }
        match self.directory.channel(channel).await {
            Ok(facts) => !facts.shared,
            Err(error) => {
                tracing::warn!(
                    slack.channel = channel,
                    error = %diagbot_base::telemetry::Chain(&error),
                    "whether a channel is shared is not known, so it gets no links"
                );
                false
            }
        }
    }

    /// Slack asked to wait with posts there.
    pub(super) fn block_posts(&self, channel: &str, after: Duration) {
        self.budget(|budget, now| budget.block_posts(channel, now + after));
    }

    /// Slack asked to wait with edits.
    pub(super) fn block_edits(&self, after: Duration) {
        self.budget(|budget, now| budget.block_edits(now + after));
    }
}

/// The runs that this run's buttons started: all that were offered, else the first; of each button the latest attempt. Names
/// follow from buttons, so no list is kept.
pub(super) fn successors(context: &SlackContext, run: &DiagnosticRun) -> Vec<Successor> {
    let Some(name) = run.name().filter(|_| run.phase().is_final()) else {
        return Vec::new();
    };
    let started = desired::starters(&name, run).into_iter().filter_map(|button| {
        let attempts = (0..ATTEMPTS).map_while(|attempt| {
            let key = RequestKey::Action {
                run: name.clone(),
                button: button.attempt(attempt),
            };
            Some((attempt, context.service.get(&key.run_name())?))
        });
        let (attempt, next) = attempts.last()?;
        Some(Successor {
            name: next.name()?,
            by: next.spec.requester.clone(),
            phase: next.phase(),
            open: next.phase() == Phase::Denied && attempt + 1 < ATTEMPTS,
            button,
        })
    });
    let most = if run.is_offer() { usize::MAX } else { 1 };
    started.take(most).collect()
}

/// The run of the sick replica, where a button made this one look at a healthy one: directly, or confirmed or repeated.
pub(super) fn compared(context: &SlackContext, run: &DiagnosticRun) -> Option<Arc<DiagnosticRun>> {
    if !run.spec.target.healthy_replica {
        return None;
    }
    let mut button = desired::pressed(&run.spec.key)?;
    for _ in 0..LINKS {
        let before = context.service.get(button.run())?;
        if matches!(button, Button::Compare { .. }) {
            return Some(before);
        }
        button = desired::pressed(&before.spec.key)?;
    }
    None
}

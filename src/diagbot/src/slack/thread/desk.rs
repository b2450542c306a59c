//! What telling needs, and the look-ups around it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{budget::Budget, wanted};
use crate::{
    runs::{request::RequestKey, resource::DiagnosticRun},
    slack::{context::SlackContext, views::Successor},
};

/// The desk at which people are told.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) context: SlackContext,
    budget: Mutex<Budget>,
}

impl Desk {
    pub(super) fn new(context: SlackContext) -> Self {
        Self {
            context,
            budget: Mutex::new(Budget::new(Instant::now())),
        }
    }

    /// Asks the budget.
    pub(super) fn budget<T>(&self, ask: impl FnOnce(&mut Budget, Instant) -> T) -> T {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&mut budget, Instant::now())
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

/// The run that one of this run's buttons started: names follow from buttons, so no list is kept.
pub(super) fn successor(context: &SlackContext, run: &DiagnosticRun) -> Option<Successor> {
    if !run.phase().is_final() {
        return None;
    }
    let name = run.name()?;
    wanted::starters(&name, run).into_iter().find_map(|button| {
        let key = RequestKey::Action {
            run: name.clone(),
            button: button.key(),
        };
        let next = context.service.get(&key.run_name())?;
        Some(Successor {
            name: next.name()?,
            by: next.spec.requester.clone(),
            button,
        })
    })
}

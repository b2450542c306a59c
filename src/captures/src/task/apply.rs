//! What an action's outcome makes of the facts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use diagbot_api::capture::Explanation;
use diagbot_base::retry::Backoff;

use super::{CaptureTask, LAST_GRACE_S, key};
use crate::{
    act::{ActError, Outcome},
    explain::{self, Refusal},
    plan::{Action, Fault, PodFact, ResultFact},
};

impl CaptureTask {
    /// Takes an action's outcome.
    pub(super) fn done(&mut self, action: &Action, outcome: Result<Outcome, ActError>) {
        let key = key(action);
        self.under_way.remove(&key);
        self.finishing &= !matches!(action, Action::Finish(_));
        self.facts.now = self.scene.now();
        // It may have been done, or a part of it, though it was not recorded.
        self.facts.may_hold_strays |= outcome.is_err() && matches!(action, Action::OpenUploads | Action::Report { .. });
        match outcome {
            Ok(outcome) => {
                if self.delays.remove(&key).is_some() {
                    self.facts.trouble = None;
                }
                self.take(action, outcome);
            }
            Err(ActError::NotOurs) => self.over = true,
            Err(ActError::Never(fault, explanation)) => {
                tracing::warn!(code = %explanation.code, reason = %explanation.message, "an action of a capture can't be done");
                self.facts.faults.insert(fault, explanation);
            }
            Err(ActError::Later { what, after }) => self.later(action, &what, after),
        }
    }

    fn take(&mut self, action: &Action, outcome: Outcome) {
        let now = self.facts.now;
        let attempt = &mut self.facts.attempt;
        match (action, outcome) {
            (_, Outcome::NewAttempt) => self.begin_anew(),
            (_, Outcome::Added(pod)) => {
                attempt.added_at = Some(now);
                self.facts.pod = PodFact::Seen(Arc::new(*pod));
                self.moment("patched");
            }
            (_, Outcome::Refused(explanation)) => attempt.refused = Some(explanation),
            (_, Outcome::Looked { pod, events }) => {
                attempt.events = Some((now, events));
                self.facts.pod = pod;
            }
            (_, Outcome::Unfit(explanation)) => attempt.verdict = Some(explanation),
            (_, Outcome::TicketSent) => {
                attempt.ticket_at = Some(now);
                self.moment("ticket");
            }
            (Action::ReadResult { last: false }, Outcome::Result(ResultFact::Absent)) => attempt.glanced_at = Some(now),
            (_, Outcome::Result(result)) => attempt.result = result,
            (_, Outcome::ManifestWritten | Outcome::Kept { described: true }) => self.facts.manifest_written = true,
            (Action::SendUrls { step, asked, .. }, Outcome::Sent) => {
                attempt.urls_at.insert(*step, (*asked, now));
            }
            (Action::SendRelease { step }, Outcome::Sent) => {
                attempt.released_at.insert(*step, now);
            }
            (Action::SendCancel { .. }, Outcome::Sent) => {
                let first = attempt.cancelled_at.map_or(now, |(first, _)| first);
                attempt.cancelled_at = Some((first, now));
            }
            (Action::AbortUploads, Outcome::Recorded) => self.facts.may_hold_strays = false,
            (_, Outcome::Recorded | Outcome::Sent | Outcome::Kept { described: false }) => {}
        }
        if matches!(
            action,
            Action::Observe(_) | Action::Attempt { .. } | Action::OpenUploads | Action::SendTicket
        ) {
            self.facts.written_at = Some(now);
        }
    }

    /// It may work later: after a pause, and not for ever.
    fn later(&mut self, action: &Action, what: &str, after: Option<Duration>) {
        let in_grace = self.facts.seconds_since(Some(self.facts.spec().deadline.0)) < LAST_GRACE_S;
        if !in_grace && let Some((fault, explanation)) = given_up(action, what) {
            self.facts.faults.insert(fault, explanation);
            return;
        }
        tracing::info!(reason = what, "an action of a capture is tried again");
        self.facts.trouble = Some(what.to_owned());
        let fresh = (
            Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            Instant::now(),
        );
        let (backoff, not_before) = self.delays.entry(key(action)).or_insert(fresh);
        *not_before = Instant::now() + backoff.next_delay().max(after.unwrap_or_default());
    }
}

/// What is recorded when an action is given up; the others are not given up, since nothing hangs on them or all does.
fn given_up(action: &Action, what: &str) -> Option<(Fault, Explanation)> {
    let (fault, refusal) = match action {
        Action::Complete { step } => (Fault::Artifact(*step), Refusal::Store),
        Action::Relay { step } => (Fault::Artifact(*step), Refusal::Relay),
        Action::Report { .. } => (Fault::Report, Refusal::Store),
        Action::AbortUploads => (Fault::Abort, Refusal::Store),
        Action::WriteManifest => (Fault::Manifest, Refusal::Store),
        _ => return None,
    };
    Some((fault, explain::refusal(refusal, what)))
}

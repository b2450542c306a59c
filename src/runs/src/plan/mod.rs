//! What to do next about a run: a pure function of facts. It has no client and no clock.
//!
//! Owns every decision of a run. Each call returns one action; its result is a fact of the next call. Start, retry and
//! recovery are this one path, since nothing but the facts counts.

mod admit;
mod approval;
mod armed;
mod before;
mod diagnostic;
mod during;
mod fanout;
mod launch;
mod lookup;
mod offer;
mod right;
mod rules;
mod spec;
mod target;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use diagbot_api::{
    capture::DiagnosticCapture,
    decision::Decision,
    pause::Pause,
    phase::{Event, IllegalTransition},
    run::{CancelRequest, DiagnosticRun, Phase, RunStatus},
};
use diagbot_base::failpoint::action_names;
use diagbot_catalog::Catalog;
use diagbot_cluster::resolve::Found;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

pub(crate) use self::{
    diagnostic::meant,
    rules::{PreflightQuestion, uses},
};
use crate::{
    admission::{BudgetConfig, Use},
    preflight::Preflight,
    reason::Reason,
};

/// How long after the request something may still start: later nobody waits for it, and the evidence is of another moment.
pub(crate) const START_WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// How long a cluster that gives no answer is asked again before the person hears so.
pub(crate) const GRACE_PERIOD: SignedDuration = SignedDuration::from_mins(2);
/// What the run allows its captures beyond their own deadlines, to stop and to clean up.
pub(crate) const GRACE: SignedDuration = SignedDuration::from_mins(5);

/// Everything that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The run, as read.
    pub run: &'a DiagnosticRun,
    /// Its captures, as read.
    pub captures: &'a [Arc<DiagnosticCapture>],
    /// A capture that the API server refused for good, with its answer.
    pub refused: Option<&'a (String, String)>,
    /// The allowlist in force.
    pub catalog: &'a Catalog,
    /// Image of captures whose diagnostic names none.
    pub agent_image: &'a str,
    /// Names of the clusters, the home cluster first.
    pub clusters: &'a [String],
    /// The answer to [`Action::FindTarget`].
    pub target: Option<&'a Result<Found, Reason>>,
    /// The answer to [`Action::Review`].
    pub review: Option<&'a Result<Vec<Decision>, Reason>>,
    /// The answer to [`Action::Preflight`].
    pub preflight: Option<&'a Result<Preflight, Reason>>,
    /// The off-switches that are on.
    pub pauses: &'a [Pause],
    /// The limits.
    pub budgets: &'a BudgetConfig,
    /// Captures of other runs, as the budgets count them.
    pub uses: &'a [Use],
    /// How many captures of the run's cluster may be made now: `agent.concurrency` without those under way.
    pub slots: usize,
    /// The time.
    pub now: Timestamp,
}

/// The one thing to do next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Look up the target.
    FindTarget {
        /// Cluster.
        cluster: String,
        /// A diagnostic that is meant: what the person may see depends on it.
        diagnostic: String,
        /// How many of the pods that fit are looked at.
        most: usize,
        /// Their replicas are looked for too.
        siblings: bool,
    },
    /// Ask whether the person may.
    Review {
        /// Cluster.
        cluster: String,
        /// Namespace.
        namespace: String,
        /// Canonical diagnostics; each is asked about.
        diagnostics: Vec<String>,
    },
    /// Look at the targets and their places, at who may see what comes of it, and at whoever consented.
    Preflight(Box<PreflightQuestion>),
    /// Write the status.
    Record(Box<RunStatus>),
    /// Make a capture.
    CreateCapture(Box<DiagnosticCapture>),
    /// Ask captures to stop.
    CancelCaptures(Vec<String>),
    /// Nothing, until a fact changes or the time comes.
    Wait(Option<Timestamp>),
}

action_names!(Action, {
    FindTarget: "runs.find-target",
    Review: "runs.review",
    Preflight: "runs.survey",
    Record: "runs.record",
    CreateCapture: "runs.create-capture",
    CancelCaptures: "runs.cancel-captures",
    Wait: "runs.wait",
});

/// The next action. An error is a fault of the plan itself.
pub(crate) fn plan(facts: &Facts<'_>) -> Result<Action, IllegalTransition> {
    match facts.run.phase() {
        Phase::Accepted | Phase::Resolving => before::resolve(facts),
        Phase::Authorizing | Phase::AwaitingApproval => before::authorize(facts),
        Phase::Capturing | Phase::Cancelling => during::follow(facts),
        _ => Ok(Action::Wait(None)),
    }
}

impl Facts<'_> {
    /// The status to change.
    fn status(&self) -> RunStatus {
        self.run.status.clone().unwrap_or_default()
    }

    /// The run's name, as text.
    fn name(&self) -> &str {
        self.run.metadata.name.as_deref().unwrap_or_default()
    }

    /// Who asked this run to stop: a person, or whoever paused the place.
    fn cancel(&self) -> Option<CancelRequest> {
        let paused = |pause: &Pause| CancelRequest {
            by: pause.by.clone(),
            at: pause.at.unwrap_or(self.now),
        };
        let status = self.run.status.as_ref();
        let pause = || status.and_then(|status| self.pause(status));
        self.run.cancel_request().or_else(|| pause().map(paused))
    }

    /// Moves a status on and notes when.
    fn enter(&self, status: &mut RunStatus, event: Event) -> Result<(), IllegalTransition> {
        status.phase = status.phase.next(event)?;
        let name = status.phase.as_str().to_owned();
        status.entered.entry(name).or_insert(MicroTime(self.now));
        Ok(())
    }

    /// Moves a status to its end, with the reason.
    fn end(&self, mut status: RunStatus, event: Event, reason: &Reason) -> Result<Action, IllegalTransition> {
        self.enter(&mut status, event)?;
        status.reason = Some(reason.explain());
        Ok(Action::Record(Box::new(status)))
    }
}

/// A time later than another by that much.
fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

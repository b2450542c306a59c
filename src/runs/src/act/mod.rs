//! Performs one action of the plan. Every action is repeatable: reads change nothing, writes carry a resourceVersion or a
//! name that follows from the run, and no call outlasts the leader's term.

mod approval;
mod capture;
mod preflight;
mod review;
mod target;

use std::{sync::Arc, time::Duration};

use diagbot_api::{
    capture::{DiagnosticCapture, ended},
    condition,
    decision::Decision,
    run::{DiagnosticRun, Phase, RunStatus},
};
use diagbot_audit::SinkAway;
use diagbot_base::{
    failpoint,
    telemetry::metrics::{Metrics, Outcome},
};
use diagbot_cluster::{CallError, deadline, lease::Term, resolve::Found};
use jiff::SignedDuration;
use kube::{Api, api::PostParams};
pub(super) use preflight::pod_site;

use crate::{
    access::AccessError,
    plan::{Action, GRACE_PERIOD},
    preflight::Preflight,
    reason::Reason,
    service::RunService,
};

/// Longest wait for one call to the home cluster.
const CALL: Duration = Duration::from_secs(5);
/// Access reviews at a time.
const PARALLEL: usize = 8;

/// What came of an action.
#[derive(Debug)]
pub(super) enum Done {
    /// The run as written.
    Written(Box<DiagnosticRun>),
    /// The target was looked up.
    Target(Result<Found, Reason>),
    /// The review was answered.
    Reviewed(Result<Vec<Decision>, Reason>),
    /// The targets and their places were looked at.
    Surveyed(Result<Preflight, Reason>),
    /// The capture exists.
    Capture(Box<DiagnosticCapture>),
    /// The API server refused the capture for good.
    CaptureRefused {
        /// Its name.
        capture: String,
        /// The answer.
        answer: String,
    },
    /// Captures were asked to stop.
    Cancelled(Vec<DiagnosticCapture>),
    /// Somebody wrote first, or the run is gone: look again.
    Stale,
}

/// Why an action was not done. It is tried again, later, by whoever leads then.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActError {
    /// The term is over, or a newer leader has written.
    #[error("this replica does not lead any more")]
    NotLeading,
    /// A cluster gave no answer.
    #[error("{doing}")]
    Call {
        /// What was tried.
        doing: &'static str,
        /// Its answer.
        #[source]
        source: CallError,
    },
    /// The review got no answer.
    #[error("review the access")]
    Review(#[source] AccessError),
    /// The record's store is away.
    #[error("keep the record")]
    Record(#[source] SinkAway),
}

/// Performs actions within one term.
pub(super) struct Actor<'a> {
    pub(super) service: &'a RunService,
    pub(super) captures: &'a Api<DiagnosticCapture>,
    pub(super) metrics: &'a Metrics,
    pub(super) term: Term,
}

impl Actor<'_> {
    /// Performs `action` for `run`. [`Action::Wait`] is nobody's to perform and changes nothing.
    pub(super) async fn perform(&self, run: &DiagnosticRun, action: Action) -> Result<Done, ActError> {
        if self.term.remaining().is_zero() {
            return Err(ActError::NotLeading);
        }
        failpoint::around(action.name(), self.dispatch(run, action)).await
    }

    async fn dispatch(&self, run: &DiagnosticRun, action: Action) -> Result<Done, ActError> {
        match action {
            Action::FindTarget {
                cluster,
                diagnostic,
                most,
                siblings,
            } => Box::pin(self.find_target(run, &cluster, &diagnostic, most, siblings)).await,
            Action::Review {
                cluster,
                namespace,
                diagnostics,
            } => Box::pin(self.review(run, &cluster, &namespace, &diagnostics)).await,
            Action::Preflight(question) => Box::pin(self.preflight(run, &question)).await,
            Action::Record(status) => self.record(run, *status).await,
            Action::CreateCapture(capture) => self.create_capture(*capture).await,
            Action::CancelCaptures(names) => self.cancel_captures(names).await,
            Action::Wait(_) => Ok(Done::Stale),
        }
    }

    /// No call may end after the term.
    fn limit(&self) -> Duration {
        CALL.min(self.term.remaining())
    }

    /// Whether the person can be left waiting while a cluster is asked again.
    fn patient(&self, run: &DiagnosticRun) -> bool {
        self.waited(run) < GRACE_PERIOD
    }

    fn waited(&self, run: &DiagnosticRun) -> SignedDuration {
        self.service.now().duration_since(run.spec.received_at.0)
    }

    /// A crash before the write leaves the former status, and the plan comes to the same; a crash after it loses nothing.
    async fn record(&self, run: &DiagnosticRun, mut status: RunStatus) -> Result<Done, ActError> {
        if status.epoch > self.term.epoch {
            return Err(ActError::NotLeading);
        }
        status.epoch = self.term.epoch;
        let mut run = run.clone();
        let name = run.metadata.name.clone().unwrap_or_default();
        for event in approval::said(&run, &status) {
            self.service.audit_log().add(event);
        }
        let held = self.service.audit_log().held(&name);
        if !held.is_empty() {
            status.unrecorded = held;
        }
        if status.phase.is_final() {
            let complete = status.phase == Phase::Succeeded;
            let end = ended(complete, status.phase.as_str(), status.reason.as_ref());
            let condition = end.condition(run.metadata.generation, self.service.now());
            condition::set(&mut status.conditions, condition);
        }
        run.status = Some(status);
        let params = PostParams::default();
        match deadline(self.limit(), self.service.api().replace_status(&name, &params, &run)).await {
            Ok(written) => {
                self.record_end(&written);
                Ok(Done::Written(Box::new(written)))
            }
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(Done::Stale),
            Err(source) => Err(ActError::Call {
                doing: "write the run's status",
                source,
            }),
        }
    }

    fn record_end(&self, run: &DiagnosticRun) {
        if !run.phase().is_final() {
            return;
        }
        let outcome = run.phase().as_str();
        self.metrics.runs_finished.get_or_create(&Outcome { outcome }).inc();
        let reason = run.status.as_ref().and_then(|status| status.reason.as_ref());
        self.service.audit_log().add(diagbot_audit::Event::Ended {
            run: run.metadata.name.clone().unwrap_or_default(),
            person: run.spec.requester.user_name(),
            phase: run.phase().as_str().to_owned(),
            reason: reason.map(|reason| reason.code.clone()).unwrap_or_default(),
        });
    }
}

/// An answer of an API server in a few words; the chain is in the log.
pub(super) fn answer(error: &CallError) -> String {
    match error.status() {
        Some(status) if !status.message.is_empty() => status.message.clone(),
        Some(status) => format!("{} {}", status.code, status.reason),
        None => error.to_string(),
    }
}

/// Facts that actions observed within one look at a run.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) target: Option<Result<Found, Reason>>,
    pub(super) review: Option<Result<Vec<Decision>, Reason>>,
    pub(super) preflight: Option<Result<Preflight, Reason>>,
    pub(super) refused: Option<(String, String)>,
    pub(super) captures: Vec<Arc<DiagnosticCapture>>,
}

impl Observed {
    /// Takes a capture's newest version.
    pub(super) fn take(&mut self, capture: DiagnosticCapture) {
        self.captures
            .retain(|known| known.metadata.name != capture.metadata.name);
        self.captures.push(Arc::new(capture));
    }
}

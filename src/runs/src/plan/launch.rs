//! Before each launch: whether what was reviewed still holds. Pure.
//!
//! A run with many targets launches for hours. A right, a label or an approval that is taken away meanwhile stops what has not
//! been launched.

use diagbot_api::{
    capture::PinnedTarget,
    decision::{Decision, Verb},
    run::RunStatus,
};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{
    Action, Facts, PreflightQuestion, later,
    right::{self, Place},
};
use crate::{access::BY_WILDCARD, preflight::Preflight, reason::Reason};

/// How long an answer counts for a launch; SECURITY.md names it.
const RECENT: SignedDuration = SignedDuration::from_secs(10);
/// Before an answer that came too late is asked for again.
const AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// Whether a capture may be launched now.
#[derive(Debug)]
pub(super) enum Permit {
    /// It may.
    Given,
    /// This first.
    Ask(Action),
    /// Neither this one nor any other of the run.
    Denied {
        reason: Reason,
        /// The answer that stands in the way, if the cluster gave one.
        decision: Option<Decision>,
    },
}

impl From<Reason> for Permit {
    fn from(reason: Reason) -> Self {
        Self::Denied { reason, decision: None }
    }
}

/// Whether a capture of this target may be launched now.
pub(super) fn permit(facts: &Facts<'_>, status: &RunStatus, target: &PinnedTarget) -> Permit {
    let recent = |at: &MicroTime| facts.now.duration_since(at.0) < RECENT;
    let place = Place {
        cluster: &target.cluster,
        namespace: &target.namespace,
    };
    match facts.review {
        None if status.decision.as_ref().is_some_and(|decision| recent(&decision.at)) => return Permit::Given,
        None => return Permit::Ask(right::review(place, status.diagnostics())),
        Some(Ok(decisions)) if !decisions.iter().all(|decision| recent(&decision.at)) => {
            return Permit::Ask(Action::Wait(Some(later(facts.now, AGAIN))));
        }
        Some(_) => {}
    }
    let decision = match right::judged(facts, place) {
        Some(Ok(decision)) => decision,
        Some(Err(denial)) => {
            let (reason, decision) = denial.into_parts();
            return Permit::Denied { reason, decision };
        }
        None => return Reason::NoTarget.into(),
    };
    let preflight = match facts.preflight {
        Some(Ok(preflight)) => preflight,
        Some(Err(reason)) => return reason.clone().into(),
        None => return Permit::Ask(Action::Preflight(Box::new(question(status, target)))),
    };
    // All targets of a run are in one namespace.
    let checked = preflight.snapshots.first().map_or_else(
        || {
            Err(Reason::ReviewFailed {
                what: "the target's namespace was not looked at".to_owned(),
            })
        },
        |snapshot| facts.check_place(target, snapshot),
    );
    match checked.and_then(|()| stands(facts, status, preflight, decision)) {
        Ok(()) => Permit::Given,
        Err(reason) => reason.into(),
    }
}

fn question(status: &RunStatus, target: &PinnedTarget) -> PreflightQuestion {
    PreflightQuestion {
        targets: vec![target.clone()],
        diagnostics: status.diagnostics().into_iter().map(str::to_owned).collect(),
        count_workload: false,
    }
}

/// Whether what stood in for the person's own right, or was wanted beside it, still does.
fn stands(facts: &Facts<'_>, status: &RunStatus, preflight: &Preflight, decision: &Decision) -> Result<(), Reason> {
    if facts.run.spec.appeal.break_glass.is_some() {
        return match &preflight.break_glass {
            Some(decision) if decision.allowed => Ok(()),
            Some(decision) => Err(Reason::BreakGlassNotAllowed {
                diagnostic: decision.diagnostic.clone(),
                wildcard: decision.authorizer_reason == BY_WILDCARD,
                user: decision.user.clone(),
            }),
            None => Err(Reason::NoTarget),
        };
    }
    if let Some(approval) = &status.approval {
        if let Some(change) = facts.changed_terms(approval, status) {
            return Err(Reason::ApprovalVoid { change });
        }
        return match &preflight.approver {
            Some(approver) if approver.allowed => Ok(()),
            approver => Err(Reason::ApproverMayNot {
                user: approver
                    .as_ref()
                    .map(|approver| approver.user.clone())
                    .unwrap_or_default(),
            }),
        };
    }
    if decision.allowed {
        return Ok(());
    }
    let place = survey_place(status);
    Err(Reason::not_allowed(Verb::Run, decision, place))
}

fn survey_place(status: &RunStatus) -> (&str, &str) {
    let target = status.captures.first().map(|capture| &capture.target);
    target.map_or(("", ""), |target| (&target.cluster, &target.namespace))
}

//! Whether the person may: what is asked of the cluster, and what follows of its answer. Pure.
//!
//! A review speaks of one place: one namespace of one cluster. Whatever a run takes of another place was not reviewed, and
//! is refused here.

use std::collections::BTreeSet;

use diagbot_api::{
    decision::{Decision, Verb},
    phase::{Event, IllegalTransition},
    run::RunStatus,
};

use super::{Action, Facts};
use crate::reason::Reason;

/// A namespace and the cluster that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place<'a> {
    pub(super) cluster: &'a str,
    pub(super) namespace: &'a str,
}

/// Why the run ends here.
#[derive(Debug)]
pub(super) struct Denial {
    event: Event,
    reason: Reason,
    /// The answer that stands in the way, if the cluster gave one.
    decision: Option<Decision>,
}

impl Denial {
    /// The reason, and the answer that stands in the way.
    pub(super) fn into_parts(self) -> (Reason, Option<Decision>) {
        (self.reason, self.decision)
    }

    /// Ends the run with it.
    pub(super) fn end(self, facts: &Facts<'_>, mut status: RunStatus) -> Result<Action, IllegalTransition> {
        if self.decision.is_some() {
            status.decision = self.decision;
        }
        facts.end(status, self.event, &self.reason)
    }
}

impl From<&Reason> for Denial {
    fn from(reason: &Reason) -> Self {
        Self {
            event: refusal(reason),
            reason: reason.clone(),
            decision: None,
        }
    }
}

/// How a run ends for a reason that was met on the way: denied where it is about the person, refused otherwise.
pub(super) fn refusal(reason: &Reason) -> Event {
    match reason {
        Reason::IdentityRefused(_) | Reason::ReviewFailed { .. } | Reason::CallerForbidden { .. } => Event::Denied,
        _ => Event::Refused,
    }
}

/// The one place of all targets.
pub(super) fn one_place<'a>(
    facts: &Facts<'_>,
    places: impl IntoIterator<Item = Place<'a>>,
) -> Result<Place<'a>, Reason> {
    let places: BTreeSet<Place<'a>> = places.into_iter().collect();
    let mut all = places.iter();
    match (all.next(), all.next()) {
        (Some(place), None) => Ok(*place),
        (None, _) => Err(Reason::NoTarget),
        (Some(_), Some(_)) => Err(Reason::SeveralNamespaces {
            typed: facts.run.spec.target.to_string(),
            namespaces: places.iter().map(|place| place.namespace.to_owned()).collect(),
        }),
    }
}

/// The question whether the person may take these diagnostics there.
pub(super) fn review<'a>(place: Place<'_>, diagnostics: impl IntoIterator<Item = &'a str>) -> Action {
    let diagnostics: BTreeSet<&str> = diagnostics.into_iter().collect();
    Action::Review {
        cluster: place.cluster.to_owned(),
        namespace: place.namespace.to_owned(),
        diagnostics: diagnostics.into_iter().map(str::to_owned).collect(),
    }
}

/// What the review says to a run that takes all it was asked about: the first denial, unless the person appeals, else the
/// last answer. None before it was asked.
pub(super) fn judged<'a>(facts: &Facts<'a>, place: Place<'_>) -> Option<Result<&'a Decision, Denial>> {
    let decisions = match facts.review? {
        Ok(decisions) => decisions,
        Err(reason) => return Some(Err(reason.into())),
    };
    let denied = decisions.iter().find(|decision| !decision.allowed);
    Some(match denied.or(decisions.last()) {
        None => Err((&Reason::NoTarget).into()),
        Some(decision) if decision.allowed || appeals(facts) => Ok(decision),
        Some(decision) => Err(Denial {
            event: Event::Denied,
            reason: Reason::not_allowed(Verb::Run, decision, (place.cluster, place.namespace)),
            decision: Some(decision.clone()),
        }),
    })
}

/// Whether the person appeals to something beyond their own right.
fn appeals(facts: &Facts<'_>) -> bool {
    let appeal = &facts.run.spec.appeal;
    appeal.ask_owners || appeal.break_glass.is_some()
}

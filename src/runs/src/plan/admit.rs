//! The last rules before a launch, or the plan that a dry run tells.

use diagbot_api::{
    phase::{Event, IllegalTransition},
    run::{CaptureSummary, RunStatus},
};

use super::{
    Action, Facts,
    right::{self, Place},
    spec,
};
use crate::{preflight::Preflight, reason::Reason};

/// Targets of which a dry run tells every step.
const DESCRIBED: usize = 3;

/// The last rules, and the launch; or the plan of a dry run.
pub(super) fn admit(
    facts: &Facts<'_>,
    mut status: RunStatus,
    preflight: &Preflight,
) -> Result<Action, IllegalTransition> {
    if let Some(gone) = gone(facts, &status) {
        return facts.end(status, Event::Refused, &gone);
    }
    // The person is reviewed once more where time has passed since: a second person took a while to approve.
    let place = match place_of(facts, &status) {
        Ok(place) => place,
        Err(reason) => return facts.end(status, Event::Refused, &reason),
    };
    match right::judged(facts, place) {
        None => return Ok(right::review(place, status.diagnostics())),
        Some(Err(denial)) => return denial.end(facts, status),
        Some(Ok(decision)) => status.decision = Some(decision.clone()),
    }
    let at_once = match facts.check_rules(&status, preflight) {
        Ok(at_once) => at_once,
        Err(reason) => return facts.end(status, Event::Refused, &reason),
    };
    // What ended before it began waits for nothing.
    let waiting = status.captures.iter().filter(|capture| !capture.phase.is_final());
    if at_once < waiting.count() {
        status.at_once = u32::try_from(at_once).ok();
        status
            .notes
            .push(format!("They are taken {at_once} at a time, as the budgets allow."));
    }
    status.audience = Some(preflight.audience);
    if facts.run.spec.dry_run {
        status.plan = plan_lines(facts, &status);
        facts.enter(&mut status, Event::Planned)?;
        status.captures.clear();
    } else {
        facts.enter(&mut status, Event::Allowed)?;
    }
    Ok(Action::Record(Box::new(status)))
}

/// Where all of the run's targets are.
pub(super) fn place_of<'a>(facts: &Facts<'_>, status: &'a RunStatus) -> Result<Place<'a>, Reason> {
    let of = |capture: &'a CaptureSummary| Place {
        cluster: &capture.target.cluster,
        namespace: &capture.target.namespace,
    };
    right::one_place(facts, status.captures.iter().map(of))
}

/// The allowlist changed since the target was resolved: something that the run takes is not in it any more.
pub(super) fn gone(facts: &Facts<'_>, status: &RunStatus) -> Option<Reason> {
    let diagnostics = status.diagnostics();
    let mut names = diagnostics.iter().copied();
    let missing = names.find(|name| facts.catalog.get(name).is_none());
    let typed = match missing {
        Some(name) => name,
        // Nothing is known that could be reviewed.
        None if diagnostics.is_empty() => "",
        None => return None,
    };
    Some(Reason::UnknownDiagnostic {
        typed: typed.to_owned(),
        near: Vec::new(),
    })
}

/// What a dry run tells: what would run, where, as whom, within which limits.
fn plan_lines(facts: &Facts<'_>, status: &RunStatus) -> Vec<String> {
    let mut lines = Vec::new();
    for capture in status.captures.iter().take(DESCRIBED) {
        lines.extend(spec::describe(facts, status, capture));
    }
    let more = status.captures.iter().skip(DESCRIBED);
    lines.extend(more.map(|capture| format!("The same of {}/{}", capture.target.namespace, capture.target.pod)));
    if let Some(decision) = &status.decision {
        lines.push(format!("Permission: allowed for {}", decision.user));
    }
    lines
}

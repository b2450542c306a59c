//! Decisions before anything starts: what is meant, and whether the person may.

use diagbot_catalog::{Diagnostic, Method};

use super::{Action, Facts, START_WINDOW, approval, diagnostic, later, spec, target};
use crate::{
    access::{BY_WILDCARD, Decision},
    cluster::resolve::Need,
    runs::{
        phase::{Event, IllegalTransition},
        reason::Reason,
        resource::{Phase, RunStatus},
        survey::Survey,
    },
};

/// Accepted, Resolving: diagnostic, parameters, target.
pub(super) fn resolve(facts: &Facts<'_>) -> Result<Action, IllegalTransition> {
    if let Some(action) = stop_early(facts)? {
        return Ok(action);
    }
    let asked = &facts.run.spec;
    let mut status = facts.status();
    if status.phase == Phase::Accepted {
        facts.enter(&mut status, Event::Begun)?;
    }
    let choice = match diagnostic::choose(facts.catalog, &asked.diagnostic, &asked.parameters) {
        Ok(choice) => choice,
        Err(reason) => return facts.end(status, Event::Refused, &reason),
    };
    let cluster = match cluster(facts) {
        Ok(cluster) => cluster,
        Err(reason) => return facts.end(status, Event::Refused, &reason),
    };
    if asked.target.name.is_empty() {
        return facts.end(status, Event::Refused, &Reason::NoTarget);
    }
    let found = match facts.target {
        None => {
            return Ok(Action::FindTarget {
                cluster,
                diagnostic: choice.diagnostic.name.to_string(),
            });
        }
        Some(Err(reason)) => {
            let denied = matches!(reason, Reason::IdentityRefused(_) | Reason::ReviewFailed { .. });
            let event = if denied { Event::Denied } else { Event::Refused };
            return facts.end(status, event, reason);
        }
        Some(Ok(found)) => found,
    };
    status.diagnostic = Some(choice.diagnostic.name.to_string());
    status.parameters.clone_from(&choice.parameters);
    status.notes.extend(choice.note.clone());
    match target::settle(found, &asked.target, need(choice.diagnostic)) {
        Ok(settled) => {
            status.notes.extend(settled.notes);
            let guessed = settled.completed || choice.note.is_some();
            if guessed && let Some(words) = spec::impact_words(choice.diagnostic.impact) {
                let pod = format!("{}/{}", settled.pin.namespace, settled.pin.pod);
                if !asked.confirmed && !asked.dry_run {
                    status.needs_confirmation = true;
                    status.candidates = vec![settled.candidate];
                    let reason = Reason::ConfirmationNeeded {
                        diagnostic: choice.diagnostic.name.to_string(),
                        target: pod,
                        impact: words,
                    };
                    return facts.end(status, Event::Refused, &reason);
                }
            }
            status.captures = vec![target::summary(facts.name(), 0, &cluster, settled.pin)];
            facts.enter(&mut status, Event::Resolved)?;
            // Looking and asking change nothing that a restart would have to know: one record of both.
            decide(facts, status)
        }
        Err(unsettled) => {
            status.candidates = unsettled.candidates;
            facts.end(status, Event::Refused, &unsettled.reason)
        }
    }
}

/// Authorizing: the access review, right before launch, and every rule; AwaitingApproval: what a second person said.
pub(super) fn authorize(facts: &Facts<'_>) -> Result<Action, IllegalTransition> {
    if let Some(action) = stop_early(facts)? {
        return Ok(action);
    }
    decide(facts, facts.status())
}

/// Whether the person may, of a resolved run, and whether every rule agrees.
fn decide(facts: &Facts<'_>, status: RunStatus) -> Result<Action, IllegalTransition> {
    if let Some(pause) = facts.pause(&status) {
        let reason = Reason::Paused {
            place: pause.place.words(),
            by: pause.by.user.clone(),
        };
        return facts.end(status, Event::Refused, &reason);
    }
    if status.phase == Phase::AwaitingApproval {
        return approval::follow(facts, status);
    }
    if status.captures.is_empty() {
        return facts.end(status, Event::Refused, &Reason::NoTarget);
    }
    let question = facts.question(&status);
    let (decision, survey) = match (facts.review, facts.survey) {
        (None, _) => return review(facts, status),
        (Some(Err(reason @ Reason::RecordAway)), _) => return facts.end(status, Event::Refused, reason),
        (Some(Err(reason)), _) => return facts.end(status, Event::Denied, reason),
        // Whoever may do nothing there learns nothing of the place.
        (Some(Ok(decision)), _) if !decision.allowed && !appeals(facts) => {
            let reason = not_allowed(&status, decision);
            let mut status = status;
            status.decision = Some(decision.clone());
            return facts.end(status, Event::Denied, &reason);
        }
        (Some(Ok(_)), None) => return Ok(Action::Survey(Box::new(question))),
        (Some(Ok(_)), Some(Err(reason @ (Reason::IdentityRefused(_) | Reason::ReviewFailed { .. })))) => {
            return facts.end(status, Event::Denied, reason);
        }
        (Some(Ok(_)), Some(Err(reason))) => return facts.end(status, Event::Refused, reason),
        (Some(Ok(decision)), Some(Ok(survey))) => (decision, survey),
    };
    let mut status = status;
    status.decision = Some(decision.clone());
    if facts.run.spec.appeal.break_glass.is_some() {
        return break_glass(facts, status, survey);
    }
    let why = match facts.demand(&status, survey) {
        _ if facts.run.spec.dry_run && decision.allowed => None,
        None if !decision.allowed => Some("the person has no right of their own".to_owned()),
        why => why,
    };
    match why {
        None => admit(facts, status, survey),
        Some(why) => {
            if let Err(reason) = facts.check_rules(&status, survey) {
                return facts.end(status, Event::Refused, &reason);
            }
            status.approval = Some(facts.approval(&status, why));
            status.audience = Some(survey.audience);
            facts.enter(&mut status, Event::ApprovalNeeded)?;
            Ok(Action::Record(Box::new(status)))
        }
    }
}

/// The last rules, and the launch; or the plan of a dry run.
pub(super) fn admit(facts: &Facts<'_>, mut status: RunStatus, survey: &Survey) -> Result<Action, IllegalTransition> {
    let name = status.diagnostic.clone().unwrap_or_default();
    let Some(diagnostic) = facts.catalog.get(&name) else {
        return facts.end(status, Event::Refused, &gone(name));
    };
    // The person is reviewed once more where time has passed since: a second person took a while to consent.
    match facts.review {
        None => return review(facts, status),
        Some(Err(reason @ Reason::RecordAway)) => return facts.end(status, Event::Refused, reason),
        Some(Err(reason)) => return facts.end(status, Event::Denied, reason),
        Some(Ok(decision)) if !decision.allowed && !appeals(facts) => {
            let reason = not_allowed(&status, decision);
            return facts.end(status, Event::Denied, &reason);
        }
        Some(Ok(decision)) => status.decision = Some(decision.clone()),
    }
    if let Err(reason) = facts.check_rules(&status, survey) {
        return facts.end(status, Event::Refused, &reason);
    }
    status.audience = Some(survey.audience);
    if facts.run.spec.dry_run {
        status.plan = plan_lines(facts, &status, diagnostic);
        facts.enter(&mut status, Event::Planned)?;
        status.captures.clear();
    } else {
        facts.enter(&mut status, Event::Allowed)?;
    }
    Ok(Action::Record(Box::new(status)))
}

fn break_glass(facts: &Facts<'_>, mut status: RunStatus, survey: &Survey) -> Result<Action, IllegalTransition> {
    if !facts.run.spec.origin.channel.starts_with(['C', 'G']) {
        return facts.end(status, Event::Refused, &Reason::BreakGlassUnheard);
    }
    status.break_glass.clone_from(&survey.break_glass);
    match &survey.break_glass {
        Some(decision) if decision.allowed => admit(facts, status, survey),
        Some(decision) => {
            let reason = Reason::BreakGlassNotAllowed {
                diagnostic: status.diagnostic.clone().unwrap_or_default(),
                wildcard: decision.authorizer_reason == BY_WILDCARD,
                user: decision.user.clone(),
            };
            facts.end(status, Event::Denied, &reason)
        }
        None => facts.end(status, Event::Refused, &Reason::NoTarget),
    }
}

/// Whether the person appeals to something beyond their own right.
fn appeals(facts: &Facts<'_>) -> bool {
    let appeal = &facts.run.spec.appeal;
    appeal.ask_owners || appeal.break_glass.is_some()
}

fn review(facts: &Facts<'_>, status: RunStatus) -> Result<Action, IllegalTransition> {
    let name = status.diagnostic.clone().unwrap_or_default();
    if facts.catalog.get(&name).is_none() {
        return facts.end(status, Event::Refused, &gone(name));
    }
    match status.captures.first().map(|capture| capture.target.clone()) {
        Some(target) => Ok(Action::Review {
            cluster: target.cluster,
            namespace: target.namespace,
            diagnostic: name,
        }),
        None => facts.end(status, Event::Refused, &Reason::NoTarget),
    }
}

/// The allowlist changed since the target was resolved.
fn gone(name: String) -> Reason {
    Reason::UnknownDiagnostic {
        typed: name,
        near: Vec::new(),
    }
}

fn not_allowed(status: &RunStatus, decision: &Decision) -> Reason {
    let target = status.captures.first().map(|capture| capture.target.clone());
    let target = target.unwrap_or_default();
    Reason::NotAllowed {
        verb: "run",
        diagnostic: status.diagnostic.clone().unwrap_or_default(),
        namespace: target.namespace,
        cluster: target.cluster,
        user: decision.user.clone(),
    }
}

/// A cancel or the end of the start window.
fn stop_early(facts: &Facts<'_>) -> Result<Option<Action>, IllegalTransition> {
    if let Some(cancel) = facts.run.cancel_request() {
        let mut status = facts.status();
        facts.enter(&mut status, Event::CancelAsked)?;
        status.cancelled_by = Some(cancel.by);
        status.captures.clear();
        return Ok(Some(Action::Record(Box::new(status))));
    }
    // Who waits for a second person has a time of their own.
    let awaits = facts.run.phase() == Phase::AwaitingApproval;
    if !awaits && facts.now > later(facts.run.spec.received_at.0, START_WINDOW) {
        let reason = Reason::NotStarted {
            minutes: START_WINDOW.as_mins(),
        };
        let mut status = facts.status();
        status.captures.clear();
        return facts.end(status, Event::Expired, &reason).map(Some);
    }
    Ok(None)
}

/// The target's cluster; the home cluster unless one is named.
fn cluster(facts: &Facts<'_>) -> Result<String, Reason> {
    match &facts.run.spec.target.cluster {
        None => Ok(facts.clusters.first().cloned().unwrap_or_default()),
        Some(typed) if facts.clusters.contains(typed) => Ok(typed.clone()),
        Some(typed) => Err(Reason::UnknownCluster {
            typed: typed.clone(),
            known: facts.clusters.to_vec(),
        }),
    }
}

fn need(diagnostic: &Diagnostic) -> Need {
    match diagnostic.method {
        Method::Ephemeral => Need::Running,
        Method::Api => Need::Record,
    }
}

/// What a dry run tells: what would run, where, as whom, within which limits.
fn plan_lines(facts: &Facts<'_>, status: &RunStatus, diagnostic: &Diagnostic) -> Vec<String> {
    let mut lines = Vec::new();
    for capture in &status.captures {
        lines.extend(spec::describe(facts, diagnostic, &status.parameters, &capture.target));
    }
    if let Some(decision) = &status.decision {
        lines.push(format!("Permission: allowed for {}", decision.user));
    }
    lines
}

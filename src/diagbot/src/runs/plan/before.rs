//! Decisions before anything starts: what is meant, and whether the person may.

use diagbot_catalog::{Diagnostic, Method};

use super::{Action, Facts, START_WINDOW, diagnostic, later, spec, target};
use crate::{
    cluster::resolve::Need,
    runs::{
        phase::{Event, IllegalTransition},
        reason::Reason,
        resource::{Phase, RunStatus},
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

/// Authorizing (and AwaitingApproval, which only an approval leaves): the access review, right before launch.
pub(super) fn authorize(facts: &Facts<'_>) -> Result<Action, IllegalTransition> {
    if let Some(action) = stop_early(facts)? {
        return Ok(action);
    }
    let status = facts.status();
    if status.phase == Phase::AwaitingApproval {
        return Ok(Action::Wait(Some(later(facts.run.spec.received_at.0, START_WINDOW))));
    }
    decide(facts, status)
}

/// Whether the person may, of a resolved run.
fn decide(facts: &Facts<'_>, mut status: RunStatus) -> Result<Action, IllegalTransition> {
    let name = status.diagnostic.clone().unwrap_or_default();
    let Some(diagnostic) = facts.catalog.get(&name) else {
        // The allowlist changed since the target was resolved.
        let reason = Reason::UnknownDiagnostic {
            typed: name,
            near: Vec::new(),
        };
        return facts.end(status, Event::Refused, &reason);
    };
    let Some(target) = status.captures.first().map(|capture| capture.target.clone()) else {
        return facts.end(status, Event::Refused, &Reason::NoTarget);
    };
    let decision = match facts.review {
        None => {
            return Ok(Action::Review {
                cluster: target.cluster,
                namespace: target.namespace,
                diagnostic: name,
            });
        }
        Some(Err(reason @ Reason::RecordAway)) => return facts.end(status, Event::Refused, reason),
        Some(Err(reason)) => return facts.end(status, Event::Denied, reason),
        Some(Ok(decision)) => decision,
    };
    status.decision = Some(decision.clone());
    if !decision.allowed {
        let reason = Reason::NotAllowed {
            verb: "run",
            diagnostic: name,
            namespace: target.namespace,
            cluster: target.cluster,
            user: decision.user.clone(),
        };
        return facts.end(status, Event::Denied, &reason);
    }
    if facts.run.spec.dry_run {
        status.plan = plan_lines(facts, &status, diagnostic);
        facts.enter(&mut status, Event::Planned)?;
        status.captures.clear();
    } else {
        facts.enter(&mut status, Event::Allowed)?;
    }
    Ok(Action::Record(Box::new(status)))
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
    if facts.now > later(facts.run.spec.received_at.0, START_WINDOW) {
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

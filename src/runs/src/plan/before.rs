//! Decisions before anything starts: what is meant, and whether the person may.

use diagbot_api::{
    phase::{Event, IllegalTransition},
    run::{OFFER, Phase, RunStatus},
    target::TargetRef,
};

use super::{
    Action, Facts, START_WINDOW, admit, approval, armed, diagnostic,
    fanout::{self, Asked, Drafted},
    later, lookup, offer,
    right::{self, refusal},
    spec,
};
use crate::{access::BY_WILDCARD, preflight::Preflight, reason::Reason};

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
    if asked.diagnostic == OFFER {
        return offer::make(facts, status);
    }
    let choice = match diagnostic::choose(facts.catalog, &asked.diagnostic, &asked.parameters) {
        Ok(choice) => choice,
        Err(reason) => return facts.end(status, Event::Refused, &reason),
    };
    let cluster = match lookup::place(facts) {
        Ok(cluster) => cluster,
        Err(reason) => return facts.end(status, Event::Refused, &reason),
    };
    let selection = asked.targets.or_else(|| choice.selection());
    let fired = status.armed.as_ref().and_then(|armed| armed.fired.clone());
    let waits = asked.armed_until.is_some() && fired.is_none();
    if let Some(answer) = facts.target.filter(|_| waits) {
        status.diagnostic = Some(choice.name.to_owned());
        return armed::watch(facts, status, answer, (&cluster, &choice));
    }
    let found = match lookup::look_up(facts, &status, &cluster, Some((&choice, selection)))? {
        Ok(found) => found,
        Err(action) => return Ok(action),
    };
    status.diagnostic = Some(choice.name.to_owned());
    status.parameters = choice.parameters();
    status.steps = choice.recorded();
    status.notes.extend(choice.note.clone());
    let target = TargetRef {
        pod_uid: fired.or_else(|| asked.target.pod_uid.clone()),
        ..asked.target.clone()
    };
    let place = Asked {
        run: facts.name(),
        cluster: &cluster,
        target: &target,
        selection,
    };
    match fanout::draft(found, place, &choice) {
        Ok(drafted) => {
            if let Some(reason) = unconfirmed(facts, &choice, &drafted) {
                status.notes.extend(drafted.notes);
                status.needs_confirmation = true;
                status.candidates = drafted.candidate.into_iter().collect();
                return facts.end(status, Event::Refused, &reason);
            }
            status.notes.extend(drafted.notes);
            status.captures = drafted.summaries;
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

/// Why a person must confirm first: the impact would hit what was guessed, or several targets at once.
fn unconfirmed(facts: &Facts<'_>, choice: &diagnostic::Choice<'_>, drafted: &Drafted) -> Option<Reason> {
    let asked = &facts.run.spec;
    if asked.confirmed || asked.dry_run {
        return None;
    }
    let impact = spec::impact_words(choice.impact())?;
    let one = drafted
        .candidate
        .as_ref()
        .map(|one| format!("{}/{}", one.namespace, one.pod));
    let target = match (&drafted.guessed, &choice.note) {
        (Some(guessed), _) => guessed.clone(),
        (None, Some(_)) => one?,
        (None, None) => return None,
    };
    Some(Reason::ConfirmationNeeded {
        diagnostic: choice.name.to_owned(),
        target,
        impact,
    })
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
        let by = &pause.by;
        let reason = Reason::Paused {
            place: pause.place.words(),
            // The label has no team.
            by: if by.team.is_empty() {
                by.user.clone()
            } else {
                by.user_name()
            },
        };
        return facts.end(status, Event::Refused, &reason);
    }
    if status.phase == Phase::AwaitingApproval {
        return approval::follow(facts, status);
    }
    if let Some(gone) = admit::gone(facts, &status) {
        return facts.end(status, Event::Refused, &gone);
    }
    let place = match admit::place_of(facts, &status) {
        Ok(place) => place,
        Err(reason) => return facts.end(status, Event::Refused, &reason),
    };
    let decision = match right::judged(facts, place) {
        None => return Ok(right::review(place, status.diagnostics())),
        // Whoever may do nothing there learns nothing of the place.
        Some(Err(denial)) => return denial.end(facts, status),
        Some(Ok(decision)) => decision.clone(),
    };
    let preflight = match facts.preflight {
        None => return Ok(Action::Preflight(Box::new(facts.question(&status)))),
        Some(Err(reason)) => return facts.end(status, refusal(reason), reason),
        Some(Ok(preflight)) => preflight,
    };
    let may = decision.allowed;
    let mut status = status;
    status.decision = Some(decision);
    if facts.run.spec.appeal.break_glass.is_some() {
        return break_glass(facts, status, preflight);
    }
    let why = match facts.demand(&status, preflight) {
        _ if facts.run.spec.dry_run && may => None,
        None if !may => Some("the person has no right of their own".to_owned()),
        why => why,
    };
    match why {
        None => admit::admit(facts, status, preflight),
        Some(why) => {
            if let Err(reason) = facts.check_rules(&status, preflight) {
                return facts.end(status, Event::Refused, &reason);
            }
            status.approval = Some(facts.approval(&status, why));
            status.audience = Some(preflight.audience);
            facts.enter(&mut status, Event::ApprovalNeeded)?;
            Ok(Action::Record(Box::new(status)))
        }
    }
}

/// Members that a channel must have for break-glass: the person, the bot, and somebody who reads that it is used.
const BREAK_GLASS_MEMBERS: u64 = 3;

fn break_glass(facts: &Facts<'_>, mut status: RunStatus, preflight: &Preflight) -> Result<Action, IllegalTransition> {
    let members = preflight.members.unwrap_or_default();
    if !facts.run.spec.origin.channel.starts_with(['C', 'G']) || members < BREAK_GLASS_MEMBERS {
        return facts.end(status, Event::Refused, &Reason::BreakGlassUnheard);
    }
    status.break_glass.clone_from(&preflight.break_glass);
    match &preflight.break_glass {
        Some(decision) if decision.allowed => admit::admit(facts, status, preflight),
        Some(decision) => {
            let reason = Reason::BreakGlassNotAllowed {
                diagnostic: decision.diagnostic.clone(),
                wildcard: decision.authorizer_reason == BY_WILDCARD,
                user: decision.user.clone(),
            };
            facts.end(status, Event::Denied, &reason)
        }
        None => facts.end(status, Event::Refused, &Reason::NoTarget),
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
    let spec = &facts.run.spec;
    let seen = facts.run.status.as_ref().and_then(|status| status.armed.as_ref());
    let begun_at = match (&spec.armed_until, seen.and_then(|armed| armed.fired_at.as_ref())) {
        (None, _) => spec.received_at.0,
        (Some(_), Some(fired_at)) => fired_at.0,
        (Some(until), None) if facts.now < until.0 => return Ok(None),
        (Some(_), None) => {
            let reason = Reason::NeverRestarted {
                typed: spec.target.to_string(),
            };
            return facts.end(facts.status(), Event::Expired, &reason).map(Some);
        }
    };
    // Who waits for a second person has a time of their own.
    let awaits = facts.run.phase() == Phase::AwaitingApproval;
    if !awaits && facts.now > later(begun_at, START_WINDOW) {
        let reason = Reason::NotStarted {
            minutes: START_WINDOW.as_mins(),
        };
        let mut status = facts.status();
        status.captures.clear();
        return facts.end(status, Event::Expired, &reason).map(Some);
    }
    Ok(None)
}

//! Decisions before anything starts: what is meant, and whether the person may.

use diagbot_api::{
    phase::{Event, IllegalTransition},
    run::{CaptureSummary, OFFER, Phase, RunStatus, Selection},
    target::TargetRef,
};
use diagbot_cluster::resolve::Found;

use super::{
    Action, Facts, START_WINDOW, approval, armed, diagnostic,
    fanout::{self, Asked, Drafted},
    later, offer,
    right::{self, Place, refusal},
    spec,
};
use crate::{access::BY_WILDCARD, preflight::Preflight, reason::Reason};

/// Targets of which a dry run tells every step.
const DESCRIBED: usize = 3;

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
    let cluster = match place(facts) {
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
    let found = match look_up(facts, &status, &cluster, Some((&choice, selection)))? {
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

/// What the look-up found; or what to do instead. Without a choice, any diagnostic could be meant.
pub(super) fn look_up<'a>(
    facts: &Facts<'a>,
    status: &RunStatus,
    cluster: &str,
    wanted: Option<(&diagnostic::Choice<'_>, Option<Selection>)>,
) -> Result<Result<&'a Found, Action>, IllegalTransition> {
    match facts.target {
        None => {
            let (choice, selection) = wanted.unzip();
            let any = choice.and_then(|choice| choice.steps.first());
            Ok(Err(Action::FindTarget {
                cluster: cluster.to_owned(),
                diagnostic: any.map(|step| step.diagnostic.name.to_string()).unwrap_or_default(),
                most: if facts.run.spec.armed_until.is_some() {
                    armed::MOST_PODS
                } else {
                    fanout::reach(selection.flatten())
                },
                siblings: choice.is_some_and(diagnostic::Choice::healthy_control)
                    || facts.run.spec.target.healthy_replica,
            }))
        }
        Some(Err(reason)) => facts.end(status.clone(), refusal(reason), reason).map(Err),
        Some(Ok(found)) => Ok(Ok(found)),
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
    if let Some(gone) = gone(facts, &status) {
        return facts.end(status, Event::Refused, &gone);
    }
    let place = match place_of(facts, &status) {
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
        None => admit(facts, status, preflight),
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

/// The last rules, and the launch; or the plan of a dry run.
pub(super) fn admit(
    facts: &Facts<'_>,
    mut status: RunStatus,
    preflight: &Preflight,
) -> Result<Action, IllegalTransition> {
    if let Some(gone) = gone(facts, &status) {
        return facts.end(status, Event::Refused, &gone);
    }
    // The person is reviewed once more where time has passed since: a second person took a while to approval.
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

/// Members that a channel must have for break-glass: the person, the bot, and somebody who reads that it is used.
const BREAK_GLASS_MEMBERS: u64 = 3;

fn break_glass(facts: &Facts<'_>, mut status: RunStatus, preflight: &Preflight) -> Result<Action, IllegalTransition> {
    let members = preflight.members.unwrap_or_default();
    if !facts.run.spec.origin.channel.starts_with(['C', 'G']) || members < BREAK_GLASS_MEMBERS {
        return facts.end(status, Event::Refused, &Reason::BreakGlassUnheard);
    }
    status.break_glass.clone_from(&preflight.break_glass);
    match &preflight.break_glass {
        Some(decision) if decision.allowed => admit(facts, status, preflight),
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

/// Where all of the run's targets are.
fn place_of<'a>(facts: &Facts<'_>, status: &'a RunStatus) -> Result<Place<'a>, Reason> {
    let of = |capture: &'a CaptureSummary| Place {
        cluster: &capture.target.cluster,
        namespace: &capture.target.namespace,
    };
    right::one_place(facts, status.captures.iter().map(of))
}

/// The allowlist changed since the target was resolved: something that the run takes is not in it any more.
fn gone(facts: &Facts<'_>, status: &RunStatus) -> Option<Reason> {
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

/// The target's cluster, the home cluster unless one is named; a reason where no target is.
pub(super) fn place(facts: &Facts<'_>) -> Result<String, Reason> {
    let target = &facts.run.spec.target;
    if target.name.is_empty() && target.selector.is_none() {
        return Err(Reason::NoTarget);
    }
    match &facts.run.spec.target.cluster {
        None => Ok(facts.clusters.first().cloned().unwrap_or_default()),
        Some(typed) if facts.clusters.contains(typed) => Ok(typed.clone()),
        Some(typed) => Err(Reason::UnknownCluster {
            typed: typed.clone(),
            known: facts.clusters.to_vec(),
        }),
    }
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

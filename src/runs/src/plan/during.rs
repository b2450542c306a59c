//! Decisions while captures are under way: make them, follow them, stop them, sum them up.

use std::sync::Arc;

use diagbot_api::{
    capture::{ANNOTATION_CANCEL, CapturePhase, DiagnosticCapture},
    phase::{Event, IllegalTransition, Outcome},
    run::{CaptureSummary, MANY_CAPTURES, Phase, RunStatus},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{
    Action, Facts, GRACE, later,
    launch::{self, Permit},
    spec,
};
use crate::reason::Reason;

/// How far captures are is not repeated in the run before they have run for so long: most end sooner, and each repetition is
/// a write that their end may have to wait for.
const QUIET: SignedDuration = SignedDuration::from_secs(1);

/// How often a run looks for a free slot that another run's capture may leave.
const SLOT_EVERY: SignedDuration = SignedDuration::from_secs(1);

/// Between two sums of a run with many captures.
const COUNT_EVERY: SignedDuration = SignedDuration::from_secs(1);

/// Capturing, Cancelling.
pub(super) fn follow(facts: &Facts<'_>) -> Result<Action, IllegalTransition> {
    let before = facts.status();
    let mut status = before.clone();
    let deadline = last_deadline(facts, &status);
    let cancel = facts.cancel();
    let running = running(facts);
    let many = is_many(&before);
    let mut first: Option<Action> = None;
    let mut denied: Option<Permit> = None;
    for (index, summary) in status.captures.iter_mut().enumerate() {
        let capture = facts
            .captures
            .iter()
            .find(|c| c.metadata.name.as_ref() == Some(&summary.name));
        match capture {
            Some(capture) if many => follow_one_of_many(summary, capture),
            Some(capture) => follow_capture(summary, capture),
            None if summary.phase.is_final() => {}
            None if summary.uid.is_some() => {
                let capture = summary.name.clone();
                fail(summary, &Reason::CaptureVanished { capture });
            }
            // Never made, and never will be: facts are read from the API server itself in this case.
            None if before.phase == Phase::Cancelling => summary.phase = CapturePhase::Cancelled,
            None if cancel.is_some() => {}
            None => {
                if let Some(Permit::Denied { reason, .. }) = &denied {
                    fail(summary, reason);
                    continue;
                }
                // It waits for its turn.
                if running >= before.at_once() || first.is_some() {
                    continue;
                }
                if facts.slots == 0 {
                    first = Some(Action::Wait(Some(later(facts.now, SLOT_EVERY))));
                    continue;
                }
                match launch::permit(facts, &before, &summary.target) {
                    Permit::Given => match new_capture(facts, &before, index) {
                        Ok(capture) => return Ok(Action::CreateCapture(Box::new(capture))),
                        Err(reason) => fail(summary, &reason),
                    },
                    Permit::Ask(action) => first = Some(action),
                    Permit::Denied { reason, decision } => {
                        fail(summary, &reason);
                        denied = Some(Permit::Denied { reason, decision });
                    }
                }
            }
        }
    }
    if let Some(Permit::Denied {
        decision: Some(decision),
        ..
    }) = denied
    {
        status.decision = Some(decision);
    }
    if status.captures.iter().all(|capture| capture.phase.is_final()) {
        return finish(facts, status);
    }
    if let (Some(cancel), Phase::Capturing) = (&cancel, before.phase) {
        status.cancelled_by = Some(cancel.by.clone());
        status.stopped_by_pause = facts.stopping_pause(&before);
        facts.enter(&mut status, Event::CancelAsked)?;
        return Ok(Action::Record(Box::new(status)));
    }
    let overdue = facts.now > later(deadline, GRACE);
    if overdue || before.phase == Phase::Cancelling {
        let unasked = unasked(facts, &status);
        if !unasked.is_empty() {
            return Ok(Action::CancelCaptures(unasked));
        }
    }
    if overdue {
        return facts.end(status, Event::DeadlinePassed, &Reason::RunTimedOut);
    }
    let awaited = match first {
        Some(Action::Wait(time)) => time,
        Some(action) => return Ok(action),
        None => None,
    };
    let rest = |until: Timestamp| Action::Wait(Some(awaited.map_or(until, |awaited| awaited.min(until))));
    if status == before {
        return Ok(rest(later(deadline, GRACE)));
    }
    if is_many(&before) {
        let counted = before.counted_at.as_ref().map(|at| later(at.0, COUNT_EVERY));
        if let Some(due) = counted.filter(|due| facts.now < *due) {
            return Ok(rest(due));
        }
        status.counted_at = Some(MicroTime(facts.now));
        return Ok(Action::Record(Box::new(status)));
    }
    let shown_from = later(begun_at(facts, &before), QUIET);
    if facts.now < shown_from && differs_in_progress_only(&before, &status) {
        return Ok(rest(shown_from));
    }
    Ok(Action::Record(Box::new(status)))
}

/// Whether the captures have only come further.
fn differs_in_progress_only(before: &RunStatus, after: &RunStatus) -> bool {
    let mut levelled = after.clone();
    for (capture, former) in levelled.captures.iter_mut().zip(&before.captures) {
        if !capture.phase.is_final() {
            capture.phase = former.phase;
        }
        capture.waiting.clone_from(&former.waiting);
        capture.progress.clone_from(&former.progress);
    }
    levelled == *before
}

/// When the captures began.
fn begun_at(facts: &Facts<'_>, status: &RunStatus) -> Timestamp {
    status
        .entered
        .get(Phase::Capturing.as_str())
        .map_or(facts.run.spec.received_at.0, |time| time.0)
}

/// Captures that were made and have not ended.
fn running(facts: &Facts<'_>) -> usize {
    let ended = |capture: &Arc<DiagnosticCapture>| capture.status.as_ref().is_some_and(|s| s.phase.is_final());
    facts.captures.iter().filter(|capture| !ended(capture)).count()
}

/// The deadline of a capture; once made, it is what is recorded, so that it is the same at every look.
fn capture_deadline(facts: &Facts<'_>, status: &RunStatus, index: usize) -> Timestamp {
    let name = status.captures.get(index).map(|summary| &summary.name);
    let made = facts
        .captures
        .iter()
        .find(|capture| capture.metadata.name.as_ref() == name);
    made.map_or_else(
        || spec::deadline(facts, status, index, begun_at(facts, status)),
        |capture| capture.spec.deadline.0,
    )
}

/// When the last of the run's captures gives up.
fn last_deadline(facts: &Facts<'_>, status: &RunStatus) -> Timestamp {
    capture_deadline(facts, status, status.captures.len().saturating_sub(1))
}

fn new_capture(facts: &Facts<'_>, status: &RunStatus, index: usize) -> Result<DiagnosticCapture, Reason> {
    let summary = &status.captures[index];
    if let Some((_, answer)) = facts.refused.filter(|(name, _)| *name == summary.name) {
        return Err(Reason::CaptureRefused { answer: answer.clone() });
    }
    spec::capture(facts, status, index, capture_deadline(facts, status, index))
}

fn follow_capture(summary: &mut CaptureSummary, capture: &Arc<DiagnosticCapture>) {
    summary.uid.clone_from(&capture.metadata.uid);
    let Some(status) = &capture.status else {
        return;
    };
    summary.phase = status.phase;
    summary.waiting.clone_from(&status.waiting);
    summary.progress.clone_from(&status.progress);
    summary.artifacts.clone_from(&status.artifacts);
    summary.reason.clone_from(&status.reason);
    summary.notes.clone_from(&status.notes);
}

/// Of many captures only their ends are told, without their texts: those are in the captures and in the store. So the record
/// stays small, and is written once a second whatever the number.
fn follow_one_of_many(summary: &mut CaptureSummary, capture: &Arc<DiagnosticCapture>) {
    summary.uid.clone_from(&capture.metadata.uid);
    if !capture.status.as_ref().is_some_and(|status| status.phase.is_final()) {
        return;
    }
    follow_capture(summary, capture);
    summary.notes.truncate(1);
    for artifact in &mut summary.artifacts {
        artifact.preview.clear();
        artifact.findings.truncate(1);
    }
}

/// More captures than are told one by one.
fn is_many(status: &RunStatus) -> bool {
    status.captures.len() > MANY_CAPTURES
}

fn fail(summary: &mut CaptureSummary, reason: &Reason) {
    summary.phase = CapturePhase::Failed;
    summary.waiting = None;
    summary.reason = Some(reason.explain());
}

fn finish(facts: &Facts<'_>, mut status: RunStatus) -> Result<Action, IllegalTransition> {
    let outcome = outcome(&status.captures, status.phase == Phase::Cancelling);
    facts.enter(&mut status, Event::Ended(outcome))?;
    if outcome != Outcome::Succeeded {
        status.reason = status.captures.iter().find_map(|capture| capture.reason.clone());
    }
    if let Some(cancel) = facts.cancel().filter(|_| outcome == Outcome::Cancelled) {
        status.cancelled_by = Some(cancel.by);
        status.stopped_by_pause = status.stopped_by_pause.take().or_else(|| facts.stopping_pause(&status));
    }
    Ok(Action::Record(Box::new(status)))
}

/// What ended captures come to. A cancel that came too late to stop anything stopped nothing.
fn outcome(captures: &[CaptureSummary], cancelling: bool) -> Outcome {
    let count = |phase: CapturePhase| captures.iter().filter(|capture| capture.phase == phase).count();
    let succeeded = count(CapturePhase::Succeeded);
    let cancelled = count(CapturePhase::Cancelled);
    if succeeded == captures.len() {
        Outcome::Succeeded
    } else if cancelled > 0 && (cancelling || cancelled == captures.len()) {
        Outcome::Cancelled
    } else if succeeded > 0 || captures.iter().any(is_partial) {
        Outcome::PartlyFailed
    } else if count(CapturePhase::TimedOut) == captures.len() {
        Outcome::TimedOut
    } else {
        Outcome::Failed
    }
}

/// Some of its steps gave what they should.
fn is_partial(capture: &CaptureSummary) -> bool {
    capture.steps.len() > 1 && capture.artifacts.iter().any(|artifact| !artifact.truncated)
}

/// Captures that still run and have not been asked to stop.
fn unasked(facts: &Facts<'_>, status: &RunStatus) -> Vec<String> {
    let asked = |name: &String| {
        let capture = facts.captures.iter().find(|c| c.metadata.name.as_ref() == Some(name));
        capture.is_none_or(|c| {
            let annotations = c.metadata.annotations.as_ref();
            annotations.is_some_and(|a| a.contains_key(ANNOTATION_CANCEL))
        })
    };
    let running = status.captures.iter().filter(|capture| !capture.phase.is_final());
    running
        .map(|capture| capture.name.clone())
        .filter(|name| !asked(name))
        .collect()
}

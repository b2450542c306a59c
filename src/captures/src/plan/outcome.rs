//! When a capture is over, what is still to be brought home, and what is said about it.

use diagbot_api::capture::{CapturePhase, Explanation};
use diagbot_wire::{
    control::CancelReason,
    result::{Failure, StepOutcome, Via},
};
use jiff::{SignedDuration, Timestamp};

use super::{
    Action, CaptureOutcome, Facts, Fault, LogState, Meeting, Plan, PodFact, ResultFact, Wait, due, handshake, waiting,
};
use crate::{
    explain::{self, Refusal},
    launch::{self, ContainerView},
};

/// A cancel that had no effect in this time is sent again.
const CANCEL_RESEND: SignedDuration = SignedDuration::from_secs(3);
/// An agent that was told to stop has this long to say that it did.
const CANCEL_GRACE: SignedDuration = SignedDuration::from_secs(30);

/// The result object of an agent that says nothing is looked for so often.
const GLANCE_EVERY: SignedDuration = SignedDuration::from_secs(20);

/// What became of the target may be reported so much later than the end of the agent, which died with it.
const FATE_GRACE: SignedDuration = SignedDuration::from_secs(3);

/// The kubelet's word for a container that was killed for memory.
const OUT_OF_MEMORY: &str = "OOMKilled";

/// Why nothing more will come from the agent.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum SessionOutcome {
    /// It said everything it has to say.
    Said {
        /// It stopped since it was told to, or since its time was over.
        cancelled: bool,
    },
    /// It can't have acted and never will: it has no ticket.
    NeverActed,
    /// It can't go on, or can't be heard any more.
    Broken(Explanation),
}

/// Whether nothing more will come. Adds the actions that are needed to know.
pub(super) fn session_outcome(f: &Facts, next: &mut Plan) -> Option<SessionOutcome> {
    let journal = &f.attempt.journal;
    if let Some(end) = &journal.end {
        return Some(SessionOutcome::Said {
            cancelled: end.cancelled,
        });
    }
    if let ResultFact::Found(result) = &f.attempt.result {
        let cancelled = result.steps.iter().any(|s| s.outcome == StepOutcome::Cancelled);
        return Some(SessionOutcome::Said { cancelled });
    }
    if f.ticketed() {
        after_the_ticket(f, next)
    } else {
        before_the_ticket(f, next)
    }
}

fn before_the_ticket(f: &Facts, next: &mut Plan) -> Option<SessionOutcome> {
    let stopping = f.cancel_requested() || f.deadline_passed();
    let session_outcome = if stopping {
        SessionOutcome::NeverActed
    } else {
        SessionOutcome::Broken(unable(f)?)
    };
    // The agent waits for its ticket: telling it to end saves it the rest of its wait. Told once; nothing hangs on it.
    if f.view() == ContainerView::Running && f.attempt.cancelled_at.is_none() {
        next.actions.push(Action::SendCancel { reason: reason(f) });
        return None;
    }
    Some(session_outcome)
}

/// Why this attempt will never get its ticket.
fn unable(f: &Facts) -> Option<Explanation> {
    let attempt = &f.attempt;
    let known = attempt.refused.clone().or_else(|| attempt.verdict.clone());
    let fault = [Fault::StatusWriter, Fault::Uploads, Fault::Ticket]
        .iter()
        .find_map(|fault| f.faults.get(fault).cloned());
    if let Some(explanation) = known.or(fault) {
        return Some(explanation);
    }
    let target = &f.spec().target;
    match &f.pod {
        PodFact::Seen(pod) => {
            if let Some(fault) = launch::target_fault(pod, target) {
                return Some(fault);
            }
        }
        _ => return Some(pod_missing(f)),
    }
    if f.foreign() {
        return Some(explain::refusal(Refusal::ForeignContainer, ""));
    }
    if let Wait::Never(explanation) = waiting(f) {
        return Some(match &f.trouble {
            Some(trouble) if f.view() == ContainerView::Absent => explain::refusal(Refusal::Trouble, trouble),
            _ => explanation,
        });
    }
    let hello = attempt.journal.hello.as_ref();
    match hello.map(|hello| handshake(f, hello)) {
        Some(Meeting::Unfit(explanation)) => return Some(explanation),
        // A further attempt would have been planned before, were there one left.
        Some(Meeting::OtherUser { uid, .. }) => {
            return Some(explain::refusal(Refusal::NoIdentity, &format!("it runs as uid {uid}")));
        }
        Some(Meeting::Fits) | None => {}
    }
    if let ContainerView::Terminated { code, reason } = f.view() {
        let refusal = match (&f.trouble, hello) {
            (Some(trouble), _) => return Some(explain::refusal(Refusal::Trouble, trouble)),
            (None, Some(_)) => Refusal::AgentDeaf,
            (None, None) if attempt.log == LogState::Open => return None,
            (None, None) => ended(&reason, Refusal::AgentSilent),
        };
        return Some(explain::refusal(refusal, &format!("exit code {code} ({reason})")));
    }
    None
}

fn after_the_ticket(f: &Facts, next: &mut Plan) -> Option<SessionOutcome> {
    let view = f.view();
    let gone = f.pinned_pod().is_none();
    let silent = match view {
        ContainerView::Terminated { .. } => f.attempt.log != LogState::Open,
        _ => gone,
    };
    let journal = &f.attempt.journal;
    // What was made with another key may be the agent's words of before the bot's Secret was exchanged.
    let whole_log = matches!(view, ContainerView::Terminated { .. })
        && f.attempt.log == LogState::Complete
        && journal.rejected() == 0;
    if whole_log && !journal.started && (f.cancel_requested() || f.deadline_passed()) {
        // The ticket did not reach it: else its log would say so.
        return Some(SessionOutcome::NeverActed);
    }
    if silent {
        if let Some(until) = fate_may_come(f) {
            next.wake(until);
            return None;
        }
        return result_or(f, next, || lost(f, &view, gone));
    }
    if !(f.cancel_requested() || f.deadline_passed()) {
        glance(f, next);
        return None;
    }
    if let Some((first, _)) = f.attempt.cancelled_at {
        if f.now >= first + CANCEL_GRACE {
            return result_or(f, next, || explain::refusal(Refusal::CancelUnproven, ""));
        }
        next.wake(first + CANCEL_GRACE);
    }
    if due(f, next, f.attempt.cancelled_at.map(|(_, last)| last), CANCEL_RESEND) {
        next.actions.push(Action::SendCancel { reason: reason(f) });
    }
    None
}

/// An agent that has not been heard for a while may be cut off from us, with its kubelet, and not from the store: its result
/// is signed and says as much as its journal.
fn glance(f: &Facts, next: &mut Plan) {
    let attempt = &f.attempt;
    let ticket = f.recorded(|s| s.ticket_sent_at.as_ref().map(|at| at.0));
    let last = [attempt.heard_at, attempt.ticket_at, attempt.glanced_at, ticket]
        .into_iter()
        .flatten()
        .max();
    if due(f, next, last, GLANCE_EVERY) {
        next.actions.push(Action::ReadResult { last: false });
    }
}

/// The journal is silent: the result object may still speak.
fn result_or(f: &Facts, next: &mut Plan, lost: impl FnOnce() -> Explanation) -> Option<SessionOutcome> {
    if f.attempt.result == ResultFact::Unread {
        next.actions.push(Action::ReadResult { last: true });
        return None;
    }
    Some(SessionOutcome::Broken(lost()))
}

fn lost(f: &Facts, view: &ContainerView, gone: bool) -> Explanation {
    match view {
        ContainerView::Terminated { code, reason } => {
            if let Some(fate) = fate_of_target(f).filter(|_| reason != OUT_OF_MEMORY) {
                return fate;
            }
            let journal = &f.attempt.journal;
            let fallback = match (journal.started, journal.rejected()) {
                (true, _) => Refusal::AgentEnded,
                (false, 0) => Refusal::AgentDeaf,
                (false, _) => Refusal::AgentUnproven,
            };
            explain::refusal(ended(reason, fallback), &format!("exit code {code} ({reason})"))
        }
        _ if gone => pod_missing(f),
        _ => explain::refusal(Refusal::AgentEnded, ""),
    }
}

/// Until when the kubelet may still report what became of the target: it reports one container's end after the other. Clocks
/// of nodes differ: where the end seems far away, nothing is waited for.
fn fate_may_come(f: &Facts) -> Option<Timestamp> {
    let ended = launch::ended_at(f.pinned_pod()?, f.container()?)?;
    let until = ended + FATE_GRACE;
    let soon = f.now < until && until <= f.now + FATE_GRACE + FATE_GRACE;
    (soon && fate_of_target(f).is_none()).then_some(until)
}

/// What became of the pod or the target, if that is why the agent ended: it dies with either.
fn fate_of_target(f: &Facts) -> Option<Explanation> {
    let target = &f.spec().target;
    match f.pinned_pod() {
        Some(pod) => launch::target_fault(pod, target),
        None => Some(pod_missing(f)),
    }
}

/// Why there is no pod to look at.
fn pod_missing(f: &Facts) -> Explanation {
    match &f.pod {
        PodFact::Unreadable(why) => explain::refusal(Refusal::Cluster, why),
        PodFact::Unknown => explain::refusal(Refusal::Cluster, "the pod could not be read"),
        PodFact::Gone | PodFact::Seen(_) => explain::refusal(Refusal::PodGone, &f.spec().target.pod),
    }
}

fn ended(reason: &str, otherwise: Refusal) -> Refusal {
    if reason == OUT_OF_MEMORY {
        Refusal::AgentOutOfMemory
    } else {
        otherwise
    }
}

fn reason(f: &Facts) -> CancelReason {
    if f.cancel_requested() {
        CancelReason::Requested
    } else if f.deadline_passed() {
        CancelReason::Deadline
    } else {
        CancelReason::TargetReplaced
    }
}

/// What is still to be done for a step's artifact.
pub(super) fn artifact(f: &Facts, step: u16) -> Option<Action> {
    let report = f.step_result(step)?.artifact.as_ref()?;
    f.upload(step)?;
    if f.stored(step) || f.faults.contains_key(&Fault::Artifact(step)) {
        return None;
    }
    match report.via {
        Via::Direct => Some(Action::Complete { step }),
        Via::Relay => (f.view() == ContainerView::Running).then_some(Action::Relay { step }),
    }
}

/// What is left to do, in this order: artifacts, abandoned uploads, the manifest, the end.
pub(super) fn bring_home(f: &Facts, session_outcome: &SessionOutcome) -> Vec<Action> {
    let artifacts: Vec<Action> = f.steps().filter_map(|step| artifact(f, step)).collect();
    if artifacts.is_empty() {
        tidy_up(f, || capture_outcome(f, session_outcome))
    } else {
        artifacts
    }
}

/// The same for a capture that the bot itself makes.
pub(super) fn of_the_bot(f: &Facts) -> Vec<Action> {
    tidy_up(f, || {
        if f.steps().all(|step| f.stored(step)) {
            return succeeded(f);
        }
        match f.faults.get(&Fault::Report) {
            Some(explanation) => CaptureOutcome {
                phase: CapturePhase::Failed,
                reason: Some(explanation.clone()),
                notes: f.recorded(|s| s.notes.clone()),
            },
            None => nothing_started(f),
        }
    })
}

fn tidy_up(f: &Facts, capture_outcome: impl FnOnce() -> CaptureOutcome) -> Vec<Action> {
    if f.may_hold_open_uploads() && !f.faults.contains_key(&Fault::Abort) {
        return vec![Action::AbortUploads];
    }
    let artifacts = f.recorded(|s| !s.artifacts.is_empty());
    if artifacts && !f.manifest_written && !f.faults.contains_key(&Fault::Manifest) {
        return vec![Action::WriteManifest];
    }
    vec![Action::Finish(capture_outcome())]
}

/// Stopped before anything was added to the pod.
pub(super) fn nothing_started(f: &Facts) -> CaptureOutcome {
    if f.cancel_requested() {
        return CaptureOutcome {
            phase: CapturePhase::Cancelled,
            reason: None,
            notes: f.recorded(|s| s.notes.clone()),
        };
    }
    CaptureOutcome {
        phase: CapturePhase::TimedOut,
        reason: Some(explain::refusal(Refusal::Deadline, "")),
        notes: f.recorded(|s| s.notes.clone()),
    }
}

fn succeeded(f: &Facts) -> CaptureOutcome {
    CaptureOutcome {
        phase: CapturePhase::Succeeded,
        reason: None,
        notes: notes(f),
    }
}

fn capture_outcome(f: &Facts, session_outcome: &SessionOutcome) -> CaptureOutcome {
    let whole = |step| {
        f.stored(step)
            && f.step_result(step)
                .is_some_and(|r| matches!(r.outcome, StepOutcome::Done | StepOutcome::Truncated { .. }))
    };
    if f.steps().any(whole) && f.steps().all(|step| whole(step) || left_out(f, step)) {
        let mut capture_outcome = succeeded(f);
        if f.cancel_requested() {
            capture_outcome
                .notes
                .push("the request to stop came after everything was captured".to_owned());
        }
        return capture_outcome;
    }
    let failed = |reason| CaptureOutcome {
        phase: CapturePhase::Failed,
        reason: Some(reason),
        notes: notes(f),
    };
    match session_outcome {
        SessionOutcome::NeverActed => {
            let mut capture_outcome = nothing_started(f);
            capture_outcome.notes = notes(f);
            if f.view() != ContainerView::Absent {
                capture_outcome.notes.push(
                    "the agent's container was added but never got its ticket; it has done nothing and ends by itself"
                        .to_owned(),
                );
            }
            capture_outcome
        }
        SessionOutcome::Said { cancelled: true } if f.cancel_requested() => CaptureOutcome {
            phase: CapturePhase::Cancelled,
            reason: None,
            notes: notes(f),
        },
        SessionOutcome::Said { cancelled: true } if f.deadline_passed() => CaptureOutcome {
            phase: CapturePhase::TimedOut,
            reason: Some(explain::refusal(Refusal::Deadline, "")),
            notes: notes(f),
        },
        SessionOutcome::Said { cancelled: true } => failed(fate_of_target(f).unwrap_or_else(|| {
            explain::refusal(
                Refusal::AgentEnded,
                "its container was told to stop, but not by diagbot",
            )
        })),
        SessionOutcome::Broken(explanation) if f.deadline_passed() && !f.cancel_requested() => CaptureOutcome {
            phase: CapturePhase::TimedOut,
            reason: Some(explanation.clone()),
            notes: notes(f),
        },
        SessionOutcome::Broken(explanation) => failed(explanation.clone()),
        SessionOutcome::Said { cancelled: false } => failed(
            f.steps()
                .find_map(|step| step_fault(f, step))
                .unwrap_or_else(|| explain::refusal(Refusal::AgentEnded, "")),
        ),
    }
}

/// The step is one that is taken only where a process of its runtime is found, and there is none.
fn left_out(f: &Facts, step: u16) -> bool {
    let optional = f.spec().steps.get(usize::from(step)).is_some_and(|spec| spec.optional);
    let missing = |outcome: &StepOutcome| {
        matches!(
            outcome,
            StepOutcome::Failed {
                failure: Failure::NoSuchProcess,
                ..
            }
        )
    };
    optional && f.step_result(step).is_some_and(|result| missing(&result.outcome))
}

/// Why a step has no whole artifact in the store.
fn step_fault(f: &Facts, step: u16) -> Option<Explanation> {
    if left_out(f, step) {
        return None;
    }
    let diagnostic = &f.spec().steps.get(usize::from(step))?.diagnostic;
    let result = f.step_result(step)?;
    if let StepOutcome::Failed { failure, detail } = &result.outcome {
        return Some(explain::failure(*failure, diagnostic, detail));
    }
    if f.stored(step) {
        return None;
    }
    let known = f.faults.get(&Fault::Artifact(step)).cloned();
    let by_relay = result.artifact.as_ref().is_some_and(|a| a.via == Via::Relay);
    known.or_else(|| by_relay.then(|| explain::refusal(Refusal::Relay, "its container has ended")))
}

/// Things people should know though nothing is wrong.
fn notes(f: &Facts) -> Vec<String> {
    let mut notes = f.recorded(|s| s.notes.clone());
    let mut add = |note: String| {
        if !note.is_empty() && !notes.contains(&note) {
            notes.push(note);
        }
    };
    for step in f.steps() {
        if left_out(f, step) {
            let diagnostic = &f.spec().steps[usize::from(step)].diagnostic;
            add(format!(
                "{diagnostic} was left out: the container runs no process that it could look at"
            ));
        }
        if let Some(report) = f.step_result(step).and_then(|r| r.artifact.as_ref()) {
            add(explain::clean(&report.note));
            if report.via == Via::Relay && f.direct && f.stored(step) {
                add("fetched through the bot, since the pod could not reach the store".to_owned());
            }
        }
    }
    for path in &f.attempt.journal.left_behind {
        add(format!(
            "could not be removed from the target: {}",
            explain::clean(path)
        ));
    }
    let rejected = f.attempt.journal.rejected();
    // Before the ticket no line can be authentic: an agent that is told to end says so in vain.
    if f.attempt.journal.started && rejected > 0 {
        add(format!(
            "{rejected} lines in the agent's log were not the agent's and were ignored"
        ));
    }
    if f.faults.contains_key(&Fault::Abort) {
        add("an unfinished upload could not be aborted yet".to_owned());
    }
    if f.faults.contains_key(&Fault::Manifest) {
        add("the manifest beside the artifacts could not be written".to_owned());
    }
    notes
}

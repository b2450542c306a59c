//! What follows from the facts: pure, total, the same after a restart as before.
//!
//! The answer names everything that should be under way; the task starts what is not. An action that is lost with its
//! process is asked for again by the next look at the facts.

mod facts;
mod handshake;
mod observe;
mod outcome;
#[cfg(test)]
mod tests;

use diagbot_api::capture::{AgentIdentity, CapturePhase, Explanation, IdentitySource, Progress, StepMethod};
use diagbot_base::failpoint::action_names;
use diagbot_wire::control::CancelReason;
pub(super) use facts::{AttemptFacts, Facts, Fault, LogState, PodFact, ResultFact};
pub(super) use handshake::chosen;
use handshake::{Meeting, handshake};
use jiff::{SignedDuration, Timestamp};

use super::{
    explain::{self, Refusal},
    identity,
    launch::{self, ContainerView, Wait},
};

/// Attempts of one capture: the first look, the right user, and one more.
pub(super) const MAX_ATTEMPTS: u32 = 3;
/// A ticket, or URLs, that had no effect in this time are sent again.
const RESEND: SignedDuration = SignedDuration::from_secs(2);
/// A container that is being created for longer than this is looked at more closely.
const LOOK_AFTER_S: i64 = 2;
/// Between two close looks.
const LOOK_EVERY: SignedDuration = SignedDuration::from_secs(3);

/// One thing to do. Each can be repeated without harm.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Record the next attempt; nothing is in the pod yet.
    Attempt {
        /// From 1.
        number: u32,
        /// As whom.
        identity: AgentIdentity,
    },
    /// Open the attempt's uploads, and record them.
    OpenUploads,
    /// Add the attempt's container to the pod.
    AddContainer,
    /// Look at the pod afresh, and at the events about the container.
    LookCloser,
    /// Check the target afresh and hand the agent its ticket.
    SendTicket,
    /// Hand the agent more URLs.
    SendUrls {
        /// Step.
        step: u16,
        /// First part.
        from_part: u32,
        /// The journal's line that asked.
        asked: u64,
    },
    /// Fetch a staged artifact from the container into the store.
    Relay {
        /// Step.
        step: u16,
    },
    /// Tell the agent that a staged artifact is safe.
    SendRelease {
        /// Step.
        step: u16,
    },
    /// Tell the agent to stop.
    SendCancel {
        /// Why.
        reason: CancelReason,
    },
    /// Look for the result object.
    ReadResult {
        /// Nothing else will speak any more: if it is not there now, it never will be.
        last: bool,
    },
    /// Complete a step's upload, verify it, record the artifact.
    Complete {
        /// Step.
        step: u16,
    },
    /// Make the bot's own report of a pod.
    Report {
        /// Step.
        step: u16,
    },
    /// Abort the uploads that will not be completed.
    AbortUploads,
    /// Put the manifest beside the artifacts.
    WriteManifest,
    /// Record how far it is.
    Observe(Observed),
    /// Record the end.
    Finish(CaptureOutcome),
}

action_names!(Action, {
    Attempt: "captures.attempt",
    OpenUploads: "captures.open-uploads",
    AddContainer: "captures.add-container",
    LookCloser: "captures.look-closer",
    SendTicket: "captures.send-ticket",
    SendUrls: "captures.send-urls",
    Relay: "captures.relay",
    SendRelease: "captures.send-release",
    SendCancel: "captures.send-cancel",
    ReadResult: "captures.read-result",
    Complete: "captures.complete",
    Report: "captures.report",
    AbortUploads: "captures.abort-uploads",
    WriteManifest: "captures.write-manifest",
    Observe: "captures.observe",
    Finish: "captures.finish",
});

/// How far a capture is, as people see it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Observed {
    /// Phase.
    pub phase: CapturePhase,
    /// Why it waits.
    pub waiting: Option<String>,
    /// Bytes.
    pub progress: Option<Progress>,
}

/// How a capture ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CaptureOutcome {
    /// A final phase.
    pub phase: CapturePhase,
    /// Why, unless it succeeded.
    pub reason: Option<Explanation>,
    /// Things people should know.
    pub notes: Vec<String>,
}

/// What should be under way.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Plan {
    /// Independent of each other.
    pub actions: Vec<Action>,
    /// When to look again though nothing happened.
    pub wake_at: Option<Timestamp>,
    /// The container's log is worth following.
    pub follow: bool,
    /// A connection to the container's standard input is worth having.
    pub control: bool,
    /// Nothing is left to do.
    pub over: bool,
}

impl Plan {
    fn of(actions: Vec<Action>) -> Self {
        Self {
            actions,
            ..Self::default()
        }
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

/// What should be under way.
pub(super) fn plan(f: &Facts) -> Plan {
    if f.recorded(|s| s.phase.is_final()) {
        return Plan {
            over: true,
            ..Plan::default()
        };
    }
    if matches!(f.pod, PodFact::Unknown | PodFact::Unreadable(_)) && !stopping(f) {
        let mut next = Plan::default();
        next.wake(f.spec().deadline.0);
        observe::add(f, &mut next);
        return next;
    }
    let by_bot = f.spec().steps.iter().all(|s| s.method == StepMethod::Api);
    let mut next = if by_bot { by_the_bot(f) } else { by_an_agent(f) };
    if !f.deadline_passed() {
        next.wake(f.spec().deadline.0);
    }
    observe::add(f, &mut next);
    next
}

/// Method `api`: the bot reads the Kubernetes API itself.
fn by_the_bot(f: &Facts) -> Plan {
    if f.attempt_number() == 0 && !stopping(f) {
        let identity = AgentIdentity {
            uid: identity::LOOK_UID,
            gid: None,
            source: IdentitySource::Look,
        };
        return Plan::of(vec![Action::Attempt { number: 1, identity }]);
    }
    let missing = f.steps().find(|step| !f.stored(*step));
    match missing {
        Some(step) if !stopping(f) && !f.faults.contains_key(&Fault::Report) => Plan::of(vec![Action::Report { step }]),
        _ => Plan::of(outcome::of_the_bot(f)),
    }
}

fn by_an_agent(f: &Facts) -> Plan {
    if f.attempt_number() == 0 {
        return Plan::of(vec![first(f)]);
    }
    if let Some(next) = next_attempt(f) {
        return Plan::of(vec![next]);
    }
    let view = f.view();
    let mut next = Plan {
        follow: matches!(view, ContainerView::Running | ContainerView::Terminated { .. })
            && f.attempt.log == LogState::Open,
        control: view == ContainerView::Running,
        ..Plan::default()
    };
    if let Some(session_outcome) = outcome::session_outcome(f, &mut next) {
        next.actions.extend(outcome::bring_home(f, &session_outcome));
        return next;
    }
    if !next.actions.is_empty() {
        return next;
    }
    if !uploads_open(f) {
        next.actions.push(Action::OpenUploads);
    }
    match view {
        ContainerView::Absent if f.attempt.added_at.is_none() => next.actions.push(Action::AddContainer),
        ContainerView::Absent | ContainerView::Unreported | ContainerView::Waiting { .. } => look_closer(f, &mut next),
        ContainerView::Running | ContainerView::Terminated { .. } => {}
    }
    session(f, &mut next);
    next
}

/// The first attempt, or why there is none.
fn first(f: &Facts) -> Action {
    if stopping(f) {
        return Action::Finish(outcome::nothing_started(f));
    }
    let target = &f.spec().target;
    let fault = match &f.pod {
        PodFact::Seen(pod) => launch::target_fault(pod, target),
        _ => Some(explain::refusal(Refusal::PodGone, &target.pod)),
    };
    match (fault, &f.pod) {
        (None, PodFact::Seen(pod)) => Action::Attempt {
            number: 1,
            identity: identity::choose(pod, &target.container, &f.image_users),
        },
        (fault, _) => Action::Finish(CaptureOutcome {
            phase: CapturePhase::Failed,
            reason: fault,
            notes: Vec::new(),
        }),
    }
}

/// A further attempt, where this one can't do it and can't have acted: it never got a ticket, and tickets are bound to
/// their attempt.
fn next_attempt(f: &Facts) -> Option<Action> {
    let number = f.attempt_number();
    if f.ticketed() || stopping(f) || number >= MAX_ATTEMPTS {
        return None;
    }
    let PodFact::Seen(pod) = &f.pod else { return None };
    let target = &f.spec().target;
    launch::target_fault(pod, target).is_none().then_some(())?;
    if f.foreign() {
        let identity = f.recorded(|s| s.identity)?;
        return Some(Action::Attempt {
            number: number + 1,
            identity,
        });
    }
    match handshake(f, f.attempt.journal.hello.as_ref()?) {
        Meeting::OtherUser { uid, gid } => Some(Action::Attempt {
            number: number + 1,
            identity: AgentIdentity {
                uid: i64::from(uid),
                gid: Some(i64::from(gid)),
                source: IdentitySource::Hello,
            },
        }),
        _ => None,
    }
}

/// Ticket, URLs, releases: what the agent waits for.
fn session(f: &Facts, next: &mut Plan) {
    let journal = &f.attempt.journal;
    let Some(hello) = &journal.hello else { return };
    if stopping(f) {
        return;
    }
    if !journal.started {
        if handshake(f, hello) == Meeting::Fits && uploads_open(f) && due(f, next, f.attempt.ticket_at, RESEND) {
            next.actions.push(Action::SendTicket);
        }
        return;
    }
    for (&step, &(asked, from_part)) in &journal.url_requests {
        let sent = f.attempt.urls_at.get(&step).filter(|(line, _)| *line == asked);
        if due(f, next, sent.map(|(_, at)| *at), RESEND) {
            next.actions.push(Action::SendUrls { step, from_part, asked });
        }
    }
    for &step in journal.staged.keys() {
        if !f.stored(step) && !f.faults.contains_key(&Fault::Artifact(step)) {
            next.actions.push(Action::Relay { step });
            // Nothing else wakes us to tell how far it is.
            next.wake(f.now + observe::PROGRESS_EVERY);
        } else if due(f, next, f.attempt.released_at.get(&step).copied(), RESEND) {
            next.actions.push(Action::SendRelease { step });
        }
    }
    // An artifact that is in the store already need not wait for the steps after it.
    for &step in journal.ended.keys() {
        next.actions.extend(outcome::artifact(f, step));
    }
}

fn look_closer(f: &Facts, next: &mut Plan) {
    let Some(launched) = f.launched_at() else { return };
    next.wake(launched + SignedDuration::from_secs(i64::from(f.launch_limit_s)));
    if f.seconds_since(Some(launched)) < LOOK_AFTER_S {
        next.wake(launched + SignedDuration::from_secs(LOOK_AFTER_S));
    } else if due(f, next, f.attempt.events.as_ref().map(|(at, _)| *at), LOOK_EVERY) {
        next.actions.push(Action::LookCloser);
    }
}

/// Why a container that was added does not run.
fn waiting(f: &Facts) -> Wait {
    let (reason, message) = match f.view() {
        ContainerView::Waiting { reason, message } => (reason, message),
        ContainerView::Absent | ContainerView::Unreported => (String::new(), String::new()),
        ContainerView::Running | ContainerView::Terminated { .. } => return Wait::Normal,
    };
    let overdue = f.launched_at().is_some() && f.seconds_since(f.launched_at()) >= i64::from(f.launch_limit_s);
    let events = f.attempt.events.as_ref().map_or(&[][..], |(_, events)| events);
    launch::judge_wait(&reason, &message, events, overdue)
}

fn uploads_open(f: &Facts) -> bool {
    f.steps().all(|step| f.upload(step).is_some())
}

fn stopping(f: &Facts) -> bool {
    f.cancel_requested() || f.deadline_passed()
}

/// True where something was never sent or has had no effect for `every`; else notes when it will be.
fn due(f: &Facts, next: &mut Plan, sent: Option<Timestamp>, every: SignedDuration) -> bool {
    let Some(sent) = sent else { return true };
    if f.now >= sent + every {
        return true;
    }
    next.wake(sent + every);
    false
}

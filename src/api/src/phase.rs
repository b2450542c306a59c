//! The phases of a run: one total function from a phase and an event to the next phase.

use crate::run::Phase;

/// What can happen to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The leader took it up.
    Begun,
    /// Diagnostic, parameters and target are known.
    Resolved,
    /// A rule says no.
    Refused,
    /// Another person must agree.
    ApprovalNeeded,
    /// The person may, and (where needed) another agreed.
    Allowed,
    /// A person or permission says no.
    Denied,
    /// Nothing had started in time.
    Expired,
    /// It was a dry run, and its plan is written down.
    Planned,
    /// It was to find out what could be taken, and that is written down.
    Offered,
    /// A person asked to stop.
    CancelAsked,
    /// Every capture ended.
    Ended(Outcome),
    /// The run's own deadline passed.
    DeadlinePassed,
}

/// What the captures came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// All succeeded.
    Succeeded,
    /// Some did.
    PartlyFailed,
    /// None did.
    Failed,
    /// Some were stopped.
    Cancelled,
    /// None succeeded, and time was the reason.
    TimedOut,
}

/// The event can't happen in that phase: a fault in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} can't follow the phase {phase:?}")]
pub struct IllegalTransition {
    /// The phase.
    pub phase: Phase,
    /// The event.
    pub event: Event,
}

impl Phase {
    /// The phase after `event`.
    pub fn next(self, event: Event) -> Result<Self, IllegalTransition> {
        use Phase::{Accepted, Authorizing, AwaitingApproval, Cancelling, Capturing, Resolving};
        let next = match (self, event) {
            (Accepted, Event::Begun) => Resolving,
            (Resolving, Event::Resolved) => Authorizing,
            (Authorizing, Event::ApprovalNeeded) => AwaitingApproval,
            (Authorizing | AwaitingApproval, Event::Allowed) => Capturing,
            (Authorizing, Event::Planned) | (Resolving, Event::Offered) => Self::Succeeded,
            (Resolving | Authorizing | AwaitingApproval, Event::Refused) => Self::Refused,
            (Resolving | Authorizing | AwaitingApproval, Event::Denied) => Self::Denied,
            (Accepted | Resolving | Authorizing | AwaitingApproval, Event::Expired) => Self::Expired,
            (Accepted | Resolving | Authorizing | AwaitingApproval, Event::CancelAsked) => Self::Cancelled,
            (Capturing, Event::CancelAsked) => Cancelling,
            (Capturing | Cancelling, Event::DeadlinePassed) => Self::TimedOut,
            (Capturing | Cancelling, Event::Ended(outcome)) => match outcome {
                Outcome::Succeeded => Self::Succeeded,
                Outcome::PartlyFailed => Self::PartlyFailed,
                Outcome::Failed => Self::Failed,
                Outcome::Cancelled => Self::Cancelled,
                Outcome::TimedOut => Self::TimedOut,
            },
            (phase, event) => return Err(IllegalTransition { phase, event }),
        };
        Ok(next)
    }

    /// The name, as recorded.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Resolving => "Resolving",
            Self::Authorizing => "Authorizing",
            Self::AwaitingApproval => "AwaitingApproval",
            Self::Capturing => "Capturing",
            Self::Cancelling => "Cancelling",
            Self::Succeeded => "Succeeded",
            Self::PartlyFailed => "PartlyFailed",
            Self::Failed => "Failed",
            Self::Refused => "Refused",
            Self::Denied => "Denied",
            Self::Expired => "Expired",
            Self::Cancelled => "Cancelled",
            Self::TimedOut => "TimedOut",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 14] = [
        Phase::Accepted,
        Phase::Resolving,
        Phase::Authorizing,
        Phase::AwaitingApproval,
        Phase::Capturing,
        Phase::Cancelling,
        Phase::Succeeded,
        Phase::PartlyFailed,
        Phase::Failed,
        Phase::Refused,
        Phase::Denied,
        Phase::Expired,
        Phase::Cancelled,
        Phase::TimedOut,
    ];

    const EVENTS: [Event; 16] = [
        Event::Begun,
        Event::Resolved,
        Event::Refused,
        Event::ApprovalNeeded,
        Event::Allowed,
        Event::Denied,
        Event::Expired,
        Event::Planned,
        Event::Offered,
        Event::CancelAsked,
        Event::DeadlinePassed,
        Event::Ended(Outcome::Succeeded),
        Event::Ended(Outcome::PartlyFailed),
        Event::Ended(Outcome::Failed),
        Event::Ended(Outcome::Cancelled),
        Event::Ended(Outcome::TimedOut),
    ];

    #[test]
    fn nothing_follows_a_final_phase_and_every_other_phase_can_be_cancelled_and_ends() {
        for phase in PHASES {
            let follows: Vec<Phase> = EVENTS.iter().filter_map(|event| phase.next(*event).ok()).collect();
            assert_eq!(follows.is_empty(), phase.is_final(), "{phase:?}");
            if !phase.is_final() && phase != Phase::Cancelling {
                assert!(phase.next(Event::CancelAsked).is_ok(), "{phase:?}");
            }
        }
    }

    #[test]
    fn nothing_is_captured_that_was_not_resolved_and_allowed() {
        for phase in PHASES {
            let enters = |event: &&Event| phase.next(**event) == Ok(Phase::Capturing);
            let entering: Vec<&Event> = EVENTS.iter().filter(enters).collect();
            let may = matches!(phase, Phase::Authorizing | Phase::AwaitingApproval);
            assert_eq!(entering, if may { vec![&Event::Allowed] } else { vec![] }, "{phase:?}");
        }
        assert!(Phase::Accepted.next(Event::Resolved).is_err());
    }
}

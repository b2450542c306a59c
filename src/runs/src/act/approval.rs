//! What a change of a run's status says about approval, for the record. Pure.
//!
//! Written before the status: what nobody could account for later does not happen. A write that meets another one says it
//! twice, which is better than never.

use diagbot_api::run::{DiagnosticRun, RunStatus};
use diagbot_audit::{Event, Word};

/// The entries of a run whose status is about to become `next`.
pub(super) fn said(run: &DiagnosticRun, next: &RunStatus) -> Vec<Event> {
    let former = run.status.as_ref();
    let entry = |person: String, word: Word, reason: String| Event::Approval {
        run: run.metadata.name.clone().unwrap_or_default(),
        person,
        verdict: word,
        reason,
    };
    let mut entries = Vec::new();
    let broken = |status: &RunStatus| status.break_glass.as_ref().is_some_and(|decision| decision.allowed);
    if broken(next) && !former.is_some_and(broken) {
        let reason = run.spec.appeal.break_glass.clone().unwrap_or_default();
        entries.push(entry(run.spec.requester.user_name(), Word::BreakGlass, reason));
    }
    let Some(approval) = &next.approval else { return entries };
    let before = former.and_then(|status| status.approval.as_ref());
    if before.is_none() {
        entries.push(entry(run.spec.requester.user_name(), Word::Asked, approval.why.clone()));
    }
    if let Some(verdict) = &approval.verdict
        && before.is_none_or(|before| before.verdict.is_none())
    {
        let word = if verdict.approved {
            Word::Approved
        } else {
            Word::Refused
        };
        entries.push(entry(verdict.by.user_name(), word, approval.why.clone()));
    }
    entries
}

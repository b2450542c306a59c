//! How far a capture is, and when that is worth a write: at most one a second, changes of phase a little sooner, and never
//! in the way of the writes that matter.

use diagbot_api::capture::{CapturePhase, Progress, StepMethod};
use jiff::SignedDuration;

use super::{Action, Facts, Observed, Plan, PodFact, Wait, stopping, waiting};
use crate::{explain, launch::ContainerView};

/// Between a write and one that only tells of another phase or another reason to wait.
const PHASE_EVERY: SignedDuration = SignedDuration::from_millis(300);
/// Between a write and one that only tells of more bytes.
pub(super) const PROGRESS_EVERY: SignedDuration = SignedDuration::from_secs(1);

/// Adds the record of how far it is, if it is due.
pub(super) fn add(f: &Facts, next: &mut Plan) {
    // An action that keeps failing is no write in the way, and why it fails is what people wait to hear.
    let in_the_way = |action: &Action| match action {
        Action::Finish(_) => true,
        Action::Attempt { .. }
        | Action::OpenUploads
        | Action::AddContainer
        | Action::SendTicket
        | Action::Complete { .. }
        | Action::WriteManifest => f.trouble.is_none(),
        _ => false,
    };
    let unreadable = matches!(f.pod, PodFact::Unreadable(_));
    if (f.attempt_number() == 0 && !unreadable) || next.actions.iter().any(in_the_way) {
        return;
    }
    let observed = observed(f);
    let (phase, waiting, progress) = f.recorded(|s| (s.phase, s.waiting.clone(), s.progress.clone()));
    let every = if (phase, &waiting) != (observed.phase, &observed.waiting) {
        PHASE_EVERY
    } else if progress != observed.progress {
        PROGRESS_EVERY
    } else {
        return;
    };
    match f.written_at {
        Some(written) if f.now < written + every => next.wake(written + every),
        _ => next.actions.push(Action::Observe(observed)),
    }
}

fn observed(f: &Facts) -> Observed {
    let why = match (&f.pod, waiting(f)) {
        (PodFact::Unreadable(why), _) => Some(format!("the pod can't be watched: {}", explain::clean(why))),
        (_, Wait::Slow(why)) => Some(explain::clean(&why)),
        (_, Wait::Normal | Wait::Never(_)) => None,
    };
    Observed {
        phase: phase(f),
        waiting: f.trouble.clone().or(why),
        progress: relayed(f).or_else(|| f.attempt.journal.progress.clone()),
    }
}

/// How far the relay is: the agent does not know.
fn relayed(f: &Facts) -> Option<Progress> {
    let (&step, staged) = f.attempt.journal.staged.first_key_value()?;
    let size_bytes = staged.result.artifact.as_ref()?.digests.size_bytes;
    Some(Progress {
        step,
        captured_bytes: size_bytes,
        uploaded_bytes: f.relayed_bytes.min(size_bytes),
        total_bytes: Some(size_bytes),
    })
}

fn phase(f: &Facts) -> CapturePhase {
    let journal = &f.attempt.journal;
    let by_bot = f.spec().steps.iter().all(|s| s.method == StepMethod::Api);
    let all_read = journal
        .progress
        .as_ref()
        .is_some_and(|p| p.total_bytes.is_some_and(|total| p.captured_bytes >= total));
    if stopping(f) {
        CapturePhase::Cancelling
    } else if by_bot {
        CapturePhase::Running
    } else if journal.end.is_some() {
        CapturePhase::Verifying
    } else if !journal.staged.is_empty() || all_read {
        CapturePhase::Uploading
    } else if journal.started {
        CapturePhase::Running
    } else if journal.hello.is_some() {
        CapturePhase::Meeting
    } else if f.view() == ContainerView::Absent && f.attempt_number() == 0 {
        CapturePhase::Pending
    } else {
        CapturePhase::Launching
    }
}

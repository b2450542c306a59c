//! The journal on standard output. Owns its bounds and its HMACs; see [`diagbot_wire::journal`] for its lines.

use std::{
    cell::RefCell,
    io::Write as _,
    time::{Duration, Instant},
};

use diagbot_wire::journal::{Event, JournalLine, MAX_JOURNAL_BYTES, MAX_LINE_BYTES};

/// Least time between two progress lines.
const PROGRESS_STEP: Duration = Duration::from_secs(1);
/// From here on progress is kept to itself, so that there is room for what matters.
const PROGRESS_BYTES: usize = MAX_JOURNAL_BYTES / 2;

/// Writes the journal.
#[derive(Debug, Default)]
pub(crate) struct Journal(RefCell<State>);

#[derive(Debug, Default)]
struct State {
    seq: u64,
    key: Option<Vec<u8>>,
    written_bytes: usize,
    last_progress: Option<Instant>,
}

impl Journal {
    /// From now on lines carry HMACs under this key.
    pub(crate) fn use_key(&self, key: Vec<u8>) {
        self.0.borrow_mut().key = Some(key);
    }

    /// Writes one event, at once.
    pub(crate) fn write(&self, event: &Event) {
        let mut state = self.0.borrow_mut();
        let mut event = event.clone();
        let line = loop {
            let line = JournalLine::seal(state.seq + 1, &event, state.key.as_deref()).render();
            if line.len() <= MAX_LINE_BYTES || !shorten(&mut event) {
                break line;
            }
        };
        if line.len() > MAX_LINE_BYTES || state.written_bytes + line.len() > MAX_JOURNAL_BYTES {
            return;
        }
        state.seq += 1;
        state.written_bytes += line.len();
        let mut stdout = std::io::stdout().lock();
        // With nobody to read it, the work goes on: the result object tells the same.
        let _written = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
    }

    /// Writes a progress event, if the last one is long enough ago and there is room.
    pub(crate) fn progress(&self, step: u16, captured_bytes: u64, uploaded_bytes: u64, total_bytes: Option<u64>) {
        {
            let mut state = self.0.borrow_mut();
            let recent = state.last_progress.is_some_and(|at| at.elapsed() < PROGRESS_STEP);
            if recent || state.written_bytes > PROGRESS_BYTES {
                return;
            }
            state.last_progress = Some(Instant::now());
        }
        self.write(&Event::Progress {
            step,
            captured_bytes,
            uploaded_bytes,
            total_bytes,
        });
    }
}

/// Leaves out what can be missed most; false when there is nothing more to leave out.
fn shorten(event: &mut Event) -> bool {
    match event {
        Event::StepEnded { result } | Event::Staged { result, .. } => match &mut result.artifact {
            Some(artifact) if !artifact.preview.is_empty() => {
                artifact.preview.clear();
                true
            }
            Some(artifact) if !artifact.findings.is_empty() => {
                artifact.findings.clear();
                true
            }
            _ => false,
        },
        Event::CleanedUp { left, .. } if !left.is_empty() => {
            left.pop();
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use diagbot_wire::{
        digest::Hasher,
        result::{ArtifactReport, StepOutcome, StepResult, Via},
    };

    use super::*;

    #[test]
    fn a_preview_that_does_not_fit_is_left_out_and_the_digests_stay() {
        let artifact = ArtifactReport {
            digests: Hasher::default().finish(),
            parts: 1,
            etag: String::new(),
            via: Via::Direct,
            suffix: String::new(),
            preview: "\u{1}".repeat(1_500),
            findings: vec!["a finding".to_owned()],
            note: String::new(),
        };
        let result = StepResult {
            step: 0,
            artifact: Some(artifact),
            outcome: StepOutcome::Done,
            started_ms: 0,
            ended_ms: 0,
        };
        let mut event = Event::StepEnded { result };
        assert!(JournalLine::seal(1, &event, Some(b"key")).render().len() > MAX_LINE_BYTES);
        assert!(shorten(&mut event));
        assert!(JournalLine::seal(1, &event, Some(b"key")).render().len() <= MAX_LINE_BYTES);
        let Event::StepEnded { result } = event else {
            panic!("the same event")
        };
        assert_eq!(result.artifact.map(|a| a.findings.len()), Some(1));
    }
}

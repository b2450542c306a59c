//! The journal on standard output. Owns its bounds and its HMACs; see [`diagbot_wire::journal`] for its lines.

use std::{
    cell::RefCell,
    io::Write,
    time::{Duration, Instant},
};

use diagbot_wire::journal::{Event, JournalLine, MAX_JOURNAL_BYTES, MAX_LINE_BYTES};

/// Progress may fill this much, so that there is room for what matters.
const PROGRESS_BYTES: usize = MAX_JOURNAL_BYTES / 2;
/// Least time between two progress lines, while that is a quarter full, half full, and so on. At 230 bytes a line that is
/// enough for 50 minutes.
const PROGRESS_STEPS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
];
/// Kept free for the last two lines.
const LAST_BYTES: usize = 2 * MAX_LINE_BYTES;

/// Writes the journal.
pub(crate) struct Journal(RefCell<JournalState>);

struct JournalState {
    out: Box<dyn Write>,
    seq: u64,
    key: Option<Vec<u8>>,
    written_bytes: usize,
    last_progress: Option<Instant>,
}

impl Journal {
    /// A journal that is written there: to standard output.
    pub(crate) fn new(out: impl Write + 'static) -> Self {
        Self(RefCell::new(JournalState {
            out: Box::new(out),
            seq: 0,
            key: None,
            written_bytes: 0,
            last_progress: None,
        }))
    }

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
        let last = matches!(event, Event::CleanedUp { .. } | Event::End { .. });
        let room = if last {
            MAX_JOURNAL_BYTES
        } else {
            MAX_JOURNAL_BYTES - LAST_BYTES
        };
        if line.len() > MAX_LINE_BYTES || state.written_bytes + line.len() > room {
            return;
        }
        state.seq += 1;
        state.written_bytes += line.len();
        // With nobody to read it, the work goes on: the result object tells the same.
        let _written = state.out.write_all(line.as_bytes()).and_then(|()| state.out.flush());
    }

    /// Writes a progress event, if the last one is long enough ago and there is room.
    pub(crate) fn progress(&self, step: u16, captured_bytes: u64, uploaded_bytes: u64, total_bytes: Option<u64>) {
        {
            let mut state = self.0.borrow_mut();
            let Some(step) = progress_step(state.written_bytes) else {
                return;
            };
            if state.last_progress.is_some_and(|at| at.elapsed() < step) {
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

/// How far apart progress lines are; none where there are to be no more.
fn progress_step(written_bytes: usize) -> Option<Duration> {
    PROGRESS_STEPS
        .get(written_bytes / (PROGRESS_BYTES / PROGRESS_STEPS.len()))
        .copied()
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
    fn progress_is_told_less_often_as_the_journal_fills_and_then_no_more() {
        let steps: Vec<_> = (0..=4)
            .map(|quarter| progress_step(quarter * MAX_JOURNAL_BYTES / 8))
            .collect();
        assert_eq!(&steps[..4], PROGRESS_STEPS.map(Some));
        assert_eq!(steps[4], None);
        assert!(PROGRESS_STEPS.is_sorted());
    }

    #[test]
    fn the_last_lines_find_room_in_a_full_journal() {
        let journal = Journal::new(std::io::sink());
        journal.0.borrow_mut().written_bytes = MAX_JOURNAL_BYTES - LAST_BYTES;
        journal.write(&Event::StepStarted { step: 0 });
        assert_eq!(journal.0.borrow().seq, 0, "no room for more");
        journal.write(&Event::CleanedUp {
            removed: 0,
            left: vec!["x".repeat(100); 1_000],
        });
        journal.write(&Event::End {
            result_sha256: "0".repeat(64),
            result_stored: false,
            cancelled: false,
        });
        let state = journal.0.borrow();
        assert_eq!(state.seq, 2);
        assert!(state.written_bytes <= MAX_JOURNAL_BYTES);
    }

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
            redaction: None,
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

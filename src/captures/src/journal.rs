//! What the agent has said, as one value: its journal's lines, taken in order and each once. Pure; the log is read by
//! [`super::log`].

use std::collections::BTreeMap;

use diagbot_api::capture::Progress;
use diagbot_wire::{
    journal::{Event, Hello, Reader},
    result::StepResult,
};

/// The journal of one attempt, as far as it was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    reader: Reader,
    /// The agent's introduction. Not authenticated: a claim to be checked.
    pub hello: Option<Hello>,
    /// The ticket was taken.
    pub started: bool,
    /// The step that is under way.
    pub current_step: Option<u16>,
    /// How far it is.
    pub progress: Option<Progress>,
    /// URLs that the agent waits for: by step, the number of the line that asked, and the first part.
    pub url_requests: BTreeMap<u16, (u64, u32)>,
    /// Artifacts that wait in the container to be fetched.
    pub staged: BTreeMap<u16, Staged>,
    /// Steps that are over.
    pub ended: BTreeMap<u16, StepResult>,
    /// Files that the agent could not remove from the target. Untrusted text.
    pub left_behind: Vec<String>,
    /// The agent said that it has removed what it wrote.
    pub cleaned_up: bool,
    /// The last line.
    pub end: Option<End>,
}

/// An artifact that waits in the container.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Staged {
    /// How its step ended, with the digests.
    pub result: StepResult,
    /// Why the pod could not upload it itself. Untrusted text.
    pub reason: String,
}

/// The journal's last line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// Whether the result object is in the store.
    pub result_stored: bool,
    /// The agent stopped since it was told to, or since its time was over.
    pub cancelled: bool,
}

impl Journal {
    /// Takes one line of the log. True if it said something new.
    pub(super) fn take(&mut self, line: &str, key: &[u8]) -> bool {
        let Some((seq, event)) = self.reader.take(line, key) else {
            return false;
        };
        self.apply(seq, event);
        true
    }

    fn apply(&mut self, seq: u64, event: Event) {
        match event {
            Event::Hello(hello) => self.hello = Some(hello),
            Event::Started { .. } => self.started = true,
            Event::StepStarted { step } => self.current_step = Some(step),
            Event::Progress {
                step,
                captured_bytes,
                uploaded_bytes,
                total_bytes,
            } => {
                let before = self.progress.as_ref().filter(|p| p.step == step);
                if before.is_none_or(|p| p.uploaded_bytes < uploaded_bytes) {
                    self.url_requests.remove(&step);
                }
                self.progress = Some(Progress {
                    step,
                    captured_bytes,
                    uploaded_bytes,
                    total_bytes,
                });
            }
            Event::NeedUrls { step, from_part } => {
                self.url_requests.insert(step, (seq, from_part));
            }
            Event::Staged { result, reason } => {
                self.url_requests.remove(&result.step);
                self.staged.insert(result.step, Staged { result, reason });
            }
            Event::StepEnded { result } => {
                self.url_requests.remove(&result.step);
                self.staged.remove(&result.step);
                self.ended.insert(result.step, result);
            }
            Event::CleanedUp { left, .. } => {
                self.cleaned_up = true;
                self.left_behind = left;
            }
            Event::End {
                result_stored,
                cancelled,
                ..
            } => {
                self.end = Some(End {
                    result_stored,
                    cancelled,
                });
            }
            Event::Unknown => {}
        }
    }

    /// The result of a step, ended or staged.
    pub(super) fn result(&self, step: u16) -> Option<&StepResult> {
        self.ended
            .get(&step)
            .or_else(|| self.staged.get(&step).map(|s| &s.result))
    }

    /// Lines that were not ours: counted and shown, never acted on.
    pub(super) fn rejected(&self) -> u64 {
        self.reader.rejected()
    }
}

#[cfg(test)]
mod tests {
    use diagbot_wire::journal::JournalLine;

    use super::*;
    use crate::samples;

    const KEY: &[u8] = b"key";

    fn line(seq: u64, event: &Event) -> String {
        JournalLine::seal(seq, event, Some(KEY)).render()
    }

    #[test]
    fn a_journal_read_twice_from_the_start_says_everything_once() {
        let lines = [
            JournalLine::seal(1, &Event::Hello(samples::hello()), None).render(),
            line(2, &Event::Started { processes: Vec::new() }),
            line(
                3,
                &Event::StepEnded {
                    result: samples::step_result(),
                },
            ),
        ];
        let mut journal = Journal::default();
        assert!(lines.iter().all(|l| journal.take(l, KEY)));
        assert!(!lines.iter().any(|l| journal.take(l, KEY)));
        assert!(journal.started && journal.result(0).is_some());
        assert_eq!(journal.rejected(), 0);
    }

    #[test]
    fn forged_lines_change_nothing_and_are_counted() {
        let mut journal = Journal::default();
        let forged = JournalLine::seal(2, &Event::Started { processes: Vec::new() }, Some(b"other")).render();
        assert!(!journal.take(&forged, KEY));
        assert!(!journal.take("Exception in thread main", KEY));
        assert!(!journal.started);
        assert_eq!(journal.rejected(), 2);
    }

    #[test]
    fn a_request_for_urls_stands_until_bytes_move() {
        let mut journal = Journal::default();
        let progress = |uploaded_bytes| Event::Progress {
            step: 0,
            captured_bytes: 9,
            uploaded_bytes,
            total_bytes: None,
        };
        journal.take(&line(2, &progress(5)), KEY);
        journal.take(&line(3, &Event::NeedUrls { step: 0, from_part: 5 }), KEY);
        journal.take(&line(4, &progress(5)), KEY);
        assert_eq!(journal.url_requests.get(&0), Some(&(3, 5)));
        journal.take(&line(5, &progress(6)), KEY);
        assert!(journal.url_requests.is_empty());
    }
}

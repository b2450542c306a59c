//! Captured text to findings: the few lines that tell an engineer where to look first.
//!
//! Owns the reading of known text formats, and the removal of secrets from text ([`redact`]). Pure: it takes lines, keeps bounded state whatever comes, and never fails; text
//! that it does not know gives no findings. What it returns is still the target's text: whoever shows it escapes it.

mod comparison;
mod histogram;
pub mod redact;
mod thread_dump;

pub use comparison::{Difference, compare};
pub use histogram::Histogram;
pub use thread_dump::ThreadDump;

/// Most findings of one artifact.
pub const MAX_FINDINGS: usize = 5;
/// Longest finding in characters.
pub const MAX_FINDING_CHARS: usize = 200;
/// Longest line that is looked at, in bytes; the rest of a longer line is ignored.
const MAX_LINE_BYTES: usize = 2_048;

/// Reads text line by line; memory stays bounded.
pub trait Analyzer {
    /// Takes the next line, without its newline.
    fn line(&mut self, line: &str);

    /// What was found, most important first.
    fn findings(&self) -> Vec<String>;
}

/// Takes a stream of bytes apart into lines for an [`Analyzer`].
pub struct Lines<A> {
    analyzer: A,
    pending: Vec<u8>,
}

impl<A: Analyzer> Lines<A> {
    /// Lines for this analyzer.
    pub fn new(analyzer: A) -> Self {
        Self {
            analyzer,
            pending: Vec::new(),
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let room = MAX_LINE_BYTES.saturating_sub(self.pending.len());
            self.pending.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.take_line();
            }
        }
    }

    /// What was found, most important first; bounded in number and length.
    pub fn finish(mut self) -> Vec<String> {
        self.take_line();
        let cut = |text: String| match text.char_indices().nth(MAX_FINDING_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        };
        self.analyzer
            .findings()
            .into_iter()
            .take(MAX_FINDINGS)
            .map(cut)
            .collect()
    }

    fn take_line(&mut self) {
        self.analyzer.line(String::from_utf8_lossy(&self.pending).trim_end());
        self.pending.clear();
    }
}

impl<T: Analyzer + ?Sized> Analyzer for Box<T> {
    fn line(&mut self, line: &str) {
        (**self).line(line);
    }

    fn findings(&self) -> Vec<String> {
        (**self).findings()
    }
}

/// A number with its noun: `1 deadlock`, `2 deadlocks`.
fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

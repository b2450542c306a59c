//! The stages that captured bytes pass, in the order of [`diagbot_wire::pipeline::Stage::ORDER`].
//!
//! Source and limit work while the tool runs ([`Intake`]); hashing works over the finished file while its parts are uploaded
//! ([`crate::upload`]). Redaction, compression and encryption are not built: their stages would stand in [`Intake::push`],
//! between limit and spool, in that order.

use std::{
    fs::File,
    io::{self, Write as _},
};

use diagbot_analysis::{Analyzer, Histogram, Lines, ThreadDump};
use diagbot_wire::args::{OutputKind, StepArgs};

use crate::spool;

/// Longest preview in bytes.
const PREVIEW_BYTES: usize = 1_500;

/// A captured file: exactly the bytes that are uploaded.
#[derive(Debug)]
pub(crate) struct Captured {
    /// The bytes.
    pub(crate) file: File,
    /// How many there are.
    pub(crate) size_bytes: u64,
    /// The tool put out more than the limit.
    pub(crate) truncated: bool,
    /// First lines of text.
    pub(crate) preview: String,
    /// What an analyzer found in text.
    pub(crate) findings: Vec<String>,
    /// File name ending of an encoding that the tool applied.
    pub(crate) suffix: &'static str,
    /// A fallback that was taken, in words; else empty.
    pub(crate) note: String,
}

/// Takes a tool's output: cuts at the limit, looks at text, spools.
pub(crate) struct Intake {
    spool: File,
    size_bytes: u64,
    limit_bytes: u64,
    truncated: bool,
    text: bool,
    preview: Vec<u8>,
    analysis: Option<Lines<Box<dyn Analyzer>>>,
}

impl Intake {
    /// An intake for one step's output.
    pub(crate) fn new(step: &StepArgs) -> io::Result<Self> {
        let analyzer: Option<Box<dyn Analyzer>> = match step.argv.get(1).map(String::as_str) {
            Some("Thread.print") => Some(Box::new(ThreadDump::default())),
            Some("GC.class_histogram") => Some(Box::new(Histogram::default())),
            _ => None,
        };
        Ok(Self {
            spool: spool::nameless_file()?,
            size_bytes: 0,
            limit_bytes: step.limit_bytes,
            truncated: false,
            text: step.output == OutputKind::Text,
            preview: Vec::new(),
            analysis: analyzer.filter(|_| step.output == OutputKind::Text).map(Lines::new),
        })
    }

    /// Takes the next bytes. False: the limit is reached, more is not wanted.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let room = self.limit_bytes - self.size_bytes;
        let taken = &bytes[..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        self.truncated |= taken.len() < bytes.len();
        if self.text {
            let room = PREVIEW_BYTES - self.preview.len();
            self.preview.extend_from_slice(&taken[..taken.len().min(room)]);
        }
        if let Some(analysis) = &mut self.analysis {
            analysis.push(taken);
        }
        self.spool.write_all(taken)?;
        self.size_bytes += taken.len() as u64;
        Ok(!self.truncated)
    }

    /// Bytes so far.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The captured file.
    pub(crate) fn finish(self) -> Captured {
        Captured {
            size_bytes: self.size_bytes,
            truncated: self.truncated,
            preview: preview_of(&self.preview, self.size_bytes),
            findings: self.analysis.map(Lines::finish).unwrap_or_default(),
            file: self.spool,
            suffix: "",
            note: String::new(),
        }
    }
}

/// The preview, cut after its last whole line where the text goes on. Bytes that no text has get none.
fn preview_of(bytes: &[u8], size_bytes: u64) -> String {
    if bytes.contains(&0) {
        return String::new();
    }
    let whole = bytes.len() as u64 == size_bytes;
    let end = if whole {
        bytes.len()
    } else {
        bytes.iter().rposition(|b| *b == b'\n').unwrap_or(bytes.len())
    };
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use diagbot_wire::{args::ProcessSelector, pipeline::Stage};

    use super::*;

    fn step(limit_bytes: u64) -> StepArgs {
        StepArgs {
            name: "sample".to_owned(),
            process: ProcessSelector::None,
            output: OutputKind::Text,
            limit_bytes,
            deadline_s: 1,
            after_s: 0,
            stop_on_error: false,
            argv: vec!["@sockets".to_owned()],
        }
    }

    #[test]
    fn output_is_cut_at_the_limit_and_says_so() {
        let mut intake = Intake::new(&step(10)).expect("a spool");
        assert!(intake.push(b"12345678").expect("room"));
        assert!(!intake.push(b"9abcdef").expect("room"));
        let captured = intake.finish();
        assert_eq!((captured.size_bytes, captured.truncated), (10, true));
        assert_eq!(captured.preview, "123456789a");
        assert_eq!(preview_of(b"\x7fELF\x02\0\0", 7), "");
    }

    #[test]
    fn exactly_the_limit_is_whole() {
        let mut intake = Intake::new(&step(3)).expect("a spool");
        assert!(intake.push(b"123").expect("room"));
        assert!(!intake.finish().truncated);
    }

    #[test]
    fn redaction_sees_text_before_it_is_compressed_and_digests_are_of_what_is_sent() {
        assert!(Stage::Limit < Stage::Redact && Stage::Redact < Stage::Compress);
        assert!(Stage::Encrypt < Stage::Hash && Stage::Hash < Stage::Parts);
    }
}

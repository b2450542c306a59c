//! What captured bytes pass, in this order: source, limit, redaction (of text), spool, digests, parts.
//!
//! Source, limit and redaction (of text) work while the tool runs ([`Intake`]), so that no secret is ever spooled, previewed
//! or analysed. Digests are made twice: of the bytes as they are spooled, and of the file that is uploaded
//! ([`crate::upload`]); they must agree.

use std::{fs::File, sync::Arc};

use diagbot_analysis::{
    Analyzer, Histogram, Lines, ThreadDump,
    redact::{Redactor, Removed, Rules},
};
use diagbot_wire::{
    args::{OutputKind, StepArgs},
    digest::{Digests, Hasher},
};

use crate::{
    spool::{Spool, SpoolError},
    upload::{self, Hashing},
};

/// Longest preview in bytes.
const PREVIEW_BYTES: usize = 1_500;
/// Bytes from which on hashing follows the spool: less is hashed in no time.
const FOLLOWED_BYTES: u64 = 8 << 20;

/// A captured file: exactly the bytes that are uploaded.
#[derive(Debug)]
pub(crate) struct Captured {
    /// The bytes.
    pub(crate) file: Arc<File>,
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
    /// What was removed; none where nothing was looked for.
    pub(crate) redaction: Option<Redaction>,
    /// Digests of the bytes as they came. None of a file that the target itself wrote.
    pub(crate) written: Option<Digests>,
    /// Digests of the file, where they are under way already.
    pub(crate) hashing: Option<Hashing>,
}

/// What redaction did to a text.
#[derive(Debug)]
pub(crate) struct Redaction {
    /// What was removed.
    pub(crate) removed: Removed,
    /// Length and digests of the text before.
    pub(crate) original: Digests,
}

/// Takes a tool's output: cuts at the limit, redacts and looks at text, spools.
pub(crate) struct Intake<'a> {
    spool: Spool,
    /// Digests of what is spooled, once that is much.
    hashing: Option<Hashing>,
    /// Bytes of output.
    taken_bytes: u64,
    /// Bytes that are kept of it.
    size_bytes: u64,
    limit_bytes: u64,
    truncated: bool,
    text: bool,
    redaction: Option<(Redactor<'a>, Hasher)>,
    preview: Vec<u8>,
    analysis: Option<Lines<Box<dyn Analyzer>>>,
}

impl<'a> Intake<'a> {
    /// An intake for one step's output. `rules` are for text.
    pub(crate) fn new(step: &StepArgs, rules: &'a Rules) -> Result<Self, SpoolError> {
        let text = step.output == OutputKind::Text;
        let analyzer: Option<Box<dyn Analyzer>> = match step.argv.get(1).map(String::as_str) {
            Some("Thread.print") => Some(Box::new(ThreadDump::default())),
            Some("GC.class_histogram") => Some(Box::new(Histogram::default())),
            _ => None,
        };
        Ok(Self {
            spool: Spool::new()?,
            hashing: None,
            taken_bytes: 0,
            size_bytes: 0,
            limit_bytes: step.limit_bytes,
            truncated: false,
            text,
            redaction: (text && !rules.is_empty()).then(|| (Redactor::new(rules), Hasher::default())),
            preview: Vec::new(),
            analysis: analyzer.filter(|_| text).map(Lines::new),
        })
    }

    /// Takes the next bytes. False: the limit is reached, more is not wanted.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<bool, SpoolError> {
        let taken = within(bytes, self.limit_bytes - self.taken_bytes);
        self.taken_bytes += taken.len() as u64;
        self.truncated |= taken.len() < bytes.len();
        match &mut self.redaction {
            None => self.keep(taken)?,
            Some((redactor, original)) => {
                original.update(taken);
                let mut clean = Vec::with_capacity(taken.len());
                redactor.push(taken, &mut clean);
                self.keep(&clean)?;
            }
        }
        Ok(!self.truncated)
    }

    /// Looks at clean bytes and spools them. What stands for a secret can be longer than the secret: the limit holds here too.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let kept = within(bytes, self.limit_bytes - self.size_bytes);
        self.truncated |= kept.len() < bytes.len();
        if self.text {
            let room = PREVIEW_BYTES - self.preview.len();
            self.preview.extend_from_slice(&kept[..kept.len().min(room)]);
        }
        if let Some(analysis) = &mut self.analysis {
            analysis.push(kept);
        }
        self.spool.write(kept)?;
        self.size_bytes += kept.len() as u64;
        if self.hashing.is_none() && self.size_bytes >= FOLLOWED_BYTES {
            self.hashing = Some(upload::hash(self.limit_bytes, self.spool.file()));
        }
        if let Some(hashing) = &self.hashing {
            hashing.grown(self.size_bytes);
        }
        Ok(())
    }

    /// Bytes of output so far.
    pub(crate) fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// The captured file.
    pub(crate) fn finish(mut self) -> Result<Captured, SpoolError> {
        let mut redaction = None;
        if let Some((redactor, original)) = self.redaction.take() {
            let mut clean = Vec::new();
            let removed = redactor.finish(&mut clean);
            self.keep(&clean)?;
            redaction = Some(Redaction {
                removed,
                original: original.finish(),
            });
        }
        if let Some(hashing) = &self.hashing {
            hashing.whole(self.size_bytes);
        }
        let (file, written) = self.spool.finish();
        Ok(Captured {
            size_bytes: self.size_bytes,
            truncated: self.truncated,
            preview: preview_of(&self.preview, self.size_bytes),
            findings: self.analysis.map(Lines::finish).unwrap_or_default(),
            file,
            written: Some(written),
            hashing: self.hashing,
            suffix: "",
            note: String::new(),
            redaction,
        })
    }
}

/// As many of the bytes as there is room for.
fn within(bytes: &[u8], room: u64) -> &[u8] {
    &bytes[..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX))]
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
    use diagbot_wire::args::ProcessSelector;

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
        let none = Rules::default();
        let mut intake = Intake::new(&step(10), &none).expect("a spool");
        assert!(intake.push(b"12345678").expect("room"));
        assert!(!intake.push(b"9abcdef").expect("room"));
        let captured = intake.finish().expect("a spool");
        assert_eq!((captured.size_bytes, captured.truncated), (10, true));
        assert_eq!(captured.preview, "123456789a");
        assert_eq!(preview_of(b"\x7fELF\x02\0\0", 7), "");
    }

    #[test]
    fn exactly_the_limit_is_whole() {
        let none = Rules::default();
        let mut intake = Intake::new(&step(3), &none).expect("a spool");
        assert!(intake.push(b"123").expect("room"));
        assert!(!intake.finish().expect("a spool").truncated);
    }

    #[test]
    fn a_secret_is_in_neither_file_nor_preview_and_the_limit_holds_for_what_stands_in_its_place() {
        let rules = Rules::new([("pin", "pin=(?P<secret>[0-9]+)", None)]).expect("a rule");
        let mut intake = Intake::new(&step(64), &rules).expect("a spool");
        intake.push(b"first pin=12").expect("room");
        intake.push(b"34 last\n").expect("room");
        let captured = intake.finish().expect("a spool");
        assert_eq!(captured.preview, "first pin=[redacted:pin] last\n");
        let mut file = String::new();
        std::io::Seek::rewind(&mut &*captured.file).expect("seek");
        std::io::Read::read_to_string(&mut &*captured.file, &mut file).expect("read");
        assert_eq!(file, captured.preview);
        let redaction = captured.redaction.expect("it was looked for");
        assert_eq!((redaction.removed.count, redaction.original.size_bytes), (1, 20));

        let mut intake = Intake::new(&step(64), &rules).expect("a spool");
        for _ in 0..8 {
            intake.push(b"pin=1 \n").expect("room");
        }
        let captured = intake.finish().expect("a spool");
        assert_eq!((captured.size_bytes, captured.truncated), (64, true));
    }
}

//! One text on its way through the rules.

use std::collections::BTreeMap;

use memchr::{memchr, memrchr};

use super::{
    MAX_BLOCK_BYTES, MAX_LINE_BYTES, OVERLAP_BYTES,
    rules::{Place, Rules},
};

/// Takes a text apart and gives it back without what the rules name.
#[derive(Debug)]
pub struct Redactor<'a> {
    rules: &'a Rules,
    /// Text that no line's end was seen of.
    pending: Vec<u8>,
    state: State,
    /// By rule.
    counts: Vec<u64>,
}

/// Where the text goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In text.
    Text,
    /// In a secret that was longer than we look: it ends at a blank or the line's end.
    Secret,
    /// In a block of this rule; at most so many bytes of it are still removed.
    Block { rule: usize, left_bytes: usize },
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many places.
    pub count: u64,
    /// The same by rule; rules that found nothing are not named.
    pub by_rule: BTreeMap<String, u64>,
}

impl<'a> Redactor<'a> {
    /// A redactor for one text.
    pub fn new(rules: &'a Rules) -> Self {
        Self {
            rules,
            pending: Vec::new(),
            state: State::Text,
            counts: Vec::new(),
        }
    }

    /// Redacts one short text.
    pub fn text(rules: &'a Rules, text: &str) -> String {
        let mut out = Vec::new();
        let mut redactor = Self::new(rules);
        redactor.push(text.as_bytes(), &mut out);
        redactor.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Takes the next bytes; appends to `out` what is known to be clean.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.rules.is_empty() {
            out.extend_from_slice(bytes);
            return;
        }
        for piece in bytes.chunks(MAX_LINE_BYTES) {
            let mut text = std::mem::take(&mut self.pending);
            text.extend_from_slice(piece);
            let taken = self.take(&text, out);
            text.drain(..taken);
            self.pending = text;
        }
    }

    /// Takes the end of the text.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Removed {
        let rest = std::mem::take(&mut self.pending);
        self.line(&rest, out);
        let named = |(rule, count): (usize, &u64)| (self.rules.name(rule).to_owned(), *count);
        Removed {
            count: self.counts.iter().sum(),
            by_rule: self
                .counts
                .iter()
                .enumerate()
                .filter(|(_, count)| **count > 0)
                .map(named)
                .collect(),
        }
    }

    /// Takes whole lines, and windows of lines that are too long; returns how many bytes it took.
    fn take(&mut self, text: &[u8], out: &mut Vec<u8>) -> usize {
        let lines = memrchr(b'\n', text).map_or(0, |last| last + 1);
        if self.state == State::Text && !self.rules.any(&text[..lines]) {
            out.extend_from_slice(&text[..lines]);
            return lines + self.windows(&text[lines..], out);
        }
        let mut taken = 0;
        while taken < lines {
            let rest = &text[taken..lines];
            let end = memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            self.line(&rest[..end], out);
            taken += end;
        }
        taken + self.windows(&text[taken..], out)
    }

    /// A whole line.
    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let taken = self.windows(line, out);
        let line = &line[taken..];
        let (content, end) = match line.strip_suffix(b"\n") {
            Some(content) => (content, &line[content.len()..]),
            None => (line, &line[line.len()..]),
        };
        self.part(content, content.len(), out);
        if !matches!(self.state, State::Block { .. }) {
            self.state = State::Text;
            out.extend_from_slice(end);
        }
    }

    /// Windows of a line that is longer than one.
    fn windows(&mut self, line: &[u8], out: &mut Vec<u8>) -> usize {
        let mut taken = 0;
        while line.len() - taken > MAX_LINE_BYTES {
            let window = &line[taken..taken + MAX_LINE_BYTES];
            taken += self.part(window, MAX_LINE_BYTES - OVERLAP_BYTES, out);
        }
        taken
    }

    /// A line, or a window of one, of which at least `wanted` bytes are taken. Returns how many were.
    fn part(&mut self, part: &[u8], wanted: usize, out: &mut Vec<u8>) -> usize {
        let begin = match self.state {
            State::Text => 0,
            State::Secret => match part.iter().position(u8::is_ascii_whitespace) {
                Some(blank) => blank,
                None => return part.len(),
            },
            State::Block { rule, left_bytes } => match self.rules.block_end(rule, part) {
                Some(end) => end,
                None if left_bytes < part.len() => 0,
                None => {
                    self.state = State::Block {
                        rule,
                        left_bytes: left_bytes.saturating_sub(wanted + 1),
                    };
                    return wanted;
                }
            },
        };
        self.state = State::Text;
        let text = &part[begin..];
        let wanted = wanted.saturating_sub(begin);
        let whole = wanted == text.len();
        let mut places = self.rules.places(text);
        // Those that begin in the overlap are found again, in the next window.
        let ours = places.iter().rposition(|place| whole || place.from < wanted);
        places.truncate(ours.map_or(0, |last| last + 1));
        let mut taken = 0;
        for place in places {
            out.extend_from_slice(&text[taken..place.secret.start]);
            self.remove(&place, out);
            taken = place.secret.end;
            if let Some(rule) = place.opens {
                self.state = State::Block {
                    rule,
                    left_bytes: MAX_BLOCK_BYTES,
                };
            } else if taken == text.len() && !whole {
                self.state = State::Secret;
            }
        }
        let end = taken.max(wanted);
        out.extend_from_slice(&text[taken..end]);
        begin + end
    }

    fn remove(&mut self, place: &Place, out: &mut Vec<u8>) {
        if self.counts.len() <= place.rule {
            self.counts.resize(place.rule + 1, 0);
        }
        self.counts[place.rule] += 1;
        out.extend_from_slice(b"[redacted:");
        out.extend_from_slice(self.rules.name(place.rule).as_bytes());
        out.push(b']');
    }
}

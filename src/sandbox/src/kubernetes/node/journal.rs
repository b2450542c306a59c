//! The log of one container run, as a container runtime writes it.
//!
//! Owns lines, their times and the end of the log. Reproduces what containerd 2.1 was measured to do: the CR of CR LF is
//! dropped, a line longer than its 16 KiB buffer is split, and the last unterminated line of a live container is held back.

use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::sync::watch;

/// containerd's buffer for one line.
const LINE_BUFFER: usize = 16 * 1024;
/// Bytes of log kept for one run; the oldest lines go first, as rotation takes them.
const KEPT_BYTES: usize = 32 * 1024 * 1024;

/// A line, or a piece of one.
#[derive(Debug, Clone)]
pub(in crate::kubernetes) struct Segment {
    pub(in crate::kubernetes) time: Timestamp,
    pub(in crate::kubernetes) text: Bytes,
    /// Another piece of the same line follows.
    pub(in crate::kubernetes) partial: bool,
}

/// One run's log.
#[derive(Debug)]
pub(in crate::kubernetes) struct Journal {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    segments: std::collections::VecDeque<Segment>,
    /// Number of the first segment that is still kept.
    first: u64,
    bytes: usize,
    closed: bool,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    pub(super) fn append(&self, segment: Segment) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes += segment.text.len();
        state.segments.push_back(segment);
        while state.bytes > KEPT_BYTES
            && let Some(dropped) = state.segments.pop_front()
        {
            state.bytes -= dropped.text.len();
            state.first += 1;
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.send_replace(());
    }

    /// Wakes when something came or the log was closed.
    pub(in crate::kubernetes) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Segments from number `from` on, the number to go on with, and whether that is all there will ever be.
    pub(in crate::kubernetes) fn read(&self, from: u64) -> (Vec<Segment>, u64, bool) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = from.saturating_sub(state.first) as usize;
        let segments: Vec<Segment> = state.segments.iter().skip(skip).cloned().collect();
        (segments, state.first + state.segments.len() as u64, state.closed)
    }
}

/// Cuts one stream of a container into segments.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    pending: BytesMut,
}

impl Splitter {
    /// Takes bytes as they come; returns what a runtime would write to the log now.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Segment> {
        self.pending.extend_from_slice(bytes);
        let mut segments = Vec::new();
        loop {
            let newline = self.pending.iter().take(LINE_BUFFER).position(|b| *b == b'\n');
            if let Some(at) = newline {
                let mut line = self.pending.split_to(at + 1);
                line.truncate(at);
                if line.last() == Some(&b'\r') {
                    line.truncate(at - 1);
                }
                segments.push(segment(line, false));
            } else if self.pending.len() >= LINE_BUFFER {
                let piece = self.pending.split_to(LINE_BUFFER);
                segments.push(segment(piece, true));
            } else {
                return segments;
            }
        }
    }

    /// The stream has ended: the held-back rest comes now, as a line that is not terminated.
    pub(super) fn finish(&mut self) -> Option<Segment> {
        let rest = std::mem::take(&mut self.pending);
        (!rest.is_empty()).then(|| segment(rest, true))
    }
}

fn segment(text: BytesMut, partial: bool) -> Segment {
    Segment {
        time: Timestamp::now(),
        text: text.freeze(),
        partial,
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE_BUFFER, Splitter};

    fn texts(splitter: &mut Splitter, bytes: &[u8]) -> Vec<String> {
        splitter
            .feed(bytes)
            .iter()
            .map(|s| String::from_utf8_lossy(&s.text).into_owned())
            .collect()
    }

    #[test]
    fn the_cr_of_cr_lf_is_dropped_and_a_lone_one_is_kept() {
        let mut splitter = Splitter::default();
        assert_eq!(texts(&mut splitter, b"a\r\nb\rc\n\n"), ["a", "b\rc", ""]);
    }

    #[test]
    fn an_unterminated_line_is_held_back_until_the_end() {
        let mut splitter = Splitter::default();
        assert!(texts(&mut splitter, b"half").is_empty());
        assert_eq!(texts(&mut splitter, b" done\nrest"), ["half done"]);
        let rest = splitter.finish().expect("the rest");
        assert!(rest.partial && rest.text == "rest");
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let mut splitter = Splitter::default();
        let segments = splitter.feed(&[vec![b'x'; LINE_BUFFER + 10], b"\n".to_vec()].concat());
        assert_eq!(
            segments.iter().map(|s| (s.text.len(), s.partial)).collect::<Vec<_>>(),
            [(LINE_BUFFER, true), (10, false)]
        );
    }
}

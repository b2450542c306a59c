//! Follows the container's log and passes its lines on. Owns the reading and its retries; understands no line.
//!
//! # Design notes
//! A follow ends early for many reasons (idle cut-offs, a kubelet's restart), always from the start it is read again, and
//! the journal takes each line once. A journal is at most 256 KiB, so that reading it again costs little. Complete is a log
//! only if it was opened after the container's end and read to its own.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use diagbot_base::retry::Backoff;
use diagbot_cluster::{CallError, deadline};
use diagbot_wire::journal::{MAX_JOURNAL_BYTES, MAX_LINE_BYTES};
use futures::{AsyncBufRead, AsyncBufReadExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use tokio::sync::mpsc;

/// Longest wait for the log to open.
const OPEN: Duration = Duration::from_secs(10);
/// A log that says nothing for this long is opened again: a stream that lost its other side never ends by itself, and what
/// the agent waits for must reach it well within its wait for a ticket.
const SILENCE: Duration = Duration::from_secs(15);
/// A log that can't be read so many times after the container's end is lost.
const LAST_TRIES: u32 = 6;
/// What is read at most in one go: the journal, and as much noise from neighbours of our uid.
const MAX_READ_BYTES: usize = 4 * MAX_JOURNAL_BYTES;

/// What the reader passes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LogItem {
    /// A line without its newline.
    Line(String),
    /// The container has ended and this was its whole log.
    Complete,
    /// The log can't be read any more.
    Lost,
}

/// Follows the log of `container` until it is complete or lost, or nobody listens. `over` becomes true when the container
/// has ended or its pod is gone.
pub(super) async fn follow(
    pods: Api<Pod>,
    pod: String,
    container: String,
    over: &AtomicBool,
    lines: mpsc::Sender<LogItem>,
) {
    let params = LogParams {
        container: Some(container),
        follow: true,
        ..LogParams::default()
    };
    let mut backoff = Backoff::new(Duration::from_millis(40), Duration::from_secs(2));
    let mut failed = 0;
    loop {
        let ended_before = over.load(Ordering::Acquire);
        match deadline(OPEN, pods.log_stream(&pod, &params)).await {
            Ok(stream) => {
                let whole = read(stream, &lines).await;
                if lines.is_closed() {
                    return;
                }
                if whole && ended_before {
                    // The receiver may have left meanwhile; then nobody needs to know.
                    lines.send(LogItem::Complete).await.ok();
                    return;
                }
                if whole {
                    backoff.reset();
                }
            }
            Err(error) => {
                tracing::debug!(error = %chain(&error), "the agent's log can't be read yet");
                failed += u32::from(ended_before);
                if failed >= LAST_TRIES {
                    lines.send(LogItem::Lost).await.ok();
                    return;
                }
            }
        }
        if lines.is_closed() {
            return;
        }
        backoff.wait(None).await;
    }
}

fn chain(error: &CallError) -> String {
    match error {
        CallError::Kube(error) => error.to_string(),
        CallError::Deadline(_) => error.to_string(),
    }
}

/// Passes lines on until the stream ends. True if it ended well.
async fn read(stream: impl AsyncBufRead, lines: &mpsc::Sender<LogItem>) -> bool {
    let mut stream = std::pin::pin!(stream);
    let mut line = Vec::new();
    let mut total = 0;
    loop {
        let Ok(Ok(available)) = tokio::time::timeout(SILENCE, stream.fill_buf()).await else {
            return false;
        };
        if available.is_empty() {
            return line.is_empty() || pass(&mut line, lines).await;
        }
        let (taken, complete) = match available.iter().position(|b| *b == b'\n') {
            Some(end) => (end + 1, true),
            None => (available.len(), false),
        };
        // Of a line that is too long to be ours the rest is not kept: it stays too long, and is counted as foreign.
        let room = (MAX_LINE_BYTES + 1).saturating_sub(line.len());
        line.extend_from_slice(&available[..taken.min(room)]);
        stream.consume_unpin(taken);
        total += taken;
        if complete && !pass(&mut line, lines).await {
            return false;
        }
        if total > MAX_READ_BYTES {
            return false;
        }
    }
}

async fn pass(line: &mut Vec<u8>, lines: &mpsc::Sender<LogItem>) -> bool {
    let text = String::from_utf8_lossy(line).trim_end().to_owned();
    line.clear();
    lines.send(LogItem::Line(text)).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines_of(log: &[u8]) -> Vec<LogItem> {
        let (sender, mut receiver) = mpsc::channel(64);
        read(futures::io::BufReader::with_capacity(7, log), &sender).await;
        drop(sender);
        let mut items = Vec::new();
        while let Some(item) = receiver.recv().await {
            items.push(item);
        }
        items
    }

    #[tokio::test]
    async fn lines_are_cut_at_newlines_and_the_last_may_lack_one() {
        let line = |text: &str| LogItem::Line(text.to_owned());
        assert_eq!(
            lines_of(b"first line\n\nlast").await,
            [line("first line"), line(""), line("last")]
        );
    }

    #[tokio::test]
    async fn a_line_without_end_takes_bounded_memory_and_stays_too_long() {
        let mut log = vec![b'x'; 100_000];
        log.extend_from_slice(b"\nnext\n");
        let items = lines_of(&log).await;
        let LogItem::Line(long) = &items[0] else {
            panic!("a line")
        };
        assert_eq!(long.len(), MAX_LINE_BYTES + 1);
        assert_eq!(items[1], LogItem::Line("next".to_owned()));
    }
}

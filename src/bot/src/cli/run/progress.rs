//! How far it is, on standard error: one line that is drawn again on a terminal, else a line for each change.

use std::io::{IsTerminal as _, Write as _};

use diagbot_api::{
    capture::CapturePhase,
    run::{CaptureSummary, DiagnosticRun, Phase},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cli::{complain, run::report::size};

/// Characters of the bar.
const BAR: usize = 24;
/// Longest line that is drawn again: a longer one would wrap, and could not be taken back.
const WIDTH: usize = 100;

/// What is shown of one run.
pub(super) struct Progress {
    news: watch::Receiver<DiagnosticRun>,
    stop: CancellationToken,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(news: watch::Receiver<DiagnosticRun>, stop: CancellationToken) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { news, stop, terminal }
    }

    /// Shows every change until the run is over.
    pub(super) async fn show(mut self) {
        let mut shown = String::new();
        let mut stopping = false;
        loop {
            tokio::select! {
                changed = self.news.changed() => if changed.is_err() {
                    break;
                },
                () = self.stop.cancelled(), if !stopping => stopping = true,
            }
            let line = line(&self.news.borrow_and_update(), stopping, self.terminal);
            if line != shown && !line.is_empty() {
                if self.terminal {
                    draw(&line);
                } else {
                    complain(&line);
                }
                shown = line;
            }
        }
        if self.terminal && !shown.is_empty() {
            draw("");
        }
    }
}

/// Draws over the line before. A terminal that is gone is no reason to end.
fn draw(line: &str) {
    let line: String = line.chars().take(WIDTH).collect();
    let mut out = std::io::stderr().lock();
    write!(out, "\r\x1b[2K{line}").and_then(|()| out.flush()).ok();
}

/// The state in a line. Bytes are left out where every line stays.
fn line(run: &DiagnosticRun, stopping: bool, with_bytes: bool) -> String {
    let Some(status) = &run.status else {
        return String::new();
    };
    let name = status.diagnostic.as_deref().unwrap_or(&run.spec.diagnostic);
    if status.phase.is_final() {
        return String::new();
    }
    let stopping = if stopping { "stopping in the pod; " } else { "" };
    if !matches!(status.phase, Phase::Capturing | Phase::Cancelling) {
        return format!("{name}: {stopping}looking at `{}`", run.spec.target);
    }
    let ended = status.captures.iter().filter(|c| c.phase.is_final()).count();
    match status.captures.as_slice() {
        [capture] => format!("{name}: {stopping}{}", one(capture, with_bytes)),
        captures => format!("{name}: {stopping}{ended} of {} captures ended", captures.len()),
    }
}

fn one(capture: &CaptureSummary, with_bytes: bool) -> String {
    let place = format!("{}/{}", capture.target.namespace, capture.target.pod);
    let state = match capture.phase {
        CapturePhase::Pending | CapturePhase::Launching => "begins with",
        CapturePhase::Meeting => "meets",
        CapturePhase::Running => "captures from",
        CapturePhase::Uploading => "fetches what it captured from",
        CapturePhase::Verifying => "verifies what came from",
        CapturePhase::Cancelling => "stops beside",
        CapturePhase::Succeeded | CapturePhase::Failed | CapturePhase::Cancelled | CapturePhase::TimedOut => {
            "is done with"
        }
    };
    let waiting = capture
        .waiting
        .as_ref()
        .map(|why| format!(" ({why})"))
        .unwrap_or_default();
    let bytes = match &capture.progress {
        Some(progress) if with_bytes => match progress.total_bytes {
            Some(total) => bar(progress.uploaded_bytes, total),
            None => format!("  {}", size(progress.captured_bytes)),
        },
        _ => String::new(),
    };
    format!("{state} {place}{waiting}{bytes}")
}

fn bar(done: u64, total: u64) -> String {
    let share = u128::from(done.min(total)) * BAR as u128 / u128::from(total.max(1));
    let full = usize::try_from(share).unwrap_or(BAR);
    format!(
        "  [{}{}] {} of {}",
        "#".repeat(full),
        "-".repeat(BAR - full),
        size(done),
        size(total)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_full_as_what_came() {
        assert_eq!(bar(0, 4), format!("  [{}] 0 B of 4 B", "-".repeat(24)));
        assert!(bar(2, 4).starts_with(&format!("  [{}{}]", "#".repeat(12), "-".repeat(12))));
        assert!(bar(9, 4).starts_with(&format!("  [{}]", "#".repeat(24))));
        assert!(bar(0, 0).contains("0 B"));
    }
}

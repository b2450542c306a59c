//! Many targets as one table that fits a phone: a line a target, what went wrong first.

use std::{cmp::Reverse, collections::BTreeMap, fmt::Write as _};

use diagbot_api::{capture::CapturePhase, run::CaptureSummary};

use super::{
    Builder, Message,
    escape::{block, code, short_size},
    run::RunView,
};

/// Characters of a pod's name; the end tells replicas apart.
const POD: usize = 24;
/// Characters of what became of it. Together with the name it fits a phone's code block, and 200 lines fit one message.
const DETAIL: usize = 14;
/// Lines of a block: its characters stay below a section's 3,000.
const LINES: usize = 65;
/// Most reasons that the summary counts.
const REASONS: usize = 5;

/// How a target stands, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Nothing of it is there.
    Failed,
    /// Some of it is.
    Partly,
    /// It was stopped.
    Stopped,
    /// It is under way, or waits.
    UnderWay,
    /// All of it is there.
    Done,
}

/// One target: all captures of one pod.
#[derive(Debug)]
struct Row<'a> {
    pod: &'a str,
    standing: Standing,
    files: usize,
    bytes: u64,
    code: &'a str,
}

impl<'a> Row<'a> {
    fn of(pod: &'a str, captures: &[&'a CaptureSummary]) -> Self {
        let artifacts = || captures.iter().flat_map(|capture| &capture.artifacts);
        let any = |fits: &dyn Fn(CapturePhase) -> bool| captures.iter().any(|capture| fits(capture.phase));
        let files = artifacts().count();
        let failed = any(&|phase| matches!(phase, CapturePhase::Failed | CapturePhase::TimedOut));
        let standing = if any(&|phase| !phase.is_final()) {
            Standing::UnderWay
        } else if failed && files == 0 {
            Standing::Failed
        } else if failed {
            Standing::Partly
        } else if any(&|phase| phase == CapturePhase::Cancelled) {
            Standing::Stopped
        } else {
            Standing::Done
        };
        let reason = captures.iter().find_map(|capture| capture.reason.as_ref());
        Self {
            pod,
            standing,
            files,
            bytes: artifacts().map(|artifact| artifact.size_bytes).sum(),
            code: reason.map_or("", |reason| reason.code.as_str()),
        }
    }

    /// Where not everybody who reads it may see what was captured, it tells the state only.
    fn line(&self, hidden: bool) -> String {
        let mark = match self.standing {
            Standing::Failed => '✗',
            Standing::Partly => '~',
            Standing::Stopped => '-',
            Standing::UnderWay => '…',
            Standing::Done => '✓',
        };
        let count = self.pod.chars().count();
        let pod: String = if count > POD {
            std::iter::once('…')
                .chain(self.pod.chars().skip(count - POD + 1))
                .collect()
        } else {
            self.pod.to_owned()
        };
        let detail = match self.standing {
            Standing::Failed | Standing::Partly => self.code.to_owned(),
            Standing::Stopped => "stopped".to_owned(),
            Standing::UnderWay => String::new(),
            Standing::Done if hidden => "done".to_owned(),
            Standing::Done => {
                let size = short_size(self.bytes).unwrap_or_else(|| format!("{} B", self.bytes));
                match self.files {
                    1 => size,
                    files => format!("{files}: {size}"),
                }
            }
        };
        let detail: String = detail.chars().take(DETAIL).collect();
        format!("{mark} {pod:<POD$} {detail}").trim_end().to_owned()
    }
}

/// The targets, the worst first.
fn rows(captures: &[CaptureSummary]) -> Vec<Row<'_>> {
    let mut by_pod: BTreeMap<(&str, &str), Vec<&CaptureSummary>> = BTreeMap::new();
    for capture in captures {
        let target = &capture.target;
        by_pod.entry((&target.pod, &target.pod_uid)).or_default().push(capture);
    }
    let mut rows: Vec<Row<'_>> = by_pod
        .iter()
        .map(|((pod, _), captures)| Row::of(pod, captures))
        .collect();
    rows.sort_by_key(|row| (row.standing, Reverse(row.code), row.pod));
    rows
}

/// How many targets there are and how they stand, and why those failed that did.
pub(super) fn summary(captures: &[CaptureSummary]) -> String {
    let rows = rows(captures);
    let words = [
        (Standing::Done, "done"),
        (Standing::UnderWay, "under way"),
        (Standing::Partly, "partly done"),
        (Standing::Stopped, "stopped"),
        (Standing::Failed, "failed"),
    ];
    let counts: Vec<String> = words
        .into_iter()
        .map(|(standing, word)| (rows.iter().filter(|row| row.standing == standing).count(), word))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    let mut text = format!("{} targets: {}.", rows.len(), counts.join(", "));
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows.iter().filter(|row| !row.code.is_empty()) {
        *reasons.entry(row.code).or_default() += 1;
    }
    let mut reasons: Vec<(&str, usize)> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, count)| Reverse(*count));
    for (reason, count) in reasons.into_iter().take(REASONS) {
        let _ = write!(text, "\n• {count} × {}", code(reason));
    }
    text
}

impl RunView<'_> {
    /// The table of a run with many targets.
    pub fn table(&self) -> Message {
        let status = self.run.status.as_ref();
        let captures = status.map(|status| status.captures.as_slice()).unwrap_or_default();
        let lines: Vec<String> = rows(captures).iter().map(|row| row.line(self.hidden)).collect();
        let mut message = Builder::new();
        for chunk in lines.chunks(LINES) {
            message = message.section(&block(&chunk.join("\n"), LINES, POD + DETAIL + 4));
        }
        message.context(&format!("Run {}", code(&self.name.short()))).build()
    }
}

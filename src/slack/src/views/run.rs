//! A run as people see it: the root message that is edited in place, and one message a capture where there are several.

use std::collections::BTreeSet;

use diagbot_api::{
    capture::{CapturePhase, Progress},
    request_key::RunName,
    requester::Requester,
    run::{Candidate, CaptureSummary, Cause, DiagnosticRun, MANY_CAPTURES, Phase, RunStatus},
    target::TargetRef,
};

use super::{
    Builder, Message, approval, artifact, comparison,
    escape::{block, code, line, moment, prose, short_size},
    offer, table,
    words::{Links, explanation, person, phase_word},
};
use crate::button::Button;

/// A run with what its messages need besides.
#[derive(Debug, Clone, Copy)]
pub struct RunView<'a> {
    /// Its name.
    pub name: &'a RunName,
    /// The run.
    pub run: &'a DiagnosticRun,
    /// Name of the home cluster, which a target without cluster means.
    pub home: &'a str,
    /// The runs that its buttons started.
    pub successors: &'a [Successor],
    /// The run of the sick replica, where this one looks at a healthy one to compare.
    pub compared: Option<&'a DiagnosticRun>,
    /// Not everybody who reads the message may see what was captured: it tells the state only.
    pub hidden: bool,
}

/// A run that a button of another one started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// Its name.
    pub name: RunName,
    /// Who pressed.
    pub by: Requester,
    /// Which button.
    pub button: Button,
    /// Where it is.
    pub phase: Phase,
    /// It was denied, and the button is there for others.
    pub open: bool,
}

impl RunView<'_> {
    /// The root message.
    pub fn root(&self, links: Links<'_>) -> Message {
        let fallback = RunStatus::default();
        let status = self.run.status.as_ref().unwrap_or(&fallback);
        let mut message = Builder::new().section(&format!("{}\n{}", self.headline(), self.state(status)));
        if let Some(words) = self.paused(status) {
            message = message.section(&words);
        }
        for words in approval::words(self.run, status) {
            message = message.section(&words);
        }
        if let Some(reason) = &status.reason {
            message = message.section(&explanation(reason));
        }
        if !status.plan.is_empty() {
            message = message.section(&block(&status.plan.join("\n"), 30, 200));
        }
        message = match status.captures.as_slice() {
            [only] => artifact::sections(message, only, status.reason.as_ref(), links, self.hidden),
            many if many.len() > MANY_CAPTURES => message.section(&table::summary(many)),
            several => several
                .iter()
                .fold(message, |message, capture| message.section(&self.capture_line(capture))),
        };
        if let Some(sick) = self.compared.filter(|_| status.phase.is_final() && !self.hidden) {
            message = message.section(&comparison::words(sick, self.run));
        }
        if self.run.is_offer() {
            message = offer::sections(message, status, self.successors);
        } else if self.successors.is_empty() {
            message = candidates(message, status);
        }
        let notes = status
            .notes
            .iter()
            .chain(status.captures.iter().flat_map(|capture| &capture.notes));
        for note in notes.take(10) {
            message = message.context(&prose(note));
        }
        if let Some(cause) = &self.run.spec.origin.cause {
            message = message.context(&cause_line(cause, self.run.alerts()));
        }
        message = message.context(&self.footer(status));
        message.buttons(&self.buttons(status)).build()
    }

    /// The message of one capture among several.
    pub fn part(&self, capture: &CaptureSummary, links: Links<'_>) -> Message {
        let head = format!(
            "*{}* of {}, cluster {}: {}",
            line(self.run.diagnostic_name()),
            code(&format!("{}/{}", capture.target.namespace, capture.target.pod)),
            code(&capture.target.cluster),
            capture_state(capture),
        );
        let message = artifact::sections(Builder::new().section(&head), capture, None, links, self.hidden);
        message.context(&format!("Run {}", code(&self.name.short()))).build()
    }

    /// One line of a list.
    pub fn list_line(&self) -> String {
        format!(
            "{} – {} – *{}* – asked by {}, {}",
            code(&self.name.short()),
            self.headline(),
            if self.run.is_armed() {
                "armed"
            } else {
                phase_word(self.run.phase())
            },
            person(&self.run.spec.requester),
            moment(self.run.spec.received_at.0),
        )
    }

    /// The one target of offers.
    fn offered(&self) -> Option<TargetRef> {
        let status = self.run.status.as_ref().filter(|status| !status.offers.is_empty())?;
        let candidate = status.candidates.first()?;
        Some(TargetRef {
            cluster: self.run.spec.target.cluster.clone(),
            namespace: Some(candidate.namespace.clone()),
            name: candidate.pod.clone(),
            ..TargetRef::default()
        })
    }

    /// What, of what, where.
    fn headline(&self) -> String {
        let status = self.run.status.as_ref();
        let captures = status.map(|status| status.captures.as_slice()).unwrap_or_default();
        let typed = &self.run.spec.target;
        let diagnostic = line(self.run.diagnostic_name());
        match captures {
            [] => {
                let mut target = self.offered().unwrap_or_else(|| typed.clone());
                let cluster = target.cluster.take().unwrap_or_else(|| self.home.to_owned());
                format!(
                    "*{diagnostic}* of {}, cluster {}",
                    code(&target.to_string()),
                    code(&cluster)
                )
            }
            [only] => format!(
                "*{diagnostic}* of {} (container {}), cluster {}",
                code(&format!("{}/{}", only.target.namespace, only.target.pod)),
                code(&only.target.container),
                code(&only.target.cluster)
            ),
            [first, ..] => {
                let pods: BTreeSet<&str> = captures.iter().map(|c| c.target.pod_uid.as_str()).collect();
                let what = match pods.len() {
                    1 => code(&format!("{}/{}", first.target.namespace, first.target.pod)),
                    count => format!("{} ({count} targets)", code(&typed.to_string())),
                };
                format!("*{diagnostic}* of {what}, cluster {}", code(&first.target.cluster))
            }
        }
    }

    /// What is said in the thread of a run that the off-switch stops.
    pub fn stopped(&self) -> Message {
        let words = self.run.status.as_ref().and_then(|status| self.paused(status));
        Builder::new().section(&words.unwrap_or_default()).build()
    }

    fn paused(&self, status: &RunStatus) -> Option<String> {
        let place = status.stopped_by_pause.as_ref()?;
        let by = status.cancelled_by.as_ref().map(person).unwrap_or_default();
        Some(format!(
            ":double_vertical_bar: *Paused* by {by} for {}: run {} is stopped.",
            prose(place),
            code(&self.name.short())
        ))
    }

    fn state(&self, status: &RunStatus) -> String {
        let phase = status.phase;
        let word = match phase {
            Phase::Succeeded if self.run.spec.dry_run => "Dry run: nothing was started",
            Phase::Succeeded if self.run.is_offer() => "offered: press what shall be taken",
            Phase::Resolving if self.run.is_armed() => "armed",
            phase => phase_word(phase),
        };
        let detail = match (phase, status.captures.as_slice()) {
            (Phase::Capturing, [only]) => format!(": {}", capture_state(only)),
            (Phase::Capturing, several) => {
                let done = several.iter().filter(|capture| capture.phase.is_final()).count();
                format!(": {done} of {} done", several.len())
            }
            (Phase::Resolving, _) if self.run.is_armed() => {
                self.run.spec.armed_until.as_ref().map_or_else(String::new, |until| {
                    format!(": waits for the next restart, at most until {}", moment(until.0))
                })
            }
            (Phase::Cancelling, _) => by(": asked by", status.cancelled_by.as_ref()),
            (Phase::Cancelled, _) => by(" by", status.cancelled_by.as_ref()),
            (Phase::Succeeded, []) if self.run.is_offer() => String::new(),
            (phase, _) if phase.is_final() => self.took(status),
            _ => String::new(),
        };
        format!("State: *{word}*{detail}")
    }

    /// One capture among several. Whoever may not read what was captured is not told how much it is.
    fn capture_line(&self, capture: &CaptureSummary) -> String {
        let target = code(&format!("{}/{}", capture.target.namespace, capture.target.pod));
        let control = if capture.control { " (healthy, to compare)" } else { "" };
        let files = match capture.artifacts.len() {
            0 => String::new(),
            _ if self.hidden => String::new(),
            1 => ": 1 file".to_owned(),
            files => format!(": {files} files"),
        };
        format!("{target}{control} – {}{files}", capture_state(capture))
    }

    /// ` after 2.1 s`.
    fn took(&self, status: &RunStatus) -> String {
        let Some(end) = status.entered.get(status.phase.as_str()) else {
            return String::new();
        };
        let took = end.0.duration_since(self.run.spec.received_at.0);
        format!(" after {:.1} s", took.as_secs_f64().max(0.0))
    }

    fn footer(&self, status: &RunStatus) -> String {
        let mut footer = format!(
            "Asked by {}, {} · run {}",
            person(&self.run.spec.requester),
            moment(self.run.spec.received_at.0),
            code(&self.name.short()),
        );
        if let Some(reason) = &status.reason {
            footer.push_str(" · ");
            footer.push_str(&line(&reason.code));
        }
        if let Some(next) = self.successors.first().filter(|_| !self.run.is_offer()) {
            let verb = match next.button {
                Button::Choose { .. } => "Chosen",
                Button::Confirm { .. } => "Confirmed",
                Button::AskOwners { .. } => "The owners were asked",
                _ => "Run again",
            };
            footer.push_str(
                &format_args!("\n{verb} by {} as run {}", person(&next.by), code(&next.name.short())).to_string(),
            );
        }
        footer
    }

    fn buttons(&self, status: &RunStatus) -> Vec<(Button, String)> {
        let run = || self.name.clone();
        let mut buttons = Vec::new();
        if !status.phase.is_final() {
            if status.phase == Phase::AwaitingApproval {
                buttons.push((Button::Approve { run: run() }, "Approve".to_owned()));
                buttons.push((Button::Refuse { run: run() }, "Refuse".to_owned()));
            }
            if status.phase != Phase::Cancelling {
                buttons.push((Button::Cancel { run: run() }, "Cancel".to_owned()));
            }
            return buttons;
        }
        let artifacts: usize = status.captures.iter().map(|capture| capture.artifacts.len()).sum();
        if artifacts > 0 {
            buttons.push((Button::Link { run: run() }, "Send me a link".to_owned()));
        }
        let pods: BTreeSet<&str> = status.captures.iter().map(|c| c.target.pod_uid.as_str()).collect();
        if artifacts > 0 && pods.len() == 1 && !self.run.spec.target.healthy_replica {
            let label = "Compare with a healthy replica".to_owned();
            buttons.push((Button::Compare { run: run() }, label));
        }
        if artifacts > 1 {
            buttons.push((Button::Bundle { run: run() }, "Bundle".to_owned()));
        }
        if approval::can_be_granted(status) {
            if self.successors.is_empty() && !self.run.spec.appeal.ask_owners {
                buttons.push((Button::AskOwners { run: run() }, "Ask the owners".to_owned()));
            }
            buttons.push((Button::Grant { run: run() }, "Show the RoleBinding".to_owned()));
        }
        if !status.offers.is_empty() {
            return offer::buttons(self.name, status, self.successors);
        }
        if self.successors.iter().any(|next| !next.open) {
            return buttons;
        }
        if status.needs_confirmation {
            buttons.push((Button::Confirm { run: run() }, "Yes, run it".to_owned()));
        } else if status.candidates.is_empty() && status.phase != Phase::Denied {
            buttons.push((Button::Again { run: run() }, "Run again".to_owned()));
        } else {
            for (index, candidate) in status.candidates.iter().enumerate() {
                let label = format!("{}: {}", index + 1, candidate_name(candidate));
                buttons.push((Button::Choose { run: run(), index }, label));
            }
        }
        buttons
    }
}

/// What made a trigger or a schedule ask, and what came besides.
fn cause_line(cause: &Cause, more: u64) -> String {
    let mut text = format!("Because of {}", code(&cause.source));
    if !cause.rule.is_empty() {
        text.push_str(&format_args!(", rule {}", code(&cause.rule)).to_string());
    }
    if !cause.title.is_empty() {
        text.push_str(&format_args!(": {}", line(&cause.title)).to_string());
    }
    match more {
        0 => {}
        1 => text.push_str("\n1 more alert of this kind came and started nothing."),
        more => text.push_str(&format_args!("\n{more} more alerts of this kind came and started nothing.").to_string()),
    }
    text
}

fn by(words: &str, requester: Option<&Requester>) -> String {
    requester.map_or_else(String::new, |requester| format!("{words} {}", person(requester)))
}

/// Where a capture is, in words.
fn capture_state(capture: &CaptureSummary) -> String {
    let words = match capture.phase {
        CapturePhase::Pending => "queued",
        CapturePhase::Launching => "launching",
        CapturePhase::Meeting => "checking the target",
        CapturePhase::Running => "running",
        CapturePhase::Uploading => "uploading",
        CapturePhase::Verifying => "verifying",
        CapturePhase::Cancelling => "being stopped",
        CapturePhase::Succeeded => "done",
        CapturePhase::Failed => "failed",
        CapturePhase::Cancelled => "cancelled",
        CapturePhase::TimedOut => "timed out",
    };
    let mut out = words.to_owned();
    if let Some(waiting) = capture.waiting.as_deref().filter(|_| !capture.phase.is_final()) {
        out = format!("{out} ({})", prose(waiting));
    }
    if let Some(progress) = &capture.progress
        && matches!(capture.phase, CapturePhase::Running | CapturePhase::Uploading)
    {
        out.push_str(&progress_words(progress));
    }
    out
}

fn progress_words(progress: &Progress) -> String {
    let short = |bytes: u64| short_size(bytes).unwrap_or_else(|| format!("{bytes} bytes"));
    match progress.total_bytes {
        Some(total) if total > 0 => {
            let percent = (progress.uploaded_bytes.min(total) as f64 / total as f64 * 100.0).floor();
            format!(", {} of {} ({percent} %)", short(progress.uploaded_bytes), short(total))
        }
        _ if progress.captured_bytes > 0 => format!(
            ", {} captured, {} stored",
            short(progress.captured_bytes),
            short(progress.uploaded_bytes)
        ),
        _ => String::new(),
    }
}

fn candidates(message: Builder, status: &RunStatus) -> Builder {
    if status.candidates.is_empty() || status.needs_confirmation {
        return message;
    }
    let lines: Vec<String> = status
        .candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| {
            let hint = if candidate.hint.is_empty() {
                String::new()
            } else {
                format!(" – {}", prose(&candidate.hint))
            };
            let name = format!("{}/{}", candidate.namespace, candidate_name(candidate));
            format!("{}. {}{hint}", index + 1, code(&name))
        })
        .collect();
    message.section(&lines.join("\n"))
}

fn candidate_name(candidate: &Candidate) -> String {
    match &candidate.container {
        Some(container) => format!("{} / {container}", candidate.pod),
        None => candidate.pod.clone(),
    }
}

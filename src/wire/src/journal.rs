//! The journal: JSON lines that the agent prints, and that are the container's log.
//!
//! A process of the agent's uid may be able to write to our standard output, so every line after `hello` carries an HMAC
//! under a key from the ticket. Lines are numbered; a reader starts from the beginning, takes each number once, and counts
//! what fails without acting on it. Captured output is never in it, but for the bounded preview in a step's report.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{control::PinnedProcess, digest, result::StepResult};

/// Longest line in bytes, with its newline: under the 16 KiB at which container runtimes split log lines.
pub const MAX_LINE_BYTES: usize = 8 * 1024;
/// Longest journal in bytes: well under the smallest log rotation.
pub const MAX_JOURNAL_BYTES: usize = 256 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalLine {
    /// From 1, without gaps.
    pub seq: u64,
    /// [`Event`] as JSON text, so that the HMAC is over exactly these bytes.
    pub body: String,
    /// HMAC-SHA256 of `<seq>/<body>`, hexadecimal; empty before the ticket.
    #[serde(default)]
    pub mac: String,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// First line: who the agent is and which processes it would look at. Not authenticated, so its claims are checked.
    Hello(Hello),
    /// The ticket was taken and the processes are still the pinned ones.
    Started {
        /// The same facts again, now under the HMAC.
        processes: Vec<PinnedProcess>,
    },
    /// A step's tool was started.
    StepStarted {
        /// Index of the step.
        step: u16,
    },
    /// At most one a second.
    Progress {
        /// Index of the step.
        step: u16,
        /// Bytes that the tool has put out.
        captured_bytes: u64,
        /// Bytes that the store has taken.
        uploaded_bytes: u64,
        /// The final length, where it is known.
        total_bytes: Option<u64>,
    },
    /// The URLs at hand end, or have expired.
    NeedUrls {
        /// Index of the step.
        step: u16,
        /// First part that needs a URL.
        from_part: u32,
    },
    /// The store can't be reached from here: the artifact is staged, and waits to be fetched by `cat` until released.
    Staged {
        /// How the step ended, with the artifact's digests.
        result: StepResult,
        /// Why direct upload failed.
        reason: String,
    },
    /// A step is over.
    StepEnded {
        /// How.
        result: StepResult,
    },
    /// Everything that the agent wrote into the target was removed.
    CleanedUp {
        /// How many files.
        removed: u32,
        /// Those that could not be removed, by path in the target.
        left: Vec<String>,
    },
    /// Last line.
    End {
        /// SHA-256 of the result object's body, hexadecimal.
        result_sha256: String,
        /// Whether the result object is in the store.
        result_stored: bool,
        /// Whether the agent was asked to stop or ran out of time.
        cancelled: bool,
    },
    /// A word of a newer agent.
    #[serde(other)]
    Unknown,
}

/// The agent's introduction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// [`crate::VERSION`].
    pub version: u32,
    /// `--capture` of the arguments.
    pub capture: String,
    /// uid of the agent.
    pub uid: u32,
    /// gid of the agent.
    pub gid: u32,
    /// The process that fits each step that needs one; where several containers share their processes, the one of each
    /// container, and the bot's ticket names the right one.
    pub processes: Vec<ChosenProcess>,
    /// Steps for which no process fits.
    #[serde(default)]
    pub unmatched: Vec<u16>,
}

/// A process as the agent sees it. Untrusted text: the target can name itself as it likes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChosenProcess {
    /// Step, PID and start time.
    #[serde(flatten)]
    pub pinned: PinnedProcess,
    /// Effective uid of the process.
    pub uid: u32,
    /// Effective gid of the process.
    pub gid: u32,
    /// `/proc/<pid>/comm`.
    pub comm: String,
    /// The container's ID as the process's cgroup names it; empty where it does not.
    #[serde(default)]
    pub container_id: String,
}

impl JournalLine {
    /// A line with its HMAC; `key` is none before the ticket.
    pub fn seal(seq: u64, event: &Event, key: Option<&[u8]>) -> Self {
        let body = serde_json::to_string(event).expect("an event is plain data");
        let mac = key
            .map(|k| hex::encode(digest::hmac_sha256(k, format!("{seq}/{body}").as_bytes())))
            .unwrap_or_default();
        Self { seq, body, mac }
    }

    /// One line, with its newline.
    pub fn render(&self) -> String {
        let mut line = serde_json::to_string(self).expect("a journal line is plain data");
        line.push('\n');
        line
    }
}

/// What a reader took from a journal.
#[derive(Debug, Default, Clone)]
pub struct Reader {
    seen: BTreeSet<u64>,
    hello: Option<Hello>,
    rejected: u64,
}

impl Reader {
    /// Takes one line of the log. Returns the event if it is new and either the first `hello` or authenticated under
    /// `key`; counts it as rejected otherwise (a repeated number is ignored, not counted).
    pub fn take(&mut self, line: &str, key: &[u8]) -> Option<(u64, Event)> {
        if line.trim().is_empty() {
            return None;
        }
        let Some((line, event)) = Self::parse(line) else {
            self.rejected += 1;
            return None;
        };
        let authentic = digest::hmac_matches(key, format!("{}/{}", line.seq, line.body).as_bytes(), &line.mac);
        match event {
            Event::Hello(hello) if line.seq == 1 && self.hello.is_none() => {
                self.seen.insert(1);
                self.hello = Some(hello.clone());
                Some((1, Event::Hello(hello)))
            }
            Event::Hello(hello) if Some(&hello) == self.hello.as_ref() => None,
            _ if !authentic => {
                self.rejected += 1;
                None
            }
            event => self.seen.insert(line.seq).then_some((line.seq, event)),
        }
    }

    fn parse(line: &str) -> Option<(JournalLine, Event)> {
        if line.len() > MAX_LINE_BYTES {
            return None;
        }
        let line: JournalLine = serde_json::from_str(line).ok()?;
        let event = serde_json::from_str(&line.body).ok()?;
        Some((line, event))
    }

    /// Lines that were no journal lines, or not ours.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }
}

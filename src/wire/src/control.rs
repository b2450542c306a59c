//! Control lines: what the bot writes to the agent's standard input, one JSON object a line.
//!
//! Every line carries a sequence number and the nonce, `HMAC(bot's Secret, capture UID / attempt)`: any replica of the bot
//! can make it and nobody else. The container's arguments hold only the nonce's SHA-256. The agent ignores lines with a
//! foreign nonce and lines whose number is not higher than the last one it took.
//!
//! ```
//! use diagbot_wire::{control::{self, Command, ControlLine}, digest::sha256_hex};
//!
//! let nonce = control::nonce(b"the bot's Secret", "capture UID", 1);
//! let line = ControlLine { seq: 1, nonce: hex::encode(nonce), command: Command::Release { step: 0 } };
//! let sent = line.render();
//! assert_eq!(ControlLine::parse(&sent, &sha256_hex(&nonce)), Some(line));
//! assert_eq!(ControlLine::parse(&sent, &sha256_hex(b"of another capture")), None);
//! ```

use serde::{Deserialize, Serialize};

use crate::{digest, redaction::Rule, upload::Grant};

/// Longest control line in bytes; a longer one is dropped unread.
pub const MAX_LINE_BYTES: usize = 256 * 1024;

/// One line.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlLine {
    /// Rises from line to line; a repeated line has its old number.
    pub seq: u64,
    /// The nonce, hexadecimal. A bearer secret.
    pub nonce: String,
    /// What to do.
    pub command: Command,
}

/// What the bot asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase")]
pub enum Command {
    /// Start: the bot has checked that the target is still the pinned one.
    Ticket(Box<Ticket>),
    /// More, or renewed, URLs.
    Urls {
        /// What may be uploaded.
        grant: Grant,
    },
    /// Stop the tools, remove what was written, say so and end.
    Cancel {
        /// For the journal; no text of a person.
        reason: CancelReason,
    },
    /// The bot has relayed and verified this step's artifact: the staged file can go.
    Release {
        /// Index of the step.
        step: u16,
    },
}

/// Why a capture is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CancelReason {
    /// A person asked.
    Requested,
    /// The run's time is over.
    Deadline,
    /// The target is no longer the pinned one.
    TargetReplaced,
    /// A word of a newer bot.
    #[serde(other)]
    Unknown,
}

/// What the agent needs to start.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// The process of each step as the agent's `hello` named it and the bot checked it; the agent compares again.
    pub processes: Vec<PinnedProcess>,
    /// Key of the journal's HMACs, hexadecimal. A bearer secret.
    pub journal_key: String,
    /// First URLs of each step. Empty where the bot knows that the pod can't reach the store: then all goes by relay.
    pub grants: Vec<Grant>,
    /// Where the result object is PUT; none in relay mode.
    pub result_url: Option<String>,
    /// Headers that must go with it, since they are part of its signature: the store's settings for encryption.
    #[serde(default)]
    pub result_headers: Vec<(String, String)>,
    /// Certificates (PEM) that the store's certificate may chain to, instead of the built-in public roots.
    pub store_ca_pem: Option<String>,
    /// HTTP proxy on the way to the store, `http://host:port`.
    pub proxy: Option<String>,
    /// Most bytes that the pod may write (its ephemeral-storage limit), where its owner set one.
    #[serde(default)]
    pub room_bytes: Option<u64>,
    /// What is removed from text artifacts before anything else looks at them.
    #[serde(default)]
    pub redaction: Vec<Rule>,
}

impl std::fmt::Debug for ControlLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlLine")
            .field("seq", &self.seq)
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket")
            .field("processes", &self.processes)
            .field("grants", &self.grants)
            .finish_non_exhaustive()
    }
}

/// A process that can't be mistaken for another: PIDs are reused, (PID, start time) is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PinnedProcess {
    /// Index of the step.
    pub step: u16,
    /// PID in the container's PID namespace.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks since boot.
    pub start_time: u64,
}

impl ControlLine {
    /// The line between two newlines: the first ends what a broken attach may have left unfinished before it, and readers
    /// skip the empty line that it makes otherwise.
    pub fn render(&self) -> String {
        let line = serde_json::to_string(self).expect("a control line is plain data");
        format!("\n{line}\n")
    }

    /// Reads a line and checks its nonce against the hash in the container's arguments.
    pub fn parse(line: &str, nonce_sha256: &str) -> Option<Self> {
        if line.len() > MAX_LINE_BYTES {
            return None;
        }
        let parsed: Self = serde_json::from_str(line).ok()?;
        let nonce = hex::decode(&parsed.nonce).ok()?;
        (digest::sha256_hex(&nonce) == nonce_sha256).then_some(parsed)
    }
}

/// The nonce of one attempt of one capture: 32 bytes that only holders of the bot's Secret can make.
pub fn nonce(secret: &[u8], capture_uid: &str, attempt: u32) -> [u8; 32] {
    digest::hmac_sha256(secret, format!("nonce/{capture_uid}/{attempt}").as_bytes())
}

/// The journal key of one attempt of one capture, made the same way.
pub fn journal_key(secret: &[u8], capture_uid: &str, attempt: u32) -> [u8; 32] {
    digest::hmac_sha256(secret, format!("journal/{capture_uid}/{attempt}").as_bytes())
}

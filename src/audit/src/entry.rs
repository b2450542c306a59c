//! What is recorded, and how an entry looks. Pure.

use std::collections::BTreeMap;

use diagbot_wire::digest::sha256_hex;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Format of the entries.
pub(super) const VERSION: u32 = 1;

/// One entry of a chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Format.
    pub version: u32,
    /// The process that wrote it: one chain each.
    pub writer: String,
    /// From 1, without gaps.
    pub seq: u64,
    /// SHA-256 of the former entry's text, hexadecimal; empty in the first.
    pub former: String,
    /// When, by the bot's clock.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened. People are named by their Kubernetes user: `slack:<team>:<user id>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Event {
    /// The writer started.
    Began {
        /// Version of the program.
        program: String,
    },
    /// The heads of other chains that the writer found.
    Found {
        /// By writer.
        heads: BTreeMap<String, Head>,
    },
    /// A request was accepted.
    Request {
        /// The run.
        run: String,
        /// Who asked.
        person: String,
        /// Where: the channel's id.
        channel: String,
        /// What, as typed.
        diagnostic: String,
        /// Of what, as typed.
        target: String,
    },
    /// An access review was answered: before a launch, at a click, or at the off-switch.
    Decision {
        /// The run; none at the off-switch.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        run: String,
        /// Who.
        person: String,
        /// What they want to do.
        verb: String,
        /// Diagnostic.
        diagnostic: String,
        /// Cluster.
        cluster: String,
        /// Namespace.
        namespace: String,
        /// Whether they may.
        allowed: bool,
        /// The authorizer's words.
        reason: String,
    },
    /// A word about a run that takes a second person, or about break-glass.
    Approval {
        /// The run.
        run: String,
        /// Who.
        person: String,
        /// What they said.
        verdict: Word,
        /// Why it takes a second person, or why it could not wait for one.
        reason: String,
    },
    /// A container is about to be added to a pod.
    Container {
        /// The run.
        run: String,
        /// The capture.
        capture: String,
        /// Who asked.
        person: String,
        /// Cluster, namespace, pod and its UID.
        pod: BTreeMap<String, String>,
        /// Exactly what the API server is asked for.
        spec: Value,
    },
    /// An artifact is in the store, proven whole.
    Artifact {
        /// The run.
        run: String,
        /// The capture.
        capture: String,
        /// Who asked.
        person: String,
        /// Diagnostic.
        diagnostic: String,
        /// Key of the object.
        object: String,
        /// Length.
        size_bytes: u64,
        /// SHA-256, hexadecimal.
        sha256: String,
        /// Places that redaction removed.
        redacted: u64,
    },
    /// Links to a run's artifacts were signed for a person, at first or again.
    Link {
        /// The run.
        run: String,
        /// For whom.
        person: String,
        /// Keys of the objects.
        objects: Vec<String>,
        /// When the first of them ends.
        expires: Option<Timestamp>,
    },
    /// A run's artifacts were put into one archive for a person; links to it are entries of their own.
    Bundle {
        /// The run.
        run: String,
        /// For whom.
        person: String,
        /// Keys of the objects that are in it.
        objects: Vec<String>,
        /// Key of the archive.
        object: String,
        /// Its length.
        size_bytes: u64,
        /// Its SHA-256, hexadecimal.
        sha256: String,
    },
    /// Somebody asked a run to stop.
    Cancel {
        /// The run.
        run: String,
        /// Who.
        person: String,
    },
    /// New captures were stopped or allowed again.
    Pause {
        /// Who.
        person: String,
        /// Where: `*`, a cluster, or a cluster and its namespace with a slash between.
        scope: String,
        /// Stopped, or allowed again.
        paused: bool,
    },
    /// A run ended.
    Ended {
        /// The run.
        run: String,
        /// Who had asked.
        person: String,
        /// How.
        phase: String,
        /// Why, as a word.
        reason: String,
    },
    /// An entry that another process could not bring to the store, and left on the run. Its own chain may hold it too.
    Recovered {
        /// The run.
        run: String,
        /// The entry's line.
        line: String,
    },
    /// First entry of a chain that goes on where another can't: somebody else's object stood under the name of that one's
    /// next. What the store did not have of it follows, each entry with the time at which it was first written.
    Displaced {
        /// The chain that can't go on: its writer's name.
        chain: String,
        /// The last entry of that chain which the store has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stored: Option<Head>,
        /// Key of the object that stood in the way.
        object: String,
    },
    /// The writer stopped in order.
    Stopped,
    /// A word of a newer version.
    #[serde(other)]
    Unknown,
}

/// What somebody said about a run that takes two people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// The one who wants it asked for a second person.
    Asked,
    /// A second person pressed `Approve`; it does not count before whoever leads has reviewed them.
    SaidYes,
    /// A second person pressed `Refuse`; likewise.
    SaidNo,
    /// A second person's yes counts.
    Approved,
    /// A second person's no counts.
    Refused,
    /// The one who wants it goes on without a second person.
    BreakGlass,
    /// A word of a newer version.
    #[serde(other)]
    Unknown,
}

impl Event {
    /// The run that it is about.
    pub fn run(&self) -> Option<&str> {
        match self {
            Self::Request { run, .. }
            | Self::Approval { run, .. }
            | Self::Container { run, .. }
            | Self::Artifact { run, .. }
            | Self::Link { run, .. }
            | Self::Bundle { run, .. }
            | Self::Cancel { run, .. }
            | Self::Recovered { run, .. }
            | Self::Ended { run, .. } => Some(run),
            Self::Decision { run, .. } => Some(run.as_str()).filter(|run| !run.is_empty()),
            Self::Began { .. }
            | Self::Found { .. }
            | Self::Pause { .. }
            | Self::Displaced { .. }
            | Self::Stopped
            | Self::Unknown => None,
        }
    }

    /// What it says about the heads of chains, by writer.
    pub(super) fn heads(&self) -> impl Iterator<Item = (&String, &Head)> {
        let found = match self {
            Self::Found { heads } => Some(heads),
            _ => None,
        };
        let displaced = match self {
            Self::Displaced { chain, stored, .. } => stored.as_ref().map(|head| (chain, head)),
            _ => None,
        };
        found.into_iter().flatten().chain(displaced)
    }
}

/// The end of a chain, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Number of the entry.
    pub seq: u64,
    /// Its hash.
    pub sha256: String,
    /// When it was written.
    pub at: Timestamp,
}

/// An entry as it is kept: its text and the text's hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// SHA-256 of `entry`, hexadecimal.
    pub sha256: String,
    /// [`Entry`] as JSON text, so that the hash is over exactly these bytes.
    pub entry: String,
}

impl Line {
    /// The line of an entry.
    pub(super) fn of(entry: &Entry) -> Self {
        let entry = serde_json::to_string(entry).expect("an entry is plain data");
        Self {
            sha256: sha256_hex(entry.as_bytes()),
            entry,
        }
    }

    /// As JSON, with a newline.
    pub fn render(&self) -> String {
        let mut text = serde_json::to_string(self).expect("two strings");
        text.push('\n');
        text
    }

    /// Reads a line of the record, or of a log that holds it.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Whether the hash is of the entry.
    pub fn is_intact(&self) -> bool {
        sha256_hex(self.entry.as_bytes()) == self.sha256
    }
}

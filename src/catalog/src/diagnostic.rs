//! One diagnostic: the shape of a file in `commands/`.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use diagbot_wire::args::{OutputKind, ProcessSelector};
use serde::{Deserialize, Serialize};

use crate::parameter::Parameter;

/// Canonical name or alias of a diagnostic: `[a-z][a-z0-9-]{0,39}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DiagnosticName(String);

/// A text is no diagnostic name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: lower-case letters, digits and dashes, a letter first, at most 40")]
pub struct NameError(pub String);

impl DiagnosticName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DiagnosticName {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let mut bytes = s.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
        let rest = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if first && rest && s.len() <= 40 {
            Ok(Self(s.to_owned()))
        } else {
            Err(NameError(s.to_owned()))
        }
    }
}

impl TryFrom<String> for DiagnosticName {
    type Error = NameError;

    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<DiagnosticName> for String {
    fn from(name: DiagnosticName) -> Self {
        name.0
    }
}

impl fmt::Display for DiagnosticName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One file of `commands/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Diagnostic {
    /// Canonical name; the file is called `<name>.yaml`.
    pub name: DiagnosticName,
    /// Other names that people type.
    #[serde(default)]
    pub aliases: Vec<DiagnosticName>,
    /// One line for `list`.
    pub summary: String,
    /// What the target must be.
    #[serde(default)]
    pub runtime: Runtime,
    /// How the evidence is taken.
    pub method: Method,
    /// Image of the ephemeral container, by digest; the configured agent image unless given.
    #[serde(default)]
    pub image: Option<String>,
    /// Program and arguments; `{parameter}` stands for a parameter's value. Empty for method `api`.
    #[serde(default)]
    pub argv: Vec<String>,
    /// What people may set, by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// Which process the diagnostic looks at.
    #[serde(default = "default_process")]
    pub process: ProcessSelector,
    /// As whom it runs.
    #[serde(default)]
    pub identity: Identity,
    /// Capabilities beyond those that `identity` implies, as Kubernetes writes them: `SYS_PTRACE`.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Longest time the tool may take, as `90s` or `10m`.
    #[serde(with = "humantime_text")]
    pub deadline: Duration,
    /// Most bytes the artifact may have, as `64MiB`.
    pub limit: ByteSize,
    /// The file that comes out.
    pub artifact: ArtifactSpec,
    /// How the artifact must be treated.
    pub sensitivity: Sensitivity,
    /// What the target feels.
    pub impact: Impact,
    /// Whether a second person must agree, wherever it runs. Default: `none`.
    #[serde(default)]
    pub approval: Approval,
    /// Longer help, shown by `help <diagnostic>`.
    #[serde(default)]
    pub description: String,
}

fn default_process() -> ProcessSelector {
    ProcessSelector::Main
}

/// What the target must be for a diagnostic to make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// Anything.
    #[default]
    Any,
    /// A HotSpot JVM.
    Jvm,
}

/// How the evidence is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// An ephemeral container beside the target.
    Ephemeral,
    /// The Kubernetes API alone; works for crashed containers.
    Api,
}

/// As whom the ephemeral container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// uid and gid of the target's process, no capabilities; a root target's own capability set for a root target.
    #[default]
    Target,
}

/// The file that a diagnostic produces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArtifactSpec {
    /// File name, e.g. `threads.txt`.
    pub name: String,
    /// Media type, e.g. `text/plain; charset=utf-8`.
    pub media_type: String,
    /// Text or bytes.
    pub output: OutputKind,
}

/// How an artifact must be treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sensitivity {
    /// May be previewed and linked where the run's people are.
    Normal,
    /// Holds the application's data: no preview, short links, recorded.
    Sensitive,
}

/// Whether a second person must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// No; a namespace may still ask for it.
    #[default]
    None,
    /// Somebody with the verb `approve`, and not the person who asks.
    Required,
}

/// What the target feels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Impact {
    /// Nothing that a request would notice.
    None,
    /// The process stands still for a moment (seconds).
    Pause,
    /// The process stands still for long, or much memory, disk or processor time is used.
    Heavy,
}

/// A number of bytes, written as `512KiB`, `64MiB`, `8GiB` or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

impl TryFrom<String> for ByteSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor: u64 = match &text[digits.len()..] {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            unit => return Err(format!("`{unit}` is not a unit of bytes: KiB, MiB or GiB")),
        };
        let number: u64 = digits
            .parse()
            .map_err(|_| format!("`{text}` is not a number of bytes such as 64MiB"))?;
        number
            .checked_mul(factor)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is too large"))
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        match size.0 {
            n if n > 0 && n % (1 << 30) == 0 => format!("{}GiB", n >> 30),
            n if n > 0 && n % (1 << 20) == 0 => format!("{}MiB", n >> 20),
            n if n > 0 && n % (1 << 10) == 0 => format!("{}KiB", n >> 10),
            n => n.to_string(),
        }
    }
}

pub(crate) mod humantime_text {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{}s", duration.as_secs()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (digits, factor) = match text.strip_suffix('s') {
            Some(digits) => (digits, 1),
            None => (text.strip_suffix('m').unwrap_or("?"), 60),
        };
        let number: Option<u64> = digits.parse().ok();
        number
            .and_then(|number| number.checked_mul(factor))
            .map(Duration::from_secs)
            .ok_or_else(|| D::Error::custom(format!("`{text}` is not a time such as 90s or 10m")))
    }
}

//! The agent's command line: what an ephemeral container will run, visible in the pod's spec.
//!
//! Owns the one canonical form of the arguments, so that an admission policy can match each argument whole:
//!
//! ```text
//! run --capture=d-…-0 --nonce=<sha256 of the nonce> --wait=60 --deadline=900
//!     --step=<name>;process=<selector>;output=<text|binary>;limit=<bytes>;deadline=<seconds>;argv=["…","…"]
//! ```
//!
//! A step of a runbook may say more, between its deadline and its argv: `;after=<seconds>`, `;on-error=stop`.
//!
//! ```
//! use diagbot_wire::args::AgentArgs;
//!
//! let step = r#"--step=jstack;process=jvm;output=text;limit=1024;deadline=60;argv=["@jvm","Thread.print","-l"]"#;
//! let line = ["run", "--capture=d-x-0-1", "--nonce=00", "--wait=60", "--deadline=900", step];
//! let args = AgentArgs::parse(&line).expect("it is canonical");
//! assert_eq!(args.steps[0].argv[1], "Thread.print");
//! assert_eq!(args.render(), line);
//!
//! let padded = ["run", "--capture=d-x-0-1", "--nonce=00", "--wait=060", "--deadline=900", step];
//! assert!(AgentArgs::parse(&padded).is_err(), "one form only");
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the agent chooses the process that a step looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessSelector {
    /// The target container's main process: its oldest process that is neither a shell wrapper nor a pause process.
    Main,
    /// A HotSpot JVM.
    Jvm,
    /// No process: the step looks at the pod's network or at the container as a whole.
    None,
}

impl ProcessSelector {
    /// The word in arguments and in the catalog.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Jvm => "jvm",
            Self::None => "none",
        }
    }
}

/// Whether a step's output is text (it may be previewed, redacted) or opaque bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputKind {
    /// UTF-8 text, as far as the tool keeps to it.
    Text,
    /// Bytes.
    Binary,
}

impl OutputKind {
    /// The word in arguments and in the catalog.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
        }
    }
}

/// How a step says that the steps behind it need it.
const STOP_ON_ERROR: &str = ";on-error=stop";

/// One diagnostic that the container runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepArgs {
    /// The diagnostic's canonical name.
    pub name: String,
    /// Which process it looks at.
    pub process: ProcessSelector,
    /// What it puts out.
    pub output: OutputKind,
    /// Most bytes it may put out.
    pub limit_bytes: u64,
    /// Longest time it may take, in seconds.
    pub deadline_s: u32,
    /// Pause before it begins, in seconds; 0 for none.
    pub after_s: u32,
    /// Where it fails, the steps behind it are not begun.
    pub stop_on_error: bool,
    /// Program and arguments; a first word `@…` names one of the agent's own reports ([`BuiltIn`]).
    pub argv: Vec<String>,
}

impl StepArgs {
    /// The canonical value of `--step=`.
    pub fn render(&self) -> String {
        let argv = serde_json::to_string(&self.argv).expect("a list of strings is valid JSON");
        let after = match self.after_s {
            0 => String::new(),
            seconds => format!(";after={seconds}"),
        };
        format!(
            "{};process={};output={};limit={};deadline={}{after}{};argv={argv}",
            self.name,
            self.process.as_str(),
            self.output.as_str(),
            self.limit_bytes,
            self.deadline_s,
            if self.stop_on_error { STOP_ON_ERROR } else { "" },
        )
    }

    fn parse(value: &str) -> Option<Self> {
        let (name, rest) = value.split_once(";process=")?;
        let (process, rest) = rest.split_once(";output=")?;
        let (output, rest) = rest.split_once(";limit=")?;
        let (limit, rest) = rest.split_once(";deadline=")?;
        let (deadline, argv) = rest.split_once(";argv=")?;
        let (deadline, stop_on_error) = match deadline.strip_suffix(STOP_ON_ERROR) {
            Some(deadline) => (deadline, true),
            None => (deadline, false),
        };
        let (deadline, after) = deadline.split_once(";after=").unwrap_or((deadline, "0"));
        let step = Self {
            name: name.to_owned(),
            process: match process {
                "main" => ProcessSelector::Main,
                "jvm" => ProcessSelector::Jvm,
                "none" => ProcessSelector::None,
                _ => return None,
            },
            output: match output {
                "text" => OutputKind::Text,
                "binary" => OutputKind::Binary,
                _ => return None,
            },
            limit_bytes: limit.parse().ok()?,
            deadline_s: deadline.parse().ok()?,
            after_s: after.parse().ok()?,
            stop_on_error,
            argv: serde_json::from_str(argv).ok()?,
        };
        // One canonical form only: what does not render to itself was not written by us.
        (!step.argv.is_empty() && step.render() == value).then_some(step)
    }
}

/// The reports that are built into the agent, named by the first word of a step's argv.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuiltIn {
    /// `@jvm <HotSpot command>…`: a command for the JVM's attach listener, e.g. `["@jvm","Thread.print","-l"]`.
    Jvm,
    /// `@jvm-heap-dump [live]`: a heap dump, written by the JVM, uploaded and removed.
    JvmHeapDump,
    /// `@process`: threads, descriptors, limits, cgroup accounting of the chosen process.
    Process,
    /// `@sockets`: the pod's sockets.
    Sockets,
}

impl BuiltIn {
    /// All of them, for lint messages.
    pub const ALL: [Self; 4] = [Self::Jvm, Self::JvmHeapDump, Self::Process, Self::Sockets];

    /// The word in argv.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jvm => "@jvm",
            Self::JvmHeapDump => "@jvm-heap-dump",
            Self::Process => "@process",
            Self::Sockets => "@sockets",
        }
    }

    /// The built-in report that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|b| b.as_str() == word)
    }
}

/// The whole command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentArgs {
    /// Name of the capture object, and the attempt: `<capture>-<attempt>` is the container's name.
    pub capture: String,
    /// SHA-256 of the nonce that every control line must carry, hexadecimal.
    pub nonce_sha256: String,
    /// Longest wait for the ticket, in seconds.
    pub wait_s: u32,
    /// Hard deadline of the container from its start, in seconds; kept also when the bot is away.
    pub deadline_s: u32,
    /// What to run, in order.
    pub steps: Vec<StepArgs>,
}

/// Why a command line is not ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// An argument is not where or what it must be.
    #[error("argument {index} is not in its one canonical form: {expected}")]
    NotCanonical {
        /// Position of the argument, from 0.
        index: usize,
        /// What stands there in the canonical form.
        expected: &'static str,
    },
    /// There is no step.
    #[error("there is no --step")]
    NoStep,
}

impl AgentArgs {
    /// The canonical arguments.
    pub fn render(&self) -> Vec<String> {
        let mut args = vec![
            "run".to_owned(),
            format!("--capture={}", self.capture),
            format!("--nonce={}", self.nonce_sha256),
            format!("--wait={}", self.wait_s),
            format!("--deadline={}", self.deadline_s),
        ];
        args.extend(self.steps.iter().map(|step| format!("--step={}", step.render())));
        args
    }

    /// Reads canonical arguments; anything else is refused.
    pub fn parse<S: AsRef<str>>(args: &[S]) -> Result<Self, ArgsError> {
        let value = |index: usize, prefix: &'static str| {
            args.get(index)
                .and_then(|a| a.as_ref().strip_prefix(prefix))
                .filter(|v| !v.is_empty())
                .ok_or(ArgsError::NotCanonical {
                    index,
                    expected: prefix,
                })
        };
        let number = |index: usize, prefix: &'static str| {
            value(index, prefix)?.parse().map_err(|_| ArgsError::NotCanonical {
                index,
                expected: prefix,
            })
        };
        if args.first().map(AsRef::as_ref) != Some("run") {
            return Err(ArgsError::NotCanonical {
                index: 0,
                expected: "run",
            });
        }
        let parsed = Self {
            capture: value(1, "--capture=")?.to_owned(),
            nonce_sha256: value(2, "--nonce=")?.to_owned(),
            wait_s: number(3, "--wait=")?,
            deadline_s: number(4, "--deadline=")?,
            steps: (5..args.len())
                .map(|index| {
                    StepArgs::parse(value(index, "--step=")?).ok_or(ArgsError::NotCanonical {
                        index,
                        expected: "--step=",
                    })
                })
                .collect::<Result<_, _>>()?,
        };
        if parsed.steps.is_empty() {
            return Err(ArgsError::NoStep);
        }
        // `+60` and `007` are numbers for the parser, but no form of ours: a policy's pattern would not match them.
        match parsed
            .render()
            .iter()
            .zip(args)
            .position(|(own, given)| own != given.as_ref())
        {
            Some(index) => Err(ArgsError::NotCanonical {
                index,
                expected: "as it would be rendered",
            }),
            None => Ok(parsed),
        }
    }
}

impl fmt::Display for AgentArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render().join(" "))
    }
}

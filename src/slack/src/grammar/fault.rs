//! Why a text is no request, in words for the person: what is wrong, and what to type instead.

use diagbot_api::target::TargetError;
use diagbot_catalog::ParameterError;

use super::{name, text};

/// Every option, for did-you-mean.
const OPTIONS: [&str; 12] = [
    "-n",
    "--namespace",
    "-c",
    "--container",
    "--cluster",
    "--dry-run",
    "--since",
    "--break-glass",
    "-l",
    "--selector",
    "--all",
    "--max",
];

/// Why a text is no request. `Display` says what is wrong; [`Fault::remedy`] what to type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Longer than anything that could be meant.
    #[error("That text has {bytes} bytes; a command has at most 4,000.")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Far more words than any command has.
    #[error("That text has more than 100 words.")]
    TooManyWords,
    /// A control character or one that changes the direction of text.
    #[error("That text holds an invisible character (U+{:04X}).", u32::from(*.0))]
    Hidden(char),
    /// A quote is never closed.
    #[error("A quotation mark is never closed.")]
    OpenQuote,
    /// The first word is neither a diagnostic nor one of ours.
    #[error("There is no diagnostic or runbook `{word}`{}.", .foreign.as_ref().map(|c| format!(": it holds the character {c}, which no name has")).unwrap_or_default())]
    UnknownDiagnostic {
        /// The word, short.
        word: String,
        /// A character that no name has.
        foreign: Option<String>,
        /// What was probably meant.
        meant: Option<String>,
    },
    /// Several diagnostics begin so.
    #[error("`{word}` could be {}.", .names.join(", "))]
    AmbiguousDiagnostic {
        /// The word, short.
        word: String,
        /// What begins so.
        names: Vec<String>,
    },
    /// No such option.
    #[error("There is no option `{option}`.")]
    UnknownOption {
        /// The option, short.
        option: String,
        /// What was probably meant.
        meant: Option<String>,
    },
    /// An option without its value.
    #[error("`{0}` needs a value.")]
    NoValue(String),
    /// Given twice.
    #[error("`{0}` is given twice.")]
    Twice(String),
    /// An option that means nothing here.
    #[error("`{0}` means nothing here.")]
    NotHere(&'static str),
    /// One of our own words with a parameter.
    #[error("`{word}` takes no parameters, and `{key}=` is one.")]
    NoParameters {
        /// Our word.
        word: &'static str,
        /// The parameter, short.
        key: String,
    },
    /// The name of an option's value can't exist.
    #[error("`{option} {value}` can't be{}.", .foreign.as_ref().map(|c| format!(": it holds the character {c}")).unwrap_or_default())]
    BadName {
        /// The option.
        option: &'static str,
        /// Its value, short.
        value: String,
        /// A character that no name has.
        foreign: Option<String>,
    },
    /// The target can't exist.
    #[error("`{text}` is not a valid target: {error}{}.", .foreign.as_ref().map(|c| format!(" (it holds {c})")).unwrap_or_default())]
    Target {
        /// What was typed, short.
        text: String,
        /// The rule.
        error: TargetError,
        /// A character that no name has.
        foreign: Option<String>,
    },
    /// More than one target.
    #[error("There are two targets, `{first}` and `{second}`; a command has one.")]
    SeveralTargets {
        /// The first, short.
        first: String,
        /// The second, short.
        second: String,
    },
    /// No target, and nothing here implies one.
    #[error("There is no target, and neither this thread nor this channel implies one.")]
    NoTarget,
    /// An option and the target contradict each other.
    #[error("`{option} {given}` contradicts the target, which says `{target}`.")]
    Conflict {
        /// The option.
        option: &'static str,
        /// Its value.
        given: String,
        /// What the target says.
        target: String,
    },
    /// Something about a schedule, in a sentence.
    #[error("{0}")]
    Schedule(String),
    /// The word behind `schedule`, or the name behind that, in a sentence.
    #[error("{0}")]
    ScheduleWord(String),
    /// Something about waiting for a restart, in a sentence.
    #[error("{0}")]
    Arm(String),
    /// Parameters don't fit; all faults at once.
    #[error("{}.", .faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Parameters {
        /// Canonical diagnostic.
        diagnostic: String,
        /// What is wrong.
        faults: Vec<ParameterError>,
    },
    /// `-l` is not a valid label selector.
    #[error("`{0}` is not a valid label selector.")]
    Selector(String),
    /// `--max` is not a valid number of targets.
    #[error("`{0}` is not a valid number of targets: from 1 to {most}.", most = diagbot_catalog::lint::MAX_TARGETS)]
    Max(String),
    /// Two ways to say how many.
    #[error("`--all` and `--max` contradict each other.")]
    AllAndMax,
    /// Two ways to say which.
    #[error("A target is named or told by its labels (`-l`), not both.")]
    NameAndLabels,
    /// `--since`, `--for` or `--deadline` is no time.
    #[error("`{0}` is not a valid duration.")]
    Since(String),
}

impl Fault {
    pub(super) fn unknown_option(option: &str) -> Self {
        Self::UnknownOption {
            meant: name::closest(&option.to_ascii_lowercase(), OPTIONS.into_iter()),
            option: shown(option),
        }
    }

    pub(super) fn bad_name(option: &'static str, value: &str) -> Self {
        Self::BadName {
            option,
            foreign: text::foreign(value),
            value: shown(value),
        }
    }

    pub(super) fn target(typed: &str, error: TargetError) -> Self {
        Self::Target {
            text: shown(typed),
            foreign: text::foreign(typed),
            error,
        }
    }

    /// What to type instead. `command` is the command as people here call it.
    pub fn remedy(&self, command: &str) -> String {
        let meant = |meant: &Option<String>| match meant {
            Some(word) => format!("Did you mean `{word}`? "),
            None => String::new(),
        };
        match self {
            Self::UnknownDiagnostic { meant: word, .. } => {
                format!("{}`{command} list` shows what there is.", meant(word))
            }
            Self::AmbiguousDiagnostic { names, .. } => {
                let first = names.first().map_or("jstack", String::as_str);
                format!("Type more of the name, `{command} {first} …` say.")
            }
            Self::UnknownOption { meant: word, .. } => format!(
                "{}Options are `-n namespace`, `-c container`, `-l labels`, `--cluster name`, `--all`, `--max n` and `--dry-run`; \
                 parameters are `key=value`.",
                meant(word)
            ),
            Self::Target { .. } | Self::SeveralTargets { .. } | Self::NoTarget | Self::Conflict { .. } => {
                format!("Type it as `{command} <diagnostic> [cluster:][namespace/][kind/]name`.")
            }
            Self::Schedule(_) => format!(
                "Type it as `{command} schedule add <name> \"0 3 * * *\" <diagnostic> <target> [--tz Europe/Berlin] [--policy \
                 forbid] [--deadline 10m] [--keep 7] [--keep-per-day 1]`."
            ),
            Self::ScheduleWord(_) => format!(
                "`{command} schedule list` shows what there is; `{command} schedule show <name>` tells more, and `pause`, `resume` \
                 and `delete` are typed alike."
            ),
            Self::Arm(_) => {
                format!("Type it as `{command} arm <diagnostic|runbook> <workload> [--for 24h]`.")
            }
            Self::BadName { .. } => {
                "Names hold lower-case letters, digits and `-` only, at most 63 characters.".to_owned()
            }
            Self::Parameters { diagnostic, .. } => {
                format!("`{command} help {diagnostic}` shows its parameters.")
            }
            Self::Selector(_) => {
                format!("Type them as `{command} <diagnostic> -l app=checkout,tier=web -n shop --all`.")
            }
            Self::Max(_) | Self::AllAndMax => {
                "`--all` takes every pod that fits; `--max 3` takes the three sickest.".to_owned()
            }
            Self::NameAndLabels => "Leave one of them out; `-n` narrows labels to a namespace.".to_owned(),
            Self::Since(_) => "Type a number and `s`, `m`, `h` or `d`, at most 30d: `90s`, `24h`.".to_owned(),
            Self::OpenQuote => "Close it, or leave quotation marks out: they are needed around spaces only.".to_owned(),
            Self::Hidden(_) => "Type the text by hand instead of pasting it.".to_owned(),
            Self::TooLong { .. }
            | Self::TooManyWords
            | Self::NoValue(_)
            | Self::Twice(_)
            | Self::NotHere(_)
            | Self::NoParameters { .. } => format!("`{command} help` shows how a command is written."),
        }
    }
}

/// Longest word of a person that is repeated to them.
const SHOWN_CHARACTERS: usize = 60;

/// A person's word, short enough and plain enough to be repeated to them.
pub(super) fn shown(word: &str) -> String {
    diagbot_wire::text::quotable(word, SHOWN_CHARACTERS)
}

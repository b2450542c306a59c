//! What people type, as a request or as a message that says what to type instead. Pure and total: every text gives one of
//! the two, nothing panics, nothing is looked up but the catalog's names.
//!
//! ```text
//! <diagnostic|runbook> [target] [key=value …] [-n namespace] [-c container] [-l labels] [--cluster name]
//!     [--all] [--max n] [--dry-run] [--break-glass "reason"]
//! schedule add|list|show|pause|resume|delete … | health
//! offer [target] [-n namespace] [-c container] [--cluster name]
//! list | help [diagnostic|runbook] | status [run] | runs [target] [--since 24h] | cancel [run]
//! pause [cluster|namespace] | resume [cluster|namespace]
//! arm <diagnostic|runbook> <target> [--for 24h]
//! ```

mod arguments;
mod fault;
mod name;
pub mod schedule;
mod text;
mod words;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use diagbot_api::{run::Selection, target::TargetRef};
use diagbot_catalog::Catalog;
use jiff::SignedDuration;

pub(crate) use self::text::behind_mention;
use self::{arguments::Arguments, name::Meaning, words::Word};
pub use self::{fault::Fault, name::BuiltIn};
use crate::config::ChannelDefaults;

/// Longest text that is looked at, in bytes; a command with every parameter set stays far below.
const LONGEST_BYTES: usize = 4_000;
/// How far back `runs` may look: records go after that.
const LONGEST_SINCE: SignedDuration = SignedDuration::from_hours(24 * 30);

/// How long a run waits for a restart, unless it is said.
const ARMED_FOR: SignedDuration = SignedDuration::from_hours(24);
/// Longest time that it may wait: later nobody remembers why.
const LONGEST_ARMED: SignedDuration = SignedDuration::from_hours(24 * 7);

/// What a person wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// A diagnostic or runbook on targets.
    Run(RunCall),
    /// The diagnostics.
    List,
    /// Help, in general or on one diagnostic or runbook (canonical name).
    Help(Option<String>),
    /// A run's state; without an id the run of this thread, or the person's latest.
    Status(Option<String>),
    /// Earlier runs.
    Runs {
        /// Only this target's.
        target: Option<TargetRef>,
        /// Only as old as this.
        since: Option<SignedDuration>,
    },
    /// Schedules.
    Schedule(schedule::ScheduleCall),
    /// What works right now.
    Health,
    /// Cancels a run; without an id the run of this thread, or the person's latest.
    Cancel(Option<String>),
    /// Stops new captures and those that run, or allows them again.
    Pause {
        /// Stop, or allow again.
        stop: bool,
        /// A cluster or a namespace; none: everywhere.
        word: Option<String>,
        /// Options that say where.
        place: Place,
    },
}

/// A diagnostic or runbook on targets, as typed and checked against the catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct RunCall {
    /// Canonical name.
    pub diagnostic: String,
    /// The word that was typed: an alias or a beginning is told in the answer.
    pub typed: String,
    /// The target, where one was typed; options are not merged into it yet.
    pub target: Option<TargetRef>,
    /// Options that say where.
    pub place: Place,
    /// Parameters, checked.
    pub parameters: BTreeMap<String, String>,
    /// `--all`, `--max n`
    pub targets: Option<Selection>,
    /// `arm`: not now, but after the next restart within this time, in seconds.
    pub armed_for_s: Option<u32>,
    /// Only tell what would happen.
    pub dry_run: bool,
    /// Nobody shall be waited for: the reason.
    pub break_glass: Option<String>,
}

/// Options that say where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// `--cluster`
    pub cluster: Option<String>,
    /// `-n`
    pub namespace: Option<String>,
    /// `-c`
    pub container: Option<String>,
    /// `-l`
    pub selector: Option<String>,
}

impl RunCall {
    /// The target meant: the typed one, else `implied` (a thread's), else the channel's default; options and then the
    /// channel's defaults fill what it leaves open.
    pub fn target(&self, implied: Option<TargetRef>, defaults: &ChannelDefaults) -> Result<TargetRef, Fault> {
        let of_channel = || {
            let text = defaults.target.as_deref()?;
            diagbot_api::target::parse(text).ok()
        };
        let (mut target, typed) = match (&self.target, &self.place.selector) {
            (Some(target), None) => (target.clone(), true),
            (Some(_), Some(_)) => return Err(Fault::NameAndLabels),
            (None, Some(selector)) => {
                let selector = Some(selector.clone());
                let of_labels = TargetRef {
                    selector,
                    ..TargetRef::default()
                };
                (of_labels, false)
            }
            (None, None) => (implied.or_else(of_channel).ok_or(Fault::NoTarget)?, false),
        };
        let fields = [
            ("--cluster", &mut target.cluster, &self.place.cluster, &defaults.cluster),
            ("-n", &mut target.namespace, &self.place.namespace, &defaults.namespace),
            ("-c", &mut target.container, &self.place.container, &None),
        ];
        for (option, field, given, default) in fields {
            match (field.as_deref(), given.as_deref()) {
                (Some(inside), Some(given)) if typed && inside != given => {
                    return Err(Fault::Conflict {
                        option,
                        given: given.to_owned(),
                        target: inside.to_owned(),
                    });
                }
                (_, Some(given)) => *field = Some(given.to_owned()),
                (None, None) => field.clone_from(default),
                (Some(_), None) => {}
            }
        }
        Ok(target)
    }
}

/// Parses what follows the command's name, or a mention.
pub fn parse(text: &str, catalog: &Catalog) -> Result<Request, Fault> {
    if text.len() > LONGEST_BYTES {
        return Err(Fault::TooLong { bytes: text.len() });
    }
    let text = text::normalise(text)?;
    let words = words::split(&text)?;
    let Some((first, rest)) = words.split_first() else {
        return Ok(Request::Help(None));
    };
    command(first, rest, catalog)
}

/// A first word and what stands behind it.
fn command(first: &Word, rest: &[Word], catalog: &Catalog) -> Result<Request, Fault> {
    if first.text.eq_ignore_ascii_case(BuiltIn::Schedule.word()) {
        return schedule::parse(rest, catalog);
    }
    if first.text.eq_ignore_ascii_case(BuiltIn::Arm.word()) {
        return arm(rest, catalog);
    }
    let arguments = Arguments::of(rest)?;
    match name::meaning(&first.text, catalog)? {
        Meaning::Entry(entry) => arguments.run(entry, &first.text),
        Meaning::BuiltIn(built_in) => arguments.built_in(built_in, catalog),
    }
}

/// What stands behind `arm`: a diagnostic and its target, as without it.
fn arm(words: &[Word], catalog: &Catalog) -> Result<Request, Fault> {
    let Some((first, rest)) = words.split_first() else {
        return Err(Fault::Arm(
            "Say what is to be captured after the next restart.".to_owned(),
        ));
    };
    let mut arguments = Arguments::of(rest)?;
    let foreign = [
        (arguments.dry_run, "--dry-run"),
        (arguments.all, "--all"),
        (arguments.max.is_some(), "--max"),
        (arguments.break_glass.is_some(), "--break-glass"),
    ];
    if let Some((_, option)) = foreign.into_iter().find(|(given, _)| *given) {
        return Err(Fault::NotHere(option));
    }
    let waits = match arguments.lasting.take() {
        Some(text) => duration(&text)?,
        None => ARMED_FOR,
    };
    if waits > LONGEST_ARMED {
        return Err(Fault::Arm("A restart is waited for 7 days at most.".to_owned()));
    }
    match name::meaning(&first.text, catalog)? {
        Meaning::Entry(entry) => match arguments.run(entry, &first.text)? {
            Request::Run(call) => Ok(Request::Run(RunCall {
                armed_for_s: Some(u32::try_from(waits.as_secs()).unwrap_or(u32::MAX)),
                ..call
            })),
            other => Ok(other),
        },
        Meaning::BuiltIn(word) => Err(Fault::Arm(format!(
            "`{}` is nothing that can be captured.",
            word.word()
        ))),
    }
}

/// `90s`, `30m`, `24h`, `7d`.
fn duration(text: &str) -> Result<SignedDuration, Fault> {
    let fault = || Fault::Since(fault::shown(text));
    let unit = text.chars().last().ok_or_else(fault)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(fault()),
    };
    let number: i64 = text[..text.len() - 1].parse().map_err(|_| fault())?;
    let since = number
        .checked_mul(seconds)
        .map(SignedDuration::from_secs)
        .ok_or_else(fault)?;
    if since.is_positive() && since <= LONGEST_SINCE {
        Ok(since)
    } else {
        Err(fault())
    }
}

/// What [`parse`] reads as the same request: shown to people as what to type.
impl fmt::Display for RunCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.armed_for_s.is_some() {
            write!(f, "{} ", BuiltIn::Arm.word())?;
        }
        f.write_str(&self.typed)?;
        if let Some(target) = &self.target {
            write!(f, " {target}")?;
        }
        for (key, value) in &self.parameters {
            write!(f, " {key}={}", words::quote(value))?;
        }
        let options = [
            ("-n", &self.place.namespace),
            ("-c", &self.place.container),
            ("--cluster", &self.place.cluster),
            ("-l", &self.place.selector),
        ];
        for (option, value) in options {
            if let Some(value) = value {
                write!(f, " {option} {value}")?;
            }
        }
        match self.targets {
            None => {}
            Some(Selection { max: None }) => f.write_str(" --all")?,
            Some(Selection { max: Some(max) }) => write!(f, " --max {max}")?,
        }
        if let Some(seconds) = self.armed_for_s {
            write!(f, " --for {seconds}s")?;
        }
        if self.dry_run {
            f.write_str(" --dry-run")?;
        }
        if let Some(reason) = &self.break_glass {
            write!(f, " --break-glass {}", words::quote(reason))?;
        }
        Ok(())
    }
}

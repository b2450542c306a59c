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

mod fault;
mod name;
pub mod schedule;
mod text;
mod words;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use diagbot_catalog::{Catalog, Entry, ParameterError, lint::MAX_TARGETS};
use jiff::SignedDuration;

pub(in crate::slack) use self::text::{behind_mention, is_direction};
pub use self::{fault::Fault, name::BuiltIn};
use self::{name::Meaning, words::Word};
use crate::{
    cluster::ClusterName,
    runs::resource::{OFFER, Selection, TargetRef},
    slack::config::ChannelDefaults,
};

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
            crate::cluster::target::parse(text).ok()
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

/// Words behind the first, sorted out.
#[derive(Debug, Default)]
struct Arguments {
    plain: Vec<String>,
    parameters: BTreeMap<String, String>,
    place: Place,
    dry_run: bool,
    all: bool,
    max: Option<String>,
    since: Option<String>,
    lasting: Option<String>,
    break_glass: Option<String>,
}

impl Arguments {
    fn of(words: &[Word]) -> Result<Self, Fault> {
        let mut out = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word.quoted || !word.text.starts_with('-') {
                out.plain_or_parameter(word)?;
                continue;
            }
            let (option, inline) = match word.text.split_once('=') {
                Some((option, value)) => (option, Some(value.to_owned())),
                None => (word.text.as_str(), None),
            };
            let field = match option {
                "--dry-run" if inline.is_none() => {
                    out.dry_run = true;
                    continue;
                }
                "--all" if inline.is_none() => {
                    out.all = true;
                    continue;
                }
                "-l" | "--selector" => &mut out.place.selector,
                "--max" => &mut out.max,
                "-n" | "--namespace" => &mut out.place.namespace,
                "-c" | "--container" => &mut out.place.container,
                "--cluster" => &mut out.place.cluster,
                "--since" => &mut out.since,
                "--for" => &mut out.lasting,
                "--break-glass" => &mut out.break_glass,
                _ => return Err(Fault::unknown_option(option)),
            };
            let value = inline.or_else(|| words.next().map(|word| word.text.clone()));
            let value = value
                .filter(|v| !v.is_empty())
                .ok_or_else(|| Fault::NoValue(option.to_owned()))?;
            if field.replace(value).is_some() {
                return Err(Fault::Twice(option.to_owned()));
            }
        }
        out.check_place()?;
        Ok(out)
    }

    fn plain_or_parameter(&mut self, word: &Word) -> Result<(), Fault> {
        match word.text.split_once('=') {
            Some((key, value)) if is_key(key) => {
                let key = key.to_ascii_lowercase();
                if self.parameters.insert(key.clone(), value.to_owned()).is_some() {
                    return Err(Fault::Twice(key));
                }
            }
            _ => self.plain.push(word.text.clone()),
        }
        Ok(())
    }

    /// Folds case, since phones capitalise, and checks the names.
    fn check_place(&mut self) -> Result<(), Fault> {
        let is_label = |text: &str| crate::cluster::target::is_name(text, 63) && !text.contains('.');
        if let Some(selector) = &self.place.selector
            && !crate::cluster::target::is_selector(selector)
        {
            return Err(Fault::Selector(fault::shown(selector)));
        }
        let is_cluster = |text: &str| ClusterName::try_from(text.to_owned()).is_ok();
        check("-n", &mut self.place.namespace, is_label)?;
        check("-c", &mut self.place.container, is_label)?;
        check("--cluster", &mut self.place.cluster, is_cluster)
    }

    fn run(self, entry: Entry<'_>, typed: &str) -> Result<Request, Fault> {
        if self.since.is_some() {
            return Err(Fault::NotHere("--since"));
        }
        if self.lasting.is_some() {
            return Err(Fault::NotHere("--for"));
        }
        let target = self.one_target()?;
        if target.is_some() && self.place.selector.is_some() {
            return Err(Fault::NameAndLabels);
        }
        let targets = self.selection()?;
        let mut faults = match entry {
            Entry::Diagnostic(diagnostic) => diagnostic.check_parameters(&self.parameters).err().unwrap_or_default(),
            Entry::Runbook(runbook) => {
                let unknown = |name: &String| ParameterError::Unknown {
                    diagnostic: runbook.name.to_string(),
                    name: name.clone(),
                    known: Vec::new(),
                };
                self.parameters.keys().map(unknown).collect()
            }
        };
        if !faults.is_empty() {
            faults.truncate(10);
            return Err(Fault::Parameters {
                diagnostic: entry.name().to_owned(),
                faults,
            });
        }
        Ok(Request::Run(RunCall {
            diagnostic: entry.name().to_owned(),
            typed: typed.to_owned(),
            target,
            place: self.place,
            parameters: self.parameters,
            targets,
            armed_for_s: None,
            dry_run: self.dry_run,
            break_glass: self.break_glass,
        }))
    }

    /// Which of the pods that fit.
    fn selection(&self) -> Result<Option<Selection>, Fault> {
        match &self.max {
            None => Ok(self.all.then_some(Selection { max: None })),
            Some(_) if self.all => Err(Fault::AllAndMax),
            Some(text) => {
                let max = text.parse().ok().filter(|max| (1..=MAX_TARGETS).contains(max));
                let max = max.ok_or_else(|| Fault::Max(fault::shown(text)))?;
                Ok(Some(Selection { max: Some(max) }))
            }
        }
    }

    fn built_in(self, built_in: BuiltIn, catalog: &Catalog) -> Result<Request, Fault> {
        if let Some(key) = self.parameters.keys().next() {
            return Err(Fault::NoParameters {
                word: built_in.word(),
                key: key.clone(),
            });
        }
        let placed = matches!(
            built_in,
            BuiltIn::Runs | BuiltIn::Pause | BuiltIn::Resume | BuiltIn::Offer
        );
        let foreign = [
            (self.dry_run, "--dry-run"),
            (self.all, "--all"),
            (self.max.is_some(), "--max"),
            (self.place.selector.is_some(), "-l"),
            (self.since.is_some() && built_in != BuiltIn::Runs, "--since"),
            (self.place.container.is_some() && built_in != BuiltIn::Offer, "-c"),
            (self.break_glass.is_some(), "--break-glass"),
            (self.lasting.is_some(), "--for"),
            (self.place.namespace.is_some() && !placed, "-n"),
            (self.place.cluster.is_some() && !placed, "--cluster"),
        ];
        if let Some((_, option)) = foreign.into_iter().find(|(given, _)| *given) {
            return Err(Fault::NotHere(option));
        }
        // Ids are read out as `d abc def`: several words are one id.
        let id = Some(self.plain.join("-")).filter(|id| !id.is_empty());
        match built_in {
            BuiltIn::List => Ok(Request::List),
            BuiltIn::Help => match self.plain.first() {
                None => Ok(Request::Help(None)),
                Some(word) => match name::meaning(word, catalog)? {
                    Meaning::Entry(entry) => Ok(Request::Help(Some(entry.name().to_owned()))),
                    Meaning::BuiltIn(_) => Ok(Request::Help(None)),
                },
            },
            BuiltIn::Health => Ok(Request::Health),
            BuiltIn::Offer => Ok(Request::Run(RunCall {
                diagnostic: OFFER.to_owned(),
                typed: OFFER.to_owned(),
                target: self.one_target()?,
                place: self.place,
                parameters: BTreeMap::new(),
                targets: None,
                armed_for_s: None,
                dry_run: false,
                break_glass: None,
            })),
            BuiltIn::Schedule => schedule::parse(&[], catalog),
            BuiltIn::Arm => arm(&[], catalog),
            BuiltIn::Status => Ok(Request::Status(id)),
            BuiltIn::Cancel => Ok(Request::Cancel(id)),
            BuiltIn::Pause | BuiltIn::Resume => Ok(Request::Pause {
                stop: built_in == BuiltIn::Pause,
                word: self.one_word()?,
                place: self.place,
            }),
            BuiltIn::Runs => {
                let since = self.since.as_deref().map(duration).transpose()?;
                let mut target = self.one_target()?;
                if target.is_some() || self.place != Place::default() {
                    let target = target.get_or_insert_default();
                    target.namespace = self.place.namespace.or(target.namespace.take());
                    target.cluster = self.place.cluster.or(target.cluster.take());
                }
                Ok(Request::Runs { target, since })
            }
        }
    }

    fn one_word(&self) -> Result<Option<String>, Fault> {
        match self.plain.as_slice() {
            [] => Ok(None),
            [word] => Ok(Some(word.to_lowercase())),
            [first, second, ..] => Err(Fault::SeveralTargets {
                first: fault::shown(first),
                second: fault::shown(second),
            }),
        }
    }

    fn one_target(&self) -> Result<Option<TargetRef>, Fault> {
        match self.plain.as_slice() {
            [] => Ok(None),
            [target] => crate::cluster::target::parse(target)
                .map(Some)
                .map_err(|error| Fault::target(target, error)),
            [first, second, ..] => Err(Fault::SeveralTargets {
                first: fault::shown(first),
                second: fault::shown(second),
            }),
        }
    }
}

fn check(option: &'static str, value: &mut Option<String>, fits: impl Fn(&str) -> bool) -> Result<(), Fault> {
    if let Some(value) = value {
        value.make_ascii_lowercase();
        if !fits(value) {
            return Err(Fault::bad_name(option, value));
        }
    }
    Ok(())
}

fn is_key(key: &str) -> bool {
    let mut letters = key.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && key.len() <= 40
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
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

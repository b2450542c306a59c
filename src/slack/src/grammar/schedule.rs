//! `schedule add|list|show|pause|resume|delete`: what follows the word. Pure and total.

use diagbot_api::{
    schedule::{ConcurrencyPolicy, times::Timetable},
    target::is_name,
};
use diagbot_catalog::Catalog;

use super::{Fault, Meaning, Request, RunCall, duration, fault::shown, name, words::Word};

/// Longest name of a schedule.
const LONGEST_NAME: usize = 40;
/// How late a run may start unless a deadline is given: later nobody compares it with its neighbours.
const DEFAULT_DEADLINE_S: i64 = 600;
/// Most snapshots that a series may hold.
const MOST_KEPT: u32 = 100;

/// What a person wants with schedules.
#[derive(Debug, Clone, PartialEq)]
pub enum ScheduleCall {
    /// A new one, to be confirmed.
    Add(Box<NewSchedule>),
    /// All.
    List,
    /// One in detail.
    Show(String),
    /// Nothing starts until it is resumed.
    Pause(String),
    /// Goes on.
    Resume(String),
    /// Gone.
    Delete(String),
}

/// A schedule as typed.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSchedule {
    /// Its name.
    pub name: String,
    /// Cron text.
    pub schedule: String,
    /// Time zone.
    pub zone: Option<String>,
    /// While the run before is under way.
    pub policy: ConcurrencyPolicy,
    /// How late it may start, in seconds.
    pub deadline_s: i64,
    /// Snapshots that its series holds.
    pub keep: Option<u32>,
    /// Of each day at most so many.
    pub keep_per_day: Option<u32>,
    /// What runs.
    pub call: RunCall,
}

pub(super) fn parse(words: &[Word], catalog: &Catalog) -> Result<Request, Fault> {
    let Some((verb, rest)) = words.split_first() else {
        return Ok(Request::Schedule(ScheduleCall::List));
    };
    let one = |make: fn(String) -> ScheduleCall| match rest {
        [word] => schedule_name(&word.text).map(make),
        _ => Err(Fault::ScheduleWord(format!(
            "`schedule {}` takes the name of one schedule.",
            shown(&verb.text)
        ))),
    };
    let call = match verb.text.to_ascii_lowercase().as_str() {
        "add" => ScheduleCall::Add(Box::new(add(rest, catalog)?)),
        "list" if rest.is_empty() => ScheduleCall::List,
        "show" => one(ScheduleCall::Show)?,
        "pause" => one(ScheduleCall::Pause)?,
        "resume" => one(ScheduleCall::Resume)?,
        "delete" => one(ScheduleCall::Delete)?,
        word => {
            let word = shown(word);
            return Err(Fault::ScheduleWord(format!(
                "`schedule {word}` is none of add, list, show, pause, resume and delete."
            )));
        }
    };
    Ok(Request::Schedule(call))
}

fn add(words: &[Word], catalog: &Catalog) -> Result<NewSchedule, Fault> {
    let [name, times, rest @ ..] = words else {
        return Err(Fault::Schedule("A schedule needs a name and its times.".to_owned()));
    };
    let name = schedule_name(&name.text)?;
    if !times.quoted && !times.text.starts_with('@') {
        return Err(Fault::Schedule(
            "The times stand in quotation marks: \"0 3 * * *\".".to_owned(),
        ));
    }
    let mut options = Options::default();
    let rest = options.take(rest)?;
    Timetable::parse(&times.text, options.zone.as_deref()).map_err(|error| Fault::Schedule(format!("{error}.")))?;
    let Some((first, behind)) = rest.split_first() else {
        return Err(Fault::Schedule(
            "A schedule needs a diagnostic and a target.".to_owned(),
        ));
    };
    let request = match name::meaning(&first.text, catalog)? {
        Meaning::BuiltIn(word) => {
            return Err(Fault::Schedule(format!(
                "`{}` is nothing that a schedule can run.",
                word.word()
            )));
        }
        Meaning::Entry(_) => super::command(first, behind, catalog)?,
    };
    let Request::Run(call) = request else {
        return Err(Fault::Schedule(
            "A schedule needs a diagnostic and a target.".to_owned(),
        ));
    };
    if call.dry_run {
        return Err(Fault::NotHere("--dry-run"));
    }
    if call.armed_for_s.is_some() {
        return Err(Fault::Schedule(
            "A schedule has its own times; `arm` stands alone.".to_owned(),
        ));
    }
    Ok(NewSchedule {
        name,
        schedule: times.text.clone(),
        zone: options.zone,
        policy: options.policy.unwrap_or_default(),
        deadline_s: options.deadline_s.unwrap_or(DEFAULT_DEADLINE_S),
        keep: options.keep,
        keep_per_day: options.keep_per_day,
        call,
    })
}

/// The options that only schedules have.
#[derive(Debug, Default)]
struct Options {
    zone: Option<String>,
    policy: Option<ConcurrencyPolicy>,
    deadline_s: Option<i64>,
    keep: Option<u32>,
    keep_per_day: Option<u32>,
}

impl Options {
    /// Takes them out; what is left is the diagnostic with its own.
    fn take(&mut self, words: &[Word]) -> Result<Vec<Word>, Fault> {
        let mut rest = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (option, inline) = match word.text.split_once('=') {
                Some((option, value)) => (option, Some(value.to_owned())),
                None => (word.text.as_str(), None),
            };
            if word.quoted || !matches!(option, "--tz" | "--policy" | "--deadline" | "--keep" | "--keep-per-day") {
                rest.push(word.clone());
                continue;
            }
            let value = inline.or_else(|| words.next().map(|word| word.text.clone()));
            let value = value.filter(|value| !value.is_empty());
            self.set(option, &value.ok_or_else(|| Fault::NoValue(option.to_owned()))?)?;
        }
        Ok(rest)
    }

    fn set(&mut self, option: &str, value: &str) -> Result<(), Fault> {
        let bad = |rule: &str| Fault::Schedule(format!("`{option} {}`: {rule}.", shown(value)));
        match option {
            "--tz" => self.zone = Some(value.to_owned()),
            "--policy" => {
                self.policy = Some(match value.to_ascii_lowercase().as_str() {
                    "allow" => ConcurrencyPolicy::Allow,
                    "forbid" => ConcurrencyPolicy::Forbid,
                    "replace" => ConcurrencyPolicy::Replace,
                    _ => return Err(bad("allow, forbid or replace")),
                });
            }
            "--deadline" => self.deadline_s = Some(duration(value)?.as_secs()),
            _ => {
                let keep = value.parse().ok().filter(|keep| (1..=MOST_KEPT).contains(keep));
                let keep = Some(keep.ok_or_else(|| bad("a number from 1 to 100"))?);
                *(if option == "--keep" {
                    &mut self.keep
                } else {
                    &mut self.keep_per_day
                }) = keep;
            }
        }
        Ok(())
    }
}

fn schedule_name(text: &str) -> Result<String, Fault> {
    let name = text.to_ascii_lowercase();
    let fits = is_name(&name, LONGEST_NAME) && !name.contains('.') && !name.ends_with('-');
    if fits {
        Ok(name)
    } else {
        Err(Fault::Schedule(format!(
            "`{}` can't be the name of a schedule: lower-case letters, digits and `-`, at most {LONGEST_NAME}.",
            shown(text)
        )))
    }
}

//! The words behind the first, sorted into target, parameters and options, and what a request makes of them. Pure and total.

use std::collections::BTreeMap;

use diagbot_api::{
    cluster_name::ClusterName,
    run::{OFFER, Selection},
    target::TargetRef,
};
use diagbot_catalog::{Catalog, Entry, ParameterError, lint::MAX_TARGETS};

use super::{
    BuiltIn, Fault, Place, Request, RunCall, arm, duration, fault,
    name::{self, Meaning},
    schedule,
    words::Word,
};

/// Words behind the first, sorted out.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    plain: Vec<String>,
    parameters: BTreeMap<String, String>,
    place: Place,
    pub(super) dry_run: bool,
    pub(super) all: bool,
    pub(super) max: Option<String>,
    since: Option<String>,
    pub(super) lasting: Option<String>,
    pub(super) break_glass: Option<String>,
}

impl Arguments {
    pub(super) fn of(words: &[Word]) -> Result<Self, Fault> {
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
        let is_label = |text: &str| diagbot_api::target::is_name(text, 63) && !text.contains('.');
        if let Some(selector) = &self.place.selector
            && !diagbot_api::target::is_selector(selector)
        {
            return Err(Fault::Selector(fault::shown(selector)));
        }
        let is_cluster = |text: &str| ClusterName::try_from(text.to_owned()).is_ok();
        check("-n", &mut self.place.namespace, is_label)?;
        check("-c", &mut self.place.container, is_label)?;
        check("--cluster", &mut self.place.cluster, is_cluster)
    }

    pub(super) fn run(self, entry: Entry<'_>, typed: &str) -> Result<Request, Fault> {
        if self.since.is_some() {
            return Err(Fault::NotHere("--since"));
        }
        if self.lasting.is_some() {
            return Err(Fault::NotHere("--for"));
        }
        // A reason that nobody can read is none.
        let reason = self.break_glass.as_ref();
        if reason.is_some_and(|reason| !reason.chars().any(char::is_alphanumeric)) {
            return Err(Fault::NoValue("--break-glass".to_owned()));
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

    pub(super) fn built_in(self, built_in: BuiltIn, catalog: &Catalog) -> Result<Request, Fault> {
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
            [target] => diagbot_api::target::parse(target)
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

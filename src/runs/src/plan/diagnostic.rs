//! Which diagnostic or runbook a word means, and whether the parameters fit. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use diagbot_api::run::{RunStep, Selection};
use diagbot_catalog::{Catalog, Entry, Impact, Method, ParameterError, PlannedStep, Runbook, Targets};

use crate::reason::{Reason, shown};

/// Shortest beginning that is completed.
const SHORTEST_PREFIX: usize = 2;
/// Least likeness (Jaro-Winkler) of a near word.
const LIKENESS: f64 = 0.75;
/// Most near words in a message.
const NEAR: usize = 3;

/// What is taken of each target.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice<'a> {
    /// Canonical name.
    pub(super) name: &'a str,
    /// The runbook, where it is one.
    pub(super) runbook: Option<&'a Runbook>,
    /// The steps, in order; each with every parameter.
    pub(super) steps: Vec<PlannedStep<'a>>,
    /// What people should know: the word was completed.
    pub(super) note: Option<String>,
}

impl Choice<'_> {
    /// The parameters of a diagnostic; a runbook's are its steps'.
    pub(super) fn parameters(&self) -> BTreeMap<String, String> {
        match (self.runbook, self.steps.as_slice()) {
            (None, [only]) => only.parameters.clone(),
            _ => BTreeMap::new(),
        }
    }

    /// The most that any step does to the target.
    pub(super) fn impact(&self) -> Impact {
        let impacts = self.steps.iter().map(|step| step.diagnostic.impact);
        impacts.max().unwrap_or(Impact::None)
    }

    /// Which of the pods that fit are meant, unless the request says so.
    pub(super) fn selection(&self) -> Option<Selection> {
        match self.runbook?.targets {
            Targets::One => None,
            Targets::All => Some(Selection { max: None }),
            Targets::Max(max) => Some(Selection { max: Some(max) }),
        }
    }

    /// A healthy replica is looked at too.
    pub(super) fn healthy_control(&self) -> bool {
        self.runbook.is_some_and(|runbook| runbook.healthy_control)
    }

    /// The steps as they are recorded.
    pub(super) fn recorded(&self) -> Vec<RunStep> {
        let of = |step: &PlannedStep<'_>| RunStep {
            diagnostic: step.diagnostic.name.to_string(),
            parameters: step.parameters.clone(),
            after_s: u32::try_from(step.after.as_secs()).unwrap_or(u32::MAX),
            stop_on_error: step.stop_on_error,
            optional: step.optional,
        };
        self.steps.iter().map(of).collect()
    }

    /// Indexes of the steps that are taken so.
    pub(super) fn by(&self, method: Method) -> Vec<u16> {
        let numbered = (0_u16..).zip(&self.steps);
        let fitting = numbered.filter(|(_, step)| step.diagnostic.method == method);
        fitting.map(|(index, _)| index).collect()
    }
}

/// By canonical name, alias or unique beginning of one.
pub(super) fn choose<'a>(
    catalog: &'a Catalog,
    typed: &str,
    given: &BTreeMap<String, String>,
) -> Result<Choice<'a>, Reason> {
    let word = typed.trim().to_ascii_lowercase();
    let (entry, note) = match catalog.entry(&word) {
        Some(entry) => (entry, None),
        None => complete(catalog, &word)?,
    };
    let bad = |faults, known| Reason::BadParameters { faults, known };
    match entry {
        Entry::Diagnostic(diagnostic) => {
            let parameters = diagnostic.check_parameters(given).map_err(|errors| {
                let known = diagnostic.parameters.keys().cloned().collect();
                bad(errors.iter().map(words).collect(), known)
            })?;
            let only = PlannedStep {
                diagnostic,
                parameters,
                after: Duration::ZERO,
                stop_on_error: false,
                optional: false,
                container: None,
            };
            Ok(Choice {
                name: diagnostic.name.as_str(),
                runbook: None,
                steps: vec![only],
                note,
            })
        }
        Entry::Runbook(_) if !given.is_empty() => {
            let name = given.keys().next().map_or("", String::as_str);
            let fault = format!(
                "a runbook fixes its steps' parameters, so there is no `{}`",
                shown(name)
            );
            Err(bad(vec![fault], Vec::new()))
        }
        Entry::Runbook(runbook) => Ok(Choice {
            name: runbook.name.as_str(),
            runbook: Some(runbook),
            steps: runbook.plan(catalog),
            note,
        }),
    }
}

/// The canonical name of what a word means in the catalog; none where it means nothing, or several things.
pub(crate) fn meant<'a>(catalog: &'a Catalog, word: &str) -> Option<&'a str> {
    let entry = catalog
        .entry(word)
        .or_else(|| complete(catalog, word).ok().map(|(entry, _)| entry));
    entry.map(Entry::name)
}

fn complete<'a>(catalog: &'a Catalog, word: &str) -> Result<(Entry<'a>, Option<String>), Reason> {
    let fitting: BTreeSet<&str> = catalog
        .words()
        .filter(|known| word.len() >= SHORTEST_PREFIX && known.starts_with(word))
        .filter_map(|known| catalog.entry(known))
        .map(Entry::name)
        .collect();
    let only = fitting.first().filter(|_| fitting.len() == 1);
    match only.and_then(|name| catalog.entry(name)) {
        Some(entry) => {
            let note = format!("`{}` was completed to `{}`.", shown(word), entry.name());
            Ok((entry, Some(note)))
        }
        None if fitting.is_empty() => Err(Reason::UnknownDiagnostic {
            typed: word.to_owned(),
            near: near(catalog, word),
        }),
        None => Err(Reason::SeveralDiagnostics {
            typed: word.to_owned(),
            fitting: fitting.into_iter().map(str::to_owned).collect(),
        }),
    }
}

fn near(catalog: &Catalog, word: &str) -> Vec<String> {
    // A long word is no typing error of a name, and comparing it would take time.
    if word.len() > 64 {
        return Vec::new();
    }
    let mut scored: Vec<(f64, &str)> = catalog
        .words()
        .map(|known| (strsim::jaro_winkler(known, word), known))
        .filter(|(score, _)| *score >= LIKENESS)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored
        .into_iter()
        .take(NEAR)
        .map(|(_, known)| known.to_owned())
        .collect()
}

fn words(error: &ParameterError) -> String {
    match error {
        ParameterError::Unknown { name, .. } => format!("there is no parameter `{}`", shown(name)),
        error => error.to_string(),
    }
}

//! A runbook: the shape of a file in `commands/runbooks/`, and the steps that come of it.
//!
//! Owns the order of the steps, their pauses and their conditions. A condition on the container is decided before anything
//! starts, from the pod's record; one on the runtime is decided by the agent's look at the processes.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    diagnostic::{Diagnostic, DiagnosticName, Impact, Runtime},
    load::Catalog,
};

/// One file of `commands/runbooks/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Runbook {
    /// Canonical name; the file is called `<name>.yaml`. Runbooks and diagnostics share one set of names.
    pub name: DiagnosticName,
    /// Other names that people type.
    #[serde(default)]
    pub aliases: Vec<DiagnosticName>,
    /// One line for `list`.
    pub summary: String,
    /// Which of the pods that fit are looked at, unless the request says so itself.
    #[serde(default)]
    pub targets: Targets,
    /// Takes the same from one healthy replica of the same workload, to compare.
    #[serde(default)]
    pub healthy_control: bool,
    /// What is taken from each target, in order.
    pub steps: Vec<RunbookStep>,
    /// Longer help, shown by `help <runbook>`.
    #[serde(default)]
    pub description: String,
}

/// How many of the pods that fit are looked at. Written `one`, `all` or `max: <n>`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Targets {
    /// Exactly one must be meant.
    #[default]
    One,
    /// All.
    All,
    /// The sickest so many.
    Max(u32),
}

/// One step of a runbook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunbookStep {
    /// Name of a diagnostic.
    pub diagnostic: DiagnosticName,
    /// Its parameters; the diagnostic's defaults fill the rest.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Takes it several times.
    #[serde(default)]
    pub repeat: Option<Repeat>,
    /// Only if.
    #[serde(default)]
    pub when: When,
    /// Steps behind it are taken even if this one fails.
    #[serde(default)]
    pub continue_on_error: bool,
}

/// A diagnostic taken several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Repeat {
    /// How often, the first time included.
    pub count: u32,
    /// Pause between two.
    #[serde(with = "crate::diagnostic::humantime_text")]
    pub every: Duration,
}

/// What must hold of the target for a step to be taken; else it is left out, and that is no failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct When {
    /// The target's runtime.
    #[serde(default)]
    pub runtime: Option<Runtime>,
    /// The state of the target's container.
    #[serde(default)]
    pub container: Option<ContainerState>,
}

/// A state of a container, as its pod's record shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerState {
    /// It runs.
    Running,
    /// It does not run: waiting, crashed, ended.
    NotRunning,
    /// It was restarted at least once.
    Restarted,
}

/// One step as a capture takes it: a diagnostic with complete parameters, one of its repetitions.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedStep<'a> {
    /// The diagnostic.
    pub diagnostic: &'a Diagnostic,
    /// Every parameter with its value.
    pub parameters: BTreeMap<String, String>,
    /// Pause before it.
    pub after: Duration,
    /// Where it fails, the steps behind it are not begun.
    pub stop_on_error: bool,
    /// It is left out, without being a failure, where no process of its runtime is found.
    pub optional: bool,
    /// It is taken only in that state.
    pub container: Option<ContainerState>,
}

impl Runbook {
    /// Every step with its repetitions, in order. Steps that name no diagnostic of the catalog, or parameters that it does
    /// not take, are left out: the lint has reported them.
    pub fn plan<'a>(&self, catalog: &'a Catalog) -> Vec<PlannedStep<'a>> {
        self.steps
            .iter()
            .filter_map(|step| step.planned(catalog.get(step.diagnostic.as_str())?))
            .flatten()
            .collect()
    }

    /// What the target feels: the most that any step does to it.
    pub fn impact(&self, catalog: &Catalog) -> Impact {
        let diagnostics = self.steps.iter().filter_map(|s| catalog.get(s.diagnostic.as_str()));
        diagnostics.map(|d| d.impact).max().unwrap_or(Impact::None)
    }
}

impl RunbookStep {
    /// The step's repetitions; none where its parameters don't fit.
    pub(crate) fn planned<'a>(&self, diagnostic: &'a Diagnostic) -> Option<Vec<PlannedStep<'a>>> {
        let parameters = diagnostic.check_parameters(&self.parameters).ok()?;
        let optional = self.when.runtime.is_some_and(|runtime| runtime != Runtime::Any);
        let (count, every) = self.repeat.map_or((1, Duration::ZERO), |r| (r.count, r.every));
        let steps = (0..count).map(|index| PlannedStep {
            diagnostic,
            parameters: parameters.clone(),
            after: if index == 0 { Duration::ZERO } else { every },
            // A step that may be left out can't be one that the others need.
            stop_on_error: !self.continue_on_error && !optional,
            optional,
            container: self.when.container,
        });
        Some(steps.collect())
    }
}

impl Serialize for Targets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One => serializer.serialize_str("one"),
            Self::All => serializer.serialize_str("all"),
            Self::Max(max) => serializer.collect_map([("max", max)]),
        }
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Word(String),
            Most(BTreeMap<String, u32>),
        }
        let wrong = || D::Error::custom("is `one`, `all` or `max: <number>`");
        match Written::deserialize(deserializer).map_err(|_| wrong())? {
            Written::Word(word) if word == "one" => Ok(Self::One),
            Written::Word(word) if word == "all" => Ok(Self::All),
            Written::Most(most) if most.len() == 1 => most.get("max").map(|max| Self::Max(*max)).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }
}

//! The rules that a runbook must keep, beside its shape.

use std::collections::BTreeMap;

use super::{Faults, MAX_DEADLINE_S, check_summary, own_names};
use crate::{
    diagnostic::{Diagnostic, Method, Runtime},
    runbook::{Runbook, RunbookStep, Targets},
};

/// Most steps of a runbook, repetitions included: the agent's result object has room for the previews of so many.
const MAX_STEPS: u32 = 20;
/// Most targets of one run.
pub const MAX_TARGETS: u32 = 200;
/// Longest pause between two repetitions in seconds.
const MAX_PAUSE_S: u64 = 300;

/// Checks one runbook against the diagnostics that there are, given by name and alias.
pub(super) fn check(
    runbook: &Runbook,
    known: &BTreeMap<String, &Diagnostic>,
    owners: &mut BTreeMap<String, String>,
    faults: &mut Faults,
) {
    let expected = format!("runbooks/{}.yaml", runbook.name);
    if faults.file != expected {
        faults.add("name", format!("the file of `{}` is called {expected}", runbook.name));
    }
    own_names(&runbook.name, &runbook.aliases, owners, faults);
    check_summary(&runbook.summary, faults);
    if let Targets::Max(max) = runbook.targets
        && !(1..=MAX_TARGETS).contains(&max)
    {
        faults.add("targets.max", format!("must be between 1 and {MAX_TARGETS}"));
    }
    if runbook.steps.is_empty() {
        faults.add("steps", "give at least one step");
    }
    let mut sound = Vec::new();
    for (index, step) in runbook.steps.iter().enumerate() {
        let key = format!("steps[{index}]");
        match known.get(step.diagnostic.as_str()) {
            Some(diagnostic) => {
                check_step(&key, step, diagnostic, faults);
                sound.push((step, *diagnostic));
            }
            None => faults.add(
                format!("{key}.diagnostic"),
                format!("there is no diagnostic `{}` in the catalog", step.diagnostic),
            ),
        }
    }
    check_whole(&sound, faults);
}

fn check_step(key: &str, step: &RunbookStep, diagnostic: &Diagnostic, faults: &mut Faults) {
    if step.diagnostic != diagnostic.name {
        faults.add(
            format!("{key}.diagnostic"),
            format!("is an alias: write `{}`", diagnostic.name),
        );
    }
    if let Err(errors) = diagnostic.check_parameters(&step.parameters) {
        for error in errors {
            faults.add(format!("{key}.parameters"), error.to_string());
        }
    }
    if let Some(repeat) = step.repeat {
        if !(1..=MAX_STEPS).contains(&repeat.count) {
            faults.add(
                format!("{key}.repeat.count"),
                format!("must be between 1 and {MAX_STEPS}"),
            );
        }
        if !(1..=MAX_PAUSE_S).contains(&repeat.every.as_secs()) {
            faults.add(
                format!("{key}.repeat.every"),
                format!("must be between 1s and {MAX_PAUSE_S}s"),
            );
        }
    }
    if diagnostic.runtime == Runtime::Jvm && step.when.runtime.is_some_and(|runtime| runtime != Runtime::Jvm) {
        faults.add(format!("{key}.when.runtime"), "the diagnostic needs runtime `jvm`");
    }
    if step.when.runtime == Some(Runtime::Jvm) && diagnostic.runtime != Runtime::Jvm {
        faults.add(
            format!("{key}.when.runtime"),
            "decides only for diagnostics of runtime `jvm`: their process is looked for",
        );
    }
    if diagnostic.method == Method::Api {
        if step.repeat.is_some() {
            faults.add(format!("{key}.repeat"), "a report of method `api` is made once");
        }
        if !step.continue_on_error {
            faults.add(
                format!("{key}.continueOnError"),
                "must be true: method `api` is taken beside the container, which does not wait for it",
            );
        }
    }
}

/// What holds of all steps together: one container, bounded.
fn check_whole(steps: &[(&RunbookStep, &Diagnostic)], faults: &mut Faults) {
    let count: u32 = steps.iter().map(|(step, _)| times(step)).fold(0, u32::saturating_add);
    if count > MAX_STEPS {
        faults.add(
            "steps",
            format!("are {count} with their repetitions: at most {MAX_STEPS}"),
        );
    }
    let seconds: u64 = steps
        .iter()
        .map(|(step, diagnostic)| {
            let pauses = step.repeat.map_or(0, |r| r.every.as_secs());
            diagnostic
                .deadline
                .as_secs()
                .saturating_add(pauses)
                .saturating_mul(times(step).into())
        })
        .fold(0, u64::saturating_add);
    if seconds > MAX_DEADLINE_S {
        faults.add(
            "steps",
            format!("may take {seconds} s together, by their deadlines and pauses: at most {MAX_DEADLINE_S} s"),
        );
    }
    let mut images = steps
        .iter()
        .filter(|(_, d)| d.method == Method::Ephemeral)
        .map(|(_, d)| &d.image);
    if let Some(first) = images.next()
        && images.any(|image| image != first)
    {
        faults.add(
            "steps",
            "run in one container: their diagnostics must have the same image",
        );
    }
}

fn times(step: &RunbookStep) -> u32 {
    step.repeat.map_or(1, |repeat| repeat.count.min(MAX_STEPS + 1))
}

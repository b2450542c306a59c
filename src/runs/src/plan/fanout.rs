//! From the pods that fit to captures: which pods, which steps on each, and which replica to compare with. Pure.
//!
//! # Design notes
//! A target's steps by the agent share one container and are one capture; those that the bot reads from the Kubernetes API
//! are another, so that the cheap evidence needs no container and is not lost with one.

use std::collections::BTreeSet;

use diagbot_api::{
    capture::CapturePhase,
    run::{Candidate, CaptureSummary, Selection},
    target::TargetRef,
};
use diagbot_catalog::{ContainerState, Method};
use diagbot_cluster::resolve::{Found, LOOKED_AT, Listed, Need, Pin, PinError, is_healthy, pin};
use k8s_openapi::api::core::v1::Pod;

use super::{
    diagnostic::Choice,
    target::{self, Settled, Unsettled},
};
use crate::reason::Reason;

/// Most targets of one run.
pub(super) const MOST_TARGETS: usize = diagbot_catalog::lint::MAX_TARGETS as usize;
/// Most artifacts of one run: its record holds a line on each and must stay below what the API server stores (1.5 MiB).
const MOST_ARTIFACTS: usize = 1_000;
/// Most names in a message.
const NAMED: usize = 5;

/// The captures of a run, before they are made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Drafted {
    /// The captures, in order.
    pub(super) summaries: Vec<CaptureSummary>,
    /// What people should know.
    pub(super) notes: Vec<String>,
    /// The one target as a candidate for a confirming button; none of several.
    pub(super) candidate: Option<Candidate>,
    /// Whom an impact would hit, where that was not typed whole: a person must confirm it.
    pub(super) guessed: Option<String>,
}

/// What is drafted for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The run's name.
    pub(super) run: &'a str,
    /// The target's cluster.
    pub(super) cluster: &'a str,
    /// The target as typed.
    pub(super) target: &'a TargetRef,
    /// Which of the pods that fit; none: exactly one.
    pub(super) selection: Option<Selection>,
}

/// Chooses the pods and what is taken of each.
pub(super) fn draft(found: &Found, asked: Asked<'_>, choice: &Choice<'_>) -> Result<Drafted, Box<Unsettled>> {
    if asked.target.healthy_replica {
        return replica(found, asked, choice);
    }
    let selection = asked.selection.filter(|_| asked.target.pod_uid.is_none());
    let mut drafted = match selection {
        Some(selection) if found.count > 1 => several(found, asked, choice, selection)?,
        _ => one(found, asked, choice)?,
    };
    if choice.healthy_control() {
        compare(found, asked, choice, &mut drafted);
    }
    Ok(drafted)
}

fn one(found: &Found, asked: Asked<'_>, choice: &Choice<'_>) -> Result<Drafted, Box<Unsettled>> {
    let record_only = choice.runbook.is_some() || choice.by(Method::Ephemeral).is_empty();
    let need = if record_only { Need::Record } else { Need::Running };
    let Settled {
        pod,
        candidate,
        completed,
        notes,
        ..
    } = target::settle(found, asked.target, need)?;
    let mut drafted = Drafted {
        summaries: Vec::new(),
        notes,
        guessed: completed.then(|| format!("{}/{}", candidate.namespace, candidate.pod)),
        candidate: Some(candidate),
    };
    let before = drafted.notes.len();
    take(pod, asked, choice, false, &mut drafted).map_err(|error| target::unpinned(pod, asked.target, error))?;
    if drafted.summaries.is_empty() {
        drafted.notes.truncate(before);
        return Err(Box::new(Unsettled {
            reason: Reason::NothingToTake { target: name(pod) },
            candidates: Vec::new(),
        }));
    }
    Ok(drafted)
}

fn several(
    found: &Found,
    asked: Asked<'_>,
    choice: &Choice<'_>,
    selection: Selection,
) -> Result<Drafted, Box<Unsettled>> {
    let refuse = |reason| {
        Err(Box::new(Unsettled {
            reason,
            candidates: Vec::new(),
        }))
    };
    let typed = asked.target.to_string();
    let most = (MOST_ARTIFACTS / choice.steps.len().max(1)).min(MOST_TARGETS);
    let wanted = selection.max.map_or(found.count, |max| found.count.min(max as usize));
    if wanted > most {
        let count = found.count;
        return refuse(Reason::TooManyTargets { typed, count, most });
    }
    let namespaces: BTreeSet<&str> = found
        .pods
        .iter()
        .filter_map(|p| p.metadata.namespace.as_deref())
        .collect();
    if namespaces.len() > 1 {
        let namespaces = namespaces.into_iter().take(NAMED).map(str::to_owned).collect();
        return refuse(Reason::SeveralNamespaces { typed, namespaces });
    }
    let mut drafted = Drafted {
        summaries: Vec::new(),
        notes: Vec::new(),
        candidate: None,
        guessed: (wanted > 1).then(|| format!("{wanted} pods of {typed}")),
    };
    if wanted < found.count {
        let looked_at = match found.pods.len() {
            all if all == found.count => String::new(),
            some => format!(" among the first {some}"),
        };
        let note = format!(
            "`{typed}` fits {} pods; these are the {wanted} sickest{looked_at}.",
            found.count
        );
        drafted.notes.push(note);
    }
    for pod in found.pods.iter().take(wanted) {
        if let Err(error) = take(pod, asked, choice, false, &mut drafted) {
            let reason = target::unpinned(pod, asked.target, error).reason;
            drafted.fail(asked, pod, Vec::new(), &reason);
        }
    }
    Ok(drafted)
}

/// A healthy replica alone: its pod was looked at before.
fn replica(found: &Found, asked: Asked<'_>, choice: &Choice<'_>) -> Result<Drafted, Box<Unsettled>> {
    let mut drafted = Drafted {
        summaries: Vec::new(),
        notes: Vec::new(),
        candidate: None,
        guessed: None,
    };
    compare(found, asked, choice, &mut drafted);
    let Some(first) = drafted.summaries.first() else {
        let reason = if found.count == 0 {
            target::unknown(found, asked.target)
        } else {
            let target = asked.target.to_string();
            Reason::NoHealthyReplica { target }
        };
        return Err(Box::new(Unsettled {
            reason,
            candidates: Vec::new(),
        }));
    };
    // Nobody has named it, and it serves: what makes it stand still is confirmed.
    drafted.guessed = Some(format!(
        "the healthy replica {}/{}",
        first.target.namespace, first.target.pod
    ));
    Ok(drafted)
}

/// Adds a healthy replica, to compare.
fn compare(found: &Found, asked: Asked<'_>, choice: &Choice<'_>, drafted: &mut Drafted) {
    let taken: BTreeSet<&str> = drafted.summaries.iter().map(|s| s.target.pod_uid.as_str()).collect();
    let fitting = found.pods.iter().filter(|_| !asked.target.healthy_replica);
    let healthy = fitting.chain(&found.siblings).rev().find(|pod| {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        is_healthy(pod) && !taken.contains(uid)
    });
    let control = healthy.filter(|pod| take(pod, asked, choice, true, drafted).is_ok());
    drafted.notes.push(match control {
        Some(pod) => format!("`{}` is a healthy replica, to compare with.", name(pod)),
        None => "There is no healthy replica to compare with.".to_owned(),
    });
}

/// Adds what is taken of one pod.
fn take(
    pod: &Pod,
    asked: Asked<'_>,
    choice: &Choice<'_>,
    control: bool,
    drafted: &mut Drafted,
) -> Result<(), PinError> {
    let container = asked.target.container.as_deref();
    let record = pin(
        pod,
        container,
        asked.target.pod_uid.as_deref().filter(|_| !control),
        Need::Record,
    )?;
    let running = pin(pod, container, None, Need::Running);
    if let Err(error @ (PinError::SeveralContainers { .. } | PinError::UnknownContainer { .. })) = &running
        && !choice.by(Method::Ephemeral).is_empty()
    {
        return Err(error.clone());
    }
    let holds = |index: &u16| match choice.steps[usize::from(*index)].container {
        None => true,
        Some(ContainerState::Running) => running.is_ok(),
        Some(ContainerState::NotRunning) => running.is_err(),
        Some(ContainerState::Restarted) => record.restart_count > 0,
    };
    let (by_bot, left): (Vec<u16>, Vec<u16>) = choice.by(Method::Api).into_iter().partition(holds);
    let (by_agent, also_left): (Vec<u16>, Vec<u16>) = choice.by(Method::Ephemeral).into_iter().partition(holds);
    let left: BTreeSet<&str> = left
        .iter()
        .chain(&also_left)
        .map(|index| choice.steps[usize::from(*index)].diagnostic.name.as_str())
        .collect();
    if !left.is_empty() && drafted.notes.len() < NAMED {
        let left: Vec<&str> = left.into_iter().collect();
        let note = format!(
            "Left out of `{}`, by its container's state: {}.",
            name(pod),
            left.join(", ")
        );
        drafted.notes.push(note);
    }
    if !by_bot.is_empty() {
        drafted.add(asked, (pod, record), by_bot, control);
    }
    match (by_agent.is_empty(), running) {
        (true, _) => {}
        (false, Ok(pin)) => drafted.add(asked, (pod, pin), by_agent, control),
        (false, Err(error)) => {
            let reason = target::unpinned(pod, asked.target, error).reason;
            drafted.fail(asked, pod, by_agent, &reason);
        }
    }
    Ok(())
}

impl Drafted {
    fn add(&mut self, asked: Asked<'_>, (pod, pin): (&Pod, Pin), steps: Vec<u16>, control: bool) {
        let mut summary = target::summary(asked.run, self.summaries.len(), asked.cluster, pin);
        summary.workload = Listed::of(pod.metadata.clone()).and_then(|listed| listed.workload());
        summary.steps = steps;
        summary.control = control;
        self.summaries.push(summary);
    }

    /// A target that nothing can be taken of: told among the others.
    fn fail(&mut self, asked: Asked<'_>, pod: &Pod, steps: Vec<u16>, reason: &Reason) {
        let pin = Pin {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            pod: pod.metadata.name.clone().unwrap_or_default(),
            pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
            ..Pin::default()
        };
        self.add(asked, (pod, pin), steps, false);
        if let Some(summary) = self.summaries.last_mut() {
            summary.phase = CapturePhase::Failed;
            summary.reason = Some(reason.explain());
        }
    }
}

/// How many of the pods that fit are looked at.
pub(super) fn reach(selection: Option<Selection>) -> usize {
    match selection {
        // One more than can be taken tells that there are too many.
        Some(_) => MOST_TARGETS + 1,
        None => LOOKED_AT,
    }
}

fn name(pod: &Pod) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&pod.metadata.namespace), part(&pod.metadata.name))
}

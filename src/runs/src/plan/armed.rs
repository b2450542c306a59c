//! A run that waits for the next restart of its target: what it has seen, and when it goes on. Pure.
//!
//! # Design notes
//! Restarts are counted by Kubernetes itself: what was counted when the run was armed is recorded, and any container that
//! has more is the restart that was waited for, however long nobody looked. The record of that comes before anything is
//! begun, so that it happens once.

use std::collections::BTreeMap;

use diagbot_api::{
    phase::{Event, IllegalTransition},
    run::{Armed, RunStatus},
};
use diagbot_catalog::Method;
use diagbot_cluster::resolve::Found;
use jiff::SignedDuration;
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};

use super::{
    Action, Facts,
    diagnostic::Choice,
    later,
    right::{self, Place, refusal},
    target,
};
use crate::reason::{Reason, shown};

/// Between two looks.
const EVERY: SignedDuration = SignedDuration::from_secs(10);
/// Most pods that one run waits for: each is read at each look.
pub(super) const MOST_PODS: usize = 50;

/// Looks for the restart. Whether the person may is asked before it is waited for, and again when it came.
pub(super) fn watch(
    facts: &Facts<'_>,
    mut status: RunStatus,
    answer: &Result<Found, Reason>,
    (cluster, choice): (&str, &Choice<'_>),
) -> Result<Action, IllegalTransition> {
    // Nothing can be taken of a container before it runs again.
    let needs_running = choice.runbook.is_none() && !choice.by(Method::Ephemeral).is_empty();
    let asked = &facts.run.spec;
    let until = asked.armed_until.as_ref().map_or(facts.now, |until| until.0);
    let again = Action::Wait(Some(later(facts.now, EVERY).min(until)));
    let found = match answer {
        Ok(found) => found,
        // Who waits for hours can wait for a cluster.
        Err(Reason::ClusterUnavailable { .. }) if status.armed.is_some() => return Ok(again),
        Err(reason) => return facts.end(status, refusal(reason), reason),
    };
    let Some(armed) = &mut status.armed else {
        if found.count == 0 {
            return facts.end(status, Event::Refused, &target::unknown(found, &asked.target));
        }
        if found.count > MOST_PODS {
            let reason = Reason::TooManyToWaitFor {
                typed: asked.target.to_string(),
                count: found.count,
                most: MOST_PODS,
            };
            return facts.end(status, Event::Refused, &reason);
        }
        if let Some(instead) = permit(facts, &status, (cluster, &found.pods), choice)? {
            return Ok(instead);
        }
        status.armed = Some(Armed {
            restarts: found.pods.iter().flat_map(counts).collect(),
            ..Armed::default()
        });
        return Ok(Action::Record(Box::new(status)));
    };
    let Some((pod, container)) = restarted(&armed.restarts, &found.pods, needs_running) else {
        return Ok(again);
    };
    armed.fired = pod.metadata.uid.clone();
    armed.fired_at = Some(MicroTime(facts.now));
    armed.restarts.clear();
    status.notes.push(format!(
        "It was armed, and the container `{}` of `{}` was restarted{}.",
        shown(&container.name),
        shown(pod.metadata.name.as_deref().unwrap_or_default()),
        ended(container),
    ));
    Ok(Action::Record(Box::new(status)))
}

/// Whether the person may take that now; none: they may. Who may not hears so at once, not after the restart.
fn permit(
    facts: &Facts<'_>,
    status: &RunStatus,
    (cluster, pods): (&str, &[Pod]),
    choice: &Choice<'_>,
) -> Result<Option<Action>, IllegalTransition> {
    let namespaces = pods.iter().filter_map(|pod| pod.metadata.namespace.as_deref());
    let place = match right::one_place(facts, namespaces.map(|namespace| Place { cluster, namespace })) {
        Ok(place) => place,
        Err(reason) => return facts.end(status.clone(), Event::Refused, &reason).map(Some),
    };
    match right::judged(facts, place) {
        None => {
            let diagnostics = choice.steps.iter().map(|step| step.diagnostic.name.as_str());
            Ok(Some(right::review(place, diagnostics)))
        }
        Some(Err(denial)) => denial.end(facts, status.clone()).map(Some),
        Some(Ok(_)) => Ok(None),
    }
}

/// How often each container was restarted, by the pod's UID and its name.
fn counts(pod: &Pod) -> BTreeMap<String, i32> {
    let of = |status: &ContainerStatus| (key(pod, status), status.restart_count);
    statuses(pod).map(of).collect()
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
}

fn key(pod: &Pod, status: &ContainerStatus) -> String {
    format!("{}/{}", pod.metadata.uid.as_deref().unwrap_or_default(), status.name)
}

/// The first container that was restarted since. A pod that is new since then has no restarts before its first.
fn restarted<'a>(
    before: &BTreeMap<String, i32>,
    pods: &'a [Pod],
    needs_running: bool,
) -> Option<(&'a Pod, &'a ContainerStatus)> {
    let runs = |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
    pods.iter()
        .flat_map(|pod| statuses(pod).map(move |status| (pod, status)))
        .find(|(pod, status)| {
            let known = before.get(&key(pod, status)).copied().unwrap_or_default();
            status.restart_count > known && (!needs_running || runs(status))
        })
}

fn ended(container: &ContainerStatus) -> String {
    let last = container
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    last.map_or_else(String::new, |end| {
        let reason = end.reason.as_deref().unwrap_or("no reason given");
        format!(" ({}, exit code {})", shown(reason), end.exit_code)
    })
}

//! What could be taken of a target, as buttons for the people of an incident: what fits it and what the person who asks may
//! run. Pure. Nothing is started here; whoever presses is reviewed as if they had typed it.

use std::collections::{BTreeMap, BTreeSet};

use diagbot_api::{
    decision::{Decision, Verb},
    phase::{Event, IllegalTransition},
    run::{OFFER, Offer, RunStatus},
    target::TargetRef,
};
use diagbot_catalog::{Entry, Impact, Method, Runtime};
use diagbot_cluster::resolve::{Need, pin};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Action, Facts, diagnostic, lookup, right::refusal, spec, target};
use crate::reason::Reason;

/// Most offers: Slack takes 25 buttons in a block.
const MOST: usize = 20;

/// Finds the target, what fits it, and what of that the person may run.
pub(super) fn make(facts: &Facts<'_>, mut status: RunStatus) -> Result<Action, IllegalTransition> {
    let cluster = match lookup::place(facts) {
        Ok(cluster) => cluster,
        Err(reason) => return facts.end(status, Event::Refused, &reason),
    };
    let found = match lookup::look_up(facts, &status, &cluster, None)? {
        Ok(found) => found,
        Err(action) => return Ok(action),
    };
    // An incident is about a workload as a rule: its sickest pod is what people would choose.
    let typed = TargetRef {
        sickest: facts.run.spec.target.pod_uid.is_none(),
        ..facts.run.spec.target.clone()
    };
    let settled = match target::settle(found, &typed, Need::Record) {
        Ok(settled) => settled,
        Err(unsettled) => {
            status.candidates = unsettled.candidates;
            return facts.end(status, Event::Refused, &unsettled.reason);
        }
    };
    let container = settled.candidate.container.as_deref();
    let running = pin(settled.pod, container, None, Need::Running).is_ok();
    let fitting = fitting(facts, running, looks_like_a_jvm(settled.pod, container));
    let offers = match rights(facts, &fitting) {
        Rights::Unknown(diagnostics) => {
            return Ok(Action::Review {
                cluster,
                namespace: settled.candidate.namespace,
                diagnostics,
            });
        }
        Rights::Failed(reason) => return facts.end(status, refusal(reason), reason),
        Rights::None(decision) => {
            let reason = Reason::not_allowed(Verb::Run, decision, (&cluster, &settled.candidate.namespace));
            return facts.end(status, Event::Denied, &reason);
        }
        Rights::Some(offers) => offers,
    };
    status.diagnostic = Some(OFFER.to_owned());
    status.notes.extend(settled.notes);
    if !running {
        let words = "The container does not run: offered is what Kubernetes itself still knows.";
        status.notes.push(words.to_owned());
    }
    status.candidates = vec![settled.candidate];
    status.offers = offers;
    facts.enter(&mut status, Event::Offered)?;
    Ok(Action::Record(Box::new(status)))
}

/// Something that fits, with the diagnostics that it takes.
struct Fitting {
    offer: Offer,
    takes: BTreeSet<String>,
}

/// What of it the person may run.
enum Rights<'a> {
    /// They are not asked about yet.
    Unknown(Vec<String>),
    Failed(&'a Reason),
    /// Nothing.
    None(&'a Decision),
    Some(Vec<Offer>),
}

fn rights<'a>(facts: &Facts<'a>, fitting: &[Fitting]) -> Rights<'a> {
    let offers = |may: &dyn Fn(&Fitting) -> bool| -> Vec<Offer> {
        let allowed = fitting.iter().filter(|fitting| may(fitting));
        allowed.map(|fitting| fitting.offer.clone()).take(MOST).collect()
    };
    // An alert is nobody's: who presses is the one who must have the right.
    if facts.run.spec.requester.team.is_empty() {
        return Rights::Some(offers(&|_| true));
    }
    let decisions = match facts.review {
        None => {
            let all: BTreeSet<&String> = fitting.iter().flat_map(|fitting| &fitting.takes).collect();
            return Rights::Unknown(all.into_iter().cloned().collect());
        }
        Some(Err(reason)) => return Rights::Failed(reason),
        Some(Ok(decisions)) => decisions,
    };
    let allowed: BTreeSet<&str> = decisions
        .iter()
        .filter(|decision| decision.allowed)
        .map(|decision| decision.diagnostic.as_str())
        .collect();
    let offers = offers(&|fitting| fitting.takes.iter().all(|name| allowed.contains(name.as_str())));
    match decisions.iter().find(|decision| !decision.allowed) {
        Some(denied) if offers.is_empty() => Rights::None(denied),
        _ => Rights::Some(offers),
    }
}

/// What fits, the likeliest first: what the runtime suggests, what the target does not feel, runbooks before their parts.
fn fitting(facts: &Facts<'_>, running: bool, jvm: bool) -> Vec<Fitting> {
    let catalog = facts.catalog;
    let runbooks = catalog.runbooks().map(|runbook| runbook.name.as_str());
    let names = catalog
        .iter()
        .map(|diagnostic| diagnostic.name.as_str())
        .chain(runbooks);
    let mut ranked: Vec<((bool, Impact, bool, String), Fitting)> = Vec::new();
    for name in names {
        // What needs parameters can't be taken by a button alone.
        let Ok(choice) = diagnostic::choose(catalog, name, &BTreeMap::new()) else {
            continue;
        };
        if !running && choice.by(Method::Api).is_empty() {
            continue;
        }
        let of_jvm = choice.steps.iter().any(|step| step.diagnostic.runtime == Runtime::Jvm);
        let summary = match catalog.entry(name) {
            Some(Entry::Diagnostic(diagnostic)) => diagnostic.summary.clone(),
            Some(Entry::Runbook(runbook)) => runbook.summary.clone(),
            None => continue,
        };
        let rank = (
            of_jvm != jvm,
            choice.impact(),
            choice.runbook.is_none(),
            name.to_owned(),
        );
        let offer = Offer {
            diagnostic: name.to_owned(),
            summary,
            impact: spec::impact_words(choice.impact()).map(str::to_owned),
        };
        let takes = choice
            .steps
            .iter()
            .map(|step| step.diagnostic.name.to_string())
            .collect();
        ranked.push((rank, Fitting { offer, takes }));
    }
    ranked.sort_by(|a, b| a.0.cmp(&b.0));
    ranked.into_iter().map(|(_, fitting)| fitting).collect()
}

/// Whether the container's spec speaks of a JVM. It only orders the offers: a start script can hide one.
fn looks_like_a_jvm(pod: &Pod, container: Option<&str>) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut meant = containers.filter(|known| container.is_none_or(|name| known.name == name));
    meant.any(speaks_of_java)
}

fn speaks_of_java(container: &Container) -> bool {
    let words = container.command.iter().chain(&container.args).flatten();
    let image = container.image.as_deref().unwrap_or_default();
    let env = container.env.iter().flatten();
    words.into_iter().any(|word| word.ends_with("java") || word == "-jar")
        || ["jdk", "jre", "java", "temurin", "corretto"]
            .iter()
            .any(|name| image.contains(name))
        || env
            .into_iter()
            .any(|variable| variable.name.contains("JAVA") || variable.name.contains("JDK_"))
}

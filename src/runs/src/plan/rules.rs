//! Rules that hold whoever asks: where captures may be taken at all, the off-switch, the budgets. Pure.

use std::collections::BTreeSet;

use diagbot_api::{
    capture::PinnedTarget,
    pause::Pause,
    run::{CaptureSummary, DiagnosticRun, Phase, RunStatus},
};
use diagbot_catalog::{Catalog, Impact, Method, policy::ENABLED_LABEL};
use jiff::Timestamp;

use super::Facts;
use crate::{
    admission::{Ask, Use, budget},
    preflight::{Preflight, TargetSnapshot},
    reason::Reason,
};

/// A namespace where captures are never taken, whatever its labels say.
const KUBE_SYSTEM: &str = "kube-system";

/// What is asked about a run's targets before anything starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PreflightQuestion {
    /// The targets, pinned.
    pub targets: Vec<PinnedTarget>,
    /// Canonical names of what is run on each.
    pub diagnostics: Vec<String>,
    /// The pods of the targets' workloads are to be counted.
    pub count_workload: bool,
}

impl PreflightQuestion {
    /// Every cluster, namespace and diagnostic that the run touches, each once.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let places: BTreeSet<(&str, &str)> = self
            .targets
            .iter()
            .map(|target| (target.cluster.as_str(), target.namespace.as_str()))
            .collect();
        let diagnostics = self.diagnostics.iter().map(String::as_str);
        places
            .into_iter()
            .flat_map(move |(cluster, namespace)| diagnostics.clone().map(move |d| (cluster, namespace, d)))
    }
}

impl Facts<'_> {
    /// The pause that stops this run, if one does.
    pub(super) fn pause(&self, status: &RunStatus) -> Option<&Pause> {
        self.pauses.iter().find(|pause| pause.stops(status))
    }

    /// The place of the pause that stops this run, in words, where nobody asked that very run to stop.
    pub(super) fn stopping_pause(&self, status: &RunStatus) -> Option<String> {
        let asked = self.run.cancel_request().is_some();
        self.pause(status).filter(|_| !asked).map(|pause| pause.place.words())
    }

    /// The question about the run's targets.
    pub(super) fn question(&self, status: &RunStatus) -> PreflightQuestion {
        let targets: Vec<PinnedTarget> = status.captures.iter().map(|capture| capture.target.clone()).collect();
        let least = self.budgets.workload.concurrent.min(self.budgets.workload.per_hour);
        let crowded = self.uses.len() + targets.len() > least;
        PreflightQuestion {
            count_workload: crowded || self.pausing(status),
            diagnostics: status.diagnostics().into_iter().map(str::to_owned).collect(),
            targets,
        }
    }

    /// Whether anything that is run makes its target stand still.
    fn pausing(&self, status: &RunStatus) -> bool {
        pauses(self.catalog, &status.diagnostics())
    }

    /// The first rule that says no; else how many of the captures may run at a time.
    pub(super) fn check_rules(&self, status: &RunStatus, preflight: &Preflight) -> Result<usize, Reason> {
        if preflight.snapshots.len() != status.captures.len() {
            return Err(Reason::ReviewFailed {
                what: "not every target was looked at".to_owned(),
            });
        }
        for (capture, snapshot) in status.captures.iter().zip(&preflight.snapshots) {
            self.check_place(&capture.target, snapshot)?;
        }
        if self.run.spec.dry_run {
            return Ok(status.captures.len());
        }
        let asked: Vec<Ask> = status
            .captures
            .iter()
            .zip(&preflight.snapshots)
            // What ended before it began is never made.
            .filter(|(capture, _)| !capture.phase.is_final())
            .map(|(capture, snapshot)| Ask {
                cluster: capture.target.cluster.clone(),
                namespace: capture.target.namespace.clone(),
                pod_uid: capture.target.pod_uid.clone(),
                pod: format!("{}/{}", capture.target.namespace, capture.target.pod),
                siblings: snapshot.siblings.clone(),
                pausing: pauses(self.catalog, &status.taken_by(capture)),
                adds_container: adds_container(self.catalog, &status.taken_by(capture)),
                containers: snapshot.containers,
            })
            .collect();
        budget::check(self.budgets, self.uses, &asked, self.now).map_err(Reason::OverBudget)
    }

    pub(super) fn check_place(&self, target: &PinnedTarget, snapshot: &TargetSnapshot) -> Result<(), Reason> {
        let own = self.run.metadata.namespace.as_deref() == Some(target.namespace.as_str());
        let home = self.clusters.first() == Some(&target.cluster);
        if target.namespace == KUBE_SYSTEM || (own && home) {
            return Err(Reason::NeverThere {
                namespace: target.namespace.clone(),
            });
        }
        if snapshot.labels.get(ENABLED_LABEL).map(String::as_str) != Some("true") {
            return Err(Reason::NamespaceNotEnabled {
                namespace: target.namespace.clone(),
                cluster: target.cluster.clone(),
            });
        }
        Ok(())
    }
}

/// Whether any of these diagnostics makes its target stand still; of one that is not known that is assumed.
fn pauses(catalog: &Catalog, diagnostics: &BTreeSet<&str>) -> bool {
    let mut known = diagnostics.iter().map(|name| catalog.get(name));
    known.any(|diagnostic| diagnostic.is_none_or(|d| d.impact != Impact::None))
}

/// Whether any of these diagnostics is taken by an ephemeral container; of one that is not known that is assumed.
fn adds_container(catalog: &Catalog, diagnostics: &BTreeSet<&str>) -> bool {
    let mut known = diagnostics.iter().map(|name| catalog.get(name));
    known.any(|diagnostic| diagnostic.is_none_or(|d| d.method == Method::Ephemeral))
}

/// The captures of these runs as the budgets count them; `but` is the run that asks.
pub(crate) fn uses<'a>(
    runs: impl Iterator<Item = &'a DiagnosticRun>,
    catalog: &Catalog,
    but: &DiagnosticRun,
) -> Vec<Use> {
    let begun = |run: &&DiagnosticRun| run.metadata.name != but.metadata.name;
    runs.filter(begun).flat_map(|run| uses_of(run, catalog)).collect()
}

fn uses_of(run: &DiagnosticRun, catalog: &Catalog) -> Vec<Use> {
    let Some(status) = &run.status else { return Vec::new() };
    let Some(at): Option<Timestamp> = status.entered.get(Phase::Capturing.as_str()).map(|time| time.0) else {
        return Vec::new();
    };
    // Of those that have not ended, no more run than may at a time: the rest waits for its turn.
    let mut room = status.at_once();
    let mut runs = |capture: &CaptureSummary| {
        let runs = !capture.phase.is_final() && !status.phase.is_final() && room > 0;
        room -= usize::from(runs);
        runs
    };
    status
        .captures
        .iter()
        .map(|capture| Use {
            cluster: capture.target.cluster.clone(),
            namespace: capture.target.namespace.clone(),
            pod_uid: capture.target.pod_uid.clone(),
            at,
            running: runs(capture),
            pausing: pauses(catalog, &status.taken_by(capture)),
        })
        .collect()
}

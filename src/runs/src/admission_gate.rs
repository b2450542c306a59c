//! One run is admitted at a time, so that two never share what is left of a budget: what was admitted and is not yet seen in
//! the cache is remembered here. Owns that memory; the budgets decide.
//!
//! # Design notes
//! What a former leader admitted may be missing from the cache of the next one: before the first admission of a term the
//! runs are read from the API server.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use diagbot_api::run::{DiagnosticRun, Phase};
use diagbot_cluster::{CallError, deadline, lease::Term};
use kube::api::ListParams;
use tokio::sync::MutexGuard;

use crate::{
    admission::Use,
    plan::{self, Action},
    service::RunService,
};

/// How long a run counts that the cache does not show at all: it was removed, or the cache is far behind.
const UNSEEN: Duration = Duration::from_mins(10);
/// Longest wait for the list of the runs.
const CALL: Duration = Duration::from_secs(5);

/// The admissions of this leader.
#[derive(Debug, Default)]
pub(super) struct AdmissionGate {
    /// Epoch of the term whose former admissions are known.
    turn: tokio::sync::Mutex<u64>,
    admitted: Mutex<HashMap<String, (Instant, DiagnosticRun)>>,
}

/// A turn to admit a run.
#[derive(Debug)]
pub(super) struct AdmissionTurn<'a> {
    admission_gate: &'a AdmissionGate,
    _turn: MutexGuard<'a, u64>,
}

impl AdmissionGate {
    /// What the captures of other runs use, as far as it counts before a launch.
    pub(super) fn uses(&self, service: &RunService, run: &DiagnosticRun) -> Vec<Use> {
        if run.phase().is_final() || matches!(run.phase(), Phase::Capturing | Phase::Cancelling) {
            return Vec::new();
        }
        let known = service.cache().all();
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        // What the cache shows as begun, or no more, is counted from there.
        let behind = |phase: Phase| !phase.is_final() && !matches!(phase, Phase::Capturing | Phase::Cancelling);
        admitted.retain(|name, (since, _)| {
            let seen = known.iter().find(|run| run.metadata.name.as_ref() == Some(name));
            seen.map_or(since.elapsed() < UNSEEN, |run| behind(run.phase()))
        });
        let seen = known.iter().map(AsRef::as_ref).filter(|run: &&DiagnosticRun| {
            run.metadata
                .name
                .as_ref()
                .is_none_or(|name| !admitted.contains_key(name))
        });
        let admitted = admitted.values().map(|(_, run)| run);
        plan::uses(seen.chain(admitted), service.catalog(), run)
    }

    /// Takes a turn where the action would admit the run.
    pub(super) async fn entering(
        &self,
        service: &RunService,
        term: Term,
        run: &DiagnosticRun,
        action: &Action,
    ) -> Result<Option<AdmissionTurn<'_>>, CallError> {
        let Action::Record(status) = action else {
            return Ok(None);
        };
        if status.phase != Phase::Capturing || run.phase() == Phase::Capturing {
            return Ok(None);
        }
        let mut turn = self.turn.lock().await;
        if *turn != term.epoch {
            self.take_over(service, term).await?;
            *turn = term.epoch;
        }
        Ok(Some(AdmissionTurn {
            admission_gate: self,
            _turn: turn,
        }))
    }

    /// Remembers what others admitted and has not ended.
    async fn take_over(&self, service: &RunService, term: Term) -> Result<(), CallError> {
        let params = ListParams::default();
        let listed = deadline(CALL.min(term.remaining()), service.api().list(&params)).await?;
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        for run in listed.items {
            if let (Phase::Capturing | Phase::Cancelling, Some(name)) = (run.phase(), run.metadata.name.clone()) {
                admitted.insert(name, (Instant::now(), run));
            }
        }
        Ok(())
    }
}

impl AdmissionTurn<'_> {
    /// Remembers a run that was written as admitted.
    pub(super) fn admitted(&self, run: &DiagnosticRun) {
        if let (Phase::Capturing, Some(name)) = (run.phase(), &run.metadata.name) {
            let mut admitted = self
                .admission_gate
                .admitted
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            admitted.insert(name.clone(), (Instant::now(), run.clone()));
        }
    }
}

//! One run is admitted at a time, so that two never share what is left of a budget: what was admitted and is not yet seen in
//! the reflection is remembered here. Owns that memory; the budgets decide.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::MutexGuard;

use crate::{
    admission::Use,
    runs::{
        plan::{self, Action},
        resource::{DiagnosticRun, Phase},
        service::RunService,
    },
};

/// The admissions of this leader.
#[derive(Debug, Default)]
pub(super) struct Admissions {
    turn: tokio::sync::Mutex<()>,
    admitted: Mutex<HashMap<String, DiagnosticRun>>,
}

/// A turn to admit a run.
#[derive(Debug)]
pub(super) struct Admitting<'a> {
    admissions: &'a Admissions,
    _turn: MutexGuard<'a, ()>,
}

impl Admissions {
    /// What the captures of other runs use, as far as it counts before a launch.
    pub(super) fn uses(&self, service: &RunService, run: &DiagnosticRun) -> Vec<Use> {
        if run.phase().is_final() || matches!(run.phase(), Phase::Capturing | Phase::Cancelling) {
            return Vec::new();
        }
        let known = service.records().all();
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        // What the reflection shows as begun, or no more, is counted from there.
        let behind = |phase: Phase| !phase.is_final() && !matches!(phase, Phase::Capturing | Phase::Cancelling);
        admitted.retain(|name, _| {
            let seen = known.iter().find(|run| run.metadata.name.as_ref() == Some(name));
            seen.is_some_and(|run| behind(run.phase()))
        });
        let seen = known.iter().map(AsRef::as_ref).filter(|run: &&DiagnosticRun| {
            run.metadata
                .name
                .as_ref()
                .is_none_or(|name| !admitted.contains_key(name))
        });
        plan::uses(seen.chain(admitted.values()), service.catalog(), run)
    }

    /// Takes a turn where the action would admit the run.
    pub(super) async fn entering(&self, run: &DiagnosticRun, action: &Action) -> Option<Admitting<'_>> {
        let Action::Record(status) = action else { return None };
        if status.phase != Phase::Capturing || run.phase() == Phase::Capturing {
            return None;
        }
        Some(Admitting {
            admissions: self,
            _turn: self.turn.lock().await,
        })
    }
}

impl Admitting<'_> {
    /// Remembers a run that was written as admitted.
    pub(super) fn admitted(&self, run: &DiagnosticRun) {
        if let (Phase::Capturing, Some(name)) = (run.phase(), &run.metadata.name) {
            let mut admitted = self.admissions.admitted.lock().unwrap_or_else(PoisonError::into_inner);
            admitted.insert(name.clone(), run.clone());
        }
    }
}

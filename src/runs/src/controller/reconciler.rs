//! One look at a run: reads, decides by the plan, acts until there is nothing to do. Also removes finished runs.

use std::{sync::Arc, time::Duration};

use diagbot_api::{
    capture::DiagnosticCapture,
    request_key::RunName,
    run::{DiagnosticRun, Phase, RunStatus, ThreadStatus},
};
use diagbot_cluster::deadline;
use jiff::Timestamp;
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};

use super::RunsContext;
use crate::{
    act::{ActError, Actor, Done, Observed},
    admission_gate::AdmissionGate,
    object_cache::ObjectCache,
    pause_switch::PauseSwitch,
    plan::{Action, Facts, plan},
    retention,
    service::RunService,
    slots::Slots,
};

/// Actions of one look; a run that needs more is looked at again.
const STEPS: usize = 32;
/// Longest wait for one call of the sweep.
const CALL: Duration = Duration::from_secs(5);
/// Most runs that one sweep removes.
const SWEPT: usize = 100;

/// What a look at a run says about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requeue {
    /// Not before something changes.
    Rest,
    /// At that time.
    At(Timestamp),
    /// At once.
    Again,
    /// After a growing wait.
    Failed,
}

/// Looks at one run.
pub(super) struct Reconciler {
    pub(super) ctx: RunsContext,
    captures: Api<DiagnosticCapture>,
    pub(super) cache: ObjectCache<DiagnosticCapture>,
    pub(super) switch: PauseSwitch,
    admission_gate: AdmissionGate,
    slots: Slots,
    clusters: Vec<String>,
    namespace: String,
}

impl Reconciler {
    pub(super) fn new(ctx: RunsContext, cache: ObjectCache<DiagnosticCapture>) -> Self {
        let clusters = ctx.service.clusters();
        let (home, namespace) = (clusters.home().client.clone(), clusters.namespace());
        Self {
            captures: Api::namespaced(home.clone(), namespace),
            cache,
            switch: PauseSwitch::new(home, namespace),
            admission_gate: AdmissionGate::default(),
            slots: Slots::new(ctx.concurrency),
            clusters: names(&ctx.service),
            namespace: namespace.to_owned(),
            ctx,
        }
    }

    pub(super) async fn look(&self, name: &RunName) -> Requeue {
        match self.follow(name).await {
            Ok(look) => look,
            Err(ActError::NotLeading) => Requeue::Rest,
            Err(error) => {
                tracing::warn!(error = %diagbot_base::telemetry::Chain(&error), run.id = %name, "the run is looked at again");
                Requeue::Failed
            }
        }
    }

    /// Reads, decides and acts until there is nothing to do.
    async fn follow(&self, name: &RunName) -> Result<Requeue, ActError> {
        let service = &self.ctx.service;
        let Some(reflected) = service.cache().get(&self.namespace, name.as_str()) else {
            return Ok(Requeue::Rest);
        };
        let mut run = DiagnosticRun::clone(&reflected);
        // The cache may be late: before an act that no resourceVersion guards, the run is read.
        let mut fresh = false;
        let mut observed = Observed::default();
        for _ in 0..STEPS {
            let term = service.leadership().current().ok_or(ActError::NotLeading)?;
            let actor = Actor {
                service,
                captures: &self.captures,
                metrics: &self.ctx.metrics,
                term,
            };
            self.gather(&run, &actor, &mut observed).await?;
            let action = match self.decide(&run, &observed) {
                Action::Wait(None) => return Ok(Requeue::Rest),
                Action::Wait(Some(time)) => return Ok(Requeue::At(time)),
                action => action,
            };
            let unguarded = matches!(action, Action::CreateCapture(_) | Action::CancelCaptures(_));
            if unguarded && !fresh {
                match self.reread(name, &actor).await? {
                    Some(read) => run = read,
                    None => return Ok(Requeue::Rest),
                }
                fresh = true;
                continue;
            }
            if let Action::CreateCapture(capture) = action {
                match self.make(&run, *capture, &actor).await? {
                    Some(Done::Capture(capture)) => observed.take(*capture),
                    Some(Done::CaptureRefused { capture, answer }) => observed.refused = Some((capture, answer)),
                    // Another run took the last slot meanwhile, or somebody wrote first.
                    _ => return Ok(Requeue::Again),
                }
                continue;
            }
            if matches!(action, Action::Preflight(_)) {
                self.look_at_the_switch(&actor).await?;
            }
            let entering = self.admission_gate.entering(service, term, &run, &action).await;
            let entering = entering.map_err(|source| ActError::Call {
                doing: "read what was admitted before",
                source,
            })?;
            let done = match entering {
                None => actor.perform(&run, action).await?,
                // Decided once more on what has been admitted meanwhile: one run is admitted at a time.
                Some(admitting) => {
                    let done = actor.perform(&run, self.decide(&run, &observed)).await?;
                    if let Done::Written(written) = &done {
                        admitting.admitted(written);
                    }
                    done
                }
            };
            match done {
                Done::Written(written) => {
                    log_phase(&run, &written);
                    run = *written;
                    fresh = true;
                }
                Done::Target(answer) => observed.target = Some(answer),
                Done::Reviewed(answer) => observed.review = Some(answer),
                Done::Surveyed(answer) => observed.preflight = Some(answer),
                Done::Cancelled(captures) => captures.into_iter().for_each(|capture| observed.take(capture)),
                Done::Stale | Done::Capture(_) | Done::CaptureRefused { .. } => {
                    match self.reread(name, &actor).await? {
                        Some(read) => {
                            // People were told something meanwhile: what was found out still counts.
                            if !differs_in_telling_only(&run, &read) {
                                observed = Observed::default();
                            }
                            run = read;
                            fresh = true;
                        }
                        None => return Ok(Requeue::Rest),
                    }
                }
            }
        }
        Ok(Requeue::Again)
    }

    fn decide(&self, run: &DiagnosticRun, observed: &Observed) -> Action {
        let service = &self.ctx.service;
        let pauses = self.switch.pauses(service);
        let uses = self.admission_gate.uses(service, run);
        let slots = self.free_slots(run);
        let facts = Facts {
            run,
            captures: &observed.captures,
            refused: observed.refused.as_ref(),
            catalog: service.catalog(),
            agent_image: &self.ctx.agent_image,
            clusters: &self.clusters,
            target: observed.target.as_ref(),
            review: observed.review.as_ref(),
            preflight: observed.preflight.as_ref(),
            pauses: &pauses,
            budgets: &self.ctx.budgets,
            uses: &uses,
            slots,
            now: service.now(),
        };
        plan(&facts).unwrap_or_else(|fault| {
            tracing::error!(
                error = %diagbot_base::telemetry::Chain(&fault),
                "the plan is faulty; the run stays as it is"
            );
            Action::Wait(None)
        })
    }

    /// How many captures of the run's cluster may be made now; counted only where the run makes some.
    fn free_slots(&self, run: &DiagnosticRun) -> usize {
        let cluster = run.status.iter().flat_map(|status| &status.captures).next();
        match cluster.filter(|_| run.phase() == Phase::Capturing) {
            Some(capture) => self.slots.free(&self.cache.all(), &capture.target.cluster),
            None => 0,
        }
    }

    /// The run's captures: from the cache, and from the API server where it matters that one is really not there.
    async fn gather(&self, run: &DiagnosticRun, actor: &Actor<'_>, observed: &mut Observed) -> Result<(), ActError> {
        let phase = run.phase();
        if !matches!(phase, Phase::Capturing | Phase::Cancelling) {
            return Ok(());
        }
        for summary in run.status.iter().flat_map(|status| &status.captures) {
            let known = |c: &Arc<DiagnosticCapture>| c.metadata.name.as_ref() == Some(&summary.name);
            if observed.captures.iter().any(known) || summary.phase.is_final() {
                continue;
            }
            if let Some(capture) = self.cache.get(&self.namespace, &summary.name) {
                observed.captures.push(capture);
            } else if (summary.uid.is_some() || phase == Phase::Cancelling)
                && let Some(capture) = actor.capture(&summary.name).await?
            {
                observed.take(capture);
            }
        }
        Ok(())
    }

    /// Makes a capture where a slot is free for it.
    async fn make(
        &self,
        run: &DiagnosticRun,
        capture: DiagnosticCapture,
        actor: &Actor<'_>,
    ) -> Result<Option<Done>, ActError> {
        if !self.slots.take(&self.cache.all(), &capture) {
            return Ok(None);
        }
        let name = capture.metadata.name.clone().unwrap_or_default();
        let done = actor.perform(run, Action::CreateCapture(Box::new(capture))).await;
        if !matches!(done, Ok(Done::Capture(_))) {
            self.slots.release(&name);
        }
        done.map(Some)
    }

    async fn reread(&self, name: &RunName, actor: &Actor<'_>) -> Result<Option<DiagnosticRun>, ActError> {
        let limit = CALL.min(actor.term.remaining());
        let read = deadline(limit, self.ctx.service.api().get_opt(name.as_str()));
        read.await.map_err(|source| ActError::Call {
            doing: "read the run",
            source,
        })
    }

    /// What is surveyed starts next, unless the off-switch was thrown meanwhile.
    async fn look_at_the_switch(&self, actor: &Actor<'_>) -> Result<(), ActError> {
        let looked = self.switch.look(&self.ctx.service, CALL.min(actor.term.remaining()));
        looked.await.map_err(|source| ActError::Call {
            doing: "look at the off-switch",
            source,
        })
    }

    /// Removes finished runs by age and number; their captures go with them.
    pub(super) async fn sweep(&self) {
        let service = &self.ctx.service;
        let Some(term) = service.leadership().current() else {
            return;
        };
        // Which runs a series holds is not known before the schedules are.
        if !service.schedules().ready() {
            return;
        }
        let runs = service.cache().all();
        let held = retention::held(&runs, &service.schedules().all());
        let removable = retention::removable(&runs, &held, service.now());
        for run in removable.into_iter().take(SWEPT) {
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: run.metadata.uid.clone(),
                    resource_version: run.metadata.resource_version.clone(),
                }),
                ..DeleteParams::background()
            };
            let name = run.metadata.name.clone().unwrap_or_default();
            let removal = service.api().delete(&name, &params);
            match deadline(CALL.min(term.remaining()), removal).await {
                Ok(_) => tracing::debug!(run.id = name, "the finished run is forgotten"),
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => {
                    tracing::warn!(error = %diagbot_base::telemetry::Chain(&error), "finished runs could not be removed");
                    return;
                }
            }
        }
    }
}

/// The clusters' names, the home cluster first.
fn names(service: &RunService) -> Vec<String> {
    let home = service.clusters().home().name.to_string();
    let others = service.clusters().names().map(ToString::to_string);
    let others = others.filter(|name| *name != home);
    std::iter::once(home.clone()).chain(others).collect()
}

/// Whether what was recorded between two reads of a run is only what people were told.
fn differs_in_telling_only(former: &DiagnosticRun, read: &DiagnosticRun) -> bool {
    let rest = |run: &DiagnosticRun| RunStatus {
        telling: ThreadStatus::default(),
        conditions: Vec::new(),
        epoch: 0,
        ..run.status.clone().unwrap_or_default()
    };
    former.metadata.uid == read.metadata.uid
        && former.metadata.annotations == read.metadata.annotations
        && former.metadata.deletion_timestamp == read.metadata.deletion_timestamp
        && rest(former) == rest(read)
}

fn log_phase(before: &DiagnosticRun, after: &DiagnosticRun) {
    if before.phase() == after.phase() {
        return;
    }
    let status = after.status.as_ref();
    tracing::info!(
        run.id = after.metadata.name.as_deref().unwrap_or_default(),
        run.phase = after.phase().as_str(),
        run.diagnostic = after.diagnostic_name(),
        run.requester = after.spec.requester.user_name(),
        run.reason = status
            .and_then(|s| s.reason.as_ref())
            .map(|reason| reason.code.as_str()),
        "the run moved on"
    );
}

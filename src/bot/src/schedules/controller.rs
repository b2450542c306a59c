//! Looks at every schedule when it is due or changed, while this process leads, and does what the plan says.

use std::{sync::Arc, time::Duration};

use diagbot_api::{run::DiagnosticRun, schedule::DiagnosticSchedule};
use diagbot_runs::service::{AcceptError, RunFilter, RunService, ServiceError};
use futures::StreamExt as _;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::plan::{Step, plan, superfluous};

/// Between looks; cron's finest step is a minute.
const TICK: Duration = Duration::from_secs(1);
/// Steps of one look at one schedule.
const STEPS: usize = 4;
/// Least that must be left of a term.
const LEAST_TERM: Duration = Duration::from_secs(2);

/// Follows schedules until `stop`.
pub async fn run(service: RunService, stop: CancellationToken) {
    let mut changes = std::pin::pin!(service.schedules().changes());
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = changes.next() => {}
            _ = tick.tick() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = look_at_all(&service) => {}
        }
    }
}

async fn look_at_all(service: &RunService) {
    let leads = || {
        let term = service.leadership().current();
        term.is_some_and(|term| term.remaining() > LEAST_TERM)
    };
    // A view that is not whole would take runs under way for none.
    if !leads() || !service.ready() || !service.schedules().ready() {
        return;
    }
    let schedules = service.schedules().all();
    if schedules.is_empty() {
        return;
    }
    let runs = service.list(&RunFilter::default());
    for schedule in schedules {
        if !leads() {
            return;
        }
        let made: Vec<&DiagnosticRun> = runs.iter().map(Arc::as_ref).filter(|run| schedule.made(run)).collect();
        if let Err(error) = look(service, &schedule, &made).await {
            tracing::warn!(
                schedule = schedule.metadata.name.as_deref().unwrap_or_default(),
                error = %diagbot_base::telemetry::Chain(&error),
                "the schedule is looked at again"
            );
        }
    }
}

/// Why a look ended early.
#[derive(Debug, thiserror::Error)]
enum LookError {
    /// The run was not recorded.
    #[error("start the run")]
    Accept(#[from] AcceptError),
    /// The schedule was not changed.
    #[error("keep the schedule")]
    Service(#[from] ServiceError),
}

async fn look(service: &RunService, reflected: &DiagnosticSchedule, runs: &[&DiagnosticRun]) -> Result<(), LookError> {
    let mut schedule = reflected.clone();
    for _ in 0..STEPS {
        match plan(&schedule, runs, service.now()) {
            Step::Wait(_) => break,
            Step::Forget => return Ok(service.schedules().forget(&schedule).await?),
            Step::Record(status) => schedule = service.schedules().record(&schedule, *status).await?,
            Step::Fire {
                replaced,
                request,
                status,
            } => {
                for run in replaced {
                    service
                        .cancel(&run, &request.requester, &request.origin.channel)
                        .await?;
                }
                let accepted = match service.accept(*request).await {
                    // Told to nobody else, so it is told here: the record goes on, or it would be tried every second.
                    Err(AcceptError::Rejected(reason)) => {
                        let mut status = *status;
                        status.missed += 1;
                        status.message = Some(reason.message);
                        service.schedules().record(&schedule, status).await?;
                        return Ok(());
                    }
                    accepted => accepted?,
                };
                tracing::info!(
                    schedule = schedule.metadata.name.as_deref().unwrap_or_default(),
                    run.id = %accepted.name,
                    repeated = accepted.repeated,
                    "a schedule starts a run"
                );
                schedule = service.schedules().record(&schedule, *status).await?;
            }
        }
    }
    for run in superfluous(&schedule, runs, service.now()) {
        service.forget(&run).await?;
    }
    Ok(())
}

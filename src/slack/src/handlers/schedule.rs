//! What people do with schedules, and `health`: answers that take a call or two.

use std::sync::Arc;

use diagbot_api::{
    requester::Requester,
    schedule::{DiagnosticSchedule, ScheduleSpec, series::Series},
};
use diagbot_runs::service::{RunFilter, RunService, ServiceError};
use futures::{FutureExt as _, future::BoxFuture};

use super::{Handlers, RequestContext, reply::Outcome};
use crate::{
    grammar::schedule::{NewSchedule, ScheduleCall},
    views::{Message, schedule},
};

/// Snapshots that a series holds unless the person says how many, and failures that are kept on record.
const KEPT: u32 = 3;

impl Handlers {
    /// What works right now.
    pub(super) fn health(&self) -> Outcome {
        let service = self.0.context.service.clone();
        let slack = self.0.health.report();
        Outcome::Slow {
            meanwhile: schedule::done("health", "being looked at; you will be told here"),
            work: async move { schedule::health(&service.health().await, (slack.0, &slack.1)) }.boxed(),
        }
    }

    /// Anything about schedules.
    pub(super) fn schedule(&self, call: ScheduleCall, request_context: &RequestContext<'_>) -> Outcome {
        let context = &self.0.context;
        let service = context.service.clone();
        let command = context.config.command.clone();
        let (by, channel) = (request_context.by.clone(), request_context.origin.channel.clone());
        let now = context.clock.now();
        let work: BoxFuture<'static, Message> = match call {
            ScheduleCall::List => async move {
                let all = service.schedules().all();
                let seen = service.schedules_told_of(all, &by, &channel).await;
                let seen: Vec<&DiagnosticSchedule> = seen.iter().map(Arc::as_ref).collect();
                schedule::list(&seen, &command)
            }
            .boxed(),
            ScheduleCall::Show(name) => async move {
                let found = service.schedules().get(&name).into_iter().collect();
                match service.schedules_told_of(found, &by, &channel).await.first() {
                    Some(seen) => {
                        let runs = service.list(&RunFilter::default());
                        schedule::show(seen, &seen.snapshots(runs.iter().map(Arc::as_ref)), now)
                    }
                    None => schedule::unknown(&name, &command),
                }
            }
            .boxed(),
            ScheduleCall::Add(new) => {
                let defaults = context.config.defaults(&request_context.origin.channel);
                let target = match new.call.target(None, &defaults) {
                    Ok(target) => target,
                    Err(fault) => return self.fault(&fault),
                };
                let spec = spec(&new, target, &channel, by);
                async move {
                    match service.schedules().draft(&new.name, spec).await {
                        Ok(Some(kept)) => schedule::draft(&kept, now),
                        Ok(None) => schedule::taken(&new.name),
                        Err(error) => failure(&error, &new.name, &command),
                    }
                }
                .boxed()
            }
            ScheduleCall::Pause(name) => suspend(service, (name, true), (by, channel), command).boxed(),
            ScheduleCall::Resume(name) => suspend(service, (name, false), (by, channel), command).boxed(),
            ScheduleCall::Delete(name) => async move {
                match service.schedules().delete(&name, &by, &channel).await {
                    Ok(()) => schedule::done(&name, "deleted; what it captured stays"),
                    Err(error) => failure(&error, &name, &command),
                }
            }
            .boxed(),
        };
        Outcome::Slow {
            meanwhile: schedule::done("change", "under way; you will be told here"),
            work,
        }
    }

    /// The button that saves a draft.
    pub(super) fn save_schedule(&self, uid: String, by: Requester) -> BoxFuture<'static, Message> {
        let context = &self.0.context;
        let (service, now) = (context.service.clone(), context.clock.now());
        let command = context.config.command.clone();
        async move {
            match service.schedules().confirm(&uid, &by).await {
                Ok(saved) => schedule::saved(&saved, now),
                Err(ServiceError::NotFound) => schedule::draft_gone(&command),
                Err(error) => failure(&error, "", &command),
            }
        }
        .boxed()
    }
}

fn spec(new: &NewSchedule, target: diagbot_api::target::TargetRef, channel: &str, owner: Requester) -> ScheduleSpec {
    ScheduleSpec {
        schedule: new.schedule.clone(),
        time_zone: new.zone.clone(),
        concurrency_policy: new.policy,
        starting_deadline_seconds: Some(new.deadline_s),
        suspend: false,
        series: Some(Series {
            last: new.keep.unwrap_or(KEPT),
            per_day: new.keep_per_day,
        }),
        successful_runs_history_limit: KEPT,
        failed_runs_history_limit: KEPT,
        target,
        targets: new.call.targets,
        diagnostic: new.call.diagnostic.clone(),
        parameters: new.call.parameters.clone(),
        channel: channel.to_owned(),
        owner,
    }
}

async fn suspend(
    service: RunService,
    (name, suspend): (String, bool),
    (by, channel): (Requester, String),
    command: String,
) -> Message {
    match service.schedules().suspend(&name, suspend, &by, &channel).await {
        Ok(()) => schedule::done(&name, if suspend { "paused" } else { "resumed" }),
        Err(error) => failure(&error, &name, &command),
    }
}

fn failure(error: &ServiceError, name: &str, command: &str) -> Message {
    match error {
        ServiceError::NotFound => schedule::unknown(name, command),
        ServiceError::Denied(reason) => schedule::failed(Some(reason)),
        error => {
            tracing::warn!(error = %diagbot_base::telemetry::Chain(error), "a schedule could not be changed");
            schedule::failed(error.explanation().as_ref())
        }
    }
}

//! What to do about one schedule at one time. Pure.

use diagbot_api::{
    approval::Appeal,
    request_key::{RequestKey, RunName},
    run::{Cause, DiagnosticRun, Origin, Phase},
    schedule::{ConcurrencyPolicy, DiagnosticSchedule, ScheduleStatus, series::is_snapshot, times::Timetable},
};
use diagbot_runs::request::RunRequest;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// How long nobody may confirm a schedule before it is forgotten.
const DRAFT_FOR: SignedDuration = SignedDuration::from_hours(1);
/// No run is forgotten earlier, so that a late repetition meets it.
const SHORTEST: SignedDuration = SignedDuration::from_hours(3);

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Cancel these, start this, then record that.
    Fire {
        /// Runs that give way.
        replaced: Vec<RunName>,
        /// The run.
        request: Box<RunRequest>,
        /// The status afterwards.
        status: Box<ScheduleStatus>,
    },
    /// Record this.
    Record(Box<ScheduleStatus>),
    /// Nobody confirmed it.
    Forget,
    /// Nothing before that time, or before it changes.
    Wait(Option<Timestamp>),
}

/// What to do about a schedule; `runs` are those that it made.
pub fn plan(schedule: &DiagnosticSchedule, runs: &[&DiagnosticRun], now: Timestamp) -> Step {
    let status = schedule.status.clone().unwrap_or_default();
    let made_at = schedule.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    if schedule.is_draft() {
        let end = made_at.saturating_add(DRAFT_FOR).unwrap_or(Timestamp::MAX);
        return if now >= end {
            Step::Forget
        } else {
            Step::Wait(Some(end))
        };
    }
    let spec = &schedule.spec;
    let table = match Timetable::parse(&spec.schedule, spec.time_zone.as_deref()) {
        Ok(table) => table,
        Err(error) => return record(schedule, status, |status| status.message = Some(error.to_string())),
    };
    let wanted = ScheduleStatus {
        message: None,
        thread_ts: status.thread_ts.clone().or_else(|| thread(runs, &spec.channel)),
        ..status.clone()
    };
    if wanted != status {
        return Step::Record(Box::new(wanted));
    }
    if spec.suspend {
        return Step::Wait(None);
    }
    let after = status.settled_until.as_ref().map_or(made_at, |time| time.0);
    let deadline = spec
        .starting_deadline_seconds
        .map(|seconds| SignedDuration::from_secs(seconds.max(0)));
    let Some(due) = table.due(after, now, deadline) else {
        return Step::Wait(table.next(now.max(after)));
    };
    let running: Vec<RunName> = runs
        .iter()
        .filter(|run| !run.phase().is_final())
        .filter_map(|run| run.name())
        .collect();
    let forbidden = spec.concurrency_policy == ConcurrencyPolicy::Forbid && !running.is_empty();
    let mut next = ScheduleStatus {
        settled_until: Some(MicroTime(due.latest)),
        missed: status.missed + due.missed,
        ..status
    };
    match due.fire {
        // The very run of this instant is no run before it: its record is what is missing.
        Some(fire) if !forbidden || running.contains(&key(schedule, fire).run_name()) => {
            let request = request(schedule, &next, fire, now);
            let own = request.name();
            let replaced = match spec.concurrency_policy {
                ConcurrencyPolicy::Replace => running.into_iter().filter(|name| *name != own).collect(),
                ConcurrencyPolicy::Allow | ConcurrencyPolicy::Forbid => Vec::new(),
            };
            next.last_schedule_time = Some(MicroTime(fire));
            Step::Fire {
                replaced,
                request: Box::new(request),
                status: Box::new(next),
            }
        }
        Some(_) => {
            next.missed += 1;
            Step::Record(Box::new(next))
        }
        None => Step::Record(Box::new(next)),
    }
}

/// Finished runs that the schedule's series does not hold, or beyond its limits, oldest first.
pub fn superfluous(schedule: &DiagnosticSchedule, runs: &[&DiagnosticRun], now: Timestamp) -> Vec<RunName> {
    let held = schedule.held(runs.iter().copied());
    let mut finished: Vec<&&DiagnosticRun> = runs.iter().filter(|run| run.phase().is_final()).collect();
    finished.sort_by_key(|run| std::cmp::Reverse(run.spec.received_at.0));
    let (mut succeeded, mut others) = (0, 0);
    let mut names: Vec<RunName> = finished
        .into_iter()
        .filter(|run| {
            if schedule.spec.series.is_some() && is_snapshot(run) {
                return run.name().is_some_and(|name| !held.contains(&name)) && is_old(run, now);
            }
            let (count, limit) = match run.phase() {
                Phase::Succeeded => (&mut succeeded, schedule.spec.successful_runs_history_limit),
                _ => (&mut others, schedule.spec.failed_runs_history_limit),
            };
            *count += 1;
            *count > limit && is_old(run, now)
        })
        .filter_map(|run| run.name())
        .collect();
    names.reverse();
    names
}

fn is_old(run: &DiagnosticRun, now: Timestamp) -> bool {
    now.duration_since(run.spec.received_at.0) >= SHORTEST
}

fn record(schedule: &DiagnosticSchedule, mut status: ScheduleStatus, change: impl FnOnce(&mut ScheduleStatus)) -> Step {
    change(&mut status);
    if schedule.status.as_ref() == Some(&status) {
        Step::Wait(None)
    } else {
        Step::Record(Box::new(status))
    }
}

/// The thread that the first told run began.
fn thread(runs: &[&DiagnosticRun], channel: &str) -> Option<String> {
    let told = runs.iter().filter(|run| run.spec.origin.thread_ts.is_none());
    let roots = told.filter_map(|run| {
        let telling = &run.status.as_ref()?.telling;
        let root = telling.root_ts.clone()?;
        (telling.channel.as_deref() == Some(channel)).then_some((run.spec.received_at.0, root))
    });
    roots.min().map(|(_, root)| root)
}

fn key(schedule: &DiagnosticSchedule, due: Timestamp) -> RequestKey {
    RequestKey::Schedule {
        uid: schedule.metadata.uid.clone().unwrap_or_default(),
        due,
    }
}

fn request(schedule: &DiagnosticSchedule, status: &ScheduleStatus, due: Timestamp, now: Timestamp) -> RunRequest {
    let spec = &schedule.spec;
    RunRequest {
        key: key(schedule, due),
        requester: spec.owner.clone(),
        origin: Origin {
            channel: spec.channel.clone(),
            thread_ts: status.thread_ts.clone(),
            quiet: true,
            cause: Some(Cause {
                source: format!("schedule {}", schedule.metadata.name.as_deref().unwrap_or_default()),
                raised_at: Some(MicroTime(due)),
                ..Cause::default()
            }),
        },
        diagnostic: spec.diagnostic.clone(),
        parameters: spec.parameters.clone(),
        target: spec.target.clone(),
        targets: spec.targets,
        appeal: Appeal::default(),
        armed_until: None,
        dry_run: false,
        // It was confirmed when it was saved.
        confirmed: true,
        received_at: now,
    }
}

#[cfg(test)]
mod tests;

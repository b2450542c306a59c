//! Schedules as people see them, and what works right now.

use std::fmt::Write as _;

use diagbot_api::schedule::{ConcurrencyPolicy, DiagnosticSchedule, ScheduleSpec, series::Snapshot, times::Timetable};
use diagbot_runs::service::Health;
use jiff::{Timestamp, tz::TimeZone};

use super::{
    Builder, Message,
    escape::{code, counted, line, moment, prose, size},
    words::person,
};

/// Schedules of a list; more don't fit a message.
const LISTED: usize = 30;
/// Snapshots of a series that are shown, the latest.
const SHOWN_SNAPSHOTS: usize = 12;
/// Times that are shown before a schedule is saved.
const SHOWN_TIMES: usize = 5;

/// Begins the `action_id` of the button that saves a draft; its value is the schedule's UID.
pub const SAVE: &str = "diag.schedule-save";

/// A draft with its next times, and the button that saves it.
pub fn draft(schedule: &DiagnosticSchedule, now: Timestamp) -> Message {
    let uid = schedule.metadata.uid.clone().unwrap_or_default();
    Builder::new()
        .section(&format!("*Not saved yet:* {}", summary(schedule)))
        .section(&format!(
            "It would run at\n{}\nIt keeps {}.",
            times(&schedule.spec, now),
            kept(&schedule.spec)
        ))
        .context("It runs in your name: your rights are checked anew each time. Messages come on failures and findings only.")
        .button(SAVE, &uid, "Save")
        .build()
}

/// A draft was saved.
pub fn saved(schedule: &DiagnosticSchedule, now: Timestamp) -> Message {
    Builder::new()
        .section(&format!("Saved: {}", summary(schedule)))
        .section(&format!("It runs at\n{}", times(&schedule.spec, now)))
        .build()
}

/// One in detail, with the snapshots of its series.
pub fn show(schedule: &DiagnosticSchedule, series: &[Snapshot<'_>], now: Timestamp) -> Message {
    let spec = &schedule.spec;
    let status = schedule.status.clone().unwrap_or_default();
    let mut detail = format!(
        "Owner {}, told in <#{}>; {} while a run is under way; keeps {}.",
        person(&spec.owner),
        line(&spec.channel),
        match spec.concurrency_policy {
            ConcurrencyPolicy::Allow => "starts another",
            ConcurrencyPolicy::Forbid => "starts none",
            ConcurrencyPolicy::Replace => "replaces it",
        },
        kept(spec),
    );
    if let Some(last) = &status.last_schedule_time {
        let _ = write!(detail, "\nLast started for {}.", moment(last.0));
    }
    let _ = write!(detail, "\nMissed so far: {}.", status.missed);
    if let Some(message) = &status.message {
        let _ = write!(detail, "\n*{}*", prose(message));
    }
    let mut message = Builder::new().section(&summary(schedule)).section(&detail);
    if spec.series.is_some() {
        message = message
            .section(&format!("Snapshots\n{}", snapshots(spec, series)))
            .context("Without its snapshot here evidence has no new links; how long it is stored, the store's own rules say.");
    }
    message.section(&format!("Next\n{}", times(spec, now))).build()
}

/// What stays on record.
fn kept(spec: &ScheduleSpec) -> String {
    match spec.series {
        Some(series) => {
            let a_day = series
                .per_day
                .map(|most| format!(", at most {most} of a day"))
                .unwrap_or_default();
            format!("the last {}{a_day}", counted(series.last.into(), "snapshot"))
        }
        None => format!(
            "{} successful and {} other runs",
            spec.successful_runs_history_limit, spec.failed_runs_history_limit
        ),
    }
}

/// The series, the latest first.
fn snapshots(spec: &ScheduleSpec, series: &[Snapshot<'_>]) -> String {
    let zone = spec.zone();
    let show = |one: &Snapshot<'_>| {
        let captures = one.run.status.iter().flat_map(|status| &status.captures);
        let artifacts: Vec<_> = captures.flat_map(|capture| &capture.artifacts).collect();
        format!(
            "• {} – run {} – {}, {}",
            stamp(one.due, &zone),
            code(&one.run.name().map(|name| name.short()).unwrap_or_default()),
            counted(artifacts.len() as u64, "file"),
            size(artifacts.iter().map(|artifact| artifact.size_bytes).sum()),
        )
    };
    if series.is_empty() {
        return "none yet".to_owned();
    }
    let mut lines: Vec<String> = series.iter().take(SHOWN_SNAPSHOTS).map(show).collect();
    if series.len() > SHOWN_SNAPSHOTS {
        lines.push(format!("and {} older ones", series.len() - SHOWN_SNAPSHOTS));
    }
    lines.join("\n")
}

/// An instant in the schedule's own zone and the reader's.
fn stamp(at: Timestamp, zone: &TimeZone) -> String {
    let own = at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M %Z");
    format!("{own} – {}", moment(at))
}

/// All of them.
pub fn list(schedules: &[&DiagnosticSchedule], command: &str) -> Message {
    if schedules.is_empty() {
        return one(&format!("There are no schedules. `{command} schedule add` makes one."));
    }
    let mut message = Builder::new();
    for chunk in schedules.iter().take(LISTED).collect::<Vec<_>>().chunks(10) {
        let lines: Vec<String> = chunk.iter().map(|schedule| summary(schedule)).collect();
        message = message.section(&lines.join("\n"));
    }
    if schedules.len() > LISTED {
        message = message.context("There are more; `kubectl get diagnosticschedules` lists them.");
    }
    message.build()
}

/// A name that is taken.
pub fn taken(name: &str) -> Message {
    one(&format!(
        "There is a schedule {} already.\n*What to do:* take another name, or delete it first.",
        code(name)
    ))
}

/// No such schedule.
pub fn unknown(name: &str, command: &str) -> Message {
    one(&format!(
        "There is no schedule {}.\n*What to do:* `{command} schedule list` shows them.",
        code(name)
    ))
}

/// What the button would have saved was deleted, or typed anew.
pub fn draft_gone(command: &str) -> Message {
    one(&format!(
        "What this button would save is not there any more; nothing was saved.\n*What to do:* `{command} schedule list` shows what \
         there is; type the schedule again if it lacks there."
    ))
}

/// Something was done to it.
pub fn done(name: &str, what: &str) -> Message {
    one(&format!("Schedule {} is {what}.", code(name)))
}

/// It is being done, or could not be.
pub fn failed(reason: Option<&diagbot_api::capture::Explanation>) -> Message {
    match reason {
        Some(reason) => one(&super::words::explanation(reason)),
        None => one(
            "The cluster that keeps the schedules does not answer; nothing was changed.\n*What to do:* try again in a minute.",
        ),
    }
}

/// What works right now.
pub fn health(health: &Health, slack: (bool, &str)) -> Message {
    let word = |ok: bool| if ok { "ok" } else { "*not ok*" };
    let mut lines = vec![format!("Slack: {}, {}", word(slack.0), line(slack.1))];
    for (name, answer) in &health.clusters {
        lines.push(match answer {
            Ok(version) => format!("Cluster {}: ok, {}", code(name), line(version)),
            Err(error) => format!("Cluster {}: *not ok*, {}", code(name), line(error)),
        });
    }
    lines.push(match &health.store {
        Ok(()) => "Store: ok".to_owned(),
        Err(error) => format!("Store: *not ok*, {}", line(error)),
    });
    lines.push(format!(
        "Queue: {} waiting, {} under way",
        health.waiting, health.running
    ));
    let (schedules, paused) = health.schedules;
    lines.push(format!("Schedules: {schedules}, {paused} of them paused"));
    match &health.label_unread {
        None if health.pauses.is_empty() => lines.push("Captures: allowed, nothing is paused".to_owned()),
        None => {}
        Some(error) => lines.push(format!(
            "Captures: *not known* whether the label on the bot's namespace pauses them, {}",
            line(error)
        )),
    }
    lines.extend(health.pauses.iter().map(|pause| {
        let since = pause.at.map(|at| format!(", since {}", moment(at))).unwrap_or_default();
        format!(
            "Captures: *paused* for {} by {}{since}",
            prose(&pause.place.words()),
            person(&pause.by)
        )
    }));
    lines.push(format!(
        "This replica {}",
        if health.leads { "leads" } else { "does not lead" }
    ));
    one(&lines.join("\n"))
}

fn one(text: &str) -> Message {
    Builder::new().section(text).build()
}

/// One line.
fn summary(schedule: &DiagnosticSchedule) -> String {
    let spec = &schedule.spec;
    let zone = spec.time_zone.as_deref().unwrap_or("UTC");
    let state = if schedule.is_draft() {
        " – _not saved_"
    } else if spec.suspend {
        " – _paused_"
    } else {
        ""
    };
    format!(
        "{} – *{}* of {} – {} {}{state}",
        code(schedule.metadata.name.as_deref().unwrap_or_default()),
        line(&spec.diagnostic),
        code(&spec.target.to_string()),
        code(&spec.schedule),
        line(zone),
    )
}

/// The next times, in the schedule's own zone and the reader's.
fn times(spec: &ScheduleSpec, now: Timestamp) -> String {
    let Ok(table) = Timetable::parse(&spec.schedule, spec.time_zone.as_deref()) else {
        return "never".to_owned();
    };
    let show = |at: &Timestamp| format!("• {}", stamp(*at, table.zone()));
    let times: Vec<String> = table.upcoming(now, SHOWN_TIMES).iter().map(show).collect();
    times.join("\n")
}

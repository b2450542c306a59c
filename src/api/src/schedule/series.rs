//! The series that a schedule's snapshots form: which of its runs are held, and which are given up. Pure.
//!
//! # Design notes
//! Held is the record of a run: by it a snapshot is listed, and links to its evidence are made. What was stored is not removed
//! by the bot, here or anywhere: how long evidence stays is the store's own rule, which a bot that was taken over can't shorten.
//!
//! | series | of hourly snapshots over three days it holds |
//! | --- | --- |
//! | `last: 4` | those of the last four hours |
//! | `last: 4, perDay: 1` | the latest of each day: three |
//! | `last: 4, perDay: 3` | the latest three of today and the latest of yesterday |

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Timestamp, civil::Date};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DiagnosticSchedule;
use crate::{
    request_key::RunName,
    run::{DiagnosticRun, Phase},
};

/// Which snapshots are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// Snapshots that are held in all, the latest.
    #[schemars(range(min = 1, max = 100))]
    pub last: u32,
    /// Of each day in the schedule's time zone at most so many are held, the latest. All of them unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub per_day: Option<u32>,
}

/// One run that took something, and the instant that it was due.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// When it was due.
    pub due: Timestamp,
    /// The run.
    pub run: &'a DiagnosticRun,
}

/// Whether the run took something.
pub fn is_snapshot(run: &DiagnosticRun) -> bool {
    matches!(run.phase(), Phase::Succeeded | Phase::PartlyFailed)
}

impl DiagnosticSchedule {
    /// The snapshots that the series holds, the latest first; `runs` may be anybody's. None without a series.
    pub fn snapshots<'a>(&self, runs: impl IntoIterator<Item = &'a DiagnosticRun>) -> Vec<Snapshot<'a>> {
        let Some(series) = self.spec.series else {
            return Vec::new();
        };
        let zone = self.spec.zone();
        let made = runs.into_iter().filter(|run| is_snapshot(run) && self.made(run));
        let mut taken: Vec<Snapshot<'a>> = made.map(|run| Snapshot { due: due(run), run }).collect();
        taken.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.due));
        let mut of_day: BTreeMap<Date, u32> = BTreeMap::new();
        taken.retain(|snapshot| {
            let count = of_day.entry(snapshot.due.to_zoned(zone.clone()).date()).or_default();
            *count += 1;
            series.per_day.is_none_or(|most| *count <= most)
        });
        taken.truncate(series.last as usize);
        taken
    }

    /// The names of the runs whose records the series holds.
    pub fn held<'a>(&self, runs: impl IntoIterator<Item = &'a DiagnosticRun>) -> BTreeSet<RunName> {
        let snapshots = self.snapshots(runs);
        snapshots
            .into_iter()
            .filter_map(|snapshot| snapshot.run.name())
            .collect()
    }
}

fn due(run: &DiagnosticRun) -> Timestamp {
    let cause = run.spec.origin.cause.as_ref();
    let raised_at = cause.and_then(|cause| cause.raised_at.as_ref());
    raised_at.unwrap_or(&run.spec.received_at).0
}

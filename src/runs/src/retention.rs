//! Which finished runs are forgotten: by age and by number, never so early that a late redelivery would start a second run.
//! What a schedule's series holds has no age; it goes when its series gives it up. Pure.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use diagbot_api::{request_key::RunName, run::DiagnosticRun, schedule::DiagnosticSchedule};
use jiff::{SignedDuration, Timestamp};

/// Finished runs are forgotten at this age.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(72);
/// No run is forgotten earlier: Slack redelivers for up to an hour, and clocks and queues differ.
pub const SHORTEST: SignedDuration = SignedDuration::from_hours(3);
/// Most runs that are kept.
pub const MOST: usize = 2000;

/// The runs that the schedules' series hold.
pub fn held(runs: &[Arc<DiagnosticRun>], schedules: &[Arc<DiagnosticSchedule>]) -> BTreeSet<RunName> {
    let of_each = schedules
        .iter()
        .map(|schedule| schedule.held(runs.iter().map(Arc::as_ref)));
    of_each.flatten().collect()
}

/// The runs to remove, oldest first. Those of `held` go by number only.
pub fn removable(runs: &[Arc<DiagnosticRun>], held: &BTreeSet<RunName>, now: Timestamp) -> Vec<Arc<DiagnosticRun>> {
    let mut finished: Vec<(Timestamp, &Arc<DiagnosticRun>)> =
        runs.iter().filter_map(|run| Some((ended(run)?, run))).collect();
    finished.sort_by_key(|(ended, _)| Reverse(*ended));
    let unfinished = runs.len() - finished.len();
    let kept = MOST.saturating_sub(unfinished);
    let mut removable: Vec<_> = finished
        .into_iter()
        .enumerate()
        .filter(|(position, (ended, run))| {
            let age = now.duration_since(*ended);
            let asked = now.duration_since(run.spec.received_at.0);
            let is_held = || run.name().is_some_and(|name| held.contains(&name));
            age.min(asked) >= SHORTEST && (*position >= kept || (age >= LONGEST && !is_held()))
        })
        .map(|(_, (_, run))| Arc::clone(run))
        .collect();
    removable.reverse();
    removable
}

/// When the run entered its final phase.
fn ended(run: &DiagnosticRun) -> Option<Timestamp> {
    let phase = run.phase();
    let status = run.status.as_ref().filter(|_| phase.is_final())?;
    let entered = status.entered.get(phase.as_str());
    Some(entered.map_or(run.spec.received_at.0, |time| time.0))
}

#[cfg(test)]
mod tests {
    use diagbot_api::run::{Phase, RunStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;
    use crate::plan::tests::samples;

    fn run(name: usize, phase: Phase, ended: SignedDuration) -> Arc<DiagnosticRun> {
        let time = MicroTime(samples::NOW.saturating_sub(ended).unwrap());
        let mut run = samples::run(|spec| spec.received_at = time.clone());
        run.metadata.name = Some(format!("d-{name}"));
        run.status = Some(RunStatus {
            phase,
            entered: [(phase.as_str().to_owned(), time)].into(),
            ..RunStatus::default()
        });
        Arc::new(run)
    }

    #[test]
    fn finished_runs_go_by_age_and_running_ones_stay() {
        let runs = [
            run(1, Phase::Succeeded, SignedDuration::from_hours(73)),
            run(2, Phase::Capturing, SignedDuration::from_hours(73)),
            run(3, Phase::Denied, SignedDuration::from_hours(71)),
        ];
        let names: Vec<_> = removable(&runs, &BTreeSet::new(), samples::NOW)
            .iter()
            .map(|r| r.metadata.name.clone())
            .collect();
        assert_eq!(names, [Some("d-1".to_owned())]);
    }

    #[test]
    fn the_oldest_go_beyond_the_number_but_never_within_three_hours() {
        let runs: Vec<_> = (0..MOST + 10)
            .map(|n| {
                run(
                    n,
                    Phase::Succeeded,
                    SignedDuration::from_mins(i64::try_from(n).unwrap()),
                )
            })
            .collect();
        assert_eq!(removable(&runs, &BTreeSet::new(), samples::NOW).len(), 10);
        let young: Vec<_> = (0..MOST + 10)
            .map(|n| run(n, Phase::Succeeded, SignedDuration::from_mins(179)))
            .collect();
        assert!(removable(&young, &BTreeSet::new(), samples::NOW).is_empty());
    }
}

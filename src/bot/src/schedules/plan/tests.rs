use std::collections::BTreeMap;

use diagbot_api::{
    requester::Requester,
    run::{RunStatus, ThreadStatus},
    schedule::{ScheduleSpec, series::Series},
    target,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a timestamp")
}

fn schedule(cron: &str, zone: &str, change: impl FnOnce(&mut ScheduleSpec)) -> DiagnosticSchedule {
    let mut spec = ScheduleSpec {
        schedule: cron.to_owned(),
        time_zone: Some(zone.to_owned()),
        concurrency_policy: ConcurrencyPolicy::Allow,
        starting_deadline_seconds: Some(600),
        suspend: false,
        series: None,
        successful_runs_history_limit: 3,
        failed_runs_history_limit: 1,
        target: target::parse("shop/checkout").expect("a target"),
        targets: None,
        diagnostic: "process".into(),
        parameters: BTreeMap::new(),
        channel: "C1".into(),
        owner: Requester {
            team: "T1".into(),
            user: "U1".into(),
        },
    };
    change(&mut spec);
    let mut schedule = DiagnosticSchedule::new("nightly", spec);
    schedule.metadata.uid = Some("uid-1".into());
    schedule.metadata.creation_timestamp = Some(Time(at("2026-01-01T00:00:00Z")));
    schedule
}

fn run(request: &RunRequest, phase: Phase) -> DiagnosticRun {
    let mut run = DiagnosticRun::new(request.name().as_str(), request.spec());
    run.status = Some(RunStatus {
        phase,
        ..RunStatus::default()
    });
    run
}

/// A year of looks, some of which lose their record as a leader that dies does; every run that was started.
fn year(mut schedule: DiagnosticSchedule, pauses: &[i64], lost: &[bool]) -> (BTreeMap<RunName, Timestamp>, u64) {
    let mut fired = BTreeMap::new();
    let mut now = at("2026-01-01T00:00:00Z");
    let end = at("2027-01-01T00:00:00Z");
    let mut turn = 0;
    while now < end {
        match plan(&schedule, &[], now) {
            Step::Fire { request, status, .. } => {
                let due = request.origin.cause.as_ref().and_then(|cause| cause.raised_at.clone());
                fired.insert(request.name(), due.expect("a due instant").0);
                if !lost[turn % lost.len()] {
                    schedule.status = Some(*status);
                }
            }
            Step::Record(status) => schedule.status = Some(*status),
            Step::Wait(_) | Step::Forget => {
                now = now
                    .saturating_add(SignedDuration::from_secs(pauses[turn % pauses.len()]))
                    .expect("in range");
            }
        }
        turn += 1;
    }
    (fired, schedule.status.unwrap_or_default().missed)
}

#[test]
fn over_a_year_and_two_zones_every_due_instant_is_one_run() {
    for (cron, zone, wanted) in [
        ("30 2 * * *", "Europe/Berlin", 365),
        ("30 2 * * *", "America/New_York", 365),
        ("0 */6 * * *", "Europe/Berlin", 365 * 4),
    ] {
        let (fired, missed) = year(schedule(cron, zone, |_| {}), &[590], &[false, true]);
        let mut due: Vec<Timestamp> = fired.into_values().collect();
        due.sort();
        due.dedup();
        assert_eq!((due.len(), missed), (wanted, 0), "{cron} in {zone}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn however_often_the_bot_is_away_each_instant_is_one_run_or_counted(
        pauses in prop::collection::vec(3_600_i64..200_000, 1..20),
        lost in prop::collection::vec(any::<bool>(), 3..8).prop_map(|mut lost| { lost.push(false); lost }),
    ) {
        let (fired, missed) = year(schedule("0 */3 * * *", "Europe/Berlin", |_| {}), &pauses, &lost);
        let table = Timetable::parse("0 */3 * * *", Some("Europe/Berlin")).unwrap();
        let settled = fired.values().max().copied().unwrap_or_default();
        let mut due: Vec<Timestamp> = fired.into_values().collect();
        let count = due.len();
        due.sort();
        due.dedup();
        prop_assert_eq!(due.len(), count, "an instant has one run");
        let all = table.upcoming(at("2026-01-01T00:00:00Z"), 365 * 8 + 8);
        let before = all.iter().filter(|instant| **instant <= settled).count() as u64;
        prop_assert!(count as u64 + missed >= before, "nothing is forgotten: {count} + {missed} < {before}");
    }
}

#[test]
fn the_policy_decides_what_happens_while_a_run_is_under_way() {
    let now = at("2026-01-01T02:00:30Z");
    let first = schedule("0 * * * *", "UTC", |_| {});
    let Step::Fire { request, status, .. } = plan(&first, &[], at("2026-01-01T01:00:00Z")) else {
        panic!("the first fires")
    };
    let running = run(&request, Phase::Capturing);
    let under = |policy| {
        let mut schedule = schedule("0 * * * *", "UTC", |spec| spec.concurrency_policy = policy);
        schedule.status = Some((*status).clone());
        plan(&schedule, &[&running], now)
    };
    assert!(matches!(under(ConcurrencyPolicy::Allow), Step::Fire { replaced, .. } if replaced.is_empty()));
    assert!(matches!(under(ConcurrencyPolicy::Replace), Step::Fire { replaced, .. } if replaced == [request.name()]));
    let Step::Record(missed) = under(ConcurrencyPolicy::Forbid) else {
        panic!("nothing starts")
    };
    assert_eq!(
        (missed.missed, missed.last_schedule_time),
        (1, status.last_schedule_time.clone())
    );

    // Its own run, whose record was lost, is no run before it.
    let forbid = schedule("0 * * * *", "UTC", |spec| {
        spec.concurrency_policy = ConcurrencyPolicy::Forbid;
    });
    assert!(matches!(
        plan(&forbid, &[&running], at("2026-01-01T01:00:10Z")),
        Step::Fire { .. }
    ));
}

#[test]
fn a_suspended_a_faulty_and_an_unconfirmed_schedule_start_nothing() {
    let now = at("2026-06-01T00:00:00Z");
    let suspended = schedule("0 * * * *", "UTC", |spec| spec.suspend = true);
    assert_eq!(plan(&suspended, &[], now), Step::Wait(None));
    let mut never = schedule("0 0 30 2 *", "UTC", |_| {});
    let Step::Record(status) = plan(&never, &[], now) else {
        panic!("the fault is recorded")
    };
    assert_eq!(status.message.as_deref(), Some("`0 0 30 2 *` never fires"));
    never.status = Some(*status);
    assert_eq!(plan(&never, &[], now), Step::Wait(None), "and once is enough");
    let mut draft = schedule("0 * * * *", "UTC", |_| {});
    draft.metadata.annotations = Some([("diagbot.dev/draft".to_owned(), "true".to_owned())].into());
    assert_eq!(
        plan(&draft, &[], at("2026-01-01T00:30:00Z")),
        Step::Wait(Some(at("2026-01-01T01:00:00Z")))
    );
    assert_eq!(plan(&draft, &[], at("2026-01-01T01:00:00Z")), Step::Forget);
}

#[test]
fn what_is_told_goes_on_in_the_thread_that_the_first_message_began_and_the_last_runs_are_kept() {
    let mut schedule = schedule("0 * * * *", "UTC", |_| {});
    let mut made = Vec::new();
    for hour in 1..=5 {
        let now = at(&format!("2026-01-01T{hour:02}:00:00Z"));
        let runs: Vec<&DiagnosticRun> = made.iter().collect();
        let step = loop {
            match plan(&schedule, &runs, now) {
                Step::Record(status) => schedule.status = Some(*status),
                step => break step,
            }
        };
        let Step::Fire { request, status, .. } = step else {
            panic!("it fires: {step:?}")
        };
        let wanted = (hour > 2).then_some("171.2");
        assert_eq!(request.origin.thread_ts.as_deref(), wanted, "hour {hour}");
        assert!(request.origin.quiet);
        let mut run = run(&request, Phase::Succeeded);
        if hour == 2 {
            run.status.get_or_insert_default().telling = ThreadStatus {
                channel: Some("C1".into()),
                root_ts: Some("171.2".into()),
                ..ThreadStatus::default()
            };
        }
        made.push(run);
        schedule.status = Some(*status);
    }
    let runs: Vec<&DiagnosticRun> = made.iter().collect();
    let names = |numbers: &[usize]| numbers.iter().filter_map(|n| made[*n].name()).collect::<Vec<_>>();
    assert_eq!(
        superfluous(&schedule, &runs, at("2026-01-02T00:00:00Z")),
        names(&[0, 1])
    );
    assert_eq!(
        superfluous(&schedule, &runs, at("2026-01-01T04:30:00Z")),
        names(&[0]),
        "none before 3 h"
    );
}

/// A finished run of the schedule for each instant.
fn taken(schedule: &DiagnosticSchedule, times: &[&str], phase: Phase) -> Vec<DiagnosticRun> {
    let status = ScheduleStatus::default();
    let of = |time: &&str| run(&request(schedule, &status, at(time), at(time)), phase);
    times.iter().map(of).collect()
}

#[test]
fn a_series_holds_the_last_of_each_day_in_its_zone_and_the_rest_goes() {
    const TIMES: [&str; 6] = [
        "2026-03-01T10:00:00Z",
        "2026-03-01T22:30:00Z", // 23:30 in Berlin
        "2026-03-01T23:30:00Z", // the next day there
        "2026-03-02T10:00:00Z",
        "2026-03-03T10:00:00Z",
        "2026-03-03T11:00:00Z",
    ];
    let cases: [(u32, Option<u32>, &str, &[usize]); 6] = [
        (4, None, "UTC", &[5, 4, 3, 2]),
        (9, Some(1), "UTC", &[5, 3, 2]),
        (9, Some(1), "Europe/Berlin", &[5, 3, 1]),
        (2, Some(1), "Europe/Berlin", &[5, 3]),
        (9, Some(2), "Europe/Berlin", &[5, 4, 3, 2, 1, 0]),
        (1, Some(9), "UTC", &[5]),
    ];
    let now = at("2026-03-09T00:00:00Z");
    for (last, per_day, zone, held) in cases {
        let schedule = schedule("0 * * * *", zone, |spec| spec.series = Some(Series { last, per_day }));
        let mut made = taken(&schedule, &TIMES, Phase::Succeeded);
        made[1].status.as_mut().unwrap().phase = Phase::PartlyFailed;
        let runs: Vec<&DiagnosticRun> = made.iter().collect();
        let names = |of: &mut dyn Iterator<Item = usize>| of.filter_map(|n| made[n].name()).collect::<Vec<_>>();
        let snapshots = schedule.snapshots(runs.iter().copied());
        let seen: Vec<RunName> = snapshots.iter().filter_map(|one| one.run.name()).collect();
        let what = format!("last {last}, {per_day:?} a day in {zone}");
        assert_eq!(seen, names(&mut held.iter().copied()), "{what}");
        let rest = names(&mut (0..TIMES.len()).filter(|n| !held.contains(n)));
        assert_eq!(superfluous(&schedule, &runs, now), rest, "{what}");
    }
}

#[test]
fn failures_take_no_place_in_a_series_and_nothing_goes_within_three_hours() {
    let series = Some(Series { last: 1, per_day: None });
    let schedule = schedule("0 * * * *", "UTC", |spec| spec.series = series);
    let good = taken(
        &schedule,
        &["2026-03-01T08:00:00Z", "2026-03-01T09:00:00Z"],
        Phase::Succeeded,
    );
    let bad = taken(
        &schedule,
        &["2026-03-01T10:00:00Z", "2026-03-01T11:00:00Z"],
        Phase::Failed,
    );
    let runs: Vec<&DiagnosticRun> = good.iter().chain(&bad).collect();
    let names = |of: &[&DiagnosticRun]| of.iter().filter_map(|run| run.name()).collect::<Vec<_>>();
    assert_eq!(superfluous(&schedule, &runs, at("2026-03-01T10:59:59Z")), []);
    assert_eq!(
        superfluous(&schedule, &runs, at("2026-03-02T00:00:00Z")),
        names(&[&good[0], &bad[0]])
    );
    let mut other = schedule.clone();
    other.metadata.uid = Some("uid-2".into());
    assert!(
        other.snapshots(runs.iter().copied()).is_empty(),
        "another's runs are none of its own"
    );
}

//! Budgets over values.

use super::*;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn ask(pod: &str, pausing: bool) -> Ask {
    Ask {
        cluster: "local".into(),
        namespace: "shop".into(),
        pod_uid: pod.into(),
        pod: pod.into(),
        siblings: ["a", "b", "c"].map(str::to_owned).into(),
        pausing,
        adds_container: true,
        containers: 0,
    }
}

fn begun(pod: &str, minutes_ago: i64, running: bool, pausing: bool) -> Use {
    Use {
        cluster: "local".into(),
        namespace: "shop".into(),
        pod_uid: pod.into(),
        at: NOW - SignedDuration::from_mins(minutes_ago),
        running,
        pausing,
    }
}

#[test]
fn a_pod_never_stands_still_twice_and_a_workload_never_in_more_replicas_than_may() {
    let config = BudgetConfig::default();
    let one = [begun("a", 1, true, true)];
    assert_eq!(
        check(&config, &one, &[ask("a", true)], NOW),
        Err(OverBudget::PodPaused { pod: "a".into() })
    );
    assert_eq!(
        check(&config, &one, &[ask("b", true)], NOW),
        Err(OverBudget::ReplicasPaused { most: 1, of: 3 })
    );
    assert_eq!(
        check(&config, &one, &[ask("b", false)], NOW),
        Ok(1),
        "nothing stands still"
    );
    assert_eq!(
        check(&config, &[begun("a", 1, false, true)], &[ask("b", true)], NOW),
        Ok(1),
        "it has ended"
    );
    let half = BudgetConfig {
        paused_percent: 70,
        ..config
    };
    assert_eq!(
        check(&half, &one, &[ask("b", true)], NOW),
        Ok(1),
        "two of three are 66 %"
    );
    // A request for several counts its own, and takes them one after the other.
    assert_eq!(check(&config, &[], &[ask("a", true), ask("b", true)], NOW), Ok(1));
    assert_eq!(check(&config, &[], &[ask("a", true), ask("a", false)], NOW), Ok(2));
}

#[test]
fn what_was_begun_within_the_hour_counts_and_the_time_to_wait_is_told() {
    let config = BudgetConfig {
        pod: Limit {
            concurrent: 2,
            per_hour: 3,
        },
        ..BudgetConfig::default()
    };
    let ended = |minutes: &[i64]| -> Vec<Use> { minutes.iter().map(|m| begun("a", *m, false, false)).collect() };
    assert_eq!(check(&config, &ended(&[50, 61, 10]), &[ask("a", false)], NOW), Ok(1));
    assert_eq!(
        check(&config, &ended(&[50, 40, 10]), &[ask("a", false)], NOW),
        Err(OverBudget::Hourly {
            group: Group::Pod,
            most: 3,
            minutes: 11
        })
    );
    let running = [begun("a", 1, true, false), begun("a", 2, true, false)];
    assert_eq!(
        check(&config, &running, &[ask("a", false)], NOW),
        Err(OverBudget::Concurrent {
            group: Group::Pod,
            most: 2
        })
    );
    let elsewhere = running.map(|u| Use {
        cluster: "other".into(),
        ..u
    });
    assert_eq!(check(&config, &elsewhere, &[ask("a", false)], NOW), Ok(1));
}

#[test]
fn a_pod_holds_only_so_many_ephemeral_containers() {
    let full = Ask {
        containers: 30,
        ..ask("a", false)
    };
    let config = BudgetConfig::default();
    assert_eq!(
        check(&config, &[], std::slice::from_ref(&full), NOW),
        Err(OverBudget::Containers {
            pod: "a".into(),
            most: 30
        })
    );
    let by_api = Ask {
        adds_container: false,
        ..full
    };
    assert_eq!(check(&config, &[], &[by_api], NOW), Ok(1));
}

#[test]
fn many_targets_are_taken_in_a_few_turns_within_what_may_run_at_a_time() {
    let config = BudgetConfig::default();
    let names: Vec<String> = (0..201).map(|index| format!("pod-{index}")).collect();
    let asked: Vec<Ask> = names
        .iter()
        .map(|name| Ask {
            siblings: names.iter().cloned().collect(),
            ..ask(name, false)
        })
        .collect();
    assert_eq!(check(&config, &[], &asked[..20], NOW), Ok(20));
    assert_eq!(check(&config, &[], &asked[..200], NOW), Ok(20));
    let over = |group, most| Err(OverBudget::Concurrent { group, most });
    assert_eq!(check(&config, &[], &asked, NOW), over(Group::Workload, 20), "11 turns");
    // Beside what others run there is less room.
    let others = |count: usize| -> Vec<Use> { (0..count).map(|_| begun("foreign", 1, true, false)).collect() };
    assert_eq!(check(&config, &others(35), &asked[..20], NOW), Ok(5));
    assert_eq!(
        check(&config, &others(40), &asked[..1], NOW),
        over(Group::Namespace, 40)
    );
    let hourly = check(&config, &[], &[asked.as_slice(), &asked[..100]].concat(), NOW);
    assert!(hourly.is_err(), "no more in an hour than may");
}

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
        Ok(()),
        "nothing stands still"
    );
    assert_eq!(
        check(&config, &[begun("a", 1, false, true)], &[ask("b", true)], NOW),
        Ok(()),
        "it has ended"
    );
    let half = BudgetConfig {
        paused_percent: 70,
        ..config
    };
    assert_eq!(
        check(&half, &one, &[ask("b", true)], NOW),
        Ok(()),
        "two of three are 66 %"
    );
    // A request for several counts its own.
    assert_eq!(
        check(&config, &[], &[ask("a", true), ask("b", true)], NOW),
        Err(OverBudget::ReplicasPaused { most: 1, of: 3 })
    );
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
    assert_eq!(check(&config, &ended(&[50, 61, 10]), &[ask("a", false)], NOW), Ok(()));
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
    assert_eq!(check(&config, &elsewhere, &[ask("a", false)], NOW), Ok(()));
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
    assert_eq!(check(&config, &[], &[by_api], NOW), Ok(()));
}

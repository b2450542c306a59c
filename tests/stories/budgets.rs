//! How much is captured: people, schedules and triggers share one budget, a workload keeps replicas that do not stand still,
//! and a pod holds only so many of our containers.

use std::time::Duration;

use diagbot::runs::resource::{DiagnosticRun, Phase};
use diagbot_sandbox::{installation::Plan, wait};
use http::StatusCode;
use kube::api::ListParams;
use serde_json::json;

use crate::{
    product::{LEDGER, LONGEST, Product},
    schedules::saved,
    tools::{seconds_of_our_own, tool, until_processes},
    triggers,
};

/// A schedule's finest step is a minute.
const NEXT_MINUTE: Duration = Duration::from_secs(100);

/// The only run that this principal has asked for so far, once it has ended.
async fn run_of(product: &Product, user: &str) -> DiagnosticRun {
    let runs = &product.installation.runs();
    wait::until(LONGEST, "the trigger's run has ended", || async move {
        let all = runs.list(&ListParams::default()).await?.items;
        let mut of_user = all.into_iter().filter(|run| run.spec.requester.user == user);
        Ok(of_user.next().filter(|run| run.phase().is_final()))
    })
    .await
    .unwrap()
}

fn refused(run: &DiagnosticRun, words: &str) {
    let reason = run.status.as_ref().unwrap().reason.clone().unwrap();
    assert_eq!(run.phase(), Phase::Refused, "{reason:?}");
    assert!(reason.message.contains(words), "{reason:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_schedules_and_triggers_share_one_budget() {
    let product = Product::with(Plan {
        config: json!({ "budgets": { "pod": { "perHour": 3 } } }),
        ..Plan::default()
    })
    .await;
    // A person, and a trigger.
    let told = product.runs("process ledger").await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    let (status, answer) = triggers::alertmanager(&product, &triggers::slow_ledger()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let run = run_of(&product, "trigger:alertmanager").await;
    assert_eq!(run.phase(), Phase::Succeeded, "{:?}", run.status);
    // Two schedules of the same minute: there is room for one.
    for name in ["one", "two"] {
        saved(
            &product,
            &format!("schedule add {name} \"* * * * *\" process shop/ledger"),
        )
        .await;
    }
    let runs = &product.installation.runs();
    let scheduled = wait::until(NEXT_MINUTE, "both schedules were due", || async move {
        let all = runs.list(&ListParams::default()).await?.items;
        let due = |run: &DiagnosticRun| {
            run.spec
                .origin
                .cause
                .as_ref()
                .is_some_and(|c| c.source.starts_with("schedule "))
        };
        let due: Vec<DiagnosticRun> = all.into_iter().filter(due).collect();
        Ok((due.len() >= 2 && due.iter().all(|run| run.phase().is_final())).then_some(due))
    })
    .await
    .unwrap();
    let most = "3 captures of this pod were begun within an hour, and no more may be";
    let done = scheduled.iter().filter(|run| run.phase() == Phase::Succeeded);
    assert_eq!(done.count(), 1, "{scheduled:#?}");
    for run in scheduled.iter().filter(|run| run.phase() != Phase::Succeeded) {
        refused(run, most);
    }
    // From now on nobody gets one more, whoever asks, and each is told for how long.
    let told = product.runs("process ledger").await;
    assert_eq!(told.run.phase(), Phase::Refused, "{}", told.text());
    told.explains(most);
    told.says(&["Ask again in", "minutes"]);
    let body = triggers::incident("01EVENT", "PGR0VU2");
    let (status, answer) = triggers::pagerduty(&product, &body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    refused(&run_of(&product, "trigger:pagerduty").await, most);
    assert_eq!(product.ephemeral(LEDGER).await.len(), 3);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_holds_only_so_many_of_our_containers() {
    let product = Product::with(Plan {
        config: json!({ "budgets": { "ephemeralContainers": 2 } }),
        ..Plan::default()
    })
    .await;
    for _ in 0..2 {
        let told = product.runs("process ledger").await;
        assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    }
    let full = "holds 2 ephemeral containers, and no more may be added";
    let told = product.runs("process ledger").await;
    assert_eq!(told.run.phase(), Phase::Refused, "{}", told.text());
    told.explains(full);
    triggers::alertmanager(&product, &triggers::slow_ledger()).await;
    refused(&run_of(&product, "trigger:alertmanager").await, full);
    assert_eq!(product.ephemeral(LEDGER).await.len(), 2);
    // What takes no container has room.
    let told = product.runs("pod-report ledger").await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    product.stop().await;
}

/// Adds a workload of so many pods, `<name>-0`, …, each with the containers of `ledger`.
async fn workload(product: &Product, name: &str, replicas: usize) {
    let containers = product.pods().get(LEDGER).await.unwrap().spec.unwrap().containers;
    for n in 0..replicas {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{name}-{n}"), "namespace": "shop",
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": format!("uid-of-{name}"),
                    "controller": true,
                }],
            },
            "spec": { "containers": containers },
        });
        product.installation.kubernetes().add(pod).unwrap();
    }
    for n in 0..replicas {
        product.pod_runs(&format!("{name}-{n}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_workload_one_replica_or_a_share_stands_still_at_a_time() {
    let seconds = seconds_of_our_own("86013");
    let line = format!("sleep {seconds}");
    let words = ["timeout", "--foreground", "86000", "sleep", &seconds];
    let (file, text) = tool("halt", &words, "10m", "1MiB");
    let mut plan = Plan {
        diagnostics: vec![(file, text.replace("impact: none", "impact: pause"))],
        ..Plan::default()
    };
    plan.slack.rate_limited = false;
    let product = Product::with(plan).await;
    // As an installation has it: one replica or a quarter of them, whichever is more.
    workload(&product, "few", 3).await;
    workload(&product, "web", 8).await;
    let halt = |pod: &str| format!("halt shop/pod/{pod}");
    let mut standing = Vec::new();
    for pod in ["few-0", "web-0", "web-1"] {
        standing.push(product.asks(&halt(pod)).await);
        until_processes(&line, 2 * standing.len(), LONGEST).await;
    }
    for (pod, why) in [
        (
            "few-0",
            "Another capture makes `shop/few-0` stand still, and two never do at a time",
        ),
        (
            "few-1",
            "1 of the workload's 3 replicas may stand still at a time, and as many do",
        ),
        (
            "web-2",
            "2 of the workload's 8 replicas may stand still at a time, and as many do",
        ),
    ] {
        let told = product.runs(&halt(pod)).await;
        assert_eq!(told.run.phase(), Phase::Refused, "{pod}: {}", told.text());
        told.explains(why);
    }
    // What makes nothing stand still is taken from any of them.
    let told = product.runs("pod-report shop/pod/few-1").await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    // When one goes on, another may stand still.
    product.types(&format!("cancel {}", standing[1])).await;
    product.ended(&standing[1]).await;
    standing[1] = product.asks(&halt("web-2")).await;
    until_processes(&line, 2 * standing.len(), LONGEST).await;
    for run in standing {
        product.types(&format!("cancel {run}")).await;
        product.ended(&run).await;
    }
    product.stop().await;
}

//! How much is captured: people, schedules and triggers share one budget, a workload keeps replicas that do not stand still,
//! and a pod holds only so many of our containers.

use std::fs;

use diagbot_api::run::{DiagnosticRun, Phase};
use diagbot_sandbox::{installation::Plan, wait};
use http::StatusCode;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::{
    product::{LEDGER, LONGEST, Product},
    rotation::restart,
    schedules::{self, saved},
    tools::{seconds_of_our_own, tool, until_processes},
    triggers,
};

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
    let scheduled = schedules::were_due(&product, 2).await;
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
    product.add_stateful(name, replicas, &json!(containers));
    for n in 0..replicas {
        product.pod_runs(&format!("{name}-{n}")).await;
    }
}

/// A plan with the diagnostic `halt`, which makes its target stand still, and the command line of its processes.
fn halting(seconds: &str) -> (Plan, String) {
    let seconds = seconds_of_our_own(seconds);
    let words = ["timeout", "--foreground", "86000", "sleep", &seconds];
    let (file, text) = tool("halt", &words, "10m", "1MiB");
    let mut plan = Plan {
        diagnostics: vec![(file, text.replace("impact: none", "impact: pause"))],
        ..Plan::default()
    };
    plan.slack.rate_limited = false;
    (plan, format!("sleep {seconds}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_workload_one_replica_or_a_share_stands_still_at_a_time() {
    let (plan, line) = halting("86013");
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

/// The right to run `halt` in `shop`, for Alertmanager's principal.
fn halt_for_alertmanager() -> Vec<String> {
    let group = "rbac.authorization.k8s.io";
    let kind = |kind: &str| json!({ "apiVersion": format!("{group}/v1"), "kind": kind });
    let mut role = kind("Role");
    role["metadata"] = json!({ "name": "halt", "namespace": "shop" });
    role["rules"] = json!([{
        "apiGroups": ["diagbot.dev"], "resources": ["diagnostics"], "resourceNames": ["halt"], "verbs": ["run"],
    }]);
    let mut binding = kind("RoleBinding");
    binding["metadata"] = role["metadata"].clone();
    binding["roleRef"] = json!({ "apiGroup": group, "kind": "Role", "name": "halt" });
    binding["subjects"] = json!([{ "apiGroup": group, "kind": "User", "name": "trigger:alertmanager" }]);
    vec![role.to_string(), binding.to_string()]
}

/// Lets Alertmanager make targets stand still: an alert `Stuck` halts the pod that it names.
async fn alertmanager_may_halt(product: &mut Product) {
    let file = product.installation.bot_config(0);
    let mut settings: Value = serde_saphyr::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let source = &mut settings["triggers"]["sources"][0];
    source["mostImpact"] = json!("pause");
    source["rules"] = json!([{
        "name": "stuck", "when": { "labels": { "alertname": "Stuck" } }, "namespace": "shop",
        "target": "pod/${labels.pod}", "diagnostic": "halt",
    }]);
    fs::write(&file, settings.to_string()).unwrap();
    restart(product, 0).await;
}

/// Alertmanager tells that a pod is stuck.
async fn stuck(product: &Product, pod: &str, fingerprint: &str) {
    let alert = json!({ "version": "4", "alerts": [{
        "status": "firing", "fingerprint": fingerprint, "labels": { "alertname": "Stuck", "pod": pod },
    }] });
    let (status, answer) = triggers::alertmanager(product, &alert).await;
    assert_eq!(
        (status, &answer["alerts"][0]["outcome"]),
        (StatusCode::ACCEPTED, &json!("started")),
        "{answer}"
    );
}

/// The run of that cause and phase that is not among the known ones; it is known from then on.
async fn next(product: &Product, source: &str, phase: Phase, known: &mut Vec<String>) -> DiagnosticRun {
    let (runs, seen) = (&product.installation.runs(), &*known);
    let found = wait::until(schedules::LONGEST, &format!("{source}: {phase:?}"), || async move {
        let all = runs.list(&ListParams::default()).await?.items;
        let fits = |run: &DiagnosticRun| {
            let cause = run.spec.origin.cause.as_ref();
            cause.is_some_and(|cause| cause.source == source)
                && run.phase() == phase
                && !seen.contains(run.metadata.name.as_ref().unwrap())
        };
        Ok(all.into_iter().find(fits))
    })
    .await
    .unwrap();
    known.push(found.metadata.name.clone().unwrap());
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_makes_a_replica_stand_still_nobody_makes_another_stand_still_beside_it() {
    const ALERT: &str = "alertmanager";
    const SCHEDULE: &str = "schedule stop";
    let one_of_three = "1 of the workload's 3 replicas may stand still at a time, and as many do";
    let (mut plan, line) = halting("86014");
    plan.kubernetes.manifests = halt_for_alertmanager();
    let mut product = Product::with(plan).await;
    alertmanager_may_halt(&mut product).await;
    workload(&product, "few", 3).await;
    let mut known = Vec::new();
    let person = async |pod: &str, why: &str| {
        let told = product.runs(&format!("halt shop/pod/{pod}")).await;
        assert_eq!(told.run.phase(), Phase::Refused, "{pod}: {}", told.text());
        told.explains(why);
    };

    // A trigger holds one: neither a person nor a schedule gets another, nor anybody the same.
    stuck(&product, "few-0", "f0").await;
    until_processes(&line, 2, LONGEST).await;
    let held = next(&product, ALERT, Phase::Capturing, &mut known).await;
    person("few-1", one_of_three).await;
    person(
        "few-0",
        "Another capture makes `shop/few-0` stand still, and two never do at a time",
    )
    .await;
    saved(&product, "schedule add stop \"* * * * *\" halt shop/pod/few-1").await;
    refused(
        &next(&product, SCHEDULE, Phase::Refused, &mut known).await,
        one_of_three,
    );

    // The trigger's ends, the schedule's turn comes: now the trigger is refused, and the person still is.
    let id = held.name().unwrap().short();
    product.types(&format!("cancel {id}")).await;
    product.ended(&id).await;
    let held = next(&product, SCHEDULE, Phase::Capturing, &mut known).await;
    until_processes(&line, 2, LONGEST).await;
    stuck(&product, "few-2", "f2").await;
    refused(&next(&product, ALERT, Phase::Refused, &mut known).await, one_of_three);
    person("few-0", one_of_three).await;

    // What was refused left nothing in the pods: one container for each that stood still.
    product.types("schedule pause stop").await;
    let id = held.name().unwrap().short();
    product.types(&format!("cancel {id}")).await;
    product
        .run(&id, "the schedule's run has ended", |run| run.phase().is_final())
        .await;
    for (pod, containers) in [("few-0", 1), ("few-1", 1), ("few-2", 0)] {
        assert_eq!(product.ephemeral(pod).await.len(), containers, "{pod}");
    }
    until_processes(&line, 0, LONGEST).await;
    product.stop().await;
}

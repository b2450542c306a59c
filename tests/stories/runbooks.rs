//! Runbooks and many targets: several diagnostics of one pod in one container, and one diagnostic of many pods in one run.

use std::{collections::BTreeSet, fmt::Write as _, time::Instant};

use diagbot::runs::resource::{DiagnosticRun, Phase};
use diagbot_sandbox::installation::Plan;
use kube::api::ListParams;
use serde_json::json;

use crate::product::{BILLING, LEDGER, Product};

fn files(run: &DiagnosticRun) -> BTreeSet<String> {
    let captures = run.status.iter().flat_map(|status| &status.captures);
    captures
        .flat_map(|capture| &capture.artifacts)
        .map(|artifact| artifact.name.clone())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runbook_takes_its_steps_in_one_container_and_what_does_not_fit_is_left_out() {
    let product = Product::start().await;
    let list = product.types("list").await;
    assert!(
        list.contains("*Runbooks*") && list.contains("`first-response`"),
        "{list}"
    );
    let help = product.types("help jvm-hang").await;
    assert!(help.contains("`jstack`, 3 times, 5 s apart"), "{help}");

    let told = product.runs("first-response ledger").await;
    let status = told.run.status.as_ref().unwrap();
    assert_eq!(status.phase, Phase::Succeeded, "{}", told.text());
    let wanted = ["pod-report.txt", "process.txt", "sockets.txt"].map(str::to_owned);
    assert_eq!(files(&told.run), wanted.into());
    told.says(&[
        "*first-response* of `shop/ledger-6c7d5b9f4-q8w2k`",
        "jstack was left out: the container runs no process that it could look at",
    ]);
    assert_eq!(
        product.ephemeral(LEDGER).await.len(),
        1,
        "the steps share one container"
    );
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runbook_of_a_pod_that_crashes_brings_what_the_record_tells() {
    let product = Product::start().await;
    product.pod_waits(BILLING, "CrashLoopBackOff").await;
    let told = product.runs("crashloop billing").await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    assert_eq!(files(&told.run), ["pod-report.txt".to_owned()].into());

    let told = product.runs("jvm-hang billing").await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    told.says(&["Left out of `shop/billing-5f6b8c7d9-m4n7p`", "jstack"]);
    assert!(
        product.ephemeral(BILLING).await.is_empty(),
        "nothing is started beside it"
    );

    let refused = product.types("first-response ledger depth=3").await;
    assert!(refused.contains("no parameter `depth`"), "{refused}");
    product.stop().await;
}

/// Makes pods that carry the label `app=swarm`.
async fn swarm(product: &Product, count: usize) {
    for index in 0..count {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("swarm-{index:03}"), "namespace": "shop", "labels": { "app": "swarm" } },
            "spec": { "containers": [{ "name": "app", "image": "registry.sandbox/none" }] },
        });
        product.installation.kubernetes().add(pod).unwrap();
    }
    let listed = product.pods().list(&ListParams::default().labels("app=swarm")).await;
    assert_eq!(listed.unwrap().items.len(), count);
}

/// Everything of a run of `count` pods, and how it was: seconds, the bot's memory, objects.
async fn all_of_a_swarm(count: usize) -> String {
    let product = Product::with(Plan::default()).await;
    swarm(&product, count).await;
    let candidates = product.runs("pod-report -l app=swarm").await;
    candidates.says(&[&format!("fits {count} targets"), "--all"]);
    let begun = Instant::now();
    let told = product.runs("pod-report -l app=swarm -n shop --all").await;
    let took = begun.elapsed();
    let status = told.run.status.as_ref().unwrap();
    assert_eq!(status.phase, Phase::Succeeded, "{}", told.text());
    assert_eq!(status.captures.len(), count);
    assert!(status.captures.iter().all(|capture| capture.artifacts.len() == 1));
    told.says(&[&format!("{count} targets: {count} done.")]);
    let table = product
        .public()
        .await
        .into_iter()
        .find(|m| m.text.contains("✓ swarm-000"));
    let table = table.expect("a table in the thread");
    assert_eq!(table.thread_ts.as_deref(), Some(told.root.ts.as_str()));
    let mut report = format!("{count} pods in {:.1} s", took.as_secs_f64());
    for pid in product.installation.bot_pids() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap_or_default();
        write!(report, "; bot {pid}: {peak}").unwrap();
    }
    let record = serde_json::to_vec(&told.run).unwrap().len();
    write!(
        report,
        "; {} objects, a record of {record} bytes",
        product.objects().len()
    )
    .unwrap();
    product.stop().await;
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_of_a_label_are_one_run_and_one_table() {
    println!("{}", all_of_a_swarm(20).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "by hand: takes long, and prints what it took"]
async fn two_hundred_pods_are_one_run() {
    println!("{}", all_of_a_swarm(200).await);
}

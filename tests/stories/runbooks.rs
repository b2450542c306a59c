//! Runbooks and many targets: several diagnostics of one pod in one container, and one diagnostic of many pods in one run.

use std::{collections::BTreeSet, fmt::Write as _, process::Command, time::Instant};

use diagbot_api::run::{DiagnosticRun, Phase};
use diagbot_sandbox::{installation::Plan, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::product::{BILLING, LEDGER, LONGEST, Product, Told, json_of, link_in, open};

/// The pod of the JVM.
const CHECKOUT: &str = "checkout-7d9f8b6c5-x2x4z";
/// A second pod of the deployment `ledger`.
const HEALTHY: &str = "ledger-6c7d5b9f4-aaaaa";

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

/// Another pod of the same workload, with these containers.
fn replica(of: &Pod, name: &str, containers: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "labels": of.metadata.labels,
            "ownerReferences": of.metadata.owner_references,
        },
        "spec": { "containers": containers },
    })
}

/// Adds a second, healthy pod of the deployment `ledger`.
async fn replicate(product: &Product) {
    let sick = product.pods().get(LEDGER).await.unwrap();
    let containers = json!(sick.spec.as_ref().map(|spec| &spec.containers));
    let twin = replica(&sick, HEALTHY, &containers);
    product.installation.kubernetes().add(twin).unwrap();
    product.pod_runs(HEALTHY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runbook_with_a_healthy_control_looks_at_a_ready_replica_too() {
    let product = Product::start().await;
    replicate(&product).await;
    let told = product.runs(&format!("slow-network shop/pod/{LEDGER}")).await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    told.says(&[
        &format!("`shop/{HEALTHY}` is a healthy replica, to compare with."),
        "(healthy, to compare) – done: 4 files",
    ]);
    let wanted = [
        "1-sockets.txt",
        "2-sockets.txt",
        "3-sockets.txt",
        "pod-report.txt",
        "process.txt",
    ];
    assert_eq!(files(&told.run), wanted.map(str::to_owned).into());
    for pod in [LEDGER, HEALTHY] {
        assert_eq!(
            product.ephemeral(pod).await.len(),
            1,
            "{pod}: its steps share one container"
        );
    }
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_is_compared_with_a_healthy_replica() {
    let product = Product::start().await;
    replicate(&product).await;
    let sick = product.runs(&format!("process shop/pod/{LEDGER}")).await;
    let label = "Compare with a healthy replica";
    product.people.click("ada", "incidents", &sick.root.ts, label).await;
    let told = product.ended_in_thread(&sick.root.ts, "*Compared with*").await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    let compared = format!("*Compared with* `shop/{LEDGER}` (run `{}`)", sick.id);
    told.says(&[&compared, &format!("`shop/{HEALTHY}` is a healthy replica")]);
    assert_eq!(product.ephemeral(HEALTHY).await.len(), 1);

    product.pod_waits(BILLING, "CrashLoopBackOff").await;
    let sick = product.runs("pod-report billing").await;
    product.people.click("ada", "incidents", &sick.root.ts, label).await;
    let told = product.ended_in_thread(&sick.root.ts, "No other replica of").await;
    assert_eq!(told.run.phase(), Phase::Refused, "{}", told.text());
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a JDK"]
async fn a_hung_jvm_is_told_from_its_healthy_replica() {
    let product = Product::with_jvm(Plan::default()).await;
    product.pod_runs(CHECKOUT).await;
    let hung = product.pods().get(CHECKOUT).await.unwrap();
    let mut containers = json!(hung.spec.as_ref().unwrap().containers);
    containers[0]["args"] = json!(["--healthy"]);
    let twin = "checkout-7d9f8b6c5-aaaaa";
    product
        .installation
        .kubernetes()
        .add(replica(&hung, twin, &containers))
        .unwrap();
    product.pod_runs(twin).await;
    let hung = product.runs(&format!("jstack shop/pod/{CHECKOUT}")).await;
    assert_eq!(hung.run.phase(), Phase::Succeeded, "{}", hung.text());
    let label = "Compare with a healthy replica";
    product.people.click("ada", "incidents", &hung.root.ts, label).await;
    let told = product.ended_in_thread(&hung.root.ts, "*Compared with*").await;
    println!("{}", told.text());
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    let dump = told.downloads().await;
    assert!(!dump.contains("Java-level deadlock"), "{dump}");
    told.says(&[
        &format!("*Compared with* `shop/{CHECKOUT}` (run `{}`)", hung.id),
        &format!("`shop/{twin}` is a healthy replica"),
        "threads.txt, only the sick one: 1 deadlock",
    ]);
    product.stop().await;
}

/// Presses “Bundle” as a person; gives what only they see.
async fn bundles(product: &Product, person: &str, told: &Told) -> String {
    let before = product.messages("incidents").await.len();
    product.people.click(person, "incidents", &told.root.ts, "Bundle").await;
    let answer = wait::until(LONGEST, "the bundle is answered", || async {
        let new = product.messages("incidents").await.split_off(before);
        Ok(new.into_iter().find(|m| m.ephemeral && m.text.contains(&told.id)))
    });
    answer.await.unwrap().text
}

/// Opens the link in an answer and unpacks it as anybody would; gives the folder of the run.
async fn unpacked(answer: &str, told: &Told) -> (TempDir, Value) {
    let body = open(&link_in(answer).unwrap_or_else(|| panic!("no link: {answer}"))).await;
    assert!(answer.contains(&hex::encode(Sha256::digest(&body))), "{answer}");
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("bundle.tar"), &body).unwrap();
    let tar = Command::new("tar")
        .args(["-xf", "bundle.tar"])
        .current_dir(&folder)
        .status();
    assert!(tar.unwrap().success());
    let run = told.run.metadata.name.clone().unwrap();
    let manifest = json_of(&std::fs::read(folder.path().join(run).join("manifest.json")).unwrap());
    for file in manifest["files"].as_array().unwrap() {
        let bytes = std::fs::read(folder.path().join(file["path"].as_str().unwrap())).unwrap();
        assert_eq!(hex::encode(Sha256::digest(&bytes)), file["sha256"].as_str().unwrap());
    }
    (folder, manifest)
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_a_run_is_one_archive_with_a_manifest_for_who_may_read_it() {
    let product = Product::start().await;
    let told = product.runs("first-response ledger").await;
    let answer = bundles(&product, "ada", &told).await;
    for words in ["3 files and a manifest", "Proof: store-checked", "the link ends"] {
        assert!(answer.contains(words), "{words}: {answer}");
    }
    let (_folder, manifest) = unpacked(&answer, &told).await;
    assert_eq!(manifest["diagnostic"], "first-response");
    assert_eq!(manifest["files"].as_array().unwrap().len(), 3, "{manifest}");
    let archives = |product: &Product| {
        product
            .objects()
            .iter()
            .filter(|key| key.contains("/_bundles/"))
            .count()
    };
    assert_eq!(archives(&product), 2, "the archive and what describes it");

    let denied = bundles(&product, "linus", &told).await;
    assert!(
        denied.contains("You may not `read`") && link_in(&denied).is_none(),
        "{denied}"
    );
    let again = bundles(&product, "grace", &told).await;
    unpacked(&again, &told).await;
    assert_eq!(archives(&product), 2, "it was made once");
    let record = std::fs::read_to_string(product.installation.file("bot-0.record")).unwrap();
    assert_eq!(record.matches("\\\"what\\\":\\\"bundle\\\"").count(), 2, "{record}");

    // One file needs no bundle.
    let one = product.runs("process ledger").await;
    assert!(!one.text().contains("[Bundle]"), "{}", one.text());
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a JDK"]
async fn runbooks_of_a_real_jvm_take_every_step_in_one_container() {
    let product = Product::with_jvm(Plan::default()).await;
    product.pod_runs(CHECKOUT).await;
    let told = product.runs("jvm-hang checkout").await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    let status = told.run.status.as_ref().unwrap();
    let steps: Vec<&str> = status.captures[1].artifacts.iter().map(|a| a.name.as_str()).collect();
    println!("jvm-hang: {steps:?}");
    assert_eq!(
        steps.iter().filter(|name| name.contains("threads")).count(),
        3,
        "{steps:?}"
    );
    assert_eq!(product.ephemeral(CHECKOUT).await.len(), 1);

    let told = product.runs("jvm-memory checkout").await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    assert_eq!(product.ephemeral(CHECKOUT).await.len(), 2);
    let answer = bundles(&product, "ada", &told).await;
    assert!(answer.contains("*Sensitive:*"), "{answer}");
    let (_folder, manifest) = unpacked(&answer, &told).await;
    println!("{}", serde_json::to_string_pretty(&manifest).unwrap());
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
async fn all_of_a_swarm(count: usize, plan: Plan) -> String {
    let product = Product::with(plan).await;
    swarm(&product, count).await;
    let candidates = product.runs("pod-report -l app=swarm").await;
    candidates.says(&[&format!("fits {count} targets"), "--all"]);
    let begun = Instant::now();
    let id = product.asks("pod-report -l app=swarm -n shop --all").await;
    let told = product.ended_of(&id, u32::try_from(count).unwrap()).await;
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
    if let Some(most) = status.at_once {
        told.says(&[&format!("They are taken {most} at a time")]);
        write!(report, "; {most} at a time").unwrap();
    }
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
    println!("{}", all_of_a_swarm(20, Plan::default()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_targets_than_may_be_looked_at_at_a_time_take_turns() {
    let config = json!({ "budgets": { "namespace": { "concurrent": 5, "perHour": 300 } } });
    let plan = Plan {
        config,
        ..Plan::default()
    };
    let report = all_of_a_swarm(12, plan).await;
    assert!(report.contains("; 5 at a time"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "by hand: takes long, and prints what it took"]
async fn two_hundred_pods_are_one_run() {
    println!("{}", all_of_a_swarm(200, Plan::default()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_is_its_pods_by_their_owner_and_no_pod_that_only_begins_so() {
    let product = Product::start().await;
    let containers = json!([{ "name": "app", "image": "registry.sandbox/none" }]);
    product.add_stateful("web", 2, &containers);
    product.add_stateful("web-api", 1, &containers);
    let several = product.runs("pod-report shop/sts/web").await;
    assert_eq!(several.run.phase(), Phase::Refused, "{}", several.text());
    several.says(&["fits 2 targets", "web-0", "web-1"]);
    let told = product.runs("pod-report shop/sts/web --all").await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    let captures = &told.run.status.as_ref().unwrap().captures;
    let taken: Vec<(&str, Option<&str>)> = captures
        .iter()
        .map(|capture| (capture.target.pod.as_str(), capture.workload.as_deref()))
        .collect();
    assert_eq!(
        taken,
        [("web-0", Some("statefulset/web")), ("web-1", Some("statefulset/web"))]
    );
    product.stop().await;
}

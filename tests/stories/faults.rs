//! Faults: whatever breaks meanwhile, a request is one run that ends once, with one artifact or one explanation.

use std::time::Duration;

use diagbot_api::{
    capture::CapturePhase,
    run::{DiagnosticRun, Phase},
};
use diagbot_sandbox::{
    installation::Plan,
    kubernetes::{Fault, FaultKind},
    slack::{RedeliveredEnvelope, Redelivery},
};
use serde_json::json;

use crate::{
    cluster_faults::{GOES, RESTARTS},
    product::{LEDGER, Product, Told, pull_fault},
};

const AGENT: &str = "registry.sandbox/diagbot-agent";

/// A plan in which the agent's image takes so long to arrive.
fn slowly(millis: u64) -> Plan {
    let mut plan = Plan::default();
    plan.kubernetes
        .faults
        .push(pull_fault(FaultKind::SlowPull { millis }, AGENT, 1));
    plan
}

fn launching(run: &DiagnosticRun) -> bool {
    let captures = run.status.iter().flat_map(|status| &status.captures);
    captures
        .into_iter()
        .any(|capture| capture.phase == CapturePhase::Launching)
}

/// One container, one artifact with its two records, nothing open.
async fn assert_captured_once(product: &Product, told: &Told) {
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    told.downloads().await;
    assert_eq!(product.ephemeral(LEDGER).await.len(), 1);
    assert_eq!(product.objects().len(), 3, "{:?}", product.objects());
    assert!(product.open_uploads().is_empty(), "{:?}", product.open_uploads());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_delivered_several_times_is_one_run() {
    let mut plan = Plan::default();
    plan.slack.ack_limit = Duration::from_millis(800);
    plan.slack.interaction_redelivery = vec![Redelivery {
        after: Duration::from_millis(900),
        envelope: RedeliveredEnvelope::New,
    }];
    let product = Product::with(plan).await;
    product
        .people
        .fault("slash_commands", "duplicate_same_envelope", 1)
        .await;
    product
        .people
        .fault("slash_commands", "duplicate_new_envelope", 1)
        .await;
    let told = product.runs("process ledger").await;
    assert_captured_once(&product, &told).await;
    assert_eq!(product.recorded().await, 1);

    product.people.fault("slash_commands", "lost_ack", 1).await;
    let lost = json!({ "user": "ada", "channel": "incidents", "text": "/diag sockets ledger" });
    let lost = product.people.act("command", lost).await;
    assert_eq!(lost["delivered"], false, "{lost}");
    let messages = product.people.reads("incidents", "*sockets* of").await;
    let root = messages.iter().find(|m| m.text.contains("*sockets* of")).unwrap();
    let footer = root.text.split("· run ").last().unwrap_or_default();
    product.ended(&crate::product::run_in(footer).unwrap()).await;
    // Two commands, two repetitions of the first and one of the second.
    product.people.acknowledges("slash_commands", 4).await;
    assert_eq!(product.recorded().await, 2);
    assert_eq!(product.public().await.len(), 2);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_slack_does_meanwhile_there_is_one_message_and_it_ends_right() {
    let product = Product::start().await;
    for (method, kind) in [
        ("chat.postMessage", "status_500"),
        ("chat.postMessage", "rate_limited"),
        ("chat.postMessage", "lost_answer"),
        ("chat.update", "lost_answer"),
        ("chat.update", "rate_limited"),
        ("chat.update", "error:msg_blocks_too_long"),
    ] {
        product.people.fault(method, kind, 1).await;
    }
    let told = product.runs("process ledger").await;
    assert_eq!(told.run.phase(), Phase::Succeeded);
    told.says(&["State: *done*"]);
    assert_eq!(product.public().await.len(), 1);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_bot_is_no_member_the_evidence_comes_directly() {
    let product = Product::start().await;
    let answer = product.people.command("ada", "random", "process ledger").await;
    let told = product
        .ended_in(&crate::product::run_in(&answer).unwrap(), "@ada")
        .await;
    told.says(&["/invite", "State: *done*"]);
    told.downloads().await;
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_cluster_does_meanwhile_the_capture_is_made_once() {
    let product = Product::start().await;
    let strikes = [
        (FaultKind::LostAnswer, "create", "diagnosticcaptures"),
        (FaultKind::LostAnswer, "patch", "pods/ephemeralcontainers"),
        (FaultKind::InternalError, "list", "pods"),
        (FaultKind::TooManyRequests, "create", "subjectaccessreviews"),
        (FaultKind::LogCut { after_bytes: 40 }, "get", "pods/log"),
    ];
    for (kind, verb, resource) in strikes {
        product
            .installation
            .kubernetes()
            .arm(Fault::of(kind).on(verb, resource));
    }
    let told = product.runs("process ledger").await;
    assert_captured_once(&product, &told).await;
    product.cluster_faults_struck("one run").await;
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled_is_told_while_it_lasts_and_then_with_what_to_do() {
    let mut plan = Plan::default();
    plan.kubernetes
        .faults
        .push(pull_fault(FaultKind::PullFails, AGENT, u32::MAX));
    plan.config = json!({ "agent": { "launchLimitS": 4 } });
    let product = Product::with(plan).await;
    let id = product.asks("process ledger").await;
    product.people.reads("incidents", "ImagePull").await;
    let told = product.ended(&id).await;
    assert_eq!(told.run.phase(), Phase::Failed, "{}", told.text());
    told.explains_as("ImagePull", "The node could not pull the agent's image");
    assert!(product.objects().is_empty() && product.open_uploads().is_empty());
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_vanishes_and_a_target_that_restarts_are_told_apart() {
    for (action, codes, cause) in [("replace", GOES, "The pod is"), ("restart", RESTARTS, "The container ")] {
        let product = Product::with(slowly(2_000)).await;
        let id = product.asks("process ledger").await;
        product.run(&id, "the container waits for its image", launching).await;
        product.operate(LEDGER, action).await;
        let told = product.ended(&id).await;
        assert_eq!(told.run.phase(), Phase::Failed, "{action}: {}", told.text());
        assert!(
            codes.contains(&told.code()),
            "{action}: {}: {}",
            told.code(),
            told.text()
        );
        told.explains(cause);
        assert!(product.objects().is_empty(), "{action}: {:?}", product.objects());
        assert!(
            product.open_uploads().is_empty(),
            "{action}: {:?}",
            product.open_uploads()
        );
        product.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_is_named_and_nothing_is_called_done() {
    let plan = Plan {
        config: json!({ "store": { "bucket": "elsewhere" } }),
        ..Plan::default()
    };
    let product = Product::with(plan).await;
    let told = product.runs("process ledger").await;
    assert_eq!(told.run.phase(), Phase::Failed, "{}", told.text());
    told.explains_as("Store", "The store did not take the artifact");
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_a_way_to_the_store_hands_its_evidence_to_the_bot() {
    let plan = Plan {
        config: json!({ "store": { "endpointForPods": "http://127.0.0.1:1" } }),
        ..Plan::default()
    };
    let product = Product::with(plan).await;
    let told = product.runs("process ledger").await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    told.downloads().await;
    assert!(product.open_uploads().is_empty(), "{:?}", product.open_uploads());
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_is_killed_in_the_middle_finishes_what_it_began_once() {
    let mut product = Product::with(slowly(2_000)).await;
    let id = product.asks("process ledger").await;
    product.run(&id, "the container waits for its image", launching).await;
    product.installation.restart_bot(0).await.unwrap();
    let told = product.ended(&id).await;
    assert_captured_once(&product, &told).await;
    assert_eq!(product.public().await.len(), 1);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_replicas_either_takes_requests_and_one_captures() {
    let mut plan = slowly(2_000);
    plan.replicas = 2;
    let mut product = Product::with(plan).await;
    product
        .people
        .fault("slash_commands", "duplicate_new_envelope", 1)
        .await;
    let id = product.asks("process ledger").await;
    product.run(&id, "the container waits for its image", launching).await;
    product.installation.restart_bot(0).await.unwrap();
    let told = product.ended(&id).await;
    assert_captured_once(&product, &told).await;
    assert_eq!(product.recorded().await, 1);
    assert_eq!(product.public().await.len(), 1);
    product.stop().await;
}

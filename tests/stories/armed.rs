//! "On the next restart": armed once, seen, captured once, or over.

use diagbot_api::run::{DiagnosticRun, Phase};
use diagbot_sandbox::{installation::Plan, wait};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::{Api, api::DeleteParams};
use serde_json::json;

use crate::{
    permission_rules::give,
    product::{LEDGER, LONGEST, Product, run_in},
};

/// Whether the run was permitted and has counted the restarts so far.
fn is_waiting(run: &DiagnosticRun) -> bool {
    run.status.as_ref().is_some_and(|status| status.armed.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_restart_is_captured_once_and_told_in_the_thread_of_the_arming() {
    let plan = Plan {
        replicas: 2,
        ..Plan::default()
    };
    let mut product = Product::with(plan).await;
    let id = product.asks("arm process shop/deploy/ledger --for 1h").await;
    product.run(&id, "the restarts are counted", is_waiting).await;
    product
        .people
        .reads("incidents", "State: *armed*: waits for the next restart")
        .await;
    let listed = product.types("runs").await;
    assert!(listed.contains(&id) && listed.contains("armed"), "{listed}");
    // Who knew of it is gone; the record is not.
    for replica in 0..2 {
        product.installation.restart_bot(replica).await.unwrap();
    }
    assert!(product.ephemeral(LEDGER).await.is_empty());
    let kubernetes = product.installation.kubernetes();
    kubernetes.restart_container("shop", LEDGER, None).unwrap();
    let told = product.ended(&id).await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{:?}", told.run.status);
    told.says(&["was restarted", "process.txt"]);
    assert_eq!(
        (product.public().await.len(), product.ephemeral(LEDGER).await.len()),
        (1, 1)
    );
    assert_eq!(product.recorded().await, 1);

    let id = product.asks("arm process shop/deploy/ledger --for 2s").await;
    let told = product.ended(&id).await;
    assert_eq!(told.run.phase(), Phase::Expired);
    told.says(&["was not restarted in the time"]);
    let id = product.asks("arm process shop/deploy/nothing").await;
    assert_eq!(product.ended(&id).await.run.phase(), Phase::Refused);
    assert_eq!(product.ephemeral(LEDGER).await.len(), 1);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_arm_hears_so_at_once() {
    let product = Product::start().await;
    let text = "arm heap-dump shop/deploy/ledger --for 1h";
    let answer = product.people.command("grace", "incidents", text).await;
    let told = product.ended(&run_in(&answer).unwrap()).await;
    assert_eq!(told.run.phase(), Phase::Denied, "{}", told.text());
    told.explains("You may not `run` the diagnostic `heap-dump` in namespace `shop`");
    told.says(&["`diagnostics.diagbot.dev`"]);
    assert!(
        told.run.status.as_ref().unwrap().armed.is_none(),
        "nothing is waited for"
    );

    assert!(product.ephemeral(LEDGER).await.is_empty());
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_right_after_arming_is_denied_when_it_would_have_begun() {
    let product = Product::start().await;
    let id = product.asks("arm process shop/deploy/ledger --for 1h").await;
    product.run(&id, "the restarts are counted", is_waiting).await;
    // Pods may still be named to the person, and nothing may be run any more.
    let list = json!({ "apiGroups": ["diagbot.dev"], "resources": ["diagnostics"], "verbs": ["list"] });
    give(&product, "looks-only", "U0ADA00001", list).await;
    let bindings: Api<RoleBinding> = Api::namespaced(product.installation.runs().into_client(), "shop");
    for binding in ["sre", "oncall", "diagbot-developers"] {
        bindings.delete(binding, &DeleteParams::default()).await.unwrap();
    }
    // An answer is remembered for seconds: the right is gone once it is denied elsewhere. A draft takes nothing.
    wait::until(LONGEST, "the right is gone", || async {
        let answer = product
            .types("schedule add draft \"0 3 * * *\" process shop/deploy/ledger")
            .await;
        Ok(answer.contains("You may not").then_some(()))
    })
    .await
    .unwrap();
    let kubernetes = product.installation.kubernetes();
    kubernetes.restart_container("shop", LEDGER, None).unwrap();
    let told = product.ended(&id).await;
    assert_eq!(told.run.phase(), Phase::Denied, "{}", told.text());
    told.explains("You may not `run` the diagnostic `process` in namespace `shop`");
    told.says(&["was restarted"]);
    assert!(product.ephemeral(LEDGER).await.is_empty());
    product.stop().await;
}

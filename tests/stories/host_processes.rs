//! A pod that shares the processes of its node: nothing is started in it, and people are told why and what works there.

use diagbot_api::run::Phase;
use serde_json::{Value, json};

use crate::product::Product;

/// A pod with this `hostPID`, which is equal otherwise.
fn pod(name: &str, host_pid: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "shop" },
        "spec": {
            "hostPID": host_pid,
            "securityContext": { "runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000 },
            "containers": [{ "name": "ledger", "image": "registry.sandbox/ledger:1" }],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_shares_its_nodes_processes_is_refused() {
    let product = Product::start().await;
    for (name, host_pid) in [("watcher", true), ("neighbour", false)] {
        product.installation.kubernetes().add(pod(name, host_pid)).unwrap();
        product.pod_runs(name).await;
    }
    let refused = product.runs("process shop/pod/watcher").await;
    assert_eq!(refused.run.phase(), Phase::Refused, "{}", refused.text());
    assert_eq!(refused.code(), "HostProcesses");
    refused.explains("shares the processes of its node (`hostPID`)");
    refused.says(&["`pod-report shop/watcher` works for it"]);
    assert!(product.ephemeral("watcher").await.is_empty() && product.objects().is_empty());
    // What is proposed works.
    let report = product.runs("pod-report shop/watcher").await.downloads().await;
    assert!(report.contains("Pod report of shop/watcher"), "{report}");
    // hostPID alone makes the difference.
    let taken = product.runs("process shop/pod/neighbour").await;
    assert_eq!(taken.run.phase(), Phase::Succeeded, "{}", taken.text());
    assert_eq!(product.ephemeral("neighbour").await.len(), 1);
    product.stop().await;
}

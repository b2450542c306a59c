//! Faults: what a client can be put through.

use std::time::Duration;

use diagbot_sandbox::{
    kubernetes::{Fault, FaultKind},
    wait::until,
};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api,
    api::{AttachParams, LogParams, PostParams},
};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::{LEDGER, client, code, container_when, server, within};

fn fault(kind: FaultKind, resource: &str) -> Fault {
    Fault {
        resource: Some(resource.to_owned()),
        ..Fault::of(kind)
    }
}

#[tokio::test]
async fn a_lost_answer_leaves_the_object_behind() {
    let server = server().await;
    let maps: Api<ConfigMap> = Api::namespaced(client(&server, "admin").await, "shop");
    let map: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": "once" } })).expect("a config map");
    server.arm(fault(FaultKind::LostAnswer, "configmaps"));
    let lost = maps.create(&PostParams::default(), &map).await.expect_err("no answer");
    assert!(!matches!(lost, kube::Error::Api(_)), "{lost}");
    let again = maps
        .create(&PostParams::default(), &map)
        .await
        .expect_err("it was made the first time");
    assert_eq!(code(&again), 409);
    server.arm(fault(FaultKind::TooManyRequests, "configmaps"));
    assert_eq!(code(&maps.get("once").await.expect_err("throttled")), 429);
    maps.get("once").await.expect("once only");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_early_has_no_status_and_a_log_can_be_cut() {
    let server = server().await;
    let pods: Api<Pod> = Api::namespaced(client(&server, "admin").await, "shop");
    container_when(&pods, LEDGER, "ledger", "running").await;
    server.arm(fault(FaultKind::StreamEndsEarly { after_bytes: 5 }, "pods/exec"));
    let stream = AttachParams::default().stderr(false);
    let mut process = pods
        .exec(LEDGER, ["echo", "0123456789"], &stream)
        .await
        .expect("started");
    let status = process.take_status().expect("a status");
    let mut text = String::new();
    within(
        "the cut output",
        process.stdout().expect("stdout").read_to_string(&mut text),
    )
    .await
    .expect("read");
    assert_eq!(text, "01234");
    assert!(
        within("the end", status).await.is_none(),
        "a truncated stream has no status"
    );

    // A fault on a log that is still empty would cut nothing.
    let first_line = until(Duration::from_mins(1), "the workload has written", || async {
        let log = pods.logs(LEDGER, &LogParams::default()).await?;
        Ok(log.starts_with("ledger: listening on").then_some(()))
    });
    first_line.await.expect("a first line");
    server.arm(fault(FaultKind::LogCut { after_bytes: 3 }, "pods/log"));
    pods.logs(LEDGER, &LogParams::default())
        .await
        .expect_err("the connection was dropped");
    let whole = pods.logs(LEDGER, &LogParams::default()).await.expect("whole again");
    assert!(whole.starts_with("ledger: listening on"), "{whole}");
    server.stop().await;
}

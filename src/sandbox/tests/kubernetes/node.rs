//! The node: containers as processes, beside each other as on a real node.

use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api,
    api::{AttachParams, DeleteParams, ListParams, LogParams},
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{LEDGER, add_ephemeral, client, code, container_when, pod_when, server, within};

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_container_sees_its_targets_processes_and_takes_lines_on_stdin() {
    let server = server().await;
    let pods: Api<Pod> = Api::namespaced(client(&server, "bot").await, "shop");
    container_when(&pods, LEDGER, "ledger", "running").await;
    let script = "cat /proc/1/cmdline | tr '\\0' ' '; echo; read a; echo got $a; read b; echo got $b; printf rest";
    let container = json!({
        "name": "diag-1", "image": "busybox", "targetContainerName": "ledger", "stdin": true,
        "command": ["sh", "-c", script],
        "securityContext": { "runAsUser": 1000, "capabilities": { "drop": ["ALL"] }, "allowPrivilegeEscalation": false },
    });
    add_ephemeral(&pods, LEDGER, container.clone()).await.expect("accepted");
    add_ephemeral(&pods, LEDGER, container)
        .await
        .expect("the same again is a no-op");
    let status = container_when(&pods, LEDGER, "diag-1", "running").await;
    assert!(
        status["containerID"]
            .as_str()
            .is_some_and(|id| id.starts_with("sandbox://") && id.len() == 74),
        "{status}"
    );

    let follow = LogParams {
        container: Some("diag-1".to_owned()),
        follow: true,
        ..LogParams::default()
    };
    let mut log = pods.log_stream(LEDGER, &follow).await.expect("a log").lines();
    let mut line = async || {
        within("a line", log.try_next())
            .await
            .expect("a log")
            .expect("one more line")
    };
    assert!(line().await.contains("workload ledger"), "it sees the target as PID 1");

    // stdinOnce is false: the first client may go, the second still delivers.
    for (text, answer) in [("one\n", "got one"), ("two\n", "got two")] {
        let stream = AttachParams::default()
            .container("diag-1")
            .stdin(true)
            .stdout(true)
            .stderr(false);
        let mut attached = pods.attach(LEDGER, &stream).await.expect("attached");
        let mut stdin = attached.stdin().expect("stdin");
        stdin.write_all(text.as_bytes()).await.expect("written");
        stdin.flush().await.expect("flushed");
        assert_eq!(line().await, answer);
    }
    assert_eq!(line().await, "rest", "an unterminated line comes with the end");
    let status = container_when(&pods, LEDGER, "diag-1", "terminated").await;
    assert_eq!(status["state"]["terminated"]["exitCode"], 0);
    // In a user namespace every uid is ours, which is 0 there.
    assert!(status["user"]["linux"]["uid"].is_u64(), "{status}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_carries_bytes_both_ways_and_tells_the_exit_code() {
    let server = server().await;
    let pods: Api<Pod> = Api::namespaced(client(&server, "admin").await, "shop");
    container_when(&pods, LEDGER, "ledger", "running").await;
    let stream = AttachParams::default()
        .stdin(true)
        .stdout(true)
        .stderr(false)
        .max_stdout_buf_size(64 * 1024);
    let mut process = pods
        .exec(LEDGER, ["sh", "-c", "cat; exit 3"], &stream)
        .await
        .expect("started");
    let sent: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut stdin, mut stdout) = (process.stdin().expect("stdin"), process.stdout().expect("stdout"));
    let status = process.take_status().expect("a status");
    let write = async {
        stdin.write_all(&sent).await.expect("written");
        stdin.shutdown().await.expect("closed");
    };
    let mut received = Vec::new();
    let read = stdout.read_to_end(&mut received);
    let ((), read) = within("both ways", async { tokio::join!(write, read) }).await;
    read.expect("read");
    assert!(
        received == sent,
        "{} of {} bytes came back, or others",
        received.len(),
        sent.len()
    );
    let status = within("a status", status).await.expect("a status came");
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_target_is_restarted_and_takes_its_ephemeral_containers_with_it() {
    let server = server().await;
    let pods: Api<Pod> = Api::namespaced(client(&server, "admin").await, "shop");
    let before = container_when(&pods, LEDGER, "ledger", "running").await;
    let container = json!({
        "name": "diag-1", "image": "busybox", "targetContainerName": "ledger", "command": ["sleep", "600"],
    });
    add_ephemeral(&pods, LEDGER, container).await.expect("accepted");
    container_when(&pods, LEDGER, "diag-1", "running").await;
    server.restart_container("shop", LEDGER, None).expect("killed");
    let after = pod_when(&pods, LEDGER, "the restart", |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        status["restartCount"] == 1 && !status["state"]["running"].is_null()
    })
    .await;
    let after = &after["status"]["containerStatuses"][0];
    assert_ne!(after["containerID"], before["containerID"]);
    assert_eq!(after["lastState"]["terminated"]["exitCode"], 137);
    if server.isolation().contains("own PID") {
        let ended = container_when(&pods, LEDGER, "diag-1", "terminated").await;
        assert_eq!(ended["state"]["terminated"]["exitCode"], 137);
    }

    pods.delete(LEDGER, &DeleteParams::default()).await.expect("deleted");
    let gone = kube::runtime::wait::await_condition(pods.clone(), LEDGER, |pod: Option<&Pod>| pod.is_none());
    within("the end of the pod", Box::pin(gone)).await.expect("a watch");
    let others = async {
        loop {
            let listed = pods
                .list(&ListParams::default().labels("app=ledger"))
                .await
                .expect("a list");
            if let Some(pod) = listed.items.first() {
                return pod.metadata.name.clone().unwrap_or_default();
            }
            tokio::task::yield_now().await;
        }
    };
    let successor = within("a successor", others).await;
    assert!(
        successor.starts_with("ledger-6c7d5b9f4-") && successor != LEDGER,
        "{successor}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jvm_runs_where_there_is_a_jdk_and_says_so_where_there_is_none() {
    let server = server().await;
    let pods: Api<Pod> = Api::namespaced(client(&server, "admin").await, "shop");
    let name = "checkout-7d9f8b6c5-x2x4z";
    let settled = pod_when(&pods, name, "a JVM, or none", |pod| {
        let state = &pod["status"]["containerStatuses"][0]["state"];
        !state["running"].is_null() || state["waiting"]["reason"] == "CreateContainerError"
    })
    .await;
    let state = &settled["status"]["containerStatuses"][0]["state"];
    if state["running"].is_null() {
        assert_eq!(state["waiting"]["message"], "no java on this machine");
    } else {
        let follow = LogParams {
            follow: true,
            ..LogParams::default()
        };
        let mut log = pods.log_stream(name, &follow).await.expect("a log").lines();
        within("the JVM is ready", async {
            while let Some(line) = log.try_next().await.expect("a log") {
                if line == "checkout: ready" {
                    return;
                }
            }
            panic!("the JVM ended");
        })
        .await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_has_previous_logs_and_an_unknown_image_has_none() {
    let server = server().await;
    let pods: Api<Pod> = Api::namespaced(client(&server, "admin").await, "shop");
    let billing = "billing-5f6b8c7d9-m4n7p";
    pod_when(&pods, billing, "the crash loop", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    })
    .await;
    let previous = LogParams {
        previous: true,
        tail_lines: Some(1),
        ..LogParams::default()
    };
    let log = pods.logs(billing, &previous).await.expect("a previous log");
    assert_eq!(
        log,
        "billing: fatal: tariffs.yaml: line 14: unknown currency \"EURO\"\n"
    );

    let container = json!({ "name": "diag-1", "image": "localhost/nope:1", "targetContainerName": "ledger" });
    container_when(&pods, LEDGER, "ledger", "running").await;
    add_ephemeral(&pods, LEDGER, container)
        .await
        .expect("accepted all the same");
    pod_when(&pods, LEDGER, "the failed pull", |pod| {
        pod["status"]["ephemeralContainerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff"
    })
    .await;
    let of_it = LogParams {
        container: Some("diag-1".to_owned()),
        ..LogParams::default()
    };
    let refused = pods.logs(LEDGER, &of_it).await.expect_err("no log");
    assert_eq!(code(&refused), 400);
    let events: Api<Event> = Api::namespaced(client(&server, "admin").await, "shop");
    let of_pod = ListParams::default().fields(&format!("involvedObject.name={LEDGER},reason=Failed"));
    let events = events.list(&of_pod).await.expect("events");
    let words: Vec<String> = events.items.into_iter().filter_map(|e| e.message).collect();
    assert!(words.iter().any(|w| w == "Error: ErrImagePull"), "{words:?}");
    server.stop().await;
}

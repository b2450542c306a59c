//! The captures controller against a kubelet: container, meeting, upload, relay, recovery. `KUBECONFIG` names the cluster;
//! the images are on its node; `DIAGBOT_E2E_AGENT_IMAGE` names the agent's by digest.

mod neighbours;
#[allow(dead_code, reason = "shared with the stories on the sandbox")]
mod steps;
mod world;

use std::time::Duration;

use diagbot_api::capture::{CapturePhase, IdentitySource, Proof};
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use steps::Step;
use world::{Staging, World, eventually};

const JDK: &str = "localhost/jdk:17";

fn jvm(security: &serde_json::Value) -> serde_json::Value {
    json!({"containers": [{
        "name": "app", "image": JDK, "imagePullPolicy": "Never", "securityContext": security,
        "command": ["java", "-Xmx256m", "-cp", "/app", "Checkout"],
    }]})
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs cluster (KUBECONFIG)"]
async fn a_thread_dump_of_a_jvm_is_uploaded_by_the_pod_and_verified() {
    let world = World::start(Staging::default()).await;
    for (name, security) in [
        ("user", json!({"runAsUser": 1000, "runAsGroup": 1000})),
        ("root", json!({"runAsUser": 0})),
    ] {
        let target = world.pod(name, jvm(&security)).await;
        let capture = world.ask(target, &[Step::Jstack]).await;
        let status = world.end(&capture).await;
        assert_eq!(status.phase, CapturePhase::Succeeded);
        assert_eq!(status.attempt, 1);
        assert_eq!(status.identity.map(|i| i.source), Some(IdentitySource::Status));
        let artifact = &status.artifacts[0];
        assert_eq!(artifact.proof, Proof::StoreChecked);
        let text = String::from_utf8(world.read(artifact).await).expect("text");
        assert!(text.contains("Full thread dump"), "{text}");
        let manifest = world.manifest(artifact).await;
        assert_eq!(manifest["container"]["name"], json!(status.container));
        assert_eq!(manifest["artifacts"][0]["sha256"], json!(artifact.sha256));
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs cluster (KUBECONFIG)"]
async fn the_process_is_found_wherever_it_is_and_looked_at_as_its_own_user() {
    let world = World::start(Staging {
        labels: vec![("pod-security.kubernetes.io/enforce", "baseline")],
        ..Staging::default()
    })
    .await;
    let java = "exec java -Xmx256m -cp /app Checkout";
    let container = |command: serde_json::Value, security: serde_json::Value| json!({"name": "app", "image": JDK, "imagePullPolicy": "Never", "command": command, "securityContext": security});
    // The container's user is root, the process's is not: only the agent's look tells.
    let drops = container(
        json!([
            "/bin/busybox",
            "su",
            "-s",
            "/bin/sh",
            "app",
            "-c",
            "exec /usr/local/bin/java -cp /app Checkout"
        ]),
        json!({"runAsUser": 0}),
    );
    let behind_a_shell = container(
        json!(["/bin/busybox", "sh", "-c", java.replace("exec", "") + " & wait"]),
        json!({}),
    );
    let shared = container(json!(["java", "-Xmx256m", "-cp", "/app", "Checkout"]), json!({}));
    for (name, spec, attempt) in [
        ("drops", json!({"containers": [drops]}), 2),
        ("shell", json!({"containers": [behind_a_shell]}), 1),
        (
            "shared",
            json!({"shareProcessNamespace": true, "containers": [shared]}),
            1,
        ),
    ] {
        let target = world.pod(name, spec).await;
        let capture = world.ask(target, &[Step::Jstack]).await;
        let status = world.end(&capture).await;
        assert_eq!(status.phase, CapturePhase::Succeeded, "{name}: {:?}", status.reason);
        assert_eq!(status.attempt, attempt, "{name}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs cluster (KUBECONFIG)"]
async fn pod_security_decides_and_its_words_are_passed_on() {
    let world = World::start(Staging {
        labels: vec![("pod-security.kubernetes.io/enforce", "restricted")],
        ..Staging::default()
    })
    .await;
    let restricted = json!({
        "runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}, "readOnlyRootFilesystem": true,
    });
    let target = world.pod("app", jvm(&restricted)).await;
    let capture = world.ask(target.clone(), &[Step::Process]).await;
    let status = world.end(&capture).await;
    assert_eq!(status.phase, CapturePhase::Succeeded, "{:?}", status.reason);
    let capture = world.ask(target, &[Step::Jstack]).await;
    let status = world.end(&capture).await;
    assert_eq!(status.reason.map(|r| r.code).as_deref(), Some("ReadOnlyFileSystem"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs cluster (KUBECONFIG)"]
async fn a_heap_dump_of_many_parts_goes_either_way() {
    // Random bytes: the JVM's compression makes them no smaller, so that the parts outnumber the ticket's URLs.
    let program = "class R { public static void main(String[] a) throws Exception { byte[][] b = new byte[150][1 << 20]; \
                   var r = new java.util.Random(1); for (var x : b) r.nextBytes(x); \
                   new java.io.File(\"/tmp/ready\").createNewFile(); Thread.sleep(1 << 30); } }";
    let start = format!("echo '{program}' > /tmp/R.java; exec java -Xmx400m /tmp/R.java");
    let spec = json!({"containers": [{
        "name": "app", "image": JDK, "imagePullPolicy": "Never", "command": ["/bin/busybox", "sh", "-c", start],
        "startupProbe": {"periodSeconds": 1, "failureThreshold": 60,
                         "exec": {"command": ["/bin/busybox", "test", "-f", "/tmp/ready"]}},
    }]});
    for store_out_of_reach in [false, true] {
        let world = World::start(Staging {
            store_out_of_reach,
            ..Staging::default()
        })
        .await;
        let target = world.pod("app", spec.clone()).await;
        let capture = world.ask(target, &[Step::HeapDump]).await;
        let status = world.end(&capture).await;
        assert_eq!(status.phase, CapturePhase::Succeeded, "{:?}", status.reason);
        let artifact = &status.artifacts[0];
        println!("{} of {} bytes, {:?}", artifact.name, artifact.size_bytes, status.notes);
        assert!(artifact.size_bytes > 140 << 20);
        assert!(artifact.sensitive && artifact.preview.is_empty());
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs cluster (KUBECONFIG)"]
async fn a_pod_that_cannot_reach_the_store_is_relayed_through_the_bot() {
    let world = World::start(Staging {
        store_out_of_reach: true,
        ..Staging::default()
    })
    .await;
    let target = world.pod("app", jvm(&json!({}))).await;
    let capture = world.ask(target, &[Step::Process, Step::HeapDump]).await;
    let status = world.end(&capture).await;
    assert_eq!(status.phase, CapturePhase::Succeeded);
    assert!(
        status.notes.iter().any(|n| n.contains("through the bot")),
        "{:?}",
        status.notes
    );
    assert!(
        !status.artifacts[1].preview.contains("JAVA"),
        "sensitive artifacts have no preview"
    );
    for artifact in &status.artifacts {
        world.read(artifact).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs cluster (KUBECONFIG)"]
async fn a_bot_that_dies_anywhere_is_followed_by_one_that_goes_on() {
    let mut world = World::start(Staging::default()).await;
    let target = world.pod("app", jvm(&json!({}))).await;
    for (epoch, pause_ms) in [0, 15, 60, 120, 180, 240, 400].into_iter().enumerate() {
        let capture = world.ask(target.clone(), &[Step::Jstack]).await;
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        world.kill().await;
        world.lead(epoch as u64 + 2);
        let status = world.end(&capture).await;
        assert_eq!(status.phase, CapturePhase::Succeeded, "killed after {pause_ms} ms");
        assert_eq!((status.attempt, status.artifacts.len()), (1, 1));
    }
    let pod = world.pods().get("app").await.expect("the pod");
    let containers = pod.spec.and_then(|s| s.ephemeral_containers).unwrap_or_default();
    assert_eq!(containers.len(), 7, "one container a capture");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs cluster (KUBECONFIG)"]
async fn what_can_not_be_captured_is_explained_and_leaves_nothing_behind() {
    let world = World::start(Staging {
        labels: vec![("pod-security.kubernetes.io/enforce", "baseline")],
        ..Staging::default()
    })
    .await;
    let target = world.pod("app", jvm(&json!({}))).await;
    let mut stale = target.clone();
    stale.container_id = "containerd://0000".to_owned();
    let capture = world.ask(stale, &[Step::Jstack]).await;
    let status = world.end(&capture).await;
    assert_eq!(status.reason.map(|r| r.code).as_deref(), Some("TargetReplaced"));
    assert_eq!(status.container, None);

    let mut gone = target.clone();
    gone.pod = "nobody".to_owned();
    let capture = world.ask(gone, &[Step::Jstack]).await;
    assert_eq!(
        world.end(&capture).await.reason.map(|r| r.code).as_deref(),
        Some("PodGone")
    );

    let ledger = json!({"containers": [{"name": "app", "image": "localhost/ledger:1", "imagePullPolicy": "Never"}]});
    let no_jvm = world.pod("ledger", ledger).await;
    let capture = world.ask(no_jvm, &[Step::Jstack]).await;
    let status = world.end(&capture).await;
    assert_eq!(status.reason.map(|r| r.code).as_deref(), Some("NoSuchProcess"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs cluster (KUBECONFIG)"]
async fn an_image_that_cannot_be_pulled_is_told_at_once_and_fails_in_time() {
    let world = World::start(Staging {
        image: Some("localhost/nobody@sha256:0000000000000000000000000000000000000000000000000000000000000000"),
        ..Staging::default()
    })
    .await;
    let target = world.pod("app", jvm(&json!({}))).await;
    let capture = world.ask(target, &[Step::Jstack]).await;
    let waiting = world.status(&capture, |status| status.waiting.is_some()).await;
    println!("{:?}", waiting.waiting);
    let status = world.end(&capture).await;
    assert_eq!(status.phase, CapturePhase::Failed);
    assert_eq!(status.reason.map(|r| r.code).as_deref(), Some("ImagePull"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs cluster (KUBECONFIG)"]
async fn a_capture_is_stopped_by_a_person_and_by_the_end_of_its_pod() {
    let world = World::start(Staging {
        store_out_of_reach: true,
        ..Staging::default()
    })
    .await;
    let target = world.pod("app", jvm(&json!({}))).await;
    let capture = world.ask(target.clone(), &[Step::HeapDump]).await;
    world.status(&capture, |status| status.ticket_sent_at.is_some()).await;
    world.cancel(&capture).await;
    let status = world.end(&capture).await;
    assert_eq!(status.phase, CapturePhase::Cancelled, "{:?}", status.reason);

    let capture = world.ask(target, &[Step::HeapDump]).await;
    world.status(&capture, |status| status.ticket_sent_at.is_some()).await;
    let now = DeleteParams::default().grace_period(0);
    world.pods().delete("app", &now).await.expect("the pod goes");
    let status = world.end(&capture).await;
    assert_eq!(status.reason.map(|r| r.code).as_deref(), Some("PodGone"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs cluster (KUBECONFIG)"]
async fn a_report_of_a_crashing_pod_holds_its_last_words_and_no_secret() {
    let world = World::start(Staging::default()).await;
    let spec = json!({"restartPolicy": "Always", "containers": [{
        "name": "app", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
        "env": [{"name": "DB_PASSWORD", "value": "hunter2"}],
        "command": ["/bin/busybox", "sh", "-c", "echo last words; sleep 1; exit 3"],
    }]});
    let mut target = world.pod("crashes", spec).await;
    eventually("it has crashed", async || {
        let pods = world.pods().list(&ListParams::default()).await.ok()?;
        let status = pods.items.first()?.status.clone()?.container_statuses?;
        (status.first()?.restart_count > 0).then_some(())
    })
    .await;
    target.container_id = String::new();
    let capture = world.ask(target, &[Step::PodReport]).await;
    let status = world.end(&capture).await;
    assert_eq!(status.phase, CapturePhase::Succeeded, "{:?}", status.reason);
    let text = String::from_utf8(world.read(&status.artifacts[0]).await).expect("text");
    for wanted in [
        "last words",
        "exit code 3",
        "before its last restart",
        "== Events ==",
        "== Node ==",
    ] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
    world.finish().await;
}

//! Pods that a real kubelet finds sick, and that are captured by themselves.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use diagbot_api::run::{DiagnosticRun, Phase};
use diagbot_sandbox::wait::until;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{EvictParams, ListParams},
};
use serde_json::json;

use crate::{
    installation::{Installation, RUN_DEADLINE, Variation, story},
    kubectl::{apply, kubectl, ready},
    many::deploy,
    outcome::Outcome,
    workload::Workload,
};

/// Longest wait until a kubelet takes a pod for one that crashes again and again: two crashes, and the wait between them.
const SICK: Duration = Duration::from_secs(90);

/// The run that a pod's trouble started, once people were told its end.
async fn captured_by_itself(installation: &Installation, pod: &str, sign: &str) -> anyhow::Result<Outcome> {
    let runs: Api<DiagnosticRun> = Api::namespaced(installation.client.clone(), &installation.home);
    let title = format!("{sign}: {pod}");
    let name = until(SICK, &format!("a run because of {title}"), async || {
        let all = runs.list(&ListParams::default()).await?;
        let ours = |run: &&DiagnosticRun| {
            let cause = run.spec.origin.cause.as_ref();
            cause.is_some_and(|cause| cause.title.starts_with(&title))
        };
        Ok(all.iter().find(ours).and_then(|run| run.metadata.name.clone()))
    })
    .await?;
    let outcome = installation.outcome(&name, RUN_DEADLINE, Instant::now()).await?;
    outcome.must_be(Phase::Succeeded)?;
    ensure!(
        outcome.run.spec.requester.user == "trigger:kubernetes",
        "{:?}",
        outcome.run.spec
    );
    let title = outcome.run.spec.origin.cause.as_ref().map(|cause| cause.title.clone());
    eprintln!("  {}: captured by itself", title.unwrap_or_default());
    Ok(outcome)
}

/// The report holds what the pod's log, or the kubelet, said.
async fn says(report: &Outcome, words: &str) -> anyhow::Result<()> {
    let text = report.download().await?.text();
    ensure!(text.contains(words), "the report lacks {words:?}:\n{text}");
    Ok(())
}

fn watching_pods() -> Variation {
    Variation {
        watches_pods: true,
        ..Variation::default()
    }
}

/// A pod that takes its time to go.
fn stubborn() -> Workload {
    Workload::script("leaver", "trap '' TERM; echo staying; while :; do sleep 1; done")
        .spec(&json!({ "terminationGracePeriodSeconds": 25 }))
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_crash_looping_an_oom_killed_and_a_leaving_pod_capture_by_themselves() -> anyhow::Result<()> {
    story("sick", watching_pods(), async |installation| {
        let target = installation.target.clone();
        let crasher = Workload::script("crasher", "echo going down; exit 3");
        // Holds what it reads, which has no end.
        let limit = json!({ "limits": { "memory": "24Mi" } });
        let mut hog = Workload::script("hog", "echo eating; tail /dev/zero").manifest(&target);
        let mut pod: serde_json::Value = serde_json::from_str(&hog).context("a manifest")?;
        pod["spec"]["containers"][0]["resources"] = limit;
        hog = pod.to_string();
        installation.start_all(&stubborn()).await?;
        apply(&crasher.manifest(&target)).await?;
        apply(&hog).await?;
        let report = captured_by_itself(installation, "crasher", "crash-looping").await?;
        says(&report, "going down").await?;
        let report = captured_by_itself(installation, "hog", "oom-killed").await?;
        says(&report, "OOMKilled").await?;

        // Somebody asks about it, then it is told to go: what it says is taken inside its grace period.
        installation
            .ask("pod-report", "leaver")
            .await?
            .must_be(Phase::Succeeded)?;
        kubectl(&["-n", &target, "delete", "pod", "leaver", "--wait=false"], None).await?;
        let report = captured_by_itself(installation, "leaver", "terminating").await?;
        says(&report, "staying").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_pod_whose_liveness_fails_and_one_that_is_evicted_capture_by_themselves() -> anyhow::Result<()> {
    story("unwell", watching_pods(), async |installation| {
        let target = installation.target.clone();
        deploy(installation, &stubborn(), 2).await?;
        installation.start_bot().await?;

        // It hangs and fails its probe, but is not restarted before somebody could look.
        let hanger = Workload::script("hanger", "echo hanging; while :; do sleep 1; done").probe(&json!({
            "exec": { "command": ["/bin/false"] }, "periodSeconds": 1, "failureThreshold": 300,
        }));
        apply(&hanger.manifest(&target)).await?;
        let report = captured_by_itself(installation, "hanger", "liveness-failed").await?;
        let title = report.run.spec.origin.cause.as_ref().map(|cause| cause.title.clone());
        let title = title.unwrap_or_default();
        ensure!(title.contains("(container app): Liveness probe failed"), "{title}");
        says(&report, "hanging").await?;

        // Somebody asks about one replica; then a drain evicts the other.
        let line = format!("pod-report deploy/leaver -n {target} --max 1");
        let asked = installation.ask_line(&line).await?;
        asked.must_be(Phase::Succeeded)?;
        let asked = asked
            .captures
            .first()
            .context("one capture")?
            .spec
            .target
            .pod_uid
            .clone();
        let pods: Api<Pod> = Api::namespaced(installation.client.clone(), &target);
        let replicas = pods.list(&ListParams::default().labels("app=leaver")).await?;
        let other = replicas.iter().find(|pod| pod.metadata.uid.as_ref() != Some(&asked));
        let other = other
            .and_then(|pod| pod.metadata.name.clone())
            .context("another replica")?;
        pods.evict(&other, &EvictParams::default()).await?;
        let report = captured_by_itself(installation, &other, "evicted").await?;
        let left = pods
            .get_opt(&other)
            .await?
            .context("the pod was gone before its evidence was told")?;
        ensure!(left.metadata.deletion_timestamp.is_some(), "the pod does not go");
        says(&report, "staying").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_pod_that_the_kubelet_evicts_for_its_disk_captures_by_itself() -> anyhow::Result<()> {
    story("glutton", watching_pods(), async |installation| {
        let glutton = Workload::script("glutton", "echo filling; while :; do sleep 1; done").spec(&json!({
            "volumes": [{ "name": "small", "emptyDir": { "sizeLimit": "1Mi" } }],
        }));
        let mut pod: serde_json::Value = serde_json::from_str(&glutton.manifest(&installation.target))?;
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "small", "mountPath": "/small" }]);
        apply(&pod.to_string()).await?;
        ready(&installation.target, "glutton").await?;
        installation.start_bot().await?;
        let asked = installation.ask("pod-report", "glutton").await?;
        asked.must_be(Phase::Succeeded)?;
        let fill = ["dd", "if=/dev/zero", "of=/small/full", "bs=1M", "count=8"];
        installation.exec("glutton", &fill).await?;
        let report = captured_by_itself(installation, "glutton", "evicted").await?;
        says(&report, "EmptyDir volume").await?;
        Ok(())
    })
    .await
}

//! Pods that a real kubelet finds sick, and that are captured by themselves.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use diagbot::runs::resource::{DiagnosticRun, Phase};
use diagbot_sandbox::wait::until;
use kube::{Api, api::ListParams};
use serde_json::json;

use crate::{
    installation::{Installation, RUN_DEADLINE, Variation, story},
    kubectl::{apply, kubectl},
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

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_crash_looping_an_oom_killed_and_a_leaving_pod_capture_by_themselves() -> anyhow::Result<()> {
    let variation = Variation {
        watches_pods: true,
        ..Variation::default()
    };
    story("sick", variation, async |installation| {
        let target = installation.target.clone();
        let crasher = Workload::script("crasher", "echo going down; exit 3");
        // Holds what it reads, which has no end.
        let limit = json!({ "limits": { "memory": "24Mi" } });
        let mut hog = Workload::script("hog", "echo eating; tail /dev/zero").manifest(&target);
        let mut pod: serde_json::Value = serde_json::from_str(&hog).context("a manifest")?;
        pod["spec"]["containers"][0]["resources"] = limit;
        hog = pod.to_string();
        let stubborn = Workload::script("leaver", "trap '' TERM; echo staying; while :; do sleep 1; done")
            .spec(&json!({ "terminationGracePeriodSeconds": 25 }));
        installation.start_all(&stubborn).await?;
        apply(&crasher.manifest(&target)).await?;
        apply(&hog).await?;
        let report = captured_by_itself(installation, "crasher", "crash-looping").await?;
        let report = report.download().await?.text();
        ensure!(
            report.contains("going down"),
            "the report lacks the last words:\n{report}"
        );
        let report = captured_by_itself(installation, "hog", "oom-killed").await?;
        let report = report.download().await?.text();
        ensure!(report.contains("OOMKilled"), "the report lacks the reason:\n{report}");

        // Somebody asks about it, then it is told to go: what it says is taken inside its grace period.
        installation
            .ask("pod-report", "leaver")
            .await?
            .must_be(Phase::Succeeded)?;
        kubectl(&["-n", &target, "delete", "pod", "leaver", "--wait=false"], None).await?;
        let report = captured_by_itself(installation, "leaver", "terminating").await?;
        let report = report.download().await?.text();
        ensure!(report.contains("staying"), "the report lacks the log:\n{report}");
        Ok(())
    })
    .await
}

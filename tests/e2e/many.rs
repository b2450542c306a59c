//! Runbooks, and many targets at once.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use diagbot_api::{capture::CapturePhase, run::Phase};
use serde_json::{Value, json};

use crate::{
    installation::{Installation, Variation, story},
    kubectl::{apply, kubectl},
    outcome::Outcome,
    workload::Workload,
};

/// Replicas of the workload.
const REPLICAS: usize = 20;
/// Longest wait for a run of many, whose containers one kubelet starts on two busy cores.
const LONGEST: Duration = Duration::from_mins(5);

/// A Deployment of these pods, once all are there.
pub(crate) async fn deploy(installation: &Installation, workload: &Workload, replicas: usize) -> anyhow::Result<()> {
    let pod: Value = serde_json::from_str(&workload.manifest(&installation.target)).context("read the pod")?;
    let labels = &pod["metadata"]["labels"];
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": workload.name(), "namespace": installation.target },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": pod["spec"] },
        },
    });
    apply(&deployment.to_string()).await?;
    let place = format!("deployment/{}", workload.name());
    kubectl(
        &[
            "-n",
            &installation.target,
            "rollout",
            "status",
            &place,
            "--timeout=240s",
        ],
        None,
    )
    .await?;
    Ok(())
}

/// Asks, and waits longer than for a run of one.
async fn ask(installation: &Installation, line: &str) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let run = installation.command(&format!("/diag {line}")).await?;
    let outcome = installation.outcome(&run, LONGEST, started).await?;
    eprintln!(
        "  {line}: {:?} after {:.1} s",
        outcome.phase(),
        outcome.took.as_secs_f64()
    );
    Ok(outcome)
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn twenty_pods_of_a_deployment_are_captured_at_once() -> anyhow::Result<()> {
    let variation = Variation {
        alone: true,
        ..Variation::default()
    };
    story("many", variation, async |installation| {
        deploy(installation, &Workload::ledger("ledger").user(1000), REPLICAS).await?;
        installation.start_bot().await?;
        let line = format!("process deploy/ledger -n {} --all", installation.target);
        let outcome = ask(installation, &line).await?;
        outcome.must_be(Phase::Succeeded)?;
        let done = |phase| phase == CapturePhase::Succeeded;
        let captures = outcome.captures.iter().filter_map(|c| c.status.as_ref());
        ensure!(captures.filter(|s| done(s.phase) && s.artifacts.len() == 1).count() == REPLICAS);
        let pods: BTreeSet<&str> = outcome
            .captures
            .iter()
            .map(|c| c.spec.target.pod_uid.as_str())
            .collect();
        ensure!(pods.len() == REPLICAS, "{} different pods", pods.len());
        let words = format!("{REPLICAS} targets: {REPLICAS} done.");
        ensure!(outcome.text().contains(&words), "people read: {}", outcome.text());
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_runbook_of_a_jvm_takes_its_steps_in_one_container() -> anyhow::Result<()> {
    story("runbook", Variation::default(), async |installation| {
        let checkout = Workload::checkout("checkout", 32).user(1000);
        installation.start_all(&checkout).await?;
        let outcome = ask(installation, &format!("jvm-hang checkout -n {}", installation.target)).await?;
        outcome.must_be(Phase::Succeeded)?;
        let artifacts = outcome.captures.iter().filter_map(|c| c.status.as_ref());
        let names: Vec<&str> = artifacts.flat_map(|s| &s.artifacts).map(|a| a.name.as_str()).collect();
        let wanted = [
            "pod-report.txt",
            "process.txt",
            "2-threads.txt",
            "3-threads.txt",
            "4-threads.txt",
            "sockets.txt",
            "heap-histogram.txt",
        ];
        ensure!(names == wanted, "{names:?}");
        let spec = installation.pod("checkout").await?.spec.context("a pod has a spec")?;
        let containers = spec.ephemeral_containers.unwrap_or_default();
        ensure!(containers.len() == 1, "{} containers", containers.len());
        Ok(())
    })
    .await
}

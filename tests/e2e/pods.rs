//! Pods that are small, restricted, sick, or going away.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use diagbot_api::run::Phase;
use diagbot_sandbox::wait::until;

use crate::{
    installation::{RUN_DEADLINE, Variation, story},
    kubectl::{apply, kubectl, run},
    workload::Workload,
};

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_distroless_image_gives_process_and_sockets() -> anyhow::Result<()> {
    story("distroless", Variation::default(), async |installation| {
        installation.start_all(&Workload::ledger("ledger").restricted()).await?;
        let process = installation.ask("process", "ledger").await?;
        let report = process.download().await?.text();
        ensure!(
            report.contains("ledger-compact"),
            "the report lacks the threads:\n{report}"
        );
        let sockets = installation.ask("sockets", "ledger").await?;
        let report = sockets.download().await?.text();
        ensure!(report.contains(":7000"), "the report lacks the listener:\n{report}");
        let jstack = installation.ask("jstack", "ledger").await?;
        ensure!(
            jstack.phase() == Phase::Failed,
            "a program that is no JVM has no thread dump"
        );
        ensure!(jstack.reason() == "NoSuchProcess", "the reason is {}", jstack.reason());
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_namespace_under_pod_security_restricted_is_served() -> anyhow::Result<()> {
    let labels = vec![("pod-security.kubernetes.io/enforce", "restricted")];
    let variation = Variation {
        labels,
        ..Variation::default()
    };
    story("restricted", variation, async |installation| {
        installation
            .start_all(&Workload::checkout("checkout", 16).restricted())
            .await?;
        let outcome = installation.ask("jstack", "checkout").await?;
        outcome.must_be(Phase::Succeeded)?;
        ensure!(
            outcome.download().await?.text().contains("Full thread dump"),
            "it is no thread dump"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_crash_looping_pod_gives_a_report_with_its_last_words() -> anyhow::Result<()> {
    story("crash", Variation::default(), async |installation| {
        let billing = Workload::script("billing", "echo 'no ledger at 10.0.0.9, password is hunter2'; exit 3");
        apply(&billing.manifest(&installation.target)).await?;
        until(RUN_DEADLINE, "the pod loops", async || {
            let status = installation.pod("billing").await?.status.unwrap_or_default();
            let mut states = status
                .container_statuses
                .into_iter()
                .flatten()
                .filter_map(|c| c.state?.waiting?.reason);
            Ok(states.any(|reason| reason == "CrashLoopBackOff").then_some(()))
        })
        .await?;
        installation.start_bot().await?;
        let outcome = installation.ask("pod-report", "billing").await?;
        outcome.must_be(Phase::Succeeded)?;
        let report = outcome.download().await?.text();
        for part in ["no ledger at 10.0.0.9", "exit code 3", "Back-off restarting"] {
            ensure!(report.contains(part), "the report lacks `{part}`:\n{report}");
        }
        let process = installation.ask("process", "billing").await?;
        ensure!(
            process.text().contains("pod-report"),
            "people are not sent to pod-report:\n{}",
            process.text()
        );
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn an_image_that_can_not_be_pulled_is_told_with_the_reason() -> anyhow::Result<()> {
    let absent = format!("localhost/absent@sha256:{}", "0".repeat(64));
    let variation = Variation {
        agent_image: Some(absent),
        launch_limit_s: Some(25),
        ..Variation::default()
    };
    story("pull", variation, async |installation| {
        installation.start_all(&Workload::ledger("ledger").user(1000)).await?;
        let outcome = installation.ask("process", "ledger").await?;
        outcome.must_be(Phase::Failed)?;
        ensure!(outcome.reason() == "ImagePull", "the reason is {}", outcome.reason());
        ensure!(
            outcome.text().contains("registry"),
            "people are not told what to do:\n{}",
            outcome.text()
        );
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_pod_that_vanishes_midway_ends_its_run_with_the_reason() -> anyhow::Result<()> {
    story("vanish", Variation::default(), async |installation| {
        installation
            .start_pod(&Workload::checkout("checkout", 512).user(1000))
            .await?;
        installation.start_bot().await?;
        let (run, started) = installation.heap_dump_under_way().await?;
        kubectl(
            &[
                "-n",
                &installation.target,
                "delete",
                "pod",
                "checkout",
                "--grace-period=0",
                "--force",
            ],
            None,
        )
        .await?;
        let gone = Instant::now();
        let outcome = installation.outcome(&run, RUN_DEADLINE, started).await?;
        eprintln!(
            "  told {:.1} s after the pod was deleted: {}",
            gone.elapsed().as_secs_f64(),
            outcome.reason()
        );
        outcome.must_be(Phase::Failed)?;
        ensure!(
            ["PodGone", "PodTerminating", "AgentEnded"].contains(&outcome.reason().as_str()),
            "the reason is {}",
            outcome.reason()
        );
        let open = outcome
            .captures
            .iter()
            .filter_map(|c| c.status.as_ref())
            .flat_map(|s| &s.uploads)
            .any(|u| !u.closed);
        ensure!(!open, "an upload was left open in the store");
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_target_that_restarts_before_the_ticket_is_not_looked_at() -> anyhow::Result<()> {
    story("restart", Variation::default(), async |installation| {
        // A container that is restarted when its only process is killed, in a pod that shares its processes: there the
        // agent survives the restart, and only the comparison before the ticket can tell.
        let pod = Workload::ledger("ledger")
            .user(1000)
            .spec(&serde_json::json!({ "shareProcessNamespace": true }));
        installation.start_all(&pod).await?;
        let bot = installation.bot_pid()?.to_string();
        let started = Instant::now();
        let name = installation
            .command(&format!("/diag process ledger -n {}", installation.target))
            .await?;
        // The bot stands still from the moment that it has added the container.
        until(RUN_DEADLINE, "the container is added", async || {
            let spec = installation.pod("ledger").await?.spec.context("a pod has a spec")?;
            Ok(spec.ephemeral_containers.filter(|c| !c.is_empty()).map(|_| ()))
        })
        .await?;
        run("kill", &["-STOP", &bot], None).await?;
        let ticket = installation
            .captures(&name)
            .await?
            .into_iter()
            .next()
            .and_then(|c| c.status?.ticket_sent_at);
        ensure!(
            ticket.is_none(),
            "the bot was faster than the story: it had sent the ticket"
        );
        let restarted = async {
            let id = installation.container_pid("ledger", "app").await?;
            run("kill", &["-KILL", &id.to_string()], None).await?;
            until(RUN_DEADLINE, "the container has been restarted", async || {
                let status = installation.pod("ledger").await?.status.unwrap_or_default();
                let app = status
                    .container_statuses
                    .into_iter()
                    .flatten()
                    .find(|c| c.name == "app");
                Ok(app.filter(|c| c.restart_count == 1 && c.ready).map(|_| ()))
            })
            .await
        }
        .await;
        run("kill", &["-CONT", &bot], None).await?;
        restarted?;
        let outcome = installation.outcome(&name, RUN_DEADLINE, started).await?;
        outcome.must_be(Phase::Failed)?;
        ensure!(
            outcome.reason() == "TargetReplaced",
            "the reason is {}",
            outcome.reason()
        );
        Ok(())
    })
    .await
}

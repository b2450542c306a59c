//! What an incident does to everything around a capture, in the middle of it: the bot is killed or stands still, the API
//! server is restarted. (A pod that is deleted in the middle is in `pods`.)

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use diagbot_api::run::Phase;
use diagbot_sandbox::{people::Button, wait::until};
use serde_json::json;

use crate::{
    installation::{CHANNEL, Installation, PERSON, RUN_DEADLINE, Variation, story},
    kubectl::{kubectl, run},
    outcome::Outcome,
    workload::Workload,
};

/// Longest wait for the end of a capture that was disturbed: a dead leader is replaced within half a minute.
const DISTURBED: Duration = Duration::from_mins(2);

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_bot_that_is_killed_in_the_middle_of_a_capture_goes_on_after_its_restart() -> anyhow::Result<()> {
    story("killed", Variation::default(), async |installation| {
        let (run, started) = begin(installation).await?;
        installation.kill_bot().await?;
        installation.start_bot().await?;
        let outcome = installation.outcome(&run, DISTURBED, started).await?;
        whole(installation, &outcome).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_leader_that_stands_still_in_the_middle_of_a_capture_is_replaced_and_changes_nothing_later()
-> anyhow::Result<()> {
    story("still", Variation::default(), async |installation| {
        installation
            .start_pod(&Workload::checkout("checkout", 512).user(1000))
            .await?;
        installation.start_bot().await?;
        // The first one leads; this one only takes requests.
        let mut replica = installation.start_replica().await?;
        let (run, started) = begin(installation).await?;
        let leader = installation.bot_pid()?.to_string();
        signal("-STOP", &leader).await?;
        let outcome = installation.outcome(&run, DISTURBED, started).await;
        signal("-CONT", &leader).await?;
        let outcome = outcome?;
        whole(installation, &outcome).await?;
        // Whatever it still wanted to write is refused: the record stays as it is while it serves again.
        let again = installation.ask("process", "checkout").await?;
        again.must_be(Phase::Succeeded)?;
        let later = installation.outcome(&run, RUN_DEADLINE, started).await?;
        ensure!(
            later.run.status == outcome.run.status && later.thread.len() == outcome.thread.len(),
            "the former leader changed a run that had ended"
        );
        replica.kill().await.context("end the replica")
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn an_api_server_that_restarts_in_the_middle_of_a_capture_costs_time_and_nothing_else() -> anyhow::Result<()> {
    let variation = Variation {
        alone: true,
        ..Variation::default()
    };
    story("api-server", variation, async |installation| {
        let (run, started) = begin(installation).await?;
        let away = restart_api_server().await?;
        eprintln!("  the API server was away for {:.1} s", away.as_secs_f64());
        let outcome = installation.outcome(&run, DISTURBED, started).await?;
        whole(installation, &outcome).await
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_heap_dump_that_is_cancelled_leaves_no_file_no_upload_and_a_jvm_that_serves_on() -> anyhow::Result<()> {
    story("cancelled", Variation::default(), async |installation| {
        let (run, started) = begin(installation).await?;
        let thread = installation.people.read(CHANNEL).await?;
        let root = thread.iter().find(|m| m.metadata["event_payload"]["run"] == json!(run));
        let ts = root.context("the run has a message")?.ts.clone();
        installation
            .people
            .click(PERSON, CHANNEL, &ts, Button::Label("Cancel"))
            .await?;
        let outcome = installation.outcome(&run, DISTURBED, started).await?;
        // Looked at once it was told: what is said is so.
        let left = installation
            .exec("checkout", &["find", "/tmp", "/home", "-type", "f"])
            .await?;
        eprintln!("  told after {:.1} s:\n{}", outcome.took.as_secs_f64(), outcome.text());
        outcome.must_be(Phase::Cancelled)?;
        ensure!(outcome.text().contains("*cancelled* by @ada"), "{}", outcome.text());
        ensure!(!left.contains("hprof"), "a dump was left in the pod: {left}");
        let statuses: Vec<_> = outcome.captures.iter().filter_map(|c| c.status.as_ref()).collect();
        ensure!(
            statuses
                .iter()
                .all(|s| s.artifacts.is_empty() && s.uploads.iter().all(|u| u.closed)),
            "something was left in the store: {statuses:?}"
        );
        installation.ask("jstack", "checkout").await?.must_be(Phase::Succeeded)
    })
    .await
}

/// Starts what is not there yet and a heap dump, and returns while that is under way.
async fn begin(installation: &mut Installation) -> anyhow::Result<(String, Instant)> {
    if installation.bot_pid().is_err() {
        installation
            .start_pod(&Workload::checkout("checkout", 512).user(1000))
            .await?;
        installation.start_bot().await?;
    }
    installation.heap_dump_under_way().await
}

/// One container, one artifact that is what was captured, one message, nothing left open.
async fn whole(installation: &Installation, outcome: &Outcome) -> anyhow::Result<()> {
    eprintln!("  told after {:.1} s:\n{}", outcome.took.as_secs_f64(), outcome.text());
    outcome.must_be(Phase::Succeeded)?;
    outcome.download_privately(&installation.people).await?;
    let mut statuses = outcome.captures.iter().filter_map(|c| c.status.as_ref());
    let status = statuses.next_back().context("a capture has a status")?;
    ensure!(status.attempt == 1, "it took {} attempts", status.attempt);
    ensure!(status.uploads.iter().all(|u| u.closed), "an upload was left open");
    let spec = installation.pod("checkout").await?.spec.context("a pod has a spec")?;
    let dumps = spec.ephemeral_containers.into_iter().flatten();
    ensure!(dumps.count() == 1, "more than one container was added");
    ensure!(outcome.thread.len() == 1, "there are {} messages", outcome.thread.len());
    Ok(())
}

async fn signal(name: &str, pid: &str) -> anyhow::Result<()> {
    run("kill", &[name, pid], None).await.map(|_| ())
}

/// Kills the API server and has the cluster's own script start it again; gives how long it did not answer.
async fn restart_api_server() -> anyhow::Result<Duration> {
    let home = PathBuf::from(std::env::var_os("K8S_HOME").context("K8S_HOME names the cluster's folder")?);
    let up = std::env::var("DIAGBOT_E2E_UP").context("DIAGBOT_E2E_UP starts what of the cluster does not run")?;
    let pid_file = home.join("run/pids/kube-apiserver.pid");
    let pid = std::fs::read_to_string(&pid_file).context("read the API server's process id")?;
    let pid = pid.trim();
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).context("the API server runs on this machine")?;
    ensure!(
        program.ends_with("kube-apiserver"),
        "process {pid} is {}, not the API server",
        program.display()
    );
    let killed = Instant::now();
    signal("-KILL", pid).await?;
    let gone = PathBuf::from(format!("/proc/{pid}/exe"));
    until(RUN_DEADLINE, "the API server is gone", async || {
        Ok(std::fs::read_link(&gone).is_err().then_some(()))
    })
    .await?;
    // It outlives the story, as the one before did: none of the locks and pipes that the story inherited may be its own.
    let bare =
        "for fd in /proc/self/fd/*; do n=${fd##*/}; [ \"$n\" -le 2 ] || eval \"exec $n>&-\"; done; exec bash \"$0\"";
    run("bash", &["-c", bare, &up], None).await?;
    until(RUN_DEADLINE, "the API server answers", async || {
        Ok(kubectl(&["get", "--raw=/readyz"], None).await.ok().map(|_| ()))
    })
    .await?;
    Ok(killed.elapsed())
}

//! One command from a person to verified files, without a browser: what `--once` does.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail, ensure};
use diagbot_api::{
    capture::ArtifactRecord,
    run::{DiagnosticRun, Phase},
};
use kube::{Api, api::ListParams};
use sha2::{Digest as _, Sha256};

use crate::{
    command::say,
    installation::Installation,
    people::{Button, Message, People},
    wait,
};

/// Who types the command, and where.
const PERSON: &str = "ada";
const CHANNEL: &str = "incidents";
/// Longest wait for the run to be recorded after the ack.
const ACCEPT_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for the run to end and be told.
const RUN_DEADLINE: Duration = Duration::from_mins(3);
/// Longest wait for a private link.
const LINK_DEADLINE: Duration = Duration::from_secs(15);
/// Commands that are answered at once and make no run.
const ANSWERED_AT_ONCE: [&str; 5] = ["list", "help", "status", "runs", "cancel"];

/// Runs `command`, prints the thread, downloads every artifact through its link into `out` and checks its digest.
pub async fn run(installation: &Installation, command: &str, out: &Path) -> anyhow::Result<ExitCode> {
    let people = installation.people();
    let delivered = people.command(PERSON, CHANNEL, command).await?;
    let trigger = delivered["trigger_id"]
        .as_str()
        .context("the command has no trigger id")?
        .to_owned();
    if let Some(text) = delivered["ack"]["text"].as_str().filter(|text| !text.is_empty()) {
        say(&format!("(only {PERSON} sees) {text}"));
    }
    let word = command.split_whitespace().nth(1).unwrap_or("help");
    if ANSWERED_AT_ONCE.contains(&word) {
        return Ok(ExitCode::SUCCESS);
    }
    let runs = installation.runs();
    let accepted = wait::until(ACCEPT_DEADLINE, "the run is recorded", || async {
        Ok(find(&runs, &trigger).await?.filter(|run| run.metadata.name.is_some()))
    })
    .await;
    let Ok(accepted) = accepted else {
        say("No run was recorded for this command: see the answer above.");
        return Ok(ExitCode::FAILURE);
    };
    let name = accepted.metadata.name.context("the run has a name")?;
    let run = wait::until(RUN_DEADLINE, "the run has ended and was told", || async {
        let run = runs.get(&name).await.context("read the run")?;
        let told = run
            .status
            .as_ref()
            .is_some_and(|s| s.phase.is_final() && s.telling.final_at.is_some());
        Ok(told.then_some(run))
    })
    .await?;
    let thread = thread_of(&run, people).await?;
    for message in &thread {
        message.plain.iter().for_each(|line| say(line));
        say("");
    }
    let verified = verify_artifacts(&run, people, &thread, out).await?;
    let phase = run.status.as_ref().map_or(Phase::Accepted, |s| s.phase);
    if phase == Phase::Succeeded {
        say(&format!(
            "{verified} artifact(s) downloaded to {} and verified.",
            out.display()
        ));
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("The run ended as {phase:?}."));
    Ok(ExitCode::FAILURE)
}

async fn find(runs: &Api<DiagnosticRun>, trigger: &str) -> anyhow::Result<Option<DiagnosticRun>> {
    let all = runs.list(&ListParams::default()).await.context("list the runs")?;
    Ok(all.into_iter().find(|run| run.spec.key.id.contains(trigger)))
}

/// The run's messages: its root, what stands in its thread, and what only the person sees.
async fn thread_of(run: &DiagnosticRun, people: &People) -> anyhow::Result<Vec<Message>> {
    let telling = run.status.as_ref().map(|s| s.telling.clone()).unwrap_or_default();
    let root = telling.root_ts.context("the run has no root message")?;
    let channel = telling.channel.unwrap_or_else(|| CHANNEL.to_owned());
    let messages = people.read(&channel).await?;
    Ok(messages
        .into_iter()
        .filter(|m| m.ts == root || m.thread_ts.as_deref() == Some(&root))
        .collect())
}

async fn verify_artifacts(
    run: &DiagnosticRun,
    people: &People,
    thread: &[Message],
    out: &Path,
) -> anyhow::Result<usize> {
    let artifacts: Vec<_> = run
        .status
        .iter()
        .flat_map(|s| &s.captures)
        .flat_map(|capture| capture.artifacts.clone())
        .collect();
    if artifacts.is_empty() {
        return Ok(0);
    }
    tokio::fs::create_dir_all(out)
        .await
        .context("make the folder for the artifacts")?;
    let mut links: Vec<_> = thread.iter().flat_map(Message::links).collect();
    if artifacts.iter().any(|a| link_of(a, &links).is_none()) {
        links.extend(private_links(run, people, thread).await?);
    }
    for artifact in &artifacts {
        let url = link_of(artifact, &links).with_context(|| format!("the thread has no link to {}", artifact.name))?;
        download(&url, artifact, &out.join(&artifact.name)).await?;
        say(&format!(
            "{}: {} bytes, SHA-256 {} as told",
            artifact.name, artifact.size_bytes, artifact.sha256
        ));
    }
    Ok(artifacts.len())
}

/// A sensitive artifact has no link in the channel: asks for one, as its reader would.
async fn private_links(
    run: &DiagnosticRun,
    people: &People,
    thread: &[Message],
) -> anyhow::Result<Vec<(String, String)>> {
    let telling = run.status.as_ref().map(|s| s.telling.clone()).unwrap_or_default();
    let (Some(channel), Some(root)) = (telling.channel, telling.root_ts) else {
        bail!("the run has no thread")
    };
    let before = thread.len();
    people
        .click(PERSON, &channel, &root, Button::Label("Send me a link"))
        .await?;
    wait::until(LINK_DEADLINE, "the private link has come", || async {
        let messages = people.read(&channel).await?;
        let private: Vec<_> = messages
            .iter()
            .filter(|m| m.ephemeral_to.is_some())
            .flat_map(Message::links)
            .collect();
        Ok((!private.is_empty() && messages.len() > before).then_some(private))
    })
    .await
}

fn link_of(artifact: &ArtifactRecord, links: &[(String, String)]) -> Option<String> {
    links
        .iter()
        .find(|(url, label)| label.contains(&artifact.name) || url.contains(&artifact.key))
        .map(|l| l.0.clone())
}

async fn download(url: &str, artifact: &ArtifactRecord, file: &Path) -> anyhow::Result<()> {
    let (status, body) = crate::people::fetch(url).await?;
    ensure!(status.is_success(), "the link to {} answered {status}", artifact.name);
    ensure!(
        body.len() as u64 == artifact.size_bytes,
        "{} has {} bytes",
        artifact.name,
        body.len()
    );
    let sha256 = hex::encode(Sha256::digest(&body));
    ensure!(
        sha256 == artifact.sha256,
        "{} has SHA-256 {sha256}, not the one that was told",
        artifact.name
    );
    tokio::fs::write(file, &body)
        .await
        .with_context(|| format!("write {}", file.display()))
}

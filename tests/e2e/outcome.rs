//! What became of a request: its record, its captures, what people read, and the file behind the link.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use diagbot_api::{
    capture::{ArtifactRecord, DiagnosticCapture},
    run::{CONDITION_REPORTED, DiagnosticRun, Phase},
};
use diagbot_sandbox::{
    people::{Button, Message, People},
    wait::until,
};

use crate::{
    installation::{CHANNEL, PERSON, RUN_DEADLINE},
    link::{self, Downloaded},
};

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The run, final and told.
    pub(crate) run: DiagnosticRun,
    /// Its captures.
    pub(crate) captures: Vec<DiagnosticCapture>,
    /// The run's messages.
    pub(crate) thread: Vec<Message>,
    /// From the command to the final message.
    pub(crate) took: Duration,
}

impl Outcome {
    /// Everything that people can read of it.
    pub(crate) fn text(&self) -> String {
        self.thread
            .iter()
            .map(|m| m.plain.join("\n"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The phase, for comparison.
    pub(crate) fn phase(&self) -> Phase {
        self.run.status.as_ref().map(|s| s.phase).unwrap_or_default()
    }

    /// Fails unless the run ended in this phase, and says what people read instead.
    pub(crate) fn must_be(&self, phase: Phase) -> anyhow::Result<()> {
        ensure!(
            self.phase() == phase,
            "the run ended as {:?} instead of {phase:?}: {}",
            self.phase(),
            self.text()
        );
        Ok(())
    }

    /// Code of the reason of the run or, where it has none, of its first capture.
    pub(crate) fn reason(&self) -> String {
        let of_run = self.run.status.as_ref().and_then(|s| s.reason.clone());
        let of_capture = self.captures.iter().find_map(|c| c.status.as_ref()?.reason.clone());
        of_run.or(of_capture).map(|r| r.code).unwrap_or_default()
    }

    /// The only artifact.
    pub(crate) fn artifact(&self) -> anyhow::Result<&ArtifactRecord> {
        let statuses = self.captures.iter().filter_map(|c| c.status.as_ref());
        let artifacts: Vec<_> = statuses.flat_map(|s| &s.artifacts).collect();
        match artifacts[..] {
            [artifact] => Ok(artifact),
            _ => bail!(
                "there are {} artifacts instead of one: {}",
                artifacts.len(),
                self.text()
            ),
        }
    }

    /// Downloads the only artifact through its link in the thread and compares it with its record.
    pub(crate) async fn download(&self) -> anyhow::Result<Downloaded> {
        let artifact = self.artifact()?;
        let url = link_to(artifact, &self.thread).context("no link in the thread")?;
        self.compare(artifact, link::open(&url).await?)
    }

    /// The same for a sensitive artifact, whose link is sent to those who press the button, and to them alone.
    pub(crate) async fn download_privately(&self, people: &People) -> anyhow::Result<Downloaded> {
        let artifact = self.artifact()?;
        ensure!(
            link_to(artifact, &self.thread).is_none(),
            "the link is in the thread for everybody"
        );
        let root = self.thread.first().context("the run has a message")?;
        people
            .click(PERSON, CHANNEL, &root.ts, Button::Label("Send me a link"))
            .await?;
        let url = until(RUN_DEADLINE, "the link has come", async || {
            let mut messages = people.read(CHANNEL).await?;
            messages.retain(|message| message.ephemeral_to.is_some());
            Ok(link_to(artifact, &messages))
        })
        .await?;
        self.compare(artifact, link::open(&url).await?)
    }

    fn compare(&self, artifact: &ArtifactRecord, downloaded: Downloaded) -> anyhow::Result<Downloaded> {
        ensure!(
            downloaded.sha256 == artifact.sha256,
            "the file's SHA-256 is not the recorded one"
        );
        ensure!(
            downloaded.size_bytes == artifact.size_bytes,
            "the file's length is not the recorded one"
        );
        ensure!(
            self.text().contains(&artifact.sha256),
            "the thread does not tell the SHA-256"
        );
        Ok(downloaded)
    }

    /// Moments of the first capture, in seconds since the request.
    pub(crate) fn trace(&self) -> String {
        let from = self.run.spec.received_at.0;
        let trace = self.captures.first().and_then(|c| c.status.as_ref()).map(|s| &s.trace);
        let mut moments: Vec<_> = trace.into_iter().flatten().collect();
        moments.sort_by_key(|(_, at)| at.0);
        let told: Vec<_> = moments
            .iter()
            .map(|(name, at)| format!("{name} {:.2}", at.0.duration_since(from).as_secs_f64()))
            .collect();
        told.join(", ")
    }
}

fn link_to(artifact: &ArtifactRecord, messages: &[Message]) -> Option<String> {
    let mut links = messages.iter().flat_map(Message::links);
    links.find(|(url, _)| url.contains(&artifact.key)).map(|(url, _)| url)
}

/// Whether the run has ended and people were told.
pub(crate) fn is_told(run: &DiagnosticRun) -> bool {
    run.status.as_ref().is_some_and(|status| {
        status.phase.is_final()
            && status
                .conditions
                .iter()
                .any(|c| c.type_ == CONDITION_REPORTED && c.status == "True")
    })
}

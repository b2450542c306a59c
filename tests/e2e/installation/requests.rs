//! What people ask of an installation, and what became of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use diagbot_api::{
    capture::{CapturePhase, DiagnosticCapture},
    request_key::RequestKey,
    run::DiagnosticRun,
};
use diagbot_sandbox::wait::until;
use kube::{Api, api::ListParams};
use serde_json::json;

use super::{CHANNEL, Installation, PERSON, RUN_DEADLINE};
use crate::outcome::{Outcome, is_told};

impl Installation {
    /// Types a command and returns the name of its run.
    pub(crate) async fn command(&self, text: &str) -> anyhow::Result<String> {
        self.command_of(PERSON, text).await
    }

    /// The same as another person.
    pub(crate) async fn command_of(&self, person: &str, text: &str) -> anyhow::Result<String> {
        let answer = self.people.command(person, CHANNEL, text).await?;
        ensure!(
            answer["delivered"] == json!(true),
            "the command was not delivered: {answer}"
        );
        let trigger_id = answer["trigger_id"]
            .as_str()
            .context("a command has a trigger")?
            .to_owned();
        let team = self.team.clone();
        Ok(RequestKey::Command { team, trigger_id }.run_name().as_str().to_owned())
    }

    /// Asks for a diagnostic of a pod in the target namespace and waits until people were told its end.
    pub(crate) async fn ask(&self, diagnostic: &str, pod: &str) -> anyhow::Result<Outcome> {
        self.ask_line(&format!("{diagnostic} {pod} -n {}", self.target)).await
    }

    /// The same with everything that stands behind `/diag`.
    pub(crate) async fn ask_line(&self, line: &str) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let run = self.command(&format!("/diag {line}")).await?;
        let outcome = self.outcome(&run, RUN_DEADLINE, started).await?;
        let took = outcome.took.as_secs_f64();
        eprintln!("  {line}: {:?} after {took:.2} s; {}", outcome.phase(), outcome.trace());
        Ok(outcome)
    }

    /// Asks for a heap dump of the pod `checkout`, and returns its run and when it was asked, while the dump is under way.
    pub(crate) async fn heap_dump_under_way(&self) -> anyhow::Result<(String, Instant)> {
        self.wait_for_log("checkout", "checkout ready").await?;
        let started = Instant::now();
        let run = self
            .command(&format!("/diag heap-dump checkout -n {}", self.target))
            .await?;
        self.capture_until(&run, "the dump is under way", |capture| {
            let phase = capture.status.as_ref().map(|s| s.phase).unwrap_or_default();
            matches!(phase, CapturePhase::Running | CapturePhase::Uploading)
        })
        .await?;
        Ok((run, started))
    }

    /// Waits until a run has ended and people were told.
    pub(crate) async fn outcome(&self, run: &str, limit: Duration, started: Instant) -> anyhow::Result<Outcome> {
        let runs: Api<DiagnosticRun> = Api::namespaced(self.client.clone(), &self.home);
        let found = until(limit, "the run has ended and was told", async || {
            Ok(runs.get_opt(run).await?.filter(is_told))
        })
        .await?;
        let took = started.elapsed();
        let mut thread = self.people.read(CHANNEL).await?;
        thread.retain(|message| message.metadata["event_payload"]["run"] == json!(run));
        Ok(Outcome {
            captures: self.captures(run).await?,
            thread,
            run: found,
            took,
        })
    }

    /// The captures of a run, in order.
    pub(crate) async fn captures(&self, run: &str) -> anyhow::Result<Vec<DiagnosticCapture>> {
        let api: Api<DiagnosticCapture> = Api::namespaced(self.client.clone(), &self.home);
        let mut captures = api.list(&ListParams::default()).await?.items;
        captures.retain(|c| c.spec.run == run);
        captures.sort_by_key(|c| c.spec.index);
        Ok(captures)
    }

    /// Waits until the run's first capture satisfies a condition.
    pub(crate) async fn capture_until(
        &self,
        run: &str,
        what: &str,
        condition: impl Fn(&DiagnosticCapture) -> bool,
    ) -> anyhow::Result<DiagnosticCapture> {
        until(RUN_DEADLINE, what, async || {
            Ok(self.captures(run).await?.into_iter().next().filter(&condition))
        })
        .await
    }
}

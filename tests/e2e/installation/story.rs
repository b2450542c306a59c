//! A story: an installation of its own for as long as it is told, and its turn on the cluster.

use std::{path::PathBuf, time::Instant};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{CHANNEL, Installation};
use crate::kubectl::kubectl;

/// What a story changes about its installation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variation {
    /// Another image for the agent.
    pub(crate) agent_image: Option<String>,
    /// How long the agent's container may take to start, in seconds.
    pub(crate) launch_limit_s: Option<u32>,
    /// The local Slack is reached at the node's address, by pods.
    pub(crate) published_slack: bool,
    /// Another folder of diagnostics than the shipped one.
    pub(crate) catalog: Option<PathBuf>,
    /// Pods of the target namespace are captured by themselves when they are sick.
    pub(crate) watches_pods: bool,
    /// Labels of the target namespace.
    pub(crate) labels: Vec<(&'static str, &'static str)>,
    /// No other story has the cluster meanwhile.
    pub(crate) alone: bool,
}

/// Who has the cluster: one story that disturbs it for all, or any number of others.
static CLUSTER: RwLock<()> = RwLock::const_new(());

/// A story's turn on the cluster; over when dropped.
#[expect(dead_code, reason = "held for as long as the story lasts")]
pub(crate) enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// A turn beside other stories.
pub(crate) async fn shared_turn() -> Turn {
    Turn::Shared(CLUSTER.read().await)
}

/// Runs a story on an installation of its own; tells what it took, and on failure what people and logs saw.
pub(crate) async fn story(
    name: &str,
    variation: Variation,
    body: impl AsyncFnOnce(&mut Installation) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let _turn = if variation.alone {
        Turn::Alone(CLUSTER.write().await)
    } else {
        shared_turn().await
    };
    let mut installation = Installation::start(name, &variation).await?;
    let started = Instant::now();
    let result = body(&mut installation).await;
    match &result {
        Ok(()) => eprintln!("{name}: ok in {:.1} s", started.elapsed().as_secs_f64()),
        Err(error) => {
            eprintln!(
                "{name}: FAILED after {:.1} s: {error:#}",
                started.elapsed().as_secs_f64()
            );
            installation.explain().await;
        }
    }
    let keep = result.is_err() && std::env::var_os("DIAGBOT_E2E_KEEP").is_some();
    installation.end(keep).await?;
    result
}

impl Installation {
    async fn explain(&self) {
        match self.people.read(CHANNEL).await {
            Ok(messages) => messages
                .iter()
                .for_each(|m| eprintln!("  | {}", m.plain.join("\n  | "))),
            Err(error) => eprintln!("  the thread can't be read: {error:#}"),
        }
        for what in ["drun,dcap"] {
            let seen = kubectl(&["-n", &self.home, "get", what, "-o", "yaml"], None).await;
            eprintln!("{}", seen.unwrap_or_else(|error| format!("{error:#}")));
        }
        for log in ["bot.log", "replica.log", "store.log"] {
            let text = std::fs::read_to_string(self.folder.path().join(log)).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(60).collect();
            eprintln!("--- end of {log}");
            lines.into_iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

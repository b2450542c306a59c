//! Every task of the process: named, joined, and stopped together. Owns the only call that starts a task.
//!
//! A core task that ends before it was told to is a fault: [`Tasks::run_until_stopped`] returns its name, and the process
//! ends with that reason instead of living on half-dead.

use std::{future::Future, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long tasks may take to finish after the stop signal.
const DRAIN: Duration = Duration::from_secs(20);

/// The tasks of the process.
#[derive(Debug)]
pub struct Tasks {
    set: JoinSet<&'static str>,
    stop: CancellationToken,
}

/// A task ended though nobody had asked it to.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// It returned.
    #[error("the task `{0}` ended by itself")]
    Ended(&'static str),
    /// It panicked.
    #[error("a task panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self {
            set: JoinSet::new(),
            stop: CancellationToken::new(),
        }
    }

    /// The signal on which every task ends.
    pub fn stop_signal(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task; it must end soon after the stop signal.
    pub fn start<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.set.spawn(async move {
            task.await;
            name
        });
    }

    /// Runs until the stop signal, then lets the tasks drain. An error names the task that ended early.
    pub async fn run_until_stopped(mut self) -> Result<(), TaskError> {
        let outcome = tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            ended = self.set.join_next() => match ended {
                Some(Ok(name)) if !self.stop.is_cancelled() => Err(TaskError::Ended(name)),
                Some(Err(error)) => Err(TaskError::Panicked(error)),
                _ => Ok(()),
            },
        };
        self.stop.cancel();
        let drain = async { while self.set.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drain).await.is_err() {
            tracing::warn!(
                remaining = self.set.len(),
                "tasks did not drain in time and are aborted"
            );
            self.set.shutdown().await;
        }
        outcome
    }
}

//! Control lines to the agent's standard input, over attach. Owns the connection; what is said is decided elsewhere.
//!
//! # Design notes
//! That a line was written does not mean that it arrived: a reset connection takes it in silence. The journal tells; a line
//! without effect is sent again, over a fresh connection and under its old number. Standard input alone is attached: output
//! that nobody reads would block the stream. The connection is made as soon as the container runs, so that a ticket need
//! not wait for it, and stays open behind the last line, since closing it may overtake that.

use std::time::{Duration, Instant};

use diagbot_base::retry::Backoff;
use diagbot_cluster::{CallError, deadline};
use diagbot_wire::control::{ControlLine, MAX_LINE_BYTES};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{AttachParams, AttachedProcess},
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::Mutex,
};

/// Longest wait for attach.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait until a line is on its way.
const WRITE: Duration = Duration::from_secs(5);
/// An older connection may have been dropped by something on the way.
const MAX_AGE: Duration = Duration::from_secs(30);
/// Attempts at the first connection: right after the start the container may not be found yet.
const WARM_ATTEMPTS: u32 = 5;

/// Why a line is not on its way.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    /// No connection.
    #[error("attach to the agent")]
    Attach(#[source] CallError),
    /// The API server gave us no standard input.
    #[error("the attach has no standard input")]
    NoInput,
    /// It broke.
    #[error("write to the agent")]
    Write(#[source] std::io::Error),
    /// It takes nothing.
    #[error("the agent's standard input takes nothing")]
    Stuck,
}

/// The way to one container's standard input.
pub(super) struct Control {
    pods: Api<Pod>,
    pod: String,
    container: String,
    connection: Mutex<Option<Connection>>,
}

struct Connection {
    /// Kept alive: dropping it ends the stream at once.
    _process: AttachedProcess,
    input: Box<dyn AsyncWrite + Send + Unpin>,
    made: Instant,
}

impl Control {
    /// `pods` must be of a client without a read timeout.
    pub(super) fn new(pods: Api<Pod>, pod: String, container: String) -> Self {
        Self {
            pods,
            pod,
            container,
            connection: Mutex::new(None),
        }
    }

    /// Connects ahead of the first line. That it fails matters only when there is something to say.
    pub(super) async fn warm(&self) {
        let mut connection = self.connection.lock().await;
        let mut backoff = Backoff::new(Duration::from_millis(40), Duration::from_millis(400));
        for _ in 0..WARM_ATTEMPTS {
            if connection.is_some() {
                return;
            }
            match self.connect().await {
                Ok(made) => *connection = Some(made),
                Err(_) => backoff.wait(None).await,
            }
        }
    }

    /// Sends a line. `again`: the same line had no effect before, so the connection is not trusted.
    pub(super) async fn send(&self, line: &ControlLine, again: bool) -> Result<(), ControlError> {
        let mut connection = self.connection.lock().await;
        let usable = connection.take().filter(|c| !again && c.made.elapsed() < MAX_AGE);
        let mut open = match usable {
            Some(open) => open,
            None => self.connect().await?,
        };
        let text = line.render();
        let write = async {
            open.input.write_all(text.as_bytes()).await?;
            open.input.flush().await
        };
        tokio::time::timeout(WRITE, write)
            .await
            .map_err(|_| ControlError::Stuck)?
            .map_err(ControlError::Write)?;
        *connection = Some(open);
        Ok(())
    }

    async fn connect(&self) -> Result<Connection, ControlError> {
        let params = AttachParams::default()
            .container(self.container.clone())
            .stdin(true)
            .stdout(false)
            .stderr(false)
            .max_stdin_buf_size(MAX_LINE_BYTES);
        let mut process = deadline(CONNECT, self.pods.attach(&self.pod, &params))
            .await
            .map_err(ControlError::Attach)?;
        let input = process.stdin().ok_or(ControlError::NoInput)?;
        Ok(Connection {
            input: Box::new(input),
            _process: process,
            made: Instant::now(),
        })
    }
}

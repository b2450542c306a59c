//! One exec of the agent's `cat`, read so that nothing that arrived is lost and no end is waited for in vain.
//!
//! # Design notes
//! kube's exec streams may never end after a reset (tokio-rs/tokio#6914) and block each other when one is not read, so
//! both are read in one biased select, the status after them; once the status is known, a moment in which neither has
//! anything is the end. An idle limit stands around it, since no pong is awaited.

use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Api,
    api::{AttachParams, AttachedProcess},
};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::{
    captures::explain,
    cluster::{CallError, deadline},
};

/// Where the agent's image has its program; the admission policy allows exec of nothing else.
const AGENT: &str = "/diagbot-agent";
/// Longest wait for exec.
const CONNECT: Duration = Duration::from_secs(10);
/// A stream that brings nothing for this long is broken: the agent reads a file, and always has the next bytes at hand.
const IDLE: Duration = Duration::from_secs(10);
/// Buffer of a stream: at kube's default of 1 KiB the throughput is a tenth.
const BUFFER_BYTES: usize = 256 * 1024;

/// An exec of `cat` in our own container.
pub(super) struct CatStream {
    /// Kept alive: dropping it ends the streams.
    _process: AttachedProcess,
    stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    status: Option<BoxFuture<'static, Option<Status>>>,
    words: Vec<u8>,
}

impl CatStream {
    /// Starts `cat` of a step's staged artifact from a byte on.
    pub(super) async fn open(
        pods: &Api<Pod>,
        pod: &str,
        container: &str,
        step: u16,
        from: u64,
    ) -> Result<Self, CallError> {
        let command = [
            AGENT.to_owned(),
            "cat".to_owned(),
            format!("--step={step}"),
            format!("--from={from}"),
        ];
        let params = AttachParams::default()
            .container(container)
            .stdin(false)
            .stdout(true)
            .stderr(true)
            .max_stdout_buf_size(BUFFER_BYTES)
            .max_stderr_buf_size(BUFFER_BYTES);
        let mut process = deadline(CONNECT, pods.exec(pod, command, &params)).await?;
        Ok(Self {
            stdout: process.stdout().map(|s| Box::new(s) as _),
            stderr: process.stderr().map(|s| Box::new(s) as _),
            status: process.take_status().map(|s| Box::pin(s) as _),
            _process: process,
            words: Vec::new(),
        })
    }

    /// The next bytes; 0 when no more will come from this stream, for whatever reason.
    pub(super) async fn read(&mut self, into: &mut [u8]) -> usize {
        tokio::time::timeout(IDLE, self.next(into)).await.unwrap_or(0)
    }

    async fn next(&mut self, into: &mut [u8]) -> usize {
        let mut error_text = [0; 1024];
        loop {
            tokio::select! {
                biased;
                read = read_from(&mut self.stdout, into), if self.stdout.is_some() => match read {
                    Some(read) => return read,
                    None => self.stdout = None,
                },
                read = read_from(&mut self.stderr, &mut error_text), if self.stderr.is_some() => match read {
                    Some(read) => {
                        let room = 1024usize.saturating_sub(self.words.len());
                        self.words.extend_from_slice(&error_text[..read.min(room)]);
                    }
                    None => self.stderr = None,
                },
                status = resolved(&mut self.status), if self.status.is_some() => {
                    self.status = None;
                    if let Some(message) = status.and_then(|s| s.message) {
                        self.words.extend_from_slice(message.as_bytes());
                    }
                }
                () = std::future::ready(()), if self.status.is_none() => return 0,
            }
        }
    }

    /// What it said on standard error or as its status.
    pub(super) fn last_words(&self) -> String {
        explain::clean(&String::from_utf8_lossy(&self.words))
    }
}

/// Bytes read, or none at the stream's end.
async fn read_from(stream: &mut Option<Box<dyn AsyncRead + Send + Unpin>>, into: &mut [u8]) -> Option<usize> {
    let read = stream.as_mut()?.read(into).await.ok()?;
    (read > 0).then_some(read)
}

async fn resolved(status: &mut Option<BoxFuture<'static, Option<Status>>>) -> Option<Status> {
    match status {
        Some(status) => status.await,
        None => None,
    }
}

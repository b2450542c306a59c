//! One run of one container: its processes, its pipes, its log, and who is attached.
//!
//! Owns the run from the start of the process to the last byte of its log. Never writes a status.

use std::{
    collections::BTreeMap,
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    process::Child,
    sync::{Mutex as AsyncMutex, mpsc, watch},
};
use tokio_util::task::TaskTracker;

use super::{
    image::Image,
    isolation::Isolation,
    journal::{Journal, Splitter},
    launch::{self, Identity, Launch, Place, Spawner},
};

/// Bytes read from a container at once.
const CHUNK: usize = 64 * 1024;
/// Chunks on their way to one attached client; then the container waits for it, as with a real runtime.
const CHUNKS_IN_FLIGHT: usize = 16;

/// An output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kubernetes) enum Output {
    Stdout,
    Stderr,
}

/// One run.
#[derive(Debug)]
pub(in crate::kubernetes) struct Run {
    /// 64 hexadecimal digits.
    pub(in crate::kubernetes) id: String,
    pub(super) image: Image,
    pub(super) identity: Identity,
    pub(super) env: BTreeMap<String, String>,
    /// PID on the node.
    pub(super) pid: i32,
    pub(in crate::kubernetes) journal: Journal,
    pub(in crate::kubernetes) stdin_once: bool,
    stdin: AsyncMutex<Option<pipe::Sender>>,
    viewers: Mutex<Option<Vec<Viewer>>>,
    ended: watch::Sender<Option<i32>>,
    /// Killed on purpose from outside, so that no back-off follows.
    pub(super) disturbed: AtomicBool,
}

#[derive(Debug)]
struct Viewer {
    output: Output,
    chunks: mpsc::Sender<Bytes>,
}

/// What a run needs from its node and pod.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) isolation: Isolation,
    pub(super) spawner: &'a Spawner,
    pub(super) tasks: &'a TaskTracker,
    pub(super) program: &'a std::path::Path,
    pub(super) place: Place,
    pub(super) launch: Launch,
    pub(super) image: Image,
    pub(super) env: BTreeMap<String, String>,
    pub(super) stdin: bool,
    pub(super) stdin_once: bool,
}

/// Why a container does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The node can't start processes.
    #[error("start a process")]
    Io(#[from] io::Error),
    /// The runtime's words.
    #[error("{0}")]
    Refused(String),
}

impl Run {
    /// Starts the process, and the tasks that read from it.
    pub(super) async fn start(start: Start<'_>) -> Result<Arc<Self>, StartError> {
        let owner = start
            .launch
            .take_identity
            .then_some((start.launch.identity.uid, start.launch.identity.gid));
        let (stdout, stdout_writer) = launch::pipe(owner)?;
        let (stderr, stderr_writer) = launch::pipe(owner)?;
        let (stdin_reader, stdin) = if start.stdin {
            let (reader, writer) = launch::pipe(owner)?;
            (Stdio::from(reader), Some(sender(writer)?))
        } else {
            (launch::nothing()?, None)
        };
        let spec = serde_json::to_string(&start.launch).map_err(io::Error::other)?;
        let mut inner = vec![
            start.program.to_string_lossy().into_owned(),
            "container-init".to_owned(),
        ];
        if start.isolation != Isolation::Shared && matches!(start.place, Place::New) {
            inner.push(super::init::AS_PARENT.to_owned());
        }
        inner.push(spec);
        let mut command = launch::command(start.isolation, start.place, &inner, &start.env);
        command.stdin(stdin_reader).stdout(stdout_writer).stderr(stderr_writer);
        let child = start.spawner.spawn(command).await?;
        let mut stdout = receiver(stdout)?;
        let pid = ready_line(&mut stdout).await?;
        let run = Arc::new(Self {
            id: hex::encode(rand::random::<[u8; 32]>()),
            image: start.image,
            identity: start.launch.identity,
            env: start.env,
            pid,
            journal: Journal::new(),
            stdin_once: start.stdin_once,
            stdin: AsyncMutex::new(stdin),
            viewers: Mutex::new(Some(Vec::new())),
            ended: watch::Sender::new(None),
            disturbed: AtomicBool::new(false),
        });
        start
            .tasks
            .spawn(attend(Arc::clone(&run), child, stdout, receiver(stderr)?));
        Ok(run)
    }

    /// Waits for the end; the exit code as a runtime tells it.
    pub(in crate::kubernetes) async fn ended(&self) -> i32 {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(code) => code.unwrap_or(0),
            // The sender lives in this run.
            Err(_) => 255,
        }
    }

    /// Whether the process lives.
    pub(in crate::kubernetes) fn running(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// Sends a signal to the container's process.
    pub(super) fn signal(&self, signal: Signal) {
        if !self.running() {
            return;
        }
        if let Some(Err(error)) = Pid::from_raw(self.pid).map(|pid| rustix::process::kill_process(pid, signal)) {
            tracing::debug!(%error, pid = self.pid, "the process was gone already");
        }
    }

    /// Kills the container as somebody else would.
    pub(super) fn kill(&self) {
        self.disturbed.store(true, Ordering::Relaxed);
        self.signal(Signal::KILL);
    }

    /// Attaches to an output from now on; none when it has ended. There is no replay.
    pub(in crate::kubernetes) fn view(&self, output: Output) -> Option<mpsc::Receiver<Bytes>> {
        let (chunks, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        self.viewers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()?
            .push(Viewer { output, chunks });
        Some(receiver)
    }

    /// Writes to the container's standard input; nothing happens where it has none (any more).
    pub(in crate::kubernetes) async fn write_stdin(&self, bytes: &[u8]) {
        let mut stdin = self.stdin.lock().await;
        if let Some(pipe) = stdin.as_mut()
            && let Err(error) = pipe.write_all(bytes).await
        {
            tracing::debug!(%error, "the container closed its standard input");
            *stdin = None;
        }
    }

    /// Closes the container's standard input for good.
    pub(in crate::kubernetes) async fn close_stdin(&self) {
        *self.stdin.lock().await = None;
    }

    async fn show(&self, output: Output, chunk: &Bytes) {
        let senders: Vec<mpsc::Sender<Bytes>> = {
            let mut viewers = self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(viewers) = viewers.as_mut() else { return };
            viewers.retain(|v| !v.chunks.is_closed());
            viewers
                .iter()
                .filter(|v| v.output == output)
                .map(|v| v.chunks.clone())
                .collect()
        };
        for sender in senders {
            // A viewer that went away meanwhile misses nothing it wanted.
            let _gone = sender.send(chunk.clone()).await;
        }
    }

    async fn pump(&self, output: Output, mut pipe: pipe::Receiver) {
        let mut splitter = Splitter::default();
        let mut buffer = vec![0; CHUNK];
        loop {
            match pipe.read(&mut buffer).await {
                Ok(0) => break,
                Ok(length) => {
                    let chunk = Bytes::copy_from_slice(&buffer[..length]);
                    for segment in splitter.feed(&chunk) {
                        self.journal.append(segment);
                    }
                    self.show(output, &chunk).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "a container's output can't be read");
                    break;
                }
            }
        }
        if let Some(rest) = splitter.finish() {
            self.journal.append(rest);
        }
    }
}

/// Reads both outputs to their ends and waits for the process: only then is the run over.
async fn attend(run: Arc<Run>, mut child: Child, stdout: pipe::Receiver, stderr: pipe::Receiver) {
    let outputs = async { tokio::join!(run.pump(Output::Stdout, stdout), run.pump(Output::Stderr, stderr)) };
    let (status, _) = tokio::join!(child.wait(), outputs);
    run.journal.close();
    drop(run.viewers.lock().unwrap_or_else(PoisonError::into_inner).take());
    run.ended.send_replace(Some(status.map_or(255, exit_code)));
}

/// The code of a process as a runtime tells it: 128 + signal for one that was killed.
pub(in crate::kubernetes) fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|s| 128 + s))
        .unwrap_or(255)
}

fn sender(fd: OwnedFd) -> io::Result<pipe::Sender> {
    nonblocking(&fd)?;
    pipe::Sender::from_owned_fd(fd)
}

fn receiver(fd: OwnedFd) -> io::Result<pipe::Receiver> {
    nonblocking(&fd)?;
    pipe::Receiver::from_owned_fd(fd)
}

fn nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

/// The first line of a container's first program. Byte by byte: what follows is the container's own.
async fn ready_line(stdout: &mut pipe::Receiver) -> Result<i32, StartError> {
    let mut line = Vec::new();
    loop {
        match stdout.read_u8().await {
            Ok(b'\n') => break,
            Ok(byte) => line.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error.into()),
        }
    }
    let line = String::from_utf8_lossy(&line).into_owned();
    match line.split_once(' ') {
        Some(("ready", pid)) => pid
            .parse()
            .map_err(|_| StartError::Refused(format!("no process: {line:?}"))),
        Some(("failed", why)) => Err(StartError::Refused(why.to_owned())),
        _ => Err(StartError::Refused(format!(
            "the namespaces of the container can't be made: {line:?}"
        ))),
    }
}

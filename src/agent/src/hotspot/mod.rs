//! HotSpot's attach protocol, spoken by ourselves: no JDK is needed in any image.
//!
//! The JVM listens on `.java_pid<pid>` in its temporary folder; [`listener`] makes it do so. A connection takes one command,
//! and answers a line with a number (0: done) and the output (facts measured on JDK 17 and 25).

mod listener;

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use diagbot_wire::{args::StepArgs, result::Failure};
pub(crate) use listener::Signalled;
use rustix::io::Errno;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::{
    cleanup::MadeFile,
    pipeline::{Captured, Intake},
    process::Process,
    rooted::Rooted,
    step_context::{Context, StepError},
};

/// The JVM's temporary folder is fixed: it does not follow `java.io.tmpdir`.
pub(crate) const FOLDER: &str = "/tmp";
/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Longest error text that is kept, in bytes.
const ERROR_BYTES: usize = 400;

/// Runs a diagnostic command of the JVM (as `jcmd` names them) and captures its output.
pub(crate) async fn capture(
    process: &Process,
    command: &str,
    step: &StepArgs,
    context: &Context<'_>,
) -> Result<Captured, StepError> {
    let mut intake = Intake::new(step, context.rules)?;
    let mut answer = command_of(process, command, context).await?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = answer.read(&mut chunk).await?;
        if read == 0 || !intake.push(&chunk[..read])? {
            return Ok(intake.finish()?);
        }
        (context.progress)(intake.taken_bytes());
    }
}

/// Runs a command whose answer is short, and returns it.
pub(crate) async fn ask(process: &Process, command: &str, context: &Context<'_>) -> Result<String, StepError> {
    short_answer(command_of(process, command, context).await?).await
}

/// Runs a command that makes the JVM write `made`; while it has not answered, the file counts as being written.
pub(crate) async fn ask_to_write(
    process: &Process,
    command: &str,
    made: &mut MadeFile,
    context: &Context<'_>,
) -> Result<String, StepError> {
    let mut stream = send(process, command, context).await?;
    made.written_by(stream.as_fd().try_clone_to_owned()?);
    let answer = match verdict(&mut stream).await {
        Ok(()) => short_answer(stream).await,
        Err(refused) => Err(refused),
    };
    made.is_written();
    answer
}

async fn short_answer(stream: UnixStream) -> Result<String, StepError> {
    let mut text = Vec::new();
    stream.take(CHUNK_BYTES as u64).read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Sends a command and reads the JVM's verdict; the stream then holds the output.
async fn command_of(process: &Process, command: &str, context: &Context<'_>) -> Result<UnixStream, StepError> {
    let mut stream = send(process, command, context).await?;
    verdict(&mut stream).await?;
    Ok(stream)
}

async fn send(process: &Process, command: &str, context: &Context<'_>) -> Result<UnixStream, StepError> {
    check_identity(process)?;
    let folder = open_folder(process, context)?;
    let mut stream = match connect(&folder, process).await {
        Ok(stream) => stream,
        // Nobody listens, or the socket is one that a former JVM of the same PID left there.
        Err(_not_listening) => listener::start(&folder, process, context).await?,
    };
    // Version, operation and exactly three arguments, each ended by a NUL.
    stream.write_all(format!("1\0jcmd\0{command}\0\0\0").as_bytes()).await?;
    Ok(stream)
}

/// Reads the first line of the answer: whether the command was run.
async fn verdict(stream: &mut UnixStream) -> Result<(), StepError> {
    let code = match read_code(stream).await {
        Ok(code) => code,
        // It closes without a word on peers of another uid or gid than its own.
        Err(error) => {
            let text = format!("the JVM closed the connection without an answer ({error})");
            return Err(StepError::new(Failure::AttachRefused, text));
        }
    };
    if code == "0" {
        return Ok(());
    }
    let mut text = Vec::new();
    stream.take(ERROR_BYTES as u64).read_to_end(&mut text).await?;
    let text = String::from_utf8_lossy(&text);
    Err(StepError::new(
        Failure::ToolFailed,
        format!("the JVM answered {code}: {}", text.trim()),
    ))
}

/// The JVM takes commands of its own uid and of root only; nothing is tried, above all no signal sent, where that can't be.
fn check_identity(process: &Process) -> Result<(), StepError> {
    let own = rustix::process::geteuid().as_raw();
    if own == process.uid || own == 0 {
        return Ok(());
    }
    let text = format!(
        "the agent runs as uid {own} and the JVM as uid {}; `sockets` and `pod-report` still work",
        process.uid
    );
    Err(StepError::new(Failure::PermissionDenied, text))
}

/// The folder in which the JVM's socket is, held open.
pub(crate) fn open_folder(process: &Process, context: &Context<'_>) -> Result<Rooted, StepError> {
    Rooted::root_of(&context.proc_fs.folder(process.pid))
        .and_then(|root| root.folder(FOLDER))
        .map_err(|error| {
            let failure = match error.errno() {
                Some(Errno::ACCESS | Errno::PERM) => Failure::PermissionDenied,
                Some(Errno::NOENT) => Failure::AttachRefused,
                _ => Failure::Internal,
            };
            StepError::new(failure, error.to_string())
        })
}

/// Connects to the listener's socket, if it is the JVM's own.
async fn connect(folder: &Rooted, process: &Process) -> Result<UnixStream, String> {
    let name = format!(".java_pid{}", process.own_pid);
    let socket = folder.socket(&name, process.uid).map_err(|error| error.to_string())?;
    // By descriptor: the name could be swapped between look and connect.
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    UnixStream::connect(path)
        .await
        .map_err(|error| format!("connect to the JVM: {error}"))
}

/// The first line of an answer: a number.
async fn read_code(stream: &mut UnixStream) -> io::Result<String> {
    let mut code = String::new();
    while code.len() < 12 {
        match stream.read_u8().await? {
            b'\n' => return Ok(code),
            byte => code.push(char::from(byte)),
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

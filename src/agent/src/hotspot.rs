//! HotSpot's attach protocol, spoken by ourselves: no JDK is needed in any image.
//!
//! The JVM listens on `.java_pid<pid>` in its temporary folder once it finds `.attach_pid<pid>` there on a SIGQUIT. Without
//! that file, or in a JVM that can't attach, a SIGQUIT prints a thread dump into the application's own log; so it is sent
//! once, only to a process that handles it, and only after the file is there (facts measured on JDK 17 and 25).

use std::{os::fd::AsRawFd as _, time::Duration};

use diagbot_wire::{args::StepArgs, result::Failure};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::Instant,
};

use crate::{
    beneath::{Beneath, BeneathError},
    pipeline::{Captured, Intake},
    process::Process,
    step::{Context, StepError},
};

/// The JVM's temporary folder is fixed: it does not follow `java.io.tmpdir`.
pub(crate) const FOLDER: &str = "/tmp";
/// Longest wait for the attach listener to open; jattach gives up after as long.
const LISTEN_DEADLINE: Duration = Duration::from_secs(6);
/// Time between two looks for the listener's socket.
const LISTEN_STEP: Duration = Duration::from_millis(5);
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
    let mut intake = Intake::new(step)?;
    let mut answer = command_of(process, command, context).await?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = answer.read(&mut chunk).await?;
        if read == 0 || !intake.push(&chunk[..read])? {
            return Ok(intake.finish());
        }
        (context.progress)(intake.size_bytes());
    }
}

/// Runs a command whose answer is short, and returns it.
pub(crate) async fn ask(process: &Process, command: &str, context: &Context<'_>) -> Result<String, StepError> {
    let mut answer = command_of(process, command, context).await?;
    let mut text = Vec::new();
    (&mut answer).take(CHUNK_BYTES as u64).read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Sends a command and reads the JVM's verdict; the stream then holds the output.
async fn command_of(process: &Process, command: &str, context: &Context<'_>) -> Result<UnixStream, StepError> {
    let folder = open_folder(process, context)?;
    let mut stream = match connect(&folder, process).await {
        Ok(stream) => stream,
        Err(_not_listening) => {
            start_listener(&folder, process, context).await?;
            connect(&folder, process)
                .await
                .map_err(|detail| StepError::new(Failure::AttachRefused, detail))?
        }
    };
    // Version, operation and exactly three arguments, each ended by a NUL.
    stream.write_all(format!("1\0jcmd\0{command}\0\0\0").as_bytes()).await?;
    let code = read_code(&mut stream).await?;
    if code == "0" {
        return Ok(stream);
    }
    let mut text = Vec::new();
    stream.take(ERROR_BYTES as u64).read_to_end(&mut text).await?;
    let text = String::from_utf8_lossy(&text);
    Err(StepError::new(
        Failure::ToolFailed,
        format!("the JVM answered {code}: {}", text.trim()),
    ))
}

/// The folder in which the JVM's socket is, held open.
pub(crate) fn open_folder(process: &Process, context: &Context<'_>) -> Result<Beneath, StepError> {
    Beneath::root_of(&context.proc_fs.folder(process.pid))
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
async fn connect(folder: &Beneath, process: &Process) -> Result<UnixStream, String> {
    let name = format!(".java_pid{}", process.own_pid);
    let socket = folder.socket(&name, process.uid).map_err(|error| error.to_string())?;
    // By descriptor: the name could be swapped between look and connect.
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    UnixStream::connect(path)
        .await
        .map_err(|error| format!("connect to the JVM: {error}"))
}

/// Makes the JVM open its attach listener.
async fn start_listener(folder: &Beneath, process: &Process, context: &Context<'_>) -> Result<(), StepError> {
    if process.cmdline.iter().any(|word| word == "-XX:+DisableAttachMechanism") {
        return Err(StepError::new(
            Failure::AttachRefused,
            "the JVM was started with -XX:+DisableAttachMechanism; `process` and `pod-report` still work",
        ));
    }
    if !process.catches(Signal::QUIT) {
        return Err(StepError::new(
            Failure::AttachRefused,
            "the process does not handle SIGQUIT (-Xrs?), so it can't be asked to listen; `process` still works",
        ));
    }
    let name = format!(".attach_pid{}", process.own_pid);
    let trigger = context
        .cleanup
        .will_make(folder.handle().map_err(|e| refused(&e))?, &name);
    match folder.make(trigger.name()) {
        Ok(_made) => {}
        // Somebody else's, or one that an earlier tool left: the JVM takes it as well, and it is not ours to remove.
        Err(error) if error.errno() == Some(Errno::EXIST) => trigger.forget(),
        // It never came to be: nothing to remove, and nothing that was left behind.
        Err(error) => {
            trigger.forget();
            return Err(refused(&error));
        }
    }
    let lost = |errno: Errno| StepError::new(Failure::TargetReplaced, format!("signal the JVM: {errno}"));
    let pid = Pid::from_raw(process.pid).ok_or_else(|| lost(Errno::SRCH))?;
    let pinned = pidfd_open(pid, PidfdFlags::empty()).map_err(lost)?;
    // The descriptor names one process; only now can the start time be compared for good.
    if !process.is_still_there(context.proc_fs) {
        return Err(StepError::new(Failure::TargetReplaced, "the process has ended"));
    }
    pidfd_send_signal(&pinned, Signal::QUIT).map_err(|errno| match errno {
        Errno::PERM => StepError::new(Failure::PermissionDenied, "signal the JVM: not permitted for our uid"),
        other => lost(other),
    })?;
    let end = Instant::now() + LISTEN_DEADLINE;
    let socket = format!(".java_pid{}", process.own_pid);
    while folder.socket(&socket, process.uid).is_err() {
        if Instant::now() >= end {
            let text = "the JVM did not open its attach listener; it may be stuck, or attach is switched off";
            return Err(StepError::new(Failure::AttachRefused, text));
        }
        tokio::time::sleep(LISTEN_STEP).await;
    }
    Ok(())
}

/// Why the trigger file could not be made.
fn refused(error: &BeneathError) -> StepError {
    let failure = match error.errno() {
        Some(Errno::ROFS) => Failure::ReadOnlyFileSystem,
        Some(Errno::ACCESS | Errno::PERM) => Failure::PermissionDenied,
        Some(Errno::NOSPC | Errno::DQUOT) => Failure::NoSpace,
        _ => Failure::AttachRefused,
    };
    let hint = match failure {
        Failure::ReadOnlyFileSystem => {
            "; an emptyDir on /tmp would allow it. `process`, `sockets` and `pod-report` still work"
        }
        _ => "",
    };
    StepError::new(failure, format!("{error}{hint}"))
}

/// The first line of an answer: a number.
async fn read_code(stream: &mut UnixStream) -> Result<String, StepError> {
    let mut code = String::new();
    while code.len() < 12 {
        match stream.read_u8().await? {
            b'\n' => return Ok(code),
            byte => code.push(char::from(byte)),
        }
    }
    Err(StepError::new(Failure::AttachRefused, "the answer is not a JVM's"))
}

//! External tools: started from an argv list, in a process group of their own, so that they die before the target does.

use std::{process::Stdio, time::Duration};

use diagbot_wire::{args::StepArgs, result::Failure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{
        Pid, PidfdFlags, Resource, Rlimit, Signal, kill_process_group, pidfd_open, prlimit, setpriority_process,
    },
};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{
    pipeline::{Captured, Intake},
    step_context::{Context, StepError},
};

/// Most memory of a tool, in bytes of address space: it spends the pod's memory limit.
const MAX_MEMORY_BYTES: u64 = 1 << 30;
/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// How much of the end of a tool's error output is kept, in bytes.
const ERROR_BYTES: usize = 400;
/// How long a killed tool may take to end. One that waits for a disk takes longer; it is then left to the kernel.
const KILLED_WITHIN: Timespec = Timespec { tv_sec: 3, tv_nsec: 0 };
/// The only environment of a tool.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A running tool; its whole process group is killed when this is dropped.
struct Group {
    child: Child,
    pid: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            // It may have ended by itself.
            let _killed = kill_process_group(pid, Signal::KILL);
            // Only what has ended may be told as stopped; the runtime collects its status.
            let _ended = has_ended(pid, KILLED_WITHIN);
        }
    }
}

/// Waits until a killed process has ended, but not for long: a process of the target that traces the tool may keep its status
/// from us for ever, and the agent's own deadline must hold. A descriptor of the process tells its end also then.
fn has_ended(pid: Pid, within: Timespec) -> bool {
    // Without a descriptor there is no process any more.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
        return true;
    };
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    poll(&mut ended, Some(&within)).is_ok_and(|ready| ready > 0)
}

/// Runs the step's program and captures its standard output.
pub(crate) async fn capture(step: &StepArgs, deadline: Duration, context: &Context<'_>) -> Result<Captured, StepError> {
    let mut intake = Intake::new(step, context.rules)?;
    let (mut group, stdout) = start(step)?;
    let outcome = timeout(deadline, drain(&mut group, stdout, &mut intake, context)).await;
    drop(group);
    let captured = intake.finish()?;
    match outcome {
        Err(_) => {
            let text = format!("the tool was stopped after {} s", deadline.as_secs());
            Err(StepError::new(Failure::TimedOut, text).with_partial(captured))
        }
        Ok(Err(error)) => Err(error.with_partial(captured)),
        Ok(Ok(())) => Ok(captured),
    }
}

fn start(step: &StepArgs) -> Result<(Group, ChildStdout), StepError> {
    let mut child = Command::new(&step.argv[0])
        .args(&step.argv[1..])
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => StepError::new(Failure::ToolMissing, format!("no {} here", step.argv[0])),
            _ => StepError::from(error),
        })?;
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        yield_to_the_target(pid);
    }
    let stdout = child.stdout.take();
    let group = Group { child, pid };
    let stdout = stdout.ok_or_else(|| StepError::new(Failure::Internal, "the tool has no output"))?;
    Ok((group, stdout))
}

/// Makes the kernel end the tool before the target when memory runs out, bounds its memory, and runs it after the target. Each
/// is a courtesy: a tool that can't be so limited still has its deadline.
fn yield_to_the_target(pid: Pid) {
    // Beside a target that is not root, [`crate::seal::be_killed_first`] can't do it for both of us.
    let _scored = std::fs::write(format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero()), "1000");
    let _reniced = setpriority_process(Some(pid), 19);
    let limit = Rlimit {
        current: Some(MAX_MEMORY_BYTES),
        maximum: Some(MAX_MEMORY_BYTES),
    };
    let _limited = prlimit(Some(pid), Resource::As, limit);
}

async fn drain(
    group: &mut Group,
    mut stdout: ChildStdout,
    intake: &mut Intake<'_>,
    context: &Context<'_>,
) -> Result<(), StepError> {
    let mut stderr = group.child.stderr.take();
    let mut tail = Vec::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut noise = vec![0; 4096];
    let mut open = true;
    while open || stderr.is_some() {
        tokio::select! {
            read = stdout.read(&mut chunk), if open => match read? {
                0 => open = false,
                read if !intake.push(&chunk[..read])? => return Ok(()),
                _ => (context.progress)(intake.taken_bytes()),
            },
            read = read_some(&mut stderr, &mut noise), if stderr.is_some() => match read? {
                0 => stderr = None,
                read => {
                    tail.extend_from_slice(&noise[..read]);
                    tail.drain(..tail.len().saturating_sub(ERROR_BYTES));
                }
            },
        }
    }
    let status = group.child.wait().await?;
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&tail);
    let detail = match text.trim() {
        "" => status.to_string(),
        words => format!("{status}: {words}"),
    };
    Err(StepError::new(Failure::ToolFailed, detail))
}

async fn read_some(stderr: &mut Option<tokio::process::ChildStderr>, into: &mut [u8]) -> std::io::Result<usize> {
    match stderr {
        Some(stderr) => stderr.read(into).await,
        None => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use diagbot_analysis::redact::Rules;
    use diagbot_wire::args::{OutputKind, ProcessSelector};

    use super::*;
    use crate::{cleanup::Cleanup, hotspot::Signalled, process::ProcFs};

    fn step(argv: &[&str], limit_bytes: u64, deadline_s: u32) -> StepArgs {
        StepArgs {
            name: "tool".to_owned(),
            process: ProcessSelector::None,
            output: OutputKind::Text,
            limit_bytes,
            deadline_s,
            after_s: 0,
            stop_on_error: false,
            argv: argv.iter().map(|w| (*w).to_owned()).collect(),
        }
    }

    async fn run(step: &StepArgs) -> Result<Captured, StepError> {
        let (proc_fs, cleanup, signalled) = (ProcFs::system(), Cleanup::default(), Signalled::default());
        let context = Context {
            proc_fs: &proc_fs,
            process: None,
            cleanup: &cleanup,
            signalled: &signalled,
            room_bytes: None,
            rules: &Rules::default(),
            progress: &|_| {},
        };
        crate::step::run(step, &context).await
    }

    #[tokio::test]
    async fn output_comes_whole_and_the_environment_is_empty() {
        let captured = run(&step(&["env"], 1024, 10)).await.expect("it runs");
        assert_eq!(captured.preview, format!("PATH={PATH}\n"));
        let mut bytes = Vec::new();
        std::io::Seek::rewind(&mut &*captured.file).expect("seek");
        (&*captured.file).read_to_end(&mut bytes).expect("read");
        assert_eq!(bytes.len() as u64, captured.size_bytes);
    }

    #[tokio::test]
    async fn a_failing_tool_tells_its_last_words_and_keeps_what_it_put_out() {
        let error = run(&step(&["ls", "/", "/nonexistent"], 4096, 10))
            .await
            .expect_err("it fails");
        assert_eq!(error.failure, Failure::ToolFailed);
        assert!(error.detail.contains("/nonexistent"), "{}", error.detail);
        assert!(error.partial.is_some_and(|p| p.preview.contains("tmp")));
    }

    #[tokio::test]
    async fn a_hanging_tool_is_stopped_and_an_absent_one_is_named() {
        assert_eq!(
            run(&step(&["sleep", "60"], 1024, 1)).await.expect_err("hangs").failure,
            Failure::TimedOut
        );
        let missing = run(&step(&["/no/such/tool"], 1024, 1)).await.expect_err("absent");
        assert_eq!(missing.failure, Failure::ToolMissing);
    }

    #[test]
    fn the_wait_for_a_killed_tool_is_bounded() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let pid = Pid::from_child(&child);
        let moment = Timespec {
            tv_sec: 0,
            tv_nsec: 10_000_000,
        };
        assert!(!has_ended(pid, moment), "it still runs");
        child.kill().expect("it is ours");
        // Nobody has collected its status, as where a tracer keeps it.
        assert!(has_ended(pid, KILLED_WITHIN));
        child.wait().expect("it has ended");
    }

    #[tokio::test]
    async fn a_tool_has_no_input_and_yields_to_the_target() {
        crate::seal::be_killed_first();
        // The priority comes a moment after the start, and the memory limit right after it.
        let script = "read -r line && echo input; until [ $(nice) = 19 ] && [ $(ulimit -v) != unlimited ]; do :; done; \
                      cat /proc/self/oom_score_adj; ulimit -v; ulimit -c";
        let captured = run(&step(&["sh", "-c", script], 1024, 10)).await.expect("it runs");
        let memory_kib = MAX_MEMORY_BYTES / 1024;
        assert_eq!(captured.preview, format!("1000\n{memory_kib}\n0\n"));
    }

    #[tokio::test]
    async fn endless_output_ends_at_the_limit() {
        let captured = run(&step(&["yes"], 100_000, 10)).await.expect("cut");
        assert!(captured.truncated);
        assert_eq!(captured.size_bytes, 100_000);
    }
}

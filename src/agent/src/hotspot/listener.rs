//! Making a JVM listen. It opens its socket when it finds `.attach_pid<pid>` in its temporary folder on a SIGQUIT.
//!
//! # Design notes
//! Without that file, or in a JVM that can't attach, a SIGQUIT prints a thread dump into the application's own log; in an
//! OpenJ9 it makes a core file of Java's own; a process that does not handle it dies. So all that can be known is looked at
//! first, the file is there before the signal, and no JVM is signalled twice in a session (a JDK's `jcmd` sends six).

use std::{
    cell::RefCell,
    collections::BTreeSet,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use diagbot_wire::result::Failure;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::{net::UnixStream, time::Instant};

use super::connect;
use crate::{
    cleanup::MadeFile,
    process::Process,
    rooted::{Rooted, RootedError},
    step_context::{Context, StepError},
};

/// Longest wait for the socket; jattach gives up after as long.
const LISTEN_DEADLINE: Duration = Duration::from_secs(6);
/// First time between two looks for it; it doubles up to [`LAST_STEP`]. A JVM listens within some 10 ms (measured).
const FIRST_STEP: Duration = Duration::from_millis(3);
/// Longest time between two looks.
const LAST_STEP: Duration = Duration::from_millis(50);
/// Switches attach off; with a minus, on again. The last one counts.
const DISABLED: &str = "-XX:+DisableAttachMechanism";
/// See [`DISABLED`].
const ENABLED: &str = "-XX:-DisableAttachMechanism";

/// JVMs that were signalled in this session, by PID and start time.
#[derive(Debug, Default)]
pub(crate) struct Signalled(RefCell<BTreeSet<(i32, u64)>>);

/// Makes the JVM listen, and connects.
pub(super) async fn start(folder: &Rooted, process: &Process, context: &Context<'_>) -> Result<UnixStream, StepError> {
    check(process, context)?;
    let _trigger = trigger(folder, process, context)?;
    let pinned = signal(process, context)?;
    let end = Instant::now() + LISTEN_DEADLINE;
    let mut step = FIRST_STEP;
    loop {
        let refusal = match connect(folder, process).await {
            Ok(stream) => return Ok(stream),
            Err(refusal) => refusal,
        };
        if has_ended(&pinned) {
            return Err(StepError::new(Failure::TargetReplaced, "the JVM has ended"));
        }
        if Instant::now() >= end {
            let text = format!(
                "the JVM did not open its attach listener within {} s ({refusal}); it may be stuck, or attach is switched off. \
                 `process`, `sockets` and `pod-report` still work",
                LISTEN_DEADLINE.as_secs()
            );
            return Err(StepError::new(Failure::AttachRefused, text));
        }
        tokio::time::sleep(step).await;
        step = LAST_STEP.min(step * 2);
    }
}

/// Refuses where a signal would do harm or no good.
fn check(process: &Process, context: &Context<'_>) -> Result<(), StepError> {
    let refused = |text: &str| {
        let text = format!("{text}; `process`, `sockets` and `pod-report` still work");
        Err(StepError::new(Failure::AttachRefused, text))
    };
    if context
        .signalled
        .0
        .borrow()
        .contains(&(process.pid, process.start_time))
    {
        return refused("the JVM was asked to listen before and does not; it is not asked again");
    }
    let environ = context.proc_fs.text(process.pid, "environ").unwrap_or_default();
    if is_switched_off(&process.cmdline, &environ) {
        return refused("the JVM was started with -XX:+DisableAttachMechanism");
    }
    if !process.catches(Signal::QUIT) {
        return refused("the process does not handle SIGQUIT (-Xrs?), so it can't be asked to listen");
    }
    let maps = |library: &str| context.proc_fs.maps_library(process.pid, library);
    if maps("libj9vm") == Some(true) {
        return refused("this is an OpenJ9 JVM; only HotSpot JVMs can be asked");
    }
    if maps("libjvm.so") == Some(false) {
        return refused("the process has no JVM loaded");
    }
    Ok(())
}

/// Whether the options say that the JVM does not attach. A JVM reads `JAVA_TOOL_OPTIONS`, then `JDK_JAVA_OPTIONS` and its
/// arguments, then `_JAVA_OPTIONS`; what comes later wins.
fn is_switched_off(cmdline: &[String], environ: &str) -> bool {
    let variable = |name: &str| {
        let value = environ
            .split('\0')
            .find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().split_whitespace()
    };
    variable("JAVA_TOOL_OPTIONS")
        .chain(variable("JDK_JAVA_OPTIONS"))
        .chain(cmdline.iter().map(String::as_str))
        .chain(variable("_JAVA_OPTIONS"))
        .rfind(|word| [DISABLED, ENABLED].contains(word))
        == Some(DISABLED)
}

/// Makes the trigger file; it is removed when the returned value is dropped.
fn trigger(folder: &Rooted, process: &Process, context: &Context<'_>) -> Result<Option<MadeFile>, StepError> {
    let name = format!(".attach_pid{}", process.own_pid);
    let held = folder.handle().map_err(|error| refused(&error))?;
    let trigger = context.cleanup.will_make(held, &name);
    match folder.make(trigger.name()) {
        Ok(_made) => Ok(Some(trigger)),
        Err(error) => {
            // Not made by us: nothing to remove, and nothing that was left behind.
            trigger.forget();
            // One that an earlier tool left serves as well if it is the JVM's own: it ignores those of others, and would
            // print into the application's log.
            if error.errno() == Some(Errno::EXIST) {
                return folder
                    .read(&name, process.uid)
                    .map(|_| None)
                    .map_err(|error| refused(&error));
            }
            Err(refused(&error))
        }
    }
}

/// Sends the one SIGQUIT, to exactly this process.
fn signal(process: &Process, context: &Context<'_>) -> Result<OwnedFd, StepError> {
    let lost = |errno: Errno| StepError::new(Failure::TargetReplaced, format!("signal the JVM: {errno}"));
    let pid = Pid::from_raw(process.pid).ok_or_else(|| lost(Errno::SRCH))?;
    let pinned = pidfd_open(pid, PidfdFlags::empty()).map_err(lost)?;
    // The descriptor names one process; only now can the start time be compared for good.
    if !process.is_still_there(context.proc_fs) {
        return Err(StepError::new(Failure::TargetReplaced, "the process has ended"));
    }
    context
        .signalled
        .0
        .borrow_mut()
        .insert((process.pid, process.start_time));
    pidfd_send_signal(&pinned, Signal::QUIT).map_err(|errno| match errno {
        Errno::PERM => StepError::new(Failure::PermissionDenied, "signal the JVM: not permitted for our uid"),
        other => lost(other),
    })?;
    Ok(pinned)
}

/// A pidfd is readable once its process has ended.
fn has_ended(pinned: &OwnedFd) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(pinned.as_fd(), PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Why the trigger file could not be made.
fn refused(error: &RootedError) -> StepError {
    let failure = match error.errno() {
        Some(Errno::ROFS) => Failure::ReadOnlyFileSystem,
        Some(Errno::ACCESS | Errno::PERM) => Failure::PermissionDenied,
        Some(Errno::NOSPC | Errno::DQUOT) => Failure::NoSpace,
        _ => Failure::AttachRefused,
    };
    let hint = match failure {
        Failure::ReadOnlyFileSystem => "; an emptyDir on /tmp would allow it",
        _ => "",
    };
    let text = format!("{error}{hint}. `process`, `sockets` and `pod-report` still work");
    StepError::new(failure, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_about_attach_counts() {
        let off = |words: &[&str], environ: &str| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            is_switched_off(&words, environ)
        };
        assert!(off(&["java", DISABLED, "-jar", "x"], ""));
        assert!(!off(&["java", DISABLED, ENABLED], ""));
        assert!(!off(&["java", "-jar", "x"], "PATH=/bin\0HOME=/"));
        let environ = format!("A=1\0JAVA_TOOL_OPTIONS=-Xmx1g {DISABLED}\0B=2");
        assert!(off(&["java"], &environ));
        assert!(!off(&["java", ENABLED], &environ), "arguments come later");
        assert!(off(&["java", ENABLED], &format!("_JAVA_OPTIONS={DISABLED}")));
        assert!(!off(&["java"], &format!("MY_JAVA_TOOL_OPTIONS={DISABLED}")));
    }
}

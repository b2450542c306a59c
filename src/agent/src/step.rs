//! One step: from its arguments to a captured file, or to the reason why there is none.

use std::{future::Future, io, time::Duration};

use diagbot_analysis::redact::Rules;
use diagbot_wire::{
    args::{BuiltIn, StepArgs},
    result::Failure,
};

use crate::{
    cleanup::Cleanup,
    heap_dump,
    hotspot::{self, Signalled},
    pipeline::{Captured, Intake},
    process::{ProcFs, Process},
    report,
    spool::SpoolError,
    tool,
};

/// What a step works with.
pub(crate) struct Context<'a> {
    /// `/proc`.
    pub(crate) proc_fs: &'a ProcFs,
    /// The pinned process, for steps that look at one.
    pub(crate) process: Option<&'a Process>,
    /// Files that we make in the target.
    pub(crate) cleanup: &'a Cleanup,
    /// JVMs that were asked to listen.
    pub(crate) signalled: &'a Signalled,
    /// Most bytes that may be written into the pod's file systems, where its owner set a limit.
    pub(crate) room_bytes: Option<u64>,
    /// What is removed from text.
    pub(crate) rules: &'a Rules,
    /// Told how many bytes were captured.
    pub(crate) progress: &'a dyn Fn(u64),
}

/// Why a step has no whole output.
#[derive(Debug)]
pub(crate) struct StepError {
    /// Its class.
    pub(crate) failure: Failure,
    /// What is known beyond that; at most [`MAX_DETAIL_BYTES`] bytes.
    pub(crate) detail: String,
    /// What the tool put out before it failed.
    pub(crate) partial: Option<Box<Captured>>,
}

/// Longest detail in bytes.
const MAX_DETAIL_BYTES: usize = 400;

impl StepError {
    /// An error without output.
    pub(crate) fn new(failure: Failure, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        let mut end = MAX_DETAIL_BYTES.min(detail.len());
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        detail.truncate(end);
        Self {
            failure,
            detail,
            partial: None,
        }
    }

    /// The same, with what the tool put out before it failed.
    pub(crate) fn with_partial(mut self, captured: Captured) -> Self {
        self.partial = (captured.size_bytes > 0).then(|| Box::new(captured));
        self
    }
}

impl From<io::Error> for StepError {
    fn from(error: io::Error) -> Self {
        let failure = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::NoSpace,
            io::ErrorKind::PermissionDenied => Failure::PermissionDenied,
            io::ErrorKind::ReadOnlyFilesystem => Failure::ReadOnlyFileSystem,
            _ => Failure::Internal,
        };
        Self::new(failure, error.to_string())
    }
}

impl From<SpoolError> for StepError {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::NoPrivatePlace(_) => Self::new(Failure::NoPrivatePlace, error.to_string()),
            SpoolError::Io(error) => error.into(),
        }
    }
}

/// Runs one step within its deadline.
pub(crate) async fn run(step: &StepArgs, context: &Context<'_>) -> Result<Captured, StepError> {
    let deadline = Duration::from_secs(step.deadline_s.into());
    match step.argv.first().and_then(|word| BuiltIn::parse(word)) {
        Some(BuiltIn::Jvm) => {
            let process = context.target()?;
            let command = step.argv[1..].join(" ");
            if command.contains('\0') {
                return Err(StepError::new(Failure::ToolFailed, "a command can't hold a NUL"));
            }
            within(deadline, hotspot::capture(process, &command, step, context)).await
        }
        Some(BuiltIn::JvmHeapDump) => {
            let process = context.target()?;
            let live = step.argv.get(1).is_some_and(|word| word == "live");
            within(deadline, heap_dump::capture(process, live, step, context)).await
        }
        Some(BuiltIn::Process) => {
            let text = report::process(context.proc_fs, context.target()?);
            whole(step, &text, context)
        }
        Some(BuiltIn::Sockets) => whole(step, &report::sockets(context.proc_fs), context),
        None => tool::capture(step, deadline, context).await,
    }
}

async fn within(
    deadline: Duration,
    capture: impl Future<Output = Result<Captured, StepError>>,
) -> Result<Captured, StepError> {
    tokio::time::timeout(deadline, capture).await.unwrap_or_else(|_| {
        Err(StepError::new(
            Failure::TimedOut,
            format!("no end within {} s", deadline.as_secs()),
        ))
    })
}

fn whole(step: &StepArgs, text: &str, context: &Context<'_>) -> Result<Captured, StepError> {
    let mut intake = Intake::new(step, context.rules)?;
    intake.push(text.as_bytes())?;
    Ok(intake.finish()?)
}

impl<'a> Context<'a> {
    fn target(&self) -> Result<&'a Process, StepError> {
        self.process
            .ok_or_else(|| StepError::new(Failure::NoSuchProcess, "no process fits"))
    }
}

//! One step: from its arguments to a captured file, or to the reason why there is none.

use std::{future::Future, time::Duration};

use diagbot_wire::{
    args::{BuiltIn, StepArgs},
    result::Failure,
};

use crate::{
    heap_dump, hotspot,
    pipeline::{Captured, Intake},
    process::Process,
    report,
    step_context::{Context, StepError},
    tool,
};

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

//! What every crate of the bot stands on: retry, tasks, clock, failpoints, telemetry. Knows nothing of diagnostics.

pub mod clock;
pub mod failpoint;
pub mod retry;
pub mod tasks;
pub mod telemetry;

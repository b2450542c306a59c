//! Captures: one target's part of a run each. Executes them; knows no Slack and no person.
//!
//! The controller ([`controller`]) starts one task ([`task`]) for each capture that is not over. A task gathers
//! facts (the object, the pod, the agent's journal, the result object), asks [`plan`] what follows from them, and lets
//! [`act`] do it. Start, retry and recovery after a crash are the same path: nothing that matters is held in memory alone.
//! Who asks for a capture without a bot drives it the same way ([`local`]); then the record is in memory, and ends with it.

mod act;
pub mod config;
mod container;
mod control;
pub mod controller;
mod explain;
mod identity;
mod journal;
mod launch;
pub mod local;
mod log;
mod manifest;
mod plan;
mod pods;
mod redaction;
mod relay;
#[cfg(test)]
mod samples;
mod status_writer;
mod sweep;
mod task;

pub use config::{CapturesConfig, CapturesContext, SecretKey, SecretTooShort};
pub use redaction::RedactionConfig;

/// The names of all that is done here.
#[cfg(feature = "failpoints")]
pub const ACTIONS: &[&[&str]] = &[plan::Action::NAMES];

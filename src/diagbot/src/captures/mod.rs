//! Captures: one target's part of a run each. Executes them; knows no Slack and no person.
//!
//! The controller ([`controller`]) starts one pursuit ([`pursuit`]) for each capture that is not over. A pursuit gathers
//! facts (the object, the pod, the agent's journal, the result object), asks [`plan`] what follows from them, and lets
//! [`act`] do it. Start, retry and recovery after a crash are the same path: nothing that matters is held in memory alone.

pub mod config;
mod container;
mod explain;
mod identity;
mod journal;
mod launch;
pub mod resource;
#[cfg(test)]
mod samples;

pub use config::{CapturesConfig, SecretKey};

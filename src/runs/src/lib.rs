//! Runs: one accepted request each, durable. The only place that changes a run.
//!
//! Owns acceptance, decision, fan-out into captures and the run's phases. Never touches a target cluster's pods and never
//! talks to Slack: fronts come to [`service`] and read what became of a run there.

pub mod access;
mod act;
pub mod admission;
mod admission_gate;
mod bundle;
pub mod controller;
pub mod local;
mod object_cache;
mod pause_switch;
mod plan;
mod preflight;
pub mod reason;
pub mod request;
pub mod retention;
pub mod service;
mod slots;
mod unrecorded;

/// The names of all that is done here.
#[cfg(feature = "failpoints")]
pub const ACTIONS: &[&[&str]] = &[plan::Action::NAMES, &[service::ACCEPT, service::RECORD_TELLING]];

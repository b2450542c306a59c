//! diagbot: evidence from sick pods, for people who may not exec into production.
//!
//! This page is the map. A request enters through a front (`slack`), is accepted by one durable create ([`runs`]), decided,
//! and handed to [`captures`] as an object of its own; the captured bytes go from the pod straight to the store
//! ([`artifacts`]); the front tells people what became of it.
//!
//! A module imports only what stands below it:
//!
//! ```text
//! main  cli           parse, wire, print the error chain once, exit code
//! config              composes the settings that live with the modules they configure
//! http                health, metrics, webhooks
//! slack  triggers  schedules    fronts: they talk to runs::service only, never to each other
//! runs                the only place that changes a run
//! captures            executes captures; knows no Slack, no person
//! admission           how often
//! access              who may
//! record              who did what: hash chains, kept in the store
//! artifacts  cluster  the store and Kubernetes
//! telemetry  retry  tasks  clock  failpoint
//! ```
//!
//! `tests/layers.rs` holds the sources to this order.
//!
//! Runs and captures are two resources and two controllers, joined by the capture object only: see
//! [`runs::resource`] and [`captures::resource`].

pub mod access;
pub mod admission;
pub mod artifacts;
pub mod captures;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod failpoint;
pub mod http;
pub mod record;
pub mod retry;
pub mod runs;
pub mod schedules;
pub mod slack;
pub mod tasks;
pub mod telemetry;
pub mod triggers;

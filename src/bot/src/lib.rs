//! The program `diagbot`: its command line, its settings, and how everything is wired together.
//!
//! | module | |
//! | --- | --- |
//! | [`cli`] | parses, wires, prints the error chain once, gives the exit code |
//! | [`config`] | composes the settings that live with the crates that they configure |
//! | [`http`] | health, metrics, webhooks |
//! | [`triggers`], [`schedules`] | what starts runs beside people: they talk to `diagbot_runs::service` only |
//!
//! Begin to read at `cli/serve.rs`, which starts every part of the bot. `docs/architecture.md` is the map of all crates.

pub mod cli;
pub mod config;
pub mod http;
pub mod schedules;
pub mod triggers;

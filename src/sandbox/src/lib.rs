//! A whole installation on loopback, for demo and tests. Never in a release image.

pub mod kubernetes;
pub mod slack;

use std::{ffi::OsString, process::ExitCode};

/// Runs the part that the first word names.
pub fn run(mut args: Vec<OsString>) -> ExitCode {
    match args.first().and_then(|part| part.to_str()) {
        Some("agent") => agent(&args[1..]),
        Some("slack") => slack::serve_alone(args.split_off(1)),
        Some("kubernetes") => kubernetes::serve_alone(&args[1..]),
        Some("container-init") => kubernetes::container_init(&args[1..]),
        Some("workload") => kubernetes::workload(&args[1..]),
        _ => diagbot::cli::run(args),
    }
}

/// The agent, for the node's ephemeral containers. Its arguments are always UTF-8; others are none of its own.
fn agent(args: &[OsString]) -> ExitCode {
    let args: Vec<String> = args.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    diagbot_agent::run(&args)
}

//! A whole installation on loopback, for demo and tests. Never in a release image.

pub mod kubernetes;

use std::{ffi::OsString, process::ExitCode};

/// Runs the part that the first word names.
pub fn run(args: Vec<OsString>) -> ExitCode {
    diagbot::cli::run(args)
}

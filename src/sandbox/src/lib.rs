//! A whole installation on loopback, for demo and tests. Never in a release image.

pub mod kubernetes;
pub mod slack;

use std::{ffi::OsString, process::ExitCode};

/// Runs the part that the first word names.
pub fn run(mut args: Vec<OsString>) -> ExitCode {
    if args.first().is_some_and(|part| part == "slack") {
        return slack::serve_alone(args.split_off(1));
    }
    diagbot::cli::run(args)
}

//! The `diagbot` program: see [`diagbot::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    diagbot::cli::run(std::env::args_os().skip(1).collect())
}

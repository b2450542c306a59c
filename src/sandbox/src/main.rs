//! The sandbox's program: see [`diagbot_sandbox::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    diagbot_sandbox::run(std::env::args_os().skip(1).collect())
}

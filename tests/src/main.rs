//! The sandbox's program under test: see [`diagbot_sandbox::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    diagbot_sandbox::run(std::env::args_os().skip(1).collect())
}

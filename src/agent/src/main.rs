//! The agent's program: see [`diagbot_agent`].

use std::process::ExitCode;

fn main() -> ExitCode {
    diagbot_agent::run(&std::env::args().skip(1).collect::<Vec<_>>())
}

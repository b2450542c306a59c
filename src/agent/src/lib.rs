//! The program inside the ephemeral container: finds the process, says hello, waits for the ticket, runs the steps, sends
//! the evidence straight to the store, removes what it wrote, and says how it went.
//!
//! Owns everything that happens in the pod. Never puts captured output on its standard output, never acts on a line that
//! does not carry the nonce, never trusts the target: paths are opened beneath a held root, processes are pinned by PID and
//! start time, and only files that it made are removed.
//!
//! # Design notes
//! One thread, one runtime: memory stays small whatever the artifact's size. Files are read with blocking reads in small
//! pieces; they come from the page cache. Names are resolved in pure Rust, since a static glibc can't.

mod cleanup;
mod clock;
mod heap_dump;
mod hotspot;
mod inbox;
mod journal;
mod pipeline;
mod process;
mod relay;
mod report;
mod rooted;
mod seal;
mod session;
mod spool;
mod step;
mod step_context;
mod tool;
mod upload;

use std::process::ExitCode;

/// Exit code for a command line that is not ours.
const USAGE: u8 = 2;

/// Runs the agent with `args` (without the program's name): `run …` in the container, `cat …` by exec into it.
pub fn run(args: &[String]) -> ExitCode {
    seal::seal();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("start the runtime: {error}")),
    };
    match args.first().map(String::as_str) {
        Some("run") => match diagbot_wire::args::AgentArgs::parse(args) {
            Ok(args) => runtime.block_on(session::run(&args)),
            Err(error) => complain(&format!("diagbot-agent: {error}")),
        },
        Some("cat") => runtime.block_on(relay::cat(&args[1..])),
        _ => complain("diagbot-agent is started by diagbot: run … | cat --step=N --from=M"),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "an error before there is a journal has no other place"
)]
fn complain(text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::from(USAGE)
}

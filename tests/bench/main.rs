//! Benchmarks: what was promised about speed and memory, as one table.
//!
//! `cargo bench -p diagbot-tests` runs all; words behind `--` choose sections: `crowd`, `idle`, `typing`, `latency`, `bulk`. The last two need
//! a real cluster, prepared as for `tests/e2e`, whose harness they use; `bulk` also needs `DIAGBOT_BENCH_IMAGE`, an image by
//! digest on the node that holds the agent and a static `/cat`. `.ci/long` prepares both. Ends with 1 when a promise is
//! not kept, when nothing was measured, when a section was named that does not exist, and when one was named that can't run.
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a benchmark reports what it measured"
)]

mod bulk;
mod by_hand;
mod crowd;
#[allow(
    dead_code,
    unused_imports,
    reason = "the harness of tests/e2e, of which benchmarks need a part"
)]
#[path = "../e2e/installation/mod.rs"]
mod installation;
#[allow(dead_code, reason = "see installation")]
#[path = "../e2e/kubectl.rs"]
mod kubectl;
mod latency;
#[allow(dead_code, reason = "see installation")]
#[path = "../e2e/link.rs"]
mod link;
mod memory;
#[path = "../e2e/namespaces.rs"]
mod namespaces;
#[allow(dead_code, reason = "see installation")]
#[path = "../e2e/outcome.rs"]
mod outcome;
mod table;
mod typing;
#[allow(dead_code, reason = "see installation")]
#[path = "../e2e/workload.rs"]
mod workload;

use std::process::ExitCode;

use table::Table;

/// The sections, in the order in which they run.
const SECTIONS: [&str; 5] = ["crowd", "idle", "typing", "latency", "bulk"];

#[tokio::main]
async fn main() -> ExitCode {
    // `cargo bench` itself passes `--bench`.
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    if let Some(unknown) = chosen.iter().find(|word| !SECTIONS.contains(&word.as_str())) {
        eprintln!("there is no section {unknown:?}: choose from {}", SECTIONS.join(", "));
        return ExitCode::FAILURE;
    }
    let wanted = |section: &str| chosen.is_empty() || chosen.iter().any(|word| word == section);
    let cluster = std::env::var_os("KUBECONFIG").is_some() && std::env::var_os("DIAGBOT_E2E_AGENT_IMAGE").is_some();
    let mut table = Table::default();
    let mut sound = true;
    for section in SECTIONS.into_iter().filter(|s| wanted(s)) {
        eprintln!("{section}");
        if matches!(section, "latency" | "bulk") && !cluster {
            table.not_run(section, "no KUBECONFIG and DIAGBOT_E2E_AGENT_IMAGE of a real cluster");
            // Without words all runs that can; who names a section wants its numbers.
            sound &= chosen.is_empty();
            continue;
        }
        let result = match section {
            "crowd" => crowd::commands_at_once(&mut table).await,
            "idle" => crowd::idle(&mut table).await,
            "typing" => typing::measure(&mut table).await,
            "latency" => latency::measure(&mut table).await,
            _ => bulk::measure(&mut table).await,
        };
        if let Err(error) = result {
            sound = false;
            table.not_run(section, &format!("{error:#}"));
        }
    }
    println!("{}", table.render());
    if sound && table.is_met() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

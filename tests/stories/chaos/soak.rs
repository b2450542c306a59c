//! Soak: the bot answers command after command, and does not grow.
//!
//! Eight hours of a busy team, compressed: a command every 300 ms instead of one a minute. What goes by the clock alone - the
//! retention of finished records - is not compressed, so the records of all commands are kept and counted in.

use std::fs;

use super::{play::Stage, say, script::Script};

/// One a minute in eight hours.
const COMMANDS: usize = 480;
/// Between two looks at the memory.
const ROUND: usize = 60;
/// Most growth from the first hour, by commands, to the end, in percent.
const MOST_GROWTH: f64 = 10.0;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: .ci/long runs it"]
async fn a_day_of_commands_leaves_the_bot_as_small_as_it_was() {
    let script = Script::calm(COMMANDS);
    let mut stage = Stage::start(&script).await.unwrap();
    let mut sizes = Vec::new();
    for round in script.scenes.chunks(ROUND) {
        let typed = stage.perform(round).await.unwrap();
        stage.settle(&typed).await.unwrap();
        sizes.push(largest_mib(&stage.installation.bot_pids()));
        say(&format!(
            "after {} commands: {:.1} MiB",
            sizes.len() * ROUND,
            sizes[sizes.len() - 1]
        ));
    }
    let growth = (sizes[sizes.len() - 1] / sizes[0] - 1.0) * 100.0;
    say(&format!("VmRSS of the larger replica grew by {growth:.1} %"));
    assert!(growth <= MOST_GROWTH, "{sizes:?}");
    stage.installation.stop().await.unwrap();
}

/// VmRSS of the largest of these processes.
fn largest_mib(pids: &[u32]) -> f64 {
    let kib = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap()
    };
    pids.iter().map(kib).fold(0.0, f64::max) / 1024.0
}

//! The bot's process keeps its secrets out of core files.

use std::fs;

use crate::product::Product;

/// Limits of the process that serves with this configuration.
fn limits(config: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let serving = |command: &str| command.contains(config) && command.contains("serve");
    processes
        .filter(|entry| {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            serving(&String::from_utf8_lossy(&command))
        })
        .map(|entry| fs::read_to_string(entry.path().join("limits")).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_serving_bot_leaves_no_core_file() {
    let product = Product::start().await;
    let config = product.installation.file("bot-0.yaml");
    let limits = limits(&config.to_string_lossy());
    assert!(!limits.is_empty(), "the bot is a process of its own");
    for limits in limits {
        let core = limits.lines().find(|line| line.starts_with("Max core file size"));
        let words: Vec<&str> = core.unwrap().split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{limits}");
    }
    product.stop().await;
}

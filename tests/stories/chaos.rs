//! Chaos: commands of many people under random faults of Slack, Kubernetes and the store, while two replicas of the bot are
//! killed, stopped, paused, and die at failpoints. A seed is a script; the same seed breaks the same things in the same order.
//!
//! Again: `DIAGBOT_CHAOS_SEEDS=7 DIAGBOT_CHAOS_COMMANDS=6 cargo test -p diagbot-tests --test stories long_chaos -- --ignored --nocapture`.

mod check;
mod play;
mod script;
mod soak;

use std::{collections::BTreeMap, ops::RangeInclusive};

use futures::{StreamExt as _, stream};
use script::Script;

/// Installations at a time.
const AT_A_TIME: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn eight_seeds_of_chaos_end_with_one_run_one_artifact_and_one_answer_each() {
    unleash(1..=8, 6).await;
}

/// Seeds and commands of each as the environment says; 1,000 commands otherwise.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: .ci/long runs it"]
async fn long_chaos_ends_with_one_run_one_artifact_and_one_answer_each() {
    let number = |text: &str| text.parse::<u64>().unwrap();
    let seeds = std::env::var("DIAGBOT_CHAOS_SEEDS").unwrap_or_else(|_| "100-149".to_owned());
    let (first, last) = seeds.split_once('-').unwrap_or((&seeds, &seeds));
    let commands = std::env::var("DIAGBOT_CHAOS_COMMANDS").unwrap_or_else(|_| "20".to_owned());
    unleash(
        number(first)..=number(last),
        usize::try_from(number(&commands)).unwrap(),
    )
    .await;
}

async fn unleash(seeds: RangeInclusive<u64>, commands: usize) {
    let failpoints = diagbot::cli::failpoints();
    let scripts = seeds.map(|seed| Script::of(seed, commands, &failpoints));
    let mut played = stream::iter(scripts)
        .map(|script| async move { (script.seed, play::play(&script).await) })
        .buffer_unordered(AT_A_TIME);
    let mut broken = Vec::new();
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    while let Some((seed, outcome)) = played.next().await {
        match outcome {
            Ok(verdict) => {
                say(&format!(
                    "seed {seed}: {} commands, {} runs, {} marked repeats, {:?}, {} violations",
                    verdict.commands,
                    verdict.runs,
                    verdict.repeated,
                    verdict.ends,
                    verdict.violations.len()
                ));
                for (end, count) in verdict.ends {
                    *ends.entry(end).or_default() += count;
                }
                if !verdict.violations.is_empty() {
                    broken.push(format!(
                        "seed {seed}:\n{}\n{}",
                        verdict.violations.join("\n"),
                        verdict.diary
                    ));
                }
            }
            Err(error) => broken.push(format!("seed {seed}: {error:#}")),
        }
    }
    say(&format!("all seeds: {ends:?}"));
    assert!(
        broken.is_empty(),
        "{}\nagain: DIAGBOT_CHAOS_SEEDS=<seed> DIAGBOT_CHAOS_COMMANDS={commands} cargo test -p diagbot-tests --test stories \
         long_chaos -- --ignored --nocapture",
        broken.join("\n\n")
    );
}

#[expect(clippy::print_stdout, reason = "figures of chaos are part of the story's result")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

//! Whatever comes in from outside is read without a panic, and what is made of it keeps its promises.
//!
//! A stable fuzzer: no instrumentation, so novelty is judged by what a target makes of an input (its class of answer), and
//! inputs of a new class are mutated further. The corpora and some thousands of mutations are ordinary tests;
//! `DIAGBOT_FUZZ_EXECUTIONS=5000000` and `DIAGBOT_FUZZ_SEED=7` make long runs of other seeds (`.ci/long`);
//! `DIAGBOT_FUZZ_SECONDS=300` ends each target's run by time.

#![allow(clippy::unwrap_used, reason = "a broken promise fails the test")]
#![allow(clippy::print_stderr, reason = "a long run says how far it went")]

mod mutate;
mod targets;

use std::{
    collections::HashSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rand::{SeedableRng as _, rngs::StdRng};

/// Mutations of one target unless the environment says otherwise.
const EXECUTIONS: u64 = 3_000;
/// Longest time of one target unless executions are asked for.
const LONGEST: Duration = Duration::from_secs(20);
/// Most inputs that are kept for mutation.
const MOST_KEPT: usize = 4_096;
/// Longest input in bytes.
const LONGEST_INPUT: usize = 16 * 1024;

/// What a target made of an input, as a class: equal classes are nothing new.
pub(crate) type Class = u64;

/// The shipped catalog.
pub(crate) const COMMANDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../commands");

fn fuzz(name: &str, target: impl Fn(&[u8]) -> Class) {
    let number = |key: &str| std::env::var(key).ok().and_then(|text| text.parse::<u64>().ok());
    let limit = number("DIAGBOT_FUZZ_SECONDS").map(Duration::from_secs);
    let asked = number("DIAGBOT_FUZZ_EXECUTIONS").or(limit.map(|_| u64::MAX));
    let limit = limit.unwrap_or(if asked.is_some() { Duration::MAX } else { LONGEST });
    let mut rng = StdRng::seed_from_u64(number("DIAGBOT_FUZZ_SEED").unwrap_or(1));
    let mut pool = corpus(name);
    let mut classes: HashSet<Class> = pool.iter().map(|input| target(input)).collect();
    assert!(classes.len() > 1, "the corpus of {name} reaches more than one class");
    let seeds = pool.len();
    let begun = Instant::now();
    let mut done = 0;
    while done < asked.unwrap_or(EXECUTIONS) && begun.elapsed() < limit {
        let mut input = mutate::mutated(&pool, &mut rng);
        input.truncate(LONGEST_INPUT);
        // What fails is printed by the test's own panic; the input is found again with the seed.
        let class = target(&input);
        if classes.insert(class) && pool.len() < MOST_KEPT {
            pool.push(input);
        }
        done += 1;
    }
    eprintln!(
        "{name}: {done} executions in {:.1} s, {seeds} seeds, {} classes of answers",
        begun.elapsed().as_secs_f64(),
        classes.len()
    );
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn every_text_that_people_type_is_a_request_or_a_message() {
    fuzz("grammar", targets::grammar());
}

#[test]
fn every_file_of_a_catalog_is_refused_or_rendered_to_what_its_policy_admits() {
    fuzz("catalog", targets::catalog);
}

#[test]
fn every_line_between_bot_and_agent_is_read_or_ignored_and_no_foreign_one_acted_on() {
    fuzz("wire", targets::wire);
}

#[test]
fn every_payload_of_slack_is_something_and_shows_no_secret() {
    fuzz("inbound", targets::inbound);
}

#[test]
fn every_text_is_redacted_the_same_however_it_is_cut() {
    fuzz("redaction", targets::redaction());
}

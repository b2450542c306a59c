//! Whatever comes in from outside is read without a panic, and what is made of it keeps its promises.
//!
//! A stable fuzzer: no instrumentation, so novelty is judged by what a target makes of an input (its class of answer), and
//! inputs of a new class are mutated further. The corpora and some thousands of mutations are ordinary tests, which fail where too little was executed, taken or found;
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
use targets::Seen;

/// Mutations of one target unless the environment says otherwise.
const EXECUTIONS: u64 = 3_000;
/// Longest time of one target unless executions are asked for.
const LONGEST: Duration = Duration::from_mins(1);
/// Executions below which a run proves nothing, however slow the machine is or whatever was asked for.
const LEAST_EXECUTIONS: u64 = 1_000;
/// One of so many inputs must be taken by what reads it, so that more than refusals is looked at.
const TAKEN_OF: u64 = 20;
/// Most inputs that are kept for mutation.
const MOST_KEPT: usize = 4_096;
/// Longest input in bytes.
const LONGEST_INPUT: usize = 16 * 1024;

/// Makes a new input of those that are known.
type Mutation = fn(&[Vec<u8>], &mut StdRng) -> Vec<u8>;

/// What a target made of an input, as a class: equal classes are nothing new.
pub(crate) type Class = u64;

/// The shipped catalog.
pub(crate) const COMMANDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../commands");

fn fuzz(name: &str, mutated: Mutation, target: impl Fn(&[u8]) -> Seen) {
    let number = |key: &str| std::env::var(key).ok().and_then(|text| text.parse::<u64>().ok());
    let limit = number("DIAGBOT_FUZZ_SECONDS").map(Duration::from_secs);
    let asked = number("DIAGBOT_FUZZ_EXECUTIONS").or(limit.map(|_| u64::MAX));
    let limit = limit.unwrap_or(if asked.is_some() { Duration::MAX } else { LONGEST });
    let mut rng = StdRng::seed_from_u64(number("DIAGBOT_FUZZ_SEED").unwrap_or(1));
    let mut pool = corpus(name);
    let seen: Vec<Seen> = pool.iter().map(|input| target(input)).collect();
    let mut classes: HashSet<Class> = seen.iter().map(|seen| seen.class).collect();
    // Of what is refused there is much that is new: what was taken is kept apart, and every other input is made of it.
    let good = pool.iter().zip(&seen).filter(|(_, seen)| seen.taken);
    let mut good: Vec<_> = good.map(|(input, _)| input.clone()).collect();
    assert!(!good.is_empty(), "nothing of the corpus of {name} is taken");
    assert!(classes.len() > 1, "the corpus of {name} reaches more than one class");
    let (seeds, known) = (pool.len(), classes.len());
    let begun = Instant::now();
    let (mut done, mut taken) = (0, 0);
    while done < asked.unwrap_or(EXECUTIONS) && begun.elapsed() < limit {
        let mut input = mutated(if done % 2 == 0 { &good } else { &pool }, &mut rng);
        input.truncate(LONGEST_INPUT);
        // What fails is printed by the test's own panic; the input is found again with the seed.
        let seen = target(&input);
        if classes.insert(seen.class) {
            for kept in [Some(&mut pool), seen.taken.then_some(&mut good)].into_iter().flatten() {
                if kept.len() < MOST_KEPT {
                    kept.push(input.clone());
                }
            }
        }
        taken += u64::from(seen.taken);
        done += 1;
    }
    let found = classes.len() - known;
    eprintln!(
        "{name}: {done} executions in {:.1} s, {taken} taken, {seeds} seeds, {known} classes of answers and {found} new ones",
        begun.elapsed().as_secs_f64(),
    );
    if let Err(why) = worth(done, taken, found) {
        panic!("{name}: {why}");
    }
}

/// Whether a run has looked at anything.
fn worth(done: u64, taken: u64, found: usize) -> Result<(), String> {
    if done < LEAST_EXECUTIONS {
        return Err(format!("{done} executions prove nothing; {LEAST_EXECUTIONS} do"));
    }
    if taken * TAKEN_OF < done {
        return Err(format!(
            "only {taken} of {done} inputs were taken: refusals are all that was looked at"
        ));
    }
    if found == 0 {
        return Err(format!("{done} mutations found no answer that the corpus does not"));
    }
    Ok(())
}

#[test]
fn a_run_that_looked_at_nothing_fails() {
    assert_eq!(worth(1_000, 50, 1), Ok(()));
    for (done, taken, found) in [(0, 0, 0), (999, 999, 99), (1_000, 49, 1), (1_000, 1_000, 0)] {
        assert!(worth(done, taken, found).is_err(), "{done} {taken} {found}");
    }
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
    fuzz("grammar", mutate::mutated, targets::grammar());
}

#[test]
fn every_file_of_a_catalog_is_refused_or_rendered_to_what_its_policy_admits() {
    fuzz("catalog", mutate::mutated_lines, targets::catalog);
}

#[test]
fn every_line_between_bot_and_agent_is_read_or_ignored_and_no_foreign_one_acted_on() {
    fuzz("wire", mutate::mutated, targets::wire);
}

#[test]
fn every_payload_of_slack_is_something_and_shows_no_secret() {
    fuzz("inbound", mutate::mutated_json, targets::inbound);
}

#[test]
fn every_text_is_redacted_the_same_however_it_is_cut() {
    fuzz("redaction", mutate::mutated, targets::redaction());
}

//! Makes new inputs from those that are known.

use rand::{Rng as _, rngs::StdRng};

/// Pieces that formats here give a meaning.
const WORDS: [&str; 44] = [
    "\n",
    "\r\n",
    "\0",
    "\u{202e}",
    "\u{feff}",
    "\"",
    "\\",
    "'",
    "`",
    "<!channel>",
    "<@U1>",
    "&lt;",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "=",
    ";",
    "/",
    "..",
    "%2e",
    "--",
    "-n",
    "--step=",
    "argv=[",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "-1",
    "0",
    "4294967296",
    "18446744073709551616",
    "1e999",
    "{{interval}}",
    "^$",
    "(?:",
    "password=",
    "://u:p@",
    "-----BEGIN PRIVATE KEY-----",
    "-----END PRIVATE KEY-----",
];

/// One of the inputs, changed in one to eight places.
pub(crate) fn mutated(pool: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let mut input = pool[rng.random_range(0..pool.len())].clone();
    for _ in 0..rng.random_range(1..=8) {
        change(&mut input, pool, rng);
    }
    input
}

fn change(input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut StdRng) {
    let at = rng.random_range(0..=input.len());
    let range = at..rng.random_range(at..=input.len().min(at + 64));
    match rng.random_range(0..8) {
        0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        1 if at < input.len() => input[at] = rng.random(),
        2 => drop(input.drain(range)),
        3 => {
            let piece = input[range].to_vec();
            for _ in 0..rng.random_range(1..6) {
                input.splice(at..at, piece.iter().copied());
            }
        }
        4 => {
            let other = &pool[rng.random_range(0..pool.len())];
            let from = rng.random_range(0..=other.len());
            let to = rng.random_range(from..=other.len());
            drop(input.splice(range, other[from..to].iter().copied()));
        }
        5 => {
            let digits = |b: &u8| b.is_ascii_digit();
            if let Some(first) = input[at..].iter().position(digits) {
                let first = at + first;
                let length = input[first..].iter().take_while(|b| digits(b)).count();
                let number = ["0", "-1", "65536", "9223372036854775808", "00"][rng.random_range(0..5)];
                drop(input.splice(first..first + length, number.bytes()));
            }
        }
        _ => {
            let word = WORDS[rng.random_range(0..WORDS.len())];
            drop(input.splice(range, word.bytes()));
        }
    }
}

//! Makes new inputs from those that are known.

use rand::{Rng as _, rngs::StdRng};
use serde_json::{Value, json};

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

/// The same for JSON, which bytes that change at random soon make unreadable: mostly a value is changed, with what it holds.
pub(crate) fn mutated_json(pool: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let known = &pool[rng.random_range(0..pool.len())];
    let value = serde_json::from_slice::<Value>(known).ok();
    let Some(mut value) = value.filter(|_| rng.random_ratio(7, 8)) else {
        return mutated(pool, rng);
    };
    for _ in 0..rng.random_range(1..=4) {
        let places = places(&value).max(1);
        let at = rng.random_range(0..places);
        change_value(&mut value, &mut 0, at, rng);
    }
    value.to_string().into_bytes()
}

/// The same for text whose lines mean something each: mostly one to three of them are changed, left out or taken from another
/// input.
pub(crate) fn mutated_lines(pool: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    if rng.random_ratio(1, 8) {
        return mutated(pool, rng);
    }
    let lines_of = |input: &[u8]| -> Vec<Vec<u8>> { input.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect() };
    let mut lines = lines_of(&pool[rng.random_range(0..pool.len())]);
    for _ in 0..rng.random_range(1..=3) {
        let at = rng.random_range(0..lines.len());
        let line = lines[at].clone();
        let key = line.split(|byte| *byte == b':').next().unwrap_or_default();
        match rng.random_range(0..4) {
            0 => drop(lines.remove(at)),
            // The same key as another input has it.
            1 => {
                let other = lines_of(&pool[rng.random_range(0..pool.len())]);
                let same = other
                    .into_iter()
                    .find(|other| !key.is_empty() && other.starts_with(key));
                lines[at] = same.unwrap_or(line);
            }
            2 => {
                let word = WORDS[rng.random_range(0..WORDS.len())].as_bytes();
                lines[at] = [&line, word].concat();
            }
            _ => change(&mut lines[at], pool, rng),
        }
        if lines.is_empty() {
            return Vec::new();
        }
    }
    lines.join(&b'\n')
}

/// How many values there are below a value.
fn places(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(|value| 1 + places(value)).sum(),
        Value::Object(fields) => fields.values().map(|value| 1 + places(value)).sum(),
        _ => 0,
    }
}

/// Changes the value of that number below `value`.
fn change_value(value: &mut Value, number: &mut usize, at: usize, rng: &mut StdRng) {
    let below: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    };
    for value in below {
        if *number == at {
            *value = other_value(value, rng);
        }
        *number += 1;
        change_value(value, number, at, rng);
    }
}

fn other_value(value: &Value, rng: &mut StdRng) -> Value {
    let word = WORDS[rng.random_range(0..WORDS.len())];
    match rng.random_range(0..8) {
        0 => Value::Null,
        1 => json!(rng.random_range(-1..2_i64)),
        2 => json!([value]),
        3 => json!({ "value": value }),
        4 => json!(word),
        _ => json!(format!("{}{word}", value.as_str().unwrap_or_default())),
    }
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

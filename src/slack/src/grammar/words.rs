//! Words and quotes. Quotes group; nothing is ever expanded, and there is no escape character.

use super::Fault;

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// Without its quotes.
    pub(super) text: String,
    /// It began with a quote, so it is no option.
    pub(super) quoted: bool,
}

/// Most words that a command can have a use for.
const MOST_WORDS: usize = 100;

pub(super) fn split(text: &str) -> Result<Vec<Word>, Fault> {
    let mut words: Vec<Word> = Vec::new();
    let mut word: Option<Word> = None;
    let mut open: Option<char> = None;
    for c in text.chars() {
        match (open, c) {
            (Some(quote), c) if c == quote => open = None,
            (None, '"' | '\'') => {
                open = Some(c);
                word.get_or_insert_with(|| Word {
                    text: String::new(),
                    quoted: true,
                });
            }
            (None, ' ') => words.extend(word.take()),
            (_, c) => word
                .get_or_insert_with(|| Word {
                    text: String::new(),
                    quoted: false,
                })
                .text
                .push(c),
        }
    }
    if open.is_some() {
        return Err(Fault::OpenQuote);
    }
    words.extend(word);
    if words.len() > MOST_WORDS {
        return Err(Fault::TooManyWords);
    }
    for word in words.iter_mut().filter(|word| !word.quoted) {
        // Emphasis and code marks that people copy along: `jstack`, *jstack*.
        let bare = word.text.trim_matches(['`', '*']);
        if bare.len() < word.text.len() {
            word.text = bare.to_owned();
        }
    }
    words.retain(|word| word.quoted || !word.text.is_empty());
    Ok(words)
}

/// A value in the form that [`split`] reads as one.
pub(super) fn quote(value: &str) -> String {
    let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic() && !"\"'`*".contains(c));
    match (plain, value.contains('"')) {
        (true, _) => value.to_owned(),
        (false, true) => format!("'{value}'"),
        (false, false) => format!("\"{value}\""),
    }
}

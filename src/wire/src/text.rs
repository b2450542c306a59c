//! Foreign text made fit to be shown: what a cluster, a target, an alert or a person wrote, before it stands in a message, a
//! status, an error or a log. The only place that decides which characters are hidden.

/// Whether a character shows nothing of itself: control characters, marks of direction, joiners, fillers and tags. They make a
/// text look like another, or keep it from being found.
///
/// Unicode's `Default_Ignorable_Code_Point` but for the variation selectors, which emoji need, and the `Bidi_Control` characters.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text as one line without hidden characters, of at most `most` characters; what is longer ends in `…`.
pub fn line(text: &str, most: usize) -> String {
    let spaced = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c });
    let line: String = spaced.filter(|c| !is_hidden(*c)).collect();
    let line = line.trim();
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// The same for what will stand between backquotes, in the middle of a sentence: without any of its own, and without a full stop.
pub fn quotable(text: &str, most: usize) -> String {
    line(&text.replace('`', ""), most).trim_end_matches('.').to_owned()
}

/// At most `most` visible ASCII characters of a word that only programs write: a code, a type.
pub fn word(text: &str, most: usize) -> String {
    text.chars().filter(char::is_ascii_graphic).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_gone_and_others_stay() {
        let hidden = [
            ("NUL", '\0'),
            ("escape", '\u{1b}'),
            ("delete", '\u{7f}'),
            ("C1 control", '\u{9b}'),
            ("soft hyphen", '\u{ad}'),
            ("combining grapheme joiner", '\u{34f}'),
            ("Arabic letter mark", '\u{61c}'),
            ("Hangul filler", '\u{3164}'),
            ("Mongolian vowel separator", '\u{180e}'),
            ("zero width space", '\u{200b}'),
            ("zero width joiner", '\u{200d}'),
            ("right-to-left mark", '\u{200f}'),
            ("right-to-left override", '\u{202e}'),
            ("word joiner", '\u{2060}'),
            ("invisible times", '\u{2062}'),
            ("left-to-right isolate", '\u{2066}'),
            ("nominal digit shapes", '\u{206f}'),
            ("byte order mark", '\u{feff}'),
            ("interlinear annotation", '\u{fff9}'),
            ("tag space", '\u{e0020}'),
        ];
        for (name, c) in hidden {
            assert!(is_hidden(c), "{name}");
            assert_eq!(line(&format!("a{c}b"), 10), "ab", "{name}");
            assert_eq!(quotable(&format!("a{c}b"), 10), "ab", "{name}");
            assert_eq!(word(&format!("a{c}b"), 10), "ab", "{name}");
        }
        for c in ['a', 'é', 'ß', '漢', 'ا', 'א', '…', '\u{fe0f}', '🔥'] {
            assert!(!is_hidden(c), "{c}");
            assert_eq!(line(&format!("a{c}b"), 10), format!("a{c}b"));
        }
    }

    #[test]
    fn a_line_is_one_short_line() {
        assert_eq!(line("  a\n\tb\u{2028}c  ", 10), "a  b c");
        assert_eq!(line("äöü", 3), "äöü");
        assert_eq!(line("äöüß", 3), "äöü…");
        assert_eq!(quotable("`jstack`.", 80), "jstack");
        assert_eq!(word("no_such\u{202e} code\n", 40), "no_suchcode");
        assert_eq!(word("abcdef", 3), "abc");
    }
}

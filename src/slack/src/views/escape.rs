//! Foreign text made harmless: escapes, no marks of mrkdwn, no emoji, no invisible characters; sizes and times in words.
//!
//! # Design notes
//! Slack has no escape for `*`, `_`, `~`, a backtick and the colons of an emoji, and a zero-width mark beside them may begin a
//! word instead of hiding it. Where one of them could count, a character takes its place that looks like it and means nothing:
//! nobody else's words come out bold or with a sign of ours. Where none could count, as in `my_pod:8080`, the text stays as it
//! is and can be copied; names that people copy are shown as code, where only backticks and invisible characters are changed.

use diagbot_wire::text::is_hidden;
use jiff::{Timestamp, tz::TimeZone};

/// Foreign text in a line of mrkdwn: `&`, `<`, `>` escaped, invisible characters gone, line ends as spaces, and nothing of it
/// is a mark or an emoji.
pub fn line(text: &str) -> String {
    literal(&single(text).replace('`', "'"))
}

/// Sentences of ours in a line of mrkdwn, with names of others as code: as [`line()`], but what stands between two backticks is
/// code.
pub fn prose(text: &str) -> String {
    let text = single(text);
    let mut pieces: Vec<&str> = text.split('`').collect();
    // A backtick without a partner begins nothing.
    let open = if pieces.len().is_multiple_of(2) {
        pieces.pop()
    } else {
        None
    };
    let mut out = String::new();
    for (index, piece) in pieces.into_iter().enumerate() {
        match index % 2 {
            0 => out.push_str(&literal(piece)),
            _ => out.extend(["`", piece, "`"]),
        }
    }
    if let Some(open) = open {
        out.push('\'');
        out.push_str(&literal(open));
    }
    out
}

fn single(text: &str) -> String {
    escape(text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }))
}

/// Characters instead of those that mrkdwn would take for marks.
fn literal(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    for (index, c) in characters.iter().enumerate() {
        let (before, after) = (&characters[..index], &characters[index + 1..]);
        let inside_a_word =
            before.last().is_some_and(|c| c.is_alphanumeric()) && after.first().is_some_and(|c| c.is_alphanumeric());
        let alone = before.last() == Some(&' ') && after.first() == Some(&' ');
        out.push(match c {
            '*' if !inside_a_word && !alone => '\u{2217}',
            '_' if !inside_a_word && !alone => '\u{2cd}',
            '~' if !inside_a_word && !alone => '\u{223c}',
            ':' if begins_emoji(before, after) => '\u{2236}',
            c => *c,
        });
    }
    out
}

/// Whether a colon between these could be the first one of an emoji's name. The minutes of a time are none.
fn begins_emoji(before: &[char], after: &[char]) -> bool {
    let in_name = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | '\'');
    let length = after.iter().take_while(|c| in_name(c)).count();
    let name = &after[..length];
    let digit = |c: Option<&char>| c.is_some_and(char::is_ascii_digit);
    let minutes = length == 2 && name.iter().all(char::is_ascii_digit) && digit(before.last()) && digit(after.get(3));
    length > 0 && after.get(length) == Some(&':') && !minutes
}

/// A number of things, in words: `1 file`, `2,000 files`.
pub fn counted(number: u64, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {thing}{ending}", grouped(number))
}

/// Foreign text as inline code.
pub fn code(text: &str) -> String {
    let inside = single(text).replace('`', "'");
    if inside.trim().is_empty() {
        "`?`".to_owned()
    } else {
        format!("`{inside}`")
    }
}

/// Foreign text as a code block of at most `most_lines` lines of at most `most_width` characters.
pub fn block(text: &str, most_lines: usize, most_width: usize) -> String {
    let mut out = String::from("```\n");
    let all: Vec<&str> = text.trim_end().lines().collect();
    for source in all.iter().take(most_lines) {
        let cut: String = source.chars().take(most_width).collect();
        let marker = if source.chars().count() > most_width { "…" } else { "" };
        out.push_str(&escape(cut.chars()).replace('`', "'"));
        out.push_str(marker);
        out.push('\n');
    }
    if all.len() > most_lines {
        out.push_str("…\n");
    }
    out.push_str("```");
    out
}

fn escape(characters: impl Iterator<Item = char>) -> String {
    let mut out = String::new();
    for c in characters {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\n' | '\t' => out.push(c),
            c if is_hidden(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// `1.5 MiB (1,572,864 bytes)`.
pub fn size(bytes: u64) -> String {
    let exact = grouped(bytes);
    match short_size(bytes) {
        Some(short) => format!("{short} ({exact} bytes)"),
        None => format!("{exact} bytes"),
    }
}

/// `1.5 MiB`; nothing below 1 KiB.
pub fn short_size(bytes: u64) -> Option<String> {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let (unit, shift) = units.into_iter().find(|(_, shift)| bytes >> shift > 0)?;
    Some(format!("{:.1} {unit}", bytes as f64 / f64::from(1_u32 << shift)))
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A moment in the reader's own zone (Slack's date format) and in UTC.
pub fn moment(at: Timestamp) -> String {
    let utc = at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    format!(
        "<!date^{}^{{date_short_pretty}} {{time}}|{utc}> ({utc})",
        at.as_second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_can_neither_mention_link_nor_hide() {
        assert_eq!(line("<!channel> & \u{202e}x\u{7}\ny"), "&lt;!channel&gt; &amp; x y");
        assert_eq!(code("a`b"), "`a'b`");
        assert_eq!(code("\u{202e}"), "`?`");
        assert_eq!(block("a\n```\n<x>\nd\ne", 3, 2), "```\na\n''…\n&lt;x…\n…\n```");
    }

    #[test]
    fn foreign_text_is_neither_bold_nor_a_sign_of_ours() {
        let table = [
            (
                "*State: done* :white_check_mark:",
                "\u{2217}State: done\u{2217} \u{2236}white_check_mark:",
            ),
            ("_a_ ~b~ `c` ```d```", "\u{2cd}a\u{2cd} \u{223c}b\u{223c} 'c' '''d'''"),
            ("*_x_*", "\u{2217}\u{2cd}x\u{2cd}\u{2217}"),
            ("a_*b*_c", "a\u{2cd}\u{2217}b\u{2217}\u{2cd}c"),
            ("(*x*)", "(\u{2217}x\u{2217})"),
            (":a::b:", "\u{2236}a:\u{2236}b:"),
            (":a:b:", "\u{2236}a\u{2236}b:"),
            (
                ":+1: :-1: :T-Shirt: :100:x",
                "\u{2236}+1: \u{2236}-1: \u{2236}T-Shirt: \u{2236}100:x",
            ),
            // Joined by what shows nothing.
            (":white\u{2060}_check\u{ad}_mark\u{61c}:", "\u{2236}white_check_mark:"),
            ("*\u{200b}x\u{200b}*", "\u{2217}x\u{2217}"),
        ];
        for (text, shown) in table {
            assert_eq!(line(text), shown, "{text}");
        }
    }

    #[test]
    fn names_and_sentences_stay_as_they_are() {
        for text in [
            "checkout-7d9f-x2x",
            "registry.example/shop/app:1.2",
            "registry.example:5000/shop/app:v1@sha256:00ff",
            "localhost:8080",
            "app:latest",
            "my_var_name, 2*3*4",
            "2026-08-21T10:30:45Z",
            "0 9 * * 1-5",
            "Reason: done. Note: 3 of 4",
            "a/b.c?d=e#f-g",
        ] {
            assert!(is_kept(text), "{text} became {}", line(text));
        }
    }

    fn is_kept(text: &str) -> bool {
        line(text) == text && prose(text) == text
    }

    #[test]
    fn in_sentences_of_ours_only_names_are_code() {
        assert_eq!(prose("2 pods fit `shop/a_*b*`."), "2 pods fit `shop/a_*b*`.");
        assert_eq!(
            prose("it said *done* :ok: `x`"),
            "it said \u{2217}done\u{2217} \u{2236}ok: `x`"
        );
        assert_eq!(prose("`a` and ` *b*"), "`a` and ' \u{2217}b\u{2217}");
        assert_eq!(prose("<x> `<y>`"), "&lt;x&gt; `&lt;y&gt;`");
    }

    #[test]
    fn invisible_characters_are_gone_everywhere() {
        for c in [
            '\u{61c}',
            '\u{ad}',
            '\u{2060}',
            '\u{200b}',
            '\u{200d}',
            '\u{202e}',
            '\u{2066}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            let text = format!("a{c}b");
            assert_eq!(
                (line(&text), prose(&text), code(&text)),
                ("ab".into(), "ab".into(), "`ab`".into()),
                "{c:?}"
            );
            assert_eq!(block(&text, 1, 9), "```\nab\n```", "{c:?}");
        }
    }

    #[test]
    fn sizes_are_told_in_words_and_exactly() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1_023), "1,023 bytes");
        assert_eq!(size(1_572_864), "1.5 MiB (1,572,864 bytes)");
        assert_eq!(counted(1, "place"), "1 place");
        assert_eq!(counted(4_401, "place"), "4,401 places");
    }

    #[test]
    fn a_moment_is_shown_in_the_readers_zone_and_in_utc() {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        assert_eq!(
            moment(at),
            "<!date^1800000000^{date_short_pretty} {time}|2027-01-15 08:00:00 UTC> (2027-01-15 08:00:00 UTC)"
        );
    }
}

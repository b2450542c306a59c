//! Foreign text made harmless: escapes, no control and no direction-changing characters; sizes and times in words.

use jiff::{Timestamp, tz::TimeZone};

use crate::slack::grammar::is_direction;

/// Foreign text in a line of mrkdwn: `&`, `<`, `>` escaped, control and direction-changing characters gone, line ends as
/// spaces.
pub fn line(text: &str) -> String {
    escape(text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }))
}

/// Foreign text of several lines.
pub fn lines(text: &str) -> String {
    escape(text.replace("\r\n", "\n").chars())
}

/// A number of things, in words: `1 file`, `2,000 files`.
pub fn counted(number: u64, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {thing}{ending}", grouped(number))
}

/// Foreign text as inline code.
pub fn code(text: &str) -> String {
    let inside = line(text).replace('`', "'");
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
        out.push_str(&lines(&cut).replace('`', "'"));
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
            c if c.is_control() || is_direction(c) || c == '\u{200b}' || c == '\u{feff}' => {}
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

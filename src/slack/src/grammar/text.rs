//! What phones, keyboards and Slack do to a text, undone: dashes, quotes, spaces, escapes, links, mentions.

use diagbot_wire::text::is_hidden;

use super::{Fault, fault};

/// The text as it was meant, or why it can't be taken.
pub(super) fn normalise(text: &str) -> Result<String, Fault> {
    let text = unwrap_links(text);
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\u{2014}' | '\u{2015}' => out.push_str("--"),
            // A shorter dash: in front of a long option it stands for two, as some keyboards have it.
            '\u{2010}'..='\u{2013}' | '\u{2212}' | '\u{fe63}' | '\u{ff0d}' => {
                let ahead: Vec<char> = characters.clone().take(2).collect();
                let long = matches!(ahead.as_slice(), [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic());
                out.push_str(if before == ' ' && long { "--" } else { "-" });
            }
            '\u{201c}'..='\u{201f}' | '\u{ab}' | '\u{bb}' | '\u{2033}' => out.push('"'),
            '\u{2018}'..='\u{201b}' | '\u{2032}' => out.push('\''),
            // Invisible companions of copied text.
            '\u{200b}' | '\u{2060}' | '\u{feff}' | '\u{ad}' => continue,
            c if c.is_whitespace() => out.push(' '),
            c if is_hidden(c) => return Err(Fault::Hidden(c)),
            c => out.push(c),
        }
        before = out.chars().next_back().unwrap_or(' ');
    }
    Ok(out)
}

/// Slack writes a link as `<http://x|x>` and a mention as `<@U1|ada>`: a link is its label, a mention `@U1`. What is no
/// such thing stays, so that nothing is lost from the message that refuses it.
fn unwrap_links(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let Some(end) = rest.find('>') else { break };
        let inside = &rest[1..end];
        let (address, label) = match inside.split_once('|') {
            Some((address, label)) => (address, Some(label)),
            None => (inside, None),
        };
        if inside.starts_with(['@', '#', '!']) {
            out.push_str(address);
        } else {
            let bare = address.split_once("://").map_or(address, |(_, bare)| bare);
            out.push_str(label.unwrap_or(bare));
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    out
}

/// The text behind the mention of the bot, where there is one. `bot` is its user id; without it the first mention counts.
pub(crate) fn behind_mention<'a>(text: &'a str, bot: Option<&str>) -> &'a str {
    let marker = bot.map_or_else(|| "<@".to_owned(), |bot| format!("<@{bot}"));
    let Some(start) = text.find(&marker) else {
        return text;
    };
    match text[start..].find('>') {
        Some(end) => &text[start + end + 1..],
        None => text,
    }
}

/// The first character of a text that no Kubernetes name has, for look-alikes: `о (U+043E)`.
pub(super) fn foreign(text: &str) -> Option<String> {
    let c = text.chars().find(|c| !c.is_ascii())?;
    Some(format!("{} (U+{:04X})", fault::shown(&c.to_string()), u32::from(c)))
}

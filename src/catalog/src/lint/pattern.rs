//! Patterns of parameters: anchored, bounded, and free of characters that JSON would escape.

use regex_syntax::hir::{Class, Hir, HirKind, Look};

use super::Faults;
use crate::parameter::Parameter;

/// Longest value that a pattern may accept, in bytes: arguments stand in the pod's spec.
const MAX_VALUE_BYTES: usize = 256;

/// Checks one parameter.
pub(super) fn check(name: &str, parameter: &Parameter, faults: &mut Faults) {
    let key = |part: &str| format!("parameters.{name}.{part}");
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > 40 || !name.bytes().all(word) {
        faults.add(
            format!("parameters.{name}"),
            "a parameter's name is lower-case letters, digits and dashes",
        );
    }
    if parameter.rule.trim().is_empty() {
        faults.add(
            key("rule"),
            "must say the rule in words: people see it when a value is refused",
        );
    }
    let hir = match regex_syntax::parse(&parameter.pattern) {
        Ok(hir) => hir,
        Err(error) => {
            let reason = error.to_string();
            faults.add(
                key("pattern"),
                format!("is not a valid pattern: {}", reason.lines().last().unwrap_or_default()),
            );
            return;
        }
    };
    if !is_anchored(&parameter.pattern, &hir) {
        faults.add(
            key("pattern"),
            "must be anchored as a whole, and nowhere else: ^…$, alternatives as ^(?:a|b)$",
        );
    }
    if hir
        .properties()
        .maximum_len()
        .is_none_or(|longest| longest > MAX_VALUE_BYTES)
    {
        faults.add(
            key("pattern"),
            format!("must be bounded: at most {MAX_VALUE_BYTES} bytes, so {{1,5}} and not + or *"),
        );
    }
    if accepts_escaped(&hir) {
        faults.add(
            key("pattern"),
            "must not accept quotes, backslashes or control characters",
        );
    }
    if let Some(default) = &parameter.default
        && !parameter.accepts(default)
    {
        faults.add(key("default"), "must match the pattern");
    }
}

/// Whether every match begins at the start and ends at the end of the text, by one `^` and one `$` around it all.
fn is_anchored(pattern: &str, hir: &Hir) -> bool {
    let properties = hir.properties();
    let whole = properties.look_set_prefix().contains(Look::Start) && properties.look_set_suffix().contains(Look::End);
    let inner = pattern
        .strip_prefix('^')
        .and_then(|p| p.strip_suffix('$'))
        .map(regex_syntax::parse);
    whole && matches!(inner, Some(Ok(inner)) if inner.properties().look_set().is_empty())
}

/// Whether a value may hold a character that JSON writes in another way, so that the argument in the pod's spec would not
/// look like the value that the pattern describes.
fn accepts_escaped(hir: &Hir) -> bool {
    let escaped = |c: char| c == '"' || c == '\\' || c.is_control();
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).map_or(true, |text| text.chars().any(escaped)),
        HirKind::Class(Class::Unicode(class)) => class.ranges().iter().any(|range| {
            let holds = |c: char| (range.start()..=range.end()).contains(&c);
            // The controls below U+0020, DEL to U+009F, and the two that JSON escapes.
            range.start() < ' ' || holds('"') || holds('\\') || (range.start() <= '\u{9f}' && range.end() >= '\u{7f}')
        }),
        HirKind::Class(Class::Bytes(_)) => true,
        HirKind::Repetition(repetition) => accepts_escaped(&repetition.sub),
        HirKind::Capture(capture) => accepts_escaped(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(accepts_escaped),
    }
}

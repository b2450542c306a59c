//! Rules, compiled once and shared by every stream.

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

/// Most rules.
pub const MAX_RULES: usize = 64;
/// Longest pattern in bytes.
const MAX_PATTERN_BYTES: usize = 1_024;
/// Most memory of one compiled pattern, in bytes; a repetition of repetitions is refused by it.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// Longest name of a rule.
const MAX_NAME_BYTES: usize = 32;
/// The group that is removed, where a pattern has one.
const SECRET: &str = "secret";

/// Why rules can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Too many.
    #[error("{0} rules; at most {MAX_RULES}")]
    TooMany(usize),
    /// Its name is no word.
    #[error("rule `{0}`: a name has 1 to {MAX_NAME_BYTES} lower-case letters, digits and dashes")]
    Name(String),
    /// Its pattern is none that we take.
    #[error("rule `{name}`: {fault}")]
    Pattern {
        /// The rule.
        name: String,
        /// What is wrong with it.
        fault: String,
    },
}

/// Compiled rules.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    any: Option<RegexSet>,
}

#[derive(Debug)]
struct Rule {
    name: String,
    pattern: Regex,
    /// The pattern has a group `secret`.
    grouped: bool,
    until: Option<Regex>,
}

/// A place in a line that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Where the rule began to match: before the secret, where its pattern has a group.
    pub(super) from: usize,
    /// What is removed.
    pub(super) secret: Range<usize>,
    /// Which rule.
    pub(super) rule: usize,
    /// What is removed goes on behind the line, as a block of this rule.
    pub(super) opens: Option<usize>,
}

impl Rules {
    /// Compiles rules, each as (name, pattern, until).
    pub fn new<'a>(rules: impl IntoIterator<Item = (&'a str, &'a str, Option<&'a str>)>) -> Result<Self, RuleError> {
        let rules = rules
            .into_iter()
            .map(|(name, pattern, until)| Rule::new(name, pattern, until))
            .collect::<Result<Vec<_>, _>>()?;
        if rules.len() > MAX_RULES {
            return Err(RuleError::TooMany(rules.len()));
        }
        let any = (!rules.is_empty())
            .then(|| {
                RegexSetBuilder::new(rules.iter().map(|rule| rule.pattern.as_str()))
                    .unicode(false)
                    .multi_line(true)
                    .size_limit(MAX_COMPILED_BYTES * MAX_RULES)
                    .build()
            })
            .transpose()
            .map_err(|error| RuleError::Pattern {
                name: "all together".to_owned(),
                fault: error.to_string(),
            })?;
        Ok(Self { rules, any })
    }

    /// No rules: text passes as it is.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The name of a rule.
    pub(super) fn name(&self, rule: usize) -> &str {
        &self.rules[rule].name
    }

    /// Whether any rule matches in these lines.
    pub(super) fn any(&self, lines: &[u8]) -> bool {
        self.any.as_ref().is_some_and(|any| any.is_match(lines))
    }

    /// The end of a block of `rule` in a line.
    pub(super) fn block_end(&self, rule: usize, line: &[u8]) -> Option<usize> {
        let until = self.rules[rule].until.as_ref()?;
        until.find(line).map(|found| found.end())
    }

    /// What goes from a line, in order and without overlaps: of two rules that want the same bytes, the first one says so.
    pub(super) fn places(&self, line: &[u8]) -> Vec<Place> {
        let Some(any) = &self.any else { return Vec::new() };
        let mut found: Vec<Place> = any
            .matches(line)
            .into_iter()
            .flat_map(|rule| self.rules[rule].places(rule, line))
            .collect();
        found.sort_by_key(|place| (place.secret.start, place.rule));
        let mut merged: Vec<Place> = Vec::with_capacity(found.len());
        for place in found {
            match merged.last_mut() {
                Some(last) if place.secret.start < last.secret.end => {
                    last.secret.end = last.secret.end.max(place.secret.end);
                    last.from = last.from.min(place.from);
                    last.opens = last.opens.or(place.opens);
                }
                _ => merged.push(place),
            }
        }
        merged
    }
}

impl Rule {
    fn new(name: &str, pattern: &str, until: Option<&str>) -> Result<Self, RuleError> {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(word) {
            return Err(RuleError::Name(name.chars().take(MAX_NAME_BYTES).collect()));
        }
        let compiled = compile(name, pattern)?;
        Ok(Self {
            name: name.to_owned(),
            grouped: compiled.capture_names().flatten().any(|group| group == SECRET),
            pattern: compiled,
            until: until.map(|until| compile(name, until)).transpose()?,
        })
    }

    fn places(&self, rule: usize, line: &[u8]) -> Vec<Place> {
        if let Some(until) = &self.until {
            return self.blocks(rule, until, line);
        }
        let place = |from: usize, secret: Range<usize>| Place {
            from,
            secret,
            rule,
            opens: None,
        };
        let places: Vec<Place> = if self.grouped {
            self.pattern
                .captures_iter(line)
                .filter_map(|groups| Some(place(groups.get(0)?.start(), groups.name(SECRET)?.range())))
                .collect()
        } else {
            self.pattern
                .find_iter(line)
                .map(|found| place(found.start(), found.range()))
                .collect()
        };
        places.into_iter().filter(|place| !place.secret.is_empty()).collect()
    }

    /// Every block that begins in a line; the last one may go on behind it.
    fn blocks(&self, rule: usize, until: &Regex, line: &[u8]) -> Vec<Place> {
        let mut blocks = Vec::new();
        let mut searched = 0;
        while let Some(begin) = self.pattern.find_at(line, searched) {
            let end = until.find_at(line, begin.end()).map(|end| end.end());
            blocks.push(Place {
                from: begin.start(),
                secret: begin.start()..end.unwrap_or(line.len()),
                rule,
                opens: end.is_none().then_some(rule),
            });
            let Some(end) = end else { break };
            searched = end;
        }
        blocks
    }
}

/// `\A` and `\z` would mean other places in many lines than in one.
fn compile(name: &str, pattern: &str) -> Result<Regex, RuleError> {
    let fault = |fault: String| RuleError::Pattern {
        name: name.to_owned(),
        fault,
    };
    if pattern.is_empty() || pattern.len() > MAX_PATTERN_BYTES {
        return Err(fault(format!("a pattern has 1 to {MAX_PATTERN_BYTES} bytes")));
    }
    if pattern.contains(r"\A") || pattern.contains(r"\z") {
        return Err(fault(
            r"`^` and `$` are a line's ends; `\A` and `\z` are not taken".to_owned(),
        ));
    }
    let compiled = RegexBuilder::new(pattern)
        .unicode(false)
        .multi_line(true)
        .size_limit(MAX_COMPILED_BYTES)
        .build()
        .map_err(|error| fault(error.to_string()))?;
    if compiled.is_match(b"") {
        return Err(fault("it matches where nothing is".to_owned()));
    }
    Ok(compiled)
}

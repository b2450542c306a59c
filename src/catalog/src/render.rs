//! A diagnostic and checked parameters, rendered to the agent's step; and the pattern that every such step matches whole.

use std::collections::BTreeMap;

use diagbot_wire::args::StepArgs;

use crate::diagnostic::Diagnostic;

/// A piece of an argument of a catalog file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Stands for itself.
    Literal(&'a str),
    /// `{name}`.
    Placeholder(&'a str),
}

/// Splits an argument at its placeholders. A brace that marks no placeholder stays in a literal; the lint reports it.
pub(crate) fn pieces(argument: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = argument;
    while let Some(open) = rest.find('{') {
        let Some(close) = rest[open..].find('}').map(|i| open + i) else {
            break;
        };
        if open > 0 {
            pieces.push(Piece::Literal(&rest[..open]));
        }
        pieces.push(Piece::Placeholder(&rest[open + 1..close]));
        rest = &rest[close + 1..];
    }
    if !rest.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    pieces
}

impl Diagnostic {
    /// The step that an ephemeral container runs, with `{parameter}` placeholders filled. `values` come from
    /// [`Diagnostic::check_parameters`]; a value is only ever (part of) one argument and is never read again, so one that
    /// looks like a placeholder stays as it is.
    pub fn render_step(&self, values: &BTreeMap<String, String>) -> StepArgs {
        self.step_with(|argument| {
            pieces(argument)
                .into_iter()
                .map(|piece| match piece {
                    Piece::Literal(text) => text,
                    Piece::Placeholder(name) => values.get(name).map_or("", String::as_str),
                })
                .collect()
        })
    }

    /// The pattern (RE2 syntax, unanchored) that matches the canonical `--step=` value of this diagnostic with any allowed
    /// parameters, and nothing else. The lint keeps quotes and backslashes out of values, so that JSON writes them as they are.
    pub fn step_pattern(&self) -> String {
        let argv: Vec<String> = self
            .argv
            .iter()
            .map(|argument| {
                let inner: String = pieces(argument)
                    .into_iter()
                    .map(|piece| match piece {
                        Piece::Literal(text) => regex::escape(text),
                        Piece::Placeholder(name) => self.parameters.get(name).map_or_else(String::new, |parameter| {
                            format!("(?:{})", without_anchors(&parameter.pattern))
                        }),
                    })
                    .collect();
                format!("\"{inner}\"")
            })
            .collect();
        let head = self.step_with(|_| String::new()).render();
        let head = head.split_once("argv=").map_or(head.as_str(), |(head, _)| head);
        format!("{}argv=\\[{}\\]", regex::escape(head), argv.join(","))
    }

    fn step_with(&self, argument: impl Fn(&str) -> String) -> StepArgs {
        StepArgs {
            name: self.name.to_string(),
            process: self.process,
            output: self.artifact.output,
            limit_bytes: self.limit.0,
            deadline_s: u32::try_from(self.deadline.as_secs()).unwrap_or(u32::MAX),
            argv: self.argv.iter().map(|a| argument(a)).collect(),
        }
    }
}

/// `^…$` without its anchors; the lint has proven that they are there and span the whole pattern.
fn without_anchors(pattern: &str) -> &str {
    let inner = pattern.strip_prefix('^').unwrap_or(pattern);
    inner.strip_suffix('$').unwrap_or(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_split_at_placeholders() {
        use Piece::{Literal, Placeholder};
        assert_eq!(
            pieces("-n={a}b{c}"),
            [Literal("-n="), Placeholder("a"), Literal("b"), Placeholder("c")]
        );
        assert_eq!(pieces("{a"), [Literal("{a")]);
        assert_eq!(pieces(""), [Literal("")]);
    }
}

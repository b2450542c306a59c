//! A diagnostic and checked parameters, rendered to the agent's step; and the pattern that every such step matches whole.

use std::collections::{BTreeMap, BTreeSet};

use diagbot_wire::args::StepArgs;

use crate::{Catalog, diagnostic::Diagnostic, runbook::PlannedStep};

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
        self.step_pattern_with("")
    }

    /// The same, where `more` (a pattern) may stand between deadline and argv: what runbooks say beside it.
    pub(crate) fn step_pattern_with(&self, more: &str) -> String {
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
        let head = head.split_once(";argv=").map_or(head.as_str(), |(head, _)| head);
        format!("{}{more};argv=\\[{}\\]", regex::escape(head), argv.join(","))
    }

    fn step_with(&self, argument: impl Fn(&str) -> String) -> StepArgs {
        StepArgs {
            name: self.name.to_string(),
            process: self.process,
            output: self.artifact.output,
            limit_bytes: self.limit.0,
            deadline_s: u32::try_from(self.deadline.as_secs()).unwrap_or(u32::MAX),
            after_s: 0,
            stop_on_error: false,
            argv: self.argv.iter().map(|a| argument(a)).collect(),
        }
    }
}

impl PlannedStep<'_> {
    /// The step that an ephemeral container runs.
    pub fn render(&self) -> StepArgs {
        StepArgs {
            after_s: u32::try_from(self.after.as_secs()).unwrap_or(u32::MAX),
            stop_on_error: self.stop_on_error,
            ..self.diagnostic.render_step(&self.parameters)
        }
    }
}

impl Catalog {
    /// The pattern that matches a diagnostic's `--step=` value, by itself and in every runbook, and nothing else.
    pub(crate) fn step_pattern(&self, diagnostic: &Diagnostic) -> String {
        let planned: Vec<_> = self.runbooks().flat_map(|runbook| runbook.plan(self)).collect();
        let planned = planned.iter().filter(|step| step.diagnostic.name == diagnostic.name);
        let more: BTreeSet<String> = planned
            .map(|step| {
                let words = step.render().render();
                let (head, _) = words.split_once(";argv=").unwrap_or_default();
                let plain = diagnostic.render_step(&step.parameters).render();
                let (plain, _) = plain.split_once(";argv=").unwrap_or_default();
                regex::escape(head.strip_prefix(plain).unwrap_or_default())
            })
            .filter(|more| !more.is_empty())
            .collect();
        if more.is_empty() {
            return diagnostic.step_pattern();
        }
        let more: Vec<String> = more.into_iter().collect();
        diagnostic.step_pattern_with(&format!("(?:{})?", more.join("|")))
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

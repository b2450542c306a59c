//! A diagnostic and checked parameters, rendered to the agent's step.

use std::collections::BTreeMap;

use diagbot_wire::args::StepArgs;

use crate::diagnostic::Diagnostic;

impl Diagnostic {
    /// The step that an ephemeral container runs, with `{parameter}` placeholders filled. `values` come from
    /// [`Diagnostic::check_parameters`]; a placeholder is only ever (part of) one argument, never split.
    pub fn render_step(&self, values: &BTreeMap<String, String>) -> StepArgs {
        StepArgs {
            name: self.name.to_string(),
            process: self.process,
            output: self.artifact.output,
            limit_bytes: self.limit.0,
            deadline_s: u32::try_from(self.deadline.as_secs()).unwrap_or(u32::MAX),
            argv: self.argv.iter().map(|argument| fill(argument, values)).collect(),
        }
    }
}

/// Replaces `{name}` by the value of `name`, in one pass: a value that looks like a placeholder stays as it is.
fn fill(argument: &str, values: &BTreeMap<String, String>) -> String {
    let mut filled = String::new();
    let mut rest = argument;
    while let Some((before, after)) = rest.split_once('{') {
        let known = after
            .split_once('}')
            .and_then(|(name, tail)| Some((values.get(name)?, tail)));
        filled.push_str(before);
        if let Some((value, tail)) = known {
            filled.push_str(value);
            rest = tail;
        } else {
            filled.push('{');
            rest = after;
        }
    }
    filled + rest
}

//! A sick and a healthy replica side by side: what was found in both, as a short difference.

use std::collections::BTreeMap;

use diagbot_analysis::{Difference, compare};
use diagbot_api::{capture::ArtifactRecord, run::DiagnosticRun};

use super::escape::{code, line};

/// Most lines; what only one of the two shows comes first.
const LINES: usize = 12;

/// The difference of two runs of the same diagnostic.
pub(super) fn words(sick: &DiagnosticRun, healthy: &DiagnosticRun) -> String {
    let (first, second) = (findings(sick), findings(healthy));
    let names: Vec<&String> = first
        .keys()
        .chain(second.keys().filter(|name| !first.contains_key(*name)))
        .collect();
    let none = Vec::new();
    let mut lines = Vec::new();
    let mut same = 0;
    for name in names {
        let of = |found: &BTreeMap<String, Vec<String>>| found.get(name).unwrap_or(&none).clone();
        for difference in compare(&of(&first), &of(&second)) {
            let file = line(name);
            match difference {
                Difference::OnlyFirst(text) => lines.push(format!("• {file}, only the sick one: {}", line(&text))),
                Difference::OnlySecond(text) => lines.push(format!("• {file}, only the healthy one: {}", line(&text))),
                Difference::Changed { first, second } => {
                    lines.push(format!(
                        "• {file}, the sick one: {} – healthy: {}",
                        line(&first),
                        line(&second)
                    ));
                }
                Difference::Same(_) => same += 1,
            }
        }
    }
    let more = lines.len().saturating_sub(LINES);
    lines.truncate(LINES);
    if more > 0 {
        lines.push(format!("• {more} more"));
    }
    if same > 0 {
        lines.push(format!("• the same in both: {same}"));
    }
    if lines.is_empty() {
        lines.push("Nothing was found in either; the files themselves may differ.".to_owned());
    }
    let run = sick.name().map(|name| name.short()).unwrap_or_default();
    format!(
        "*Compared with* {} (run {}):\n{}",
        code(&pod(sick)),
        code(&run),
        lines.join("\n")
    )
}

fn pod(run: &DiagnosticRun) -> String {
    let captures = run.status.as_ref().map(|status| status.captures.as_slice());
    let first = captures.unwrap_or_default().first();
    first.map_or_else(String::new, |capture| {
        format!("{}/{}", capture.target.namespace, capture.target.pod)
    })
}

/// What was found, by file. Of sensitive files nothing is recorded.
fn findings(run: &DiagnosticRun) -> BTreeMap<String, Vec<String>> {
    let captures = run.status.iter().flat_map(|status| &status.captures);
    let artifacts = captures.flat_map(|capture| &capture.artifacts);
    let told = |artifact: &&ArtifactRecord| !artifact.sensitive && !artifact.findings.is_empty();
    artifacts
        .filter(told)
        .map(|artifact| (artifact.name.clone(), artifact.findings.clone()))
        .collect()
}

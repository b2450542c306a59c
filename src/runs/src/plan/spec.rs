//! What a capture is told to do: rendered from the catalog, repeatable byte for byte. Pure.

use std::collections::BTreeMap;

use diagbot_api::{
    capture::{CaptureSpec, DiagnosticCapture, PinnedTarget, StepMethod, StepSpec},
    run::{
        CaptureSummary, DiagnosticRun, LABEL_CLUSTER, LABEL_DIAGNOSTIC, LABEL_NAMESPACE, LABEL_POD, LABEL_RUN,
        RunStatus, RunStep,
    },
};
use diagbot_catalog::{Diagnostic, Impact, Method, Sensitivity};
use diagbot_wire::args::StepArgs;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::api::ObjectMeta;

use super::{Facts, later};
use crate::reason::Reason;

/// What a capture may take before its tool starts: pulling an image, at most three attempts.
const LAUNCH: SignedDuration = SignedDuration::from_mins(10);
/// Slowest upload that is waited for, in bytes a second.
const UPLOAD_RATE: u64 = 4 << 20;
/// What a capture may take after its upload: verification.
const FINISH: SignedDuration = SignedDuration::from_mins(2);
/// Longest label value: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>.
const LONGEST_LABEL: usize = 63;

/// When a capture of all the run's steps gives up. Those that wait for their turn have as long as the ones before them.
pub(super) fn deadline(facts: &Facts<'_>, status: &RunStatus, index: usize, allowed_at: Timestamp) -> Timestamp {
    let turns = i32::try_from(index / status.at_once()).map_or(i32::MAX, |turn| turn.saturating_add(1));
    later(allowed_at, longest(facts, &status.steps).saturating_mul(turns))
}

/// The longest that a capture of all these steps may take.
fn longest(facts: &Facts<'_>, steps: &[RunStep]) -> SignedDuration {
    let seconds = |s: u64| SignedDuration::from_secs(i64::try_from(s).unwrap_or(i64::MAX));
    let taken = steps.iter().filter_map(|step| {
        let diagnostic = facts.catalog.get(&step.diagnostic)?;
        let upload = diagnostic.limit.0 / UPLOAD_RATE;
        Some(seconds(
            diagnostic.deadline.as_secs() + u64::from(step.after_s) + upload,
        ))
    });
    let add = |sum: SignedDuration, one| sum.saturating_add(one);
    taken.fold(LAUNCH.saturating_add(FINISH), add)
}

/// The capture object of a summary. The same facts give the same object, so that creating it twice is creating it once.
pub(super) fn capture(
    facts: &Facts<'_>,
    status: &RunStatus,
    index: usize,
    deadline: Timestamp,
) -> Result<DiagnosticCapture, Reason> {
    let summary = &status.captures[index];
    let taken = taken(facts, status, summary)?;
    let spec = CaptureSpec {
        run: facts.name().to_owned(),
        index: u32::try_from(index).unwrap_or(u32::MAX),
        target: summary.target.clone(),
        steps: taken
            .iter()
            .map(|(recorded, diagnostic)| step(recorded, diagnostic))
            .collect(),
        image: taken
            .first()
            .map(|(_, diagnostic)| image(facts, diagnostic))
            .unwrap_or_default(),
        requester: facts.run.spec.requester.user_name(),
        catalog_sha256: facts.catalog.sha256(),
        deadline: MicroTime(deadline),
    };
    let mut capture = DiagnosticCapture::new(&summary.name, spec);
    capture.metadata = ObjectMeta {
        labels: Some(labels(
            facts.name(),
            status.diagnostic.as_deref().unwrap_or_default(),
            &summary.target,
        )),
        owner_references: Some(vec![owner(facts.run)]),
        namespace: facts.run.metadata.namespace.clone(),
        ..capture.metadata
    };
    Ok(capture)
}

/// The steps of a capture with their diagnostics. The allowlist may have changed since the run was allowed.
fn taken<'a>(
    facts: &Facts<'a>,
    status: &'a RunStatus,
    summary: &CaptureSummary,
) -> Result<Vec<(&'a RunStep, &'a Diagnostic)>, Reason> {
    // What an earlier version recorded does not say what a capture takes.
    if summary.steps.is_empty() {
        return Err(Reason::NothingToTake {
            target: format!("{}/{}", summary.target.namespace, summary.target.pod),
        });
    }
    let steps = summary
        .steps
        .iter()
        .filter_map(|index| status.steps.get(usize::from(*index)));
    steps
        .map(|step| match facts.catalog.get(&step.diagnostic) {
            Some(diagnostic) => Ok((step, diagnostic)),
            None => Err(Reason::UnknownDiagnostic {
                typed: step.diagnostic.clone(),
                near: Vec::new(),
            }),
        })
        .collect()
}

/// What a dry run tells about one capture.
pub(super) fn describe(facts: &Facts<'_>, status: &RunStatus, summary: &CaptureSummary) -> Vec<String> {
    if let Some(reason) = &summary.reason {
        return vec![format!("Would not run: {}", reason.message)];
    }
    let taken = taken(facts, status, summary).unwrap_or_default();
    taken
        .into_iter()
        .flat_map(|(step, diagnostic)| describe_step(facts, step, diagnostic, &summary.target))
        .collect()
}

fn describe_step(facts: &Facts<'_>, recorded: &RunStep, diagnostic: &Diagnostic, target: &PinnedTarget) -> Vec<String> {
    let place = format!(
        "{}/{} in cluster {} on node {}",
        target.namespace, target.pod, target.cluster, target.node
    );
    let mut lines = Vec::new();
    match diagnostic.method {
        Method::Ephemeral => {
            lines.push(format!(
                "Would run: {} beside container {} of {place}",
                diagnostic.name, target.container
            ));
            lines.push(format!("Arguments: --step={}", step(recorded, diagnostic).step));
            lines.push(format!("Image: {}", image(facts, diagnostic)));
            let capabilities = &diagnostic.capabilities;
            lines.push(if capabilities.is_empty() {
                "As: the user of the target's process, without added capabilities".to_owned()
            } else {
                format!("As: the user of the target's process, with {}", capabilities.join(", "))
            });
        }
        Method::Api => lines.push(format!(
            "Would read: {} of {place}, over the Kubernetes API; nothing is started",
            diagnostic.name
        )),
    }
    lines.push(format!(
        "Limits: {} and {} s",
        String::from(diagnostic.limit),
        diagnostic.deadline.as_secs()
    ));
    lines.push(format!(
        "Impact: {}",
        impact_words(diagnostic.impact).unwrap_or("none that a request would notice")
    ));
    lines.push(format!(
        "Artifact: {}{}",
        diagnostic.artifact.name,
        if sensitive(diagnostic) { " (sensitive)" } else { "" }
    ));
    lines
}

/// The impact, in words that follow the diagnostic's name; none where there is none.
pub(super) fn impact_words(impact: Impact) -> Option<&'static str> {
    match impact {
        Impact::None => None,
        Impact::Pause => Some("stops the target for a moment"),
        Impact::Heavy => Some("stops the target for long, or uses much of its memory, disk or processor time"),
    }
}

fn step(recorded: &RunStep, diagnostic: &Diagnostic) -> StepSpec {
    let rendered = StepArgs {
        after_s: recorded.after_s,
        stop_on_error: recorded.stop_on_error,
        ..diagnostic.render_step(&recorded.parameters)
    };
    let ephemeral = diagnostic.method == Method::Ephemeral;
    StepSpec {
        diagnostic: diagnostic.name.to_string(),
        method: if ephemeral {
            StepMethod::Ephemeral
        } else {
            StepMethod::Api
        },
        parameters: recorded.parameters.clone(),
        step: if ephemeral { rendered.render() } else { String::new() },
        capabilities: diagnostic.capabilities.clone(),
        artifact: diagnostic.artifact.name.clone(),
        media_type: diagnostic.artifact.media_type.clone(),
        sensitive: sensitive(diagnostic),
        limit_bytes: diagnostic.limit.0,
        deadline_s: rendered.deadline_s,
        optional: recorded.optional,
    }
}

fn sensitive(diagnostic: &Diagnostic) -> bool {
    diagnostic.sensitivity == Sensitivity::Sensitive
}

/// The image of a capture.
pub(super) fn image(facts: &Facts<'_>, diagnostic: &Diagnostic) -> String {
    match diagnostic.method {
        Method::Ephemeral => diagnostic.image.clone().unwrap_or_else(|| facts.agent_image.to_owned()),
        Method::Api => String::new(),
    }
}

fn labels(run: &str, diagnostic: &str, target: &PinnedTarget) -> BTreeMap<String, String> {
    let labels = [
        (LABEL_RUN, run),
        (LABEL_CLUSTER, &target.cluster),
        (LABEL_NAMESPACE, &target.namespace),
        (LABEL_POD, &target.pod),
        (LABEL_DIAGNOSTIC, diagnostic),
    ];
    labels
        .into_iter()
        .map(|(label, value)| (label.to_owned(), label_value(value)))
        .collect()
}

/// A name as a label's value: cut, and ending in a letter or digit.
fn label_value(name: &str) -> String {
    let cut = name.get(..LONGEST_LABEL).unwrap_or(name);
    cut.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

fn owner(run: &DiagnosticRun) -> OwnerReference {
    OwnerReference {
        api_version: "diagbot.dev/v1alpha1".to_owned(),
        kind: "DiagnosticRun".to_owned(),
        name: run.metadata.name.clone().unwrap_or_default(),
        uid: run.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

//! `manifest.json` beside the artifacts: who, what, where, when, the container's spec, digests and proof. Pure.

use std::collections::BTreeMap;

use diagbot_api::capture::{AgentIdentity, ArtifactRecord, DiagnosticCapture, PinnedTarget, StepMethod};
use diagbot_wire::VERSION;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::EphemeralContainer;
use serde::Serialize;

/// Media type of a manifest.
pub(super) const MEDIA_TYPE: &str = "application/json";

/// The manifest.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest<'a> {
    /// Format.
    version: u32,
    run: &'a str,
    capture: &'a str,
    /// Who asked.
    requester: &'a str,
    /// Where.
    target: &'a PinnedTarget,
    /// What, in order.
    steps: Vec<Step<'a>>,
    /// The allowlist that the steps came from.
    catalog_sha256: &'a str,
    created: Option<Timestamp>,
    written: Timestamp,
    /// Which container of ours it was.
    attempt: u32,
    identity: Option<AgentIdentity>,
    /// What ran, as it stood in the pod's spec; none for method `api`.
    container: Option<&'a EphemeralContainer>,
    /// Moments by name.
    trace: BTreeMap<&'a str, Timestamp>,
    /// What was produced.
    artifacts: &'a [ArtifactRecord],
    notes: &'a [String],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step<'a> {
    diagnostic: &'a str,
    method: StepMethod,
    parameters: &'a BTreeMap<String, String>,
    /// Canonical argument of the agent.
    #[serde(skip_serializing_if = "str::is_empty")]
    argument: &'a str,
    limit_bytes: u64,
    deadline_s: u32,
}

/// The manifest's bytes. The preview of an artifact is no part of it: it is in the artifact.
pub(super) fn render(
    capture: &DiagnosticCapture,
    container: Option<&EphemeralContainer>,
    written: Timestamp,
) -> Vec<u8> {
    let spec = &capture.spec;
    let status = capture.status.clone().unwrap_or_default();
    let mut artifacts = status.artifacts.clone();
    for artifact in &mut artifacts {
        artifact.preview.clear();
    }
    let by_agent = spec.steps.iter().any(|s| s.method == StepMethod::Ephemeral);
    let manifest = Manifest {
        version: VERSION,
        run: &spec.run,
        capture: capture.metadata.name.as_deref().unwrap_or_default(),
        requester: &spec.requester,
        target: &spec.target,
        steps: spec
            .steps
            .iter()
            .map(|s| Step {
                diagnostic: &s.diagnostic,
                method: s.method,
                parameters: &s.parameters,
                argument: &s.step,
                limit_bytes: s.limit_bytes,
                deadline_s: s.deadline_s,
            })
            .collect(),
        catalog_sha256: &spec.catalog_sha256,
        created: capture.metadata.creation_timestamp.as_ref().map(|t| t.0),
        written,
        attempt: status.attempt,
        identity: status.identity.filter(|_| by_agent),
        container,
        trace: status.trace.iter().map(|(k, v)| (k.as_str(), v.0)).collect(),
        artifacts: &artifacts,
        notes: &status.notes,
    };
    serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data")
}

#[cfg(test)]
mod tests {
    use diagbot_api::capture::{CaptureStatus, Proof};

    use super::*;
    use crate::samples;

    #[test]
    fn the_manifest_tells_who_what_where_and_the_proof() {
        let mut capture = samples::capture();
        capture.status = Some(CaptureStatus {
            attempt: 1,
            artifacts: vec![ArtifactRecord {
                diagnostic: "jstack".to_owned(),
                name: "threads.txt".to_owned(),
                media_type: "text/plain".to_owned(),
                key: "k".to_owned(),
                version: None,
                size_bytes: 5,
                sha256: "abc".to_owned(),
                proof: Proof::StoreChecked,
                truncated: false,
                shortfall: None,
                sensitive: false,
                preview: "SECRET LINE".to_owned(),
                findings: Vec::new(),
                redaction: None,
            }],
            ..CaptureStatus::default()
        });
        let container = samples::container(&capture, 1);
        let bytes = render(&capture, Some(&container), samples::at(9));
        let text = String::from_utf8(bytes).expect("text");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["requester"], "slack:T1:U1");
        assert_eq!(value["target"]["podUid"], "uid-of-pod");
        assert_eq!(value["container"]["args"][0], "run");
        assert_eq!(value["artifacts"][0]["proof"], "store-checked");
        assert!(!text.contains("SECRET LINE"));
    }
}

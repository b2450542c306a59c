//! What is in the bundle of a run: one archive of its files with a manifest, for a post-mortem or a vendor. Pure.
//!
//! # Design notes
//! The same run and the same rights make the same bytes, so that the archive's key follows from what is in it and it is
//! written once. No person is named in it, since it may leave the house.

use std::{collections::BTreeSet, fmt::Write as _};

use diagbot_api::{
    capture::{ArtifactRecord, CapturePhase, Explanation, Proof},
    run::{CaptureSummary, DiagnosticRun, Phase, RunStep},
};
use diagbot_artifacts::{ArchiveFile, ArtifactKey, Content, InvalidKey};
use diagbot_wire::digest::sha256_hex;
use jiff::Timestamp;
use serde::Serialize;

/// Format of the manifest.
const VERSION: u32 = 1;
/// The manifest's name.
const MANIFEST: &str = "manifest.json";
/// Characters of a pod's name in a folder's.
const POD: usize = 100;

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Contents {
    /// The manifest, then the artifacts.
    pub(super) files: Vec<ArchiveFile>,
    /// Keys of the artifacts.
    pub(super) objects: Vec<String>,
    /// Something in it is sensitive.
    pub(super) sensitive: bool,
    /// Something in it is not whole.
    pub(super) truncated: bool,
    /// Diagnostics of which the person may not read what they gave.
    pub(super) withheld: BTreeSet<String>,
    /// When the run ended: the time of every file.
    pub(super) at: Timestamp,
}

impl Contents {
    /// Follows from what is in it.
    pub(super) fn id(&self) -> String {
        let mut text = String::new();
        for file in &self.files {
            let digest = match &file.content {
                Content::Bytes(bytes) => sha256_hex(bytes),
                Content::Object { sha256, .. } => sha256.clone(),
            };
            let _infallible = writeln!(text, "{digest} {}/{}", file.folder, file.name);
        }
        sha256_hex(text.as_bytes())[..16].to_owned()
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    version: u32,
    run: &'a str,
    diagnostic: &'a str,
    phase: Phase,
    received: Timestamp,
    ended: Timestamp,
    steps: &'a [RunStep],
    files: Vec<File<'a>>,
    /// Captures that did not give all that they should.
    incomplete: Vec<Incomplete<'a>>,
    /// Diagnostics of which whoever asked for the bundle may not read what they gave.
    withheld: &'a BTreeSet<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    path: String,
    cluster: &'a str,
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    node: &'a str,
    /// It is of a healthy replica, to compare.
    control: bool,
    diagnostic: &'a str,
    media_type: &'a str,
    size_bytes: u64,
    sha256: &'a str,
    proof: Proof,
    sensitive: bool,
    /// The tool's output was longer than its limit, or it failed half-way.
    truncated: bool,
    redacted_places: u64,
    findings: &'a [String],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Incomplete<'a> {
    pod: &'a str,
    phase: CapturePhase,
    reason: Option<&'a Explanation>,
}

/// What is in the bundle of a run that has ended, for who may read what these diagnostics gave.
pub(super) fn contents(run: &DiagnosticRun, readable: &BTreeSet<String>) -> Result<Contents, InvalidKey> {
    let status = run.status.clone().unwrap_or_default();
    let name = run.metadata.name.as_deref().unwrap_or_default();
    let received = run.spec.received_at.0;
    let ended = status.entered.get(status.phase.as_str()).map_or(received, |at| at.0);
    let all = (0..).zip(&status.captures).flat_map(|(index, capture)| {
        let of = capture.artifacts.iter();
        of.map(move |artifact| (folder(name, index, capture), capture, artifact))
    });
    let (may, not): (Vec<_>, Vec<_>) = all.partition(|(_, _, artifact)| readable.contains(&artifact.diagnostic));
    let withheld = not
        .into_iter()
        .map(|(_, _, artifact)| artifact.diagnostic.clone())
        .collect();
    let manifest = Manifest {
        version: VERSION,
        run: name,
        diagnostic: run.diagnostic_name(),
        phase: status.phase,
        received,
        ended,
        steps: &status.steps,
        files: may
            .iter()
            .map(|(folder, capture, artifact)| file(folder, capture, artifact))
            .collect(),
        incomplete: status.captures.iter().filter_map(incomplete).collect(),
        withheld: &withheld,
    };
    let described = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
    let mut files = vec![ArchiveFile {
        folder: name.to_owned(),
        name: MANIFEST.to_owned(),
        content: Content::Bytes(described.into()),
    }];
    for (folder, _, artifact) in &may {
        files.push(ArchiveFile {
            folder: folder.clone(),
            name: artifact.name.clone(),
            content: Content::Object {
                key: ArtifactKey::try_from(artifact.key.clone())?,
                version: artifact.version.clone(),
                size_bytes: artifact.size_bytes,
                sha256: artifact.sha256.clone(),
            },
        });
    }
    Ok(Contents {
        files,
        objects: may.iter().map(|(_, _, artifact)| artifact.key.clone()).collect(),
        sensitive: may.iter().any(|(_, _, artifact)| artifact.sensitive),
        truncated: may.iter().any(|(_, _, artifact)| artifact.truncated),
        withheld,
        at: ended,
    })
}

/// One a capture: a target's captures may make files of one name.
fn folder(run: &str, index: usize, capture: &CaptureSummary) -> String {
    let pod: String = capture.target.pod.chars().take(POD).collect();
    format!("{run}/{index:03}-{pod}")
}

fn file<'a>(folder: &str, capture: &'a CaptureSummary, artifact: &'a ArtifactRecord) -> File<'a> {
    let target = &capture.target;
    File {
        path: format!("{folder}/{}", artifact.name),
        cluster: &target.cluster,
        namespace: &target.namespace,
        pod: &target.pod,
        container: &target.container,
        node: &target.node,
        control: capture.control,
        diagnostic: &artifact.diagnostic,
        media_type: &artifact.media_type,
        size_bytes: artifact.size_bytes,
        sha256: &artifact.sha256,
        proof: artifact.proof,
        sensitive: artifact.sensitive,
        truncated: artifact.truncated,
        redacted_places: artifact.redaction.as_ref().map_or(0, |redaction| redaction.count),
        findings: &artifact.findings,
    }
}

fn incomplete(capture: &CaptureSummary) -> Option<Incomplete<'_>> {
    (capture.phase != CapturePhase::Succeeded).then(|| Incomplete {
        pod: &capture.target.pod,
        phase: capture.phase,
        reason: capture.reason.as_ref(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn run() -> DiagnosticRun {
        let artifact = |diagnostic: &str, sensitive: bool| {
            json!({
                "diagnostic": diagnostic, "name": format!("{diagnostic}.txt"), "mediaType": "text/plain",
                "key": format!("diagbot/{diagnostic}"), "sizeBytes": 5, "sha256": "ab", "proof": "store-checked",
                "sensitive": sensitive, "findings": ["2 threads wait"],
            })
        };
        let capture = |pod: &str, phase: &str, artifacts: Value| {
            let pinned = diagbot_api::capture::PinnedTarget {
                namespace: "shop".into(),
                pod: pod.into(),
                ..Default::default()
            };
            json!({ "name": format!("d-0-{pod}"), "phase": phase, "target": pinned, "artifacts": artifacts })
        };
        serde_json::from_value(json!({
            "apiVersion": "diagbot.dev/v1alpha1", "kind": "DiagnosticRun", "metadata": { "name": "d-0123456789abcdef" },
            "spec": {
                "key": { "kind": "Command", "id": "[]" }, "requester": { "team": "T1", "user": "U1" },
                "origin": { "channel": "C1" }, "diagnostic": "jvm-memory", "target": { "name": "checkout" },
                "receivedAt": "2027-01-15T08:00:00.000000Z",
            },
            "status": {
                "phase": "PartlyFailed", "diagnostic": "jvm-memory",
                "captures": [
                    capture("a", "Succeeded", json!([artifact("jstack", false), artifact("heap-dump", true)])),
                    capture("b", "Failed", json!([])),
                ],
            },
        }))
        .expect("a run")
    }

    fn of(readable: &[&str]) -> (Contents, Value) {
        let readable = readable.iter().map(|name| (*name).to_owned()).collect();
        let contents = contents(&run(), &readable).expect("sound keys");
        let Content::Bytes(manifest) = &contents.files[0].content else {
            panic!("the manifest comes first")
        };
        let manifest = serde_json::from_slice(manifest).expect("JSON");
        (contents, manifest)
    }

    #[test]
    fn a_bundle_tells_what_is_in_it_what_is_missing_and_names_nobody() {
        let (contents, manifest) = of(&["jstack", "heap-dump"]);
        assert!(contents.sensitive && contents.withheld.is_empty());
        assert_eq!(manifest["files"][1]["path"], "d-0123456789abcdef/000-a/heap-dump.txt");
        assert_eq!(manifest["files"][0]["findings"][0], "2 threads wait");
        assert_eq!(manifest["incomplete"][0]["pod"], "b");
        assert!(!manifest.to_string().contains("U1"));
    }

    #[test]
    fn what_a_person_may_not_read_is_not_in_it_and_another_bundle_has_another_id() {
        let (some, manifest) = of(&["jstack"]);
        assert_eq!((some.files.len(), some.sensitive), (2, false));
        assert_eq!(manifest["withheld"], json!(["heap-dump"]));
        assert!(!manifest["files"].to_string().contains("heap-dump"));
        let (all, _) = of(&["jstack", "heap-dump"]);
        assert_ne!(some.id(), all.id());
        assert_eq!(all.id(), of(&["jstack", "heap-dump"]).0.id());
    }
}

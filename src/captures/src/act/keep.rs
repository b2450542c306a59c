//! Actions that keep what was captured: relay, completion, the result object, the manifest, the record of progress and end.

use std::sync::Arc;

use diagbot_api::capture::{
    ArtifactRecord, CaptureStatus, DiagnosticCapture, Proof, RedactionRecord, Shortfall, StepSpec, UploadRecord,
};
use diagbot_artifacts::{StoreError, Stored};
use diagbot_base::failpoint;
use diagbot_wire::{
    args::OutputKind,
    control,
    redaction::RedactionReport,
    result::{ArtifactReport, SignedResult, StepOutcome, StepResult},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{ActError, Outcome, TaskContext, names, notice, uploads};
use crate::{
    container,
    explain::{self, Refusal},
    manifest,
    plan::{Action, CaptureOutcome, Facts, Fault, Observed, PodFact, ResultFact},
    relay::{Relay, RelayError},
};

/// The result object's name beside the artifacts.
pub(super) const RESULT_NAME: &str = "result.json";
/// The manifest's name beside the artifacts.
const MANIFEST_NAME: &str = "manifest.json";
/// Longest result object: previews of 20 steps and the rest.
pub(super) const MAX_RESULT_BYTES: usize = 256 * 1024;
/// Findings that are recorded of one artifact.
const MAX_FINDINGS: usize = 5;

/// Fetches a staged artifact, then completes its upload.
pub(super) async fn relay(scene: &TaskContext, f: &Facts, step: u16) -> Result<Outcome, ActError> {
    let (result, upload) = at_hand(f, step)?;
    let report = result.artifact.as_ref().ok_or_else(|| nothing(step))?;
    let (key, id) = names(upload)?;
    let _permit = scene.relays.acquire().await.map_err(|_| ActError::NotOurs)?;
    let container = f.recorded(|s| s.container.clone()).unwrap_or_default();
    let relay = Relay {
        pods: scene.streaming_pods(),
        pod: &f.spec().target.pod,
        container: &container,
        step,
        report,
        part_size_bytes: upload.part_size_bytes,
        store: &scene.context.store,
        key: &key,
        upload: &id,
        relayed_bytes: &scene.relayed_bytes,
    };
    match relay.run().await {
        // Or no such upload: one of us has completed it and died before that was recorded. The object is proven again.
        Ok(()) | Err(RelayError::Store(StoreError::NotFound { .. })) => {}
        Err(error) => return Err(ActError::of_relay(step, &error)),
    }
    scene.status_writer.check_term()?;
    prove(scene, f, result, upload, report).await
}

/// Completes a step's upload, has it proven, and records the artifact.
pub(super) async fn complete(scene: &TaskContext, f: &Facts, step: u16) -> Result<Outcome, ActError> {
    let (result, upload) = at_hand(f, step)?;
    let report = result.artifact.as_ref().ok_or_else(|| nothing(step))?;
    prove(scene, f, result, upload, report).await
}

async fn prove(
    scene: &TaskContext,
    f: &Facts,
    result: &StepResult,
    upload: &UploadRecord,
    report: &ArtifactReport,
) -> Result<Outcome, ActError> {
    let (key, id) = names(upload)?;
    let stored = scene
        .context
        .store
        .complete(&key, &id, report, upload.part_size_bytes)
        .await
        .map_err(|error| ActError::of_store(Fault::Artifact(result.step), &error))?;
    scene.status_writer.check_term()?;
    keep(scene, f, result, upload, &stored).await
}

/// Records that a step's artifact is in the store. The manifest is put beside that where nothing more can come.
pub(crate) async fn keep(
    scene: &TaskContext,
    f: &Facts,
    result: &StepResult,
    upload: &UploadRecord,
    stored: &Stored,
) -> Result<Outcome, ActError> {
    let artifact = artifact(scene, f, result, upload, stored)?;
    let verified = scene.now();
    let change = |status: &mut CaptureStatus| {
        if !status.artifacts.iter().any(|a| a.key == artifact.key) {
            status.artifacts.push(artifact.clone());
            in_order(status);
        }
        for record in status.uploads.iter_mut().filter(|u| u.upload_id == upload.upload_id) {
            record.closed = true;
        }
        trace(status, "toolStarted", millisecond(result.started_ms));
        trace(status, "toolEnded", millisecond(result.ended_ms));
        status.trace.insert("verified".to_owned(), MicroTime(verified));
    };
    let describe = async {
        if !is_last(f, result.step) {
            return false;
        }
        let mut capture = DiagnosticCapture::clone(&scene.status_writer.current());
        change(capture.status.get_or_insert_default());
        // One that could not be put is an action of its own, with its own patience.
        let put = put_manifest(scene, f, &capture);
        failpoint::around(Action::WriteManifest.name(), put).await.is_ok()
    };
    let (recorded, described) = tokio::join!(scene.write(f, &change), describe);
    recorded?;
    record_artifact(scene, f, &artifact);
    Ok(Outcome::Kept { described })
}

/// Artifacts stand as their steps do, whichever was proven first.
fn in_order(status: &mut CaptureStatus) {
    let CaptureStatus { artifacts, uploads, .. } = status;
    let step = |key: &str| {
        uploads
            .iter()
            .find(|upload| upload.key == key)
            .map(|upload| upload.step)
    };
    artifacts.sort_by_key(|artifact| step(&artifact.key));
}

fn record_artifact(scene: &TaskContext, f: &Facts, artifact: &ArtifactRecord) {
    scene.context.metrics.artifact_bytes.inc_by(artifact.size_bytes);
    scene.context.audit_log.add(diagbot_audit::Event::Artifact {
        run: f.spec().run.clone(),
        capture: f.capture.metadata.name.clone().unwrap_or_default(),
        person: f.spec().requester.clone(),
        diagnostic: artifact.diagnostic.clone(),
        object: artifact.key.clone(),
        size_bytes: artifact.size_bytes,
        sha256: artifact.sha256.clone(),
        redacted: artifact.redaction.as_ref().map_or(0, |redaction| redaction.count),
    });
}

/// Whether no other step can bring an artifact any more.
fn is_last(f: &Facts, step: u16) -> bool {
    f.steps().filter(|other| *other != step).all(|other| {
        let nothing = || f.step_result(other).is_some_and(|r| r.artifact.is_none());
        f.stored(other) || nothing()
    })
}

fn artifact(
    scene: &TaskContext,
    f: &Facts,
    result: &StepResult,
    upload: &UploadRecord,
    stored: &Stored,
) -> Result<ArtifactRecord, ActError> {
    let report = result.artifact.as_ref().ok_or_else(|| nothing(result.step))?;
    let spec = &f.spec().steps[usize::from(result.step)];
    let sensitive = spec.sensitive || is_unredacted(scene, spec, report);
    Ok(ArtifactRecord {
        diagnostic: spec.diagnostic.clone(),
        name: format!(
            "{}{}",
            uploads::object_name(&f.spec().steps, result.step),
            report.suffix
        ),
        media_type: spec.media_type.clone(),
        key: upload.key.clone(),
        version: stored.version.clone(),
        size_bytes: report.digests.size_bytes,
        sha256: report.digests.sha256.clone(),
        proof: match stored.proof {
            diagbot_artifacts::Proof::StoreChecked => Proof::StoreChecked,
            diagbot_artifacts::Proof::ReadBack => Proof::ReadBack,
        },
        truncated: result.outcome != StepOutcome::Done,
        shortfall: shortfall(&result.outcome),
        sensitive,
        preview: if sensitive {
            String::new()
        } else {
            report.preview.clone()
        },
        findings: findings(report, sensitive),
        redaction: report.redaction.as_ref().map(redaction),
    })
}

fn shortfall(outcome: &StepOutcome) -> Option<Shortfall> {
    match outcome {
        StepOutcome::Done => None,
        StepOutcome::Truncated { .. } => Some(Shortfall::Limit),
        _ => Some(Shortfall::Tool),
    }
}

/// An agent older than the rules has not applied them: what it sent is shown to nobody who did not ask for it.
fn is_unredacted(scene: &TaskContext, spec: &StepSpec, report: &ArtifactReport) -> bool {
    let text = spec.step.contains(&format!(";output={};", OutputKind::Text.as_str()));
    text && report.redaction.is_none() && !scene.context.config.redaction.rules().is_empty()
}

fn redaction(report: &RedactionReport) -> RedactionRecord {
    RedactionRecord {
        count: report.count,
        by_rule: report.by_rule.clone(),
        original_bytes: report.original_bytes,
        original_digest: report.original_digest.clone(),
    }
}

/// The agent's text is the target's text: bounded and cleaned before it is recorded.
fn findings(report: &ArtifactReport, sensitive: bool) -> Vec<String> {
    if sensitive {
        return Vec::new();
    }
    report
        .findings
        .iter()
        .take(MAX_FINDINGS)
        .map(|f| explain::clean(f))
        .collect()
}

fn trace(status: &mut CaptureStatus, moment: &str, at: Option<Timestamp>) {
    if let Some(at) = at {
        status.trace.entry(moment.to_owned()).or_insert(MicroTime(at));
    }
}

fn millisecond(ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()
}

fn at_hand(f: &Facts, step: u16) -> Result<(&StepResult, &UploadRecord), ActError> {
    let result = f.step_result(step).ok_or_else(|| nothing(step))?;
    let upload = f.upload(step).ok_or_else(|| nothing(step))?;
    Ok((result, upload))
}

fn nothing(step: u16) -> ActError {
    ActError::Never(
        Fault::Artifact(step),
        explain::refusal(Refusal::Invalid, "a step has no artifact"),
    )
}

/// Looks for the result object. One that the agent did not sign is none.
pub(super) async fn read_result(scene: &TaskContext, f: &Facts) -> Result<Outcome, ActError> {
    let attempt = f.attempt_number();
    let uid = f.capture.metadata.uid.as_deref().unwrap_or_default();
    let found = scene
        .context
        .store
        .read_small(&scene.key(attempt, RESULT_NAME), MAX_RESULT_BYTES)
        .await;
    let bytes = match found {
        Ok(bytes) => bytes,
        Err(error) => match ActError::of_store(Fault::Ticket, &error) {
            ActError::Never(..) => None,
            later => return Err(later),
        },
    };
    let key = control::journal_key(scene.secret(), uid, attempt);
    let result = bytes
        .and_then(|bytes| serde_json::from_slice::<SignedResult>(&bytes).ok())
        .and_then(|signed| signed.open(&key));
    Ok(Outcome::Result(result.map_or(ResultFact::Absent, |result| {
        ResultFact::Found(Arc::new(result))
    })))
}

/// Puts the manifest beside the artifacts.
pub(super) async fn write_manifest(scene: &TaskContext, f: &Facts) -> Result<Outcome, ActError> {
    put_manifest(scene, f, &f.capture).await?;
    Ok(Outcome::ManifestWritten)
}

/// The same again replaces it.
async fn put_manifest(scene: &TaskContext, f: &Facts, capture: &DiagnosticCapture) -> Result<(), ActError> {
    let in_pod = match (&f.pod, f.recorded(|s| s.container.clone())) {
        (PodFact::Seen(pod), Some(name)) => container::find(pod, &name),
        _ => None,
    };
    let ours = in_pod.or(f.attempt.wanted.as_deref());
    let bytes = manifest::render(capture, ours, scene.now());
    let key = scene.key(f.attempt_number(), MANIFEST_NAME);
    scene
        .context
        .store
        .describe(&key, bytes.into(), manifest::MEDIA_TYPE)
        .await
        .map_err(|error| ActError::of_store(Fault::Manifest, &error))
}

/// Records how far it is.
pub(super) async fn observe(scene: &TaskContext, f: &Facts, observed: &Observed) -> Result<Outcome, ActError> {
    scene
        .write(f, |status| {
            status.phase = observed.phase;
            status.waiting.clone_from(&observed.waiting);
            status.progress.clone_from(&observed.progress);
        })
        .await?;
    Ok(Outcome::Recorded)
}

/// Records the end, and tells the pod's owners.
pub(super) async fn finish(
    scene: &TaskContext,
    f: &Facts,
    capture_outcome: &CaptureOutcome,
) -> Result<Outcome, ActError> {
    let now = scene.now();
    let written = scene.write(f, |status| {
        let generation = f.capture.metadata.generation;
        status.end(capture_outcome.phase, capture_outcome.reason.as_ref(), generation, now);
        status.notes.clone_from(&capture_outcome.notes);
        status.waiting = None;
        status.progress = None;
        status.trace.insert("finished".to_owned(), MicroTime(now));
    });
    let (written, ()) = tokio::join!(written, notice::post(scene, f, capture_outcome));
    written?;
    Ok(Outcome::Recorded)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn artifacts_stand_as_their_steps_do() {
        let mut status = CaptureStatus::default();
        for (step, key) in ["threads.txt", "sockets.txt", "histogram.txt"].into_iter().enumerate() {
            let upload = json!({ "step": step, "attempt": 1, "key": key, "uploadId": "", "partSizeBytes": 1 });
            status
                .uploads
                .push(serde_json::from_value(upload).expect("a record of an upload"));
        }
        for key in ["histogram.txt", "threads.txt", "sockets.txt"] {
            let artifact = json!({
                "diagnostic": "", "name": key, "mediaType": "", "key": key, "sizeBytes": 0, "sha256": "", "proof": "store-checked",
                "sensitive": false,
            });
            status
                .artifacts
                .push(serde_json::from_value(artifact).expect("a record of an artifact"));
            in_order(&mut status);
        }
        let keys: Vec<&str> = status.artifacts.iter().map(|artifact| artifact.key.as_str()).collect();
        assert_eq!(keys, ["threads.txt", "sockets.txt", "histogram.txt"]);
    }
}

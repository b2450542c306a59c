//! `pod-report`: what the Kubernetes API alone tells of a pod, also of one that crashes: states, events, manifest, logs. Made
//! by the bot itself and streamed into one upload.
//!
//! Never reads a Secret or ConfigMap; values that look secret are removed from the manifest ([`redact`]). Every part that
//! may not be read is named as missing, and the rest goes on.

mod artifact;
mod logs;
mod redact;
mod text;

use std::time::Duration;

use diagbot_api::capture::UploadRecord;
use diagbot_cluster::{CallError, deadline};
use diagbot_wire::{
    control,
    result::{StepOutcome, StepResult},
};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::{Api, api::ListParams};

use self::artifact::{Artifact, Sink};
use super::{ActError, Outcome, TaskContext, keep, names, uploads};
use crate::{
    explain::{self, Refusal},
    plan::{Facts, Fault},
};

/// Longest wait for one call.
const CALL: Duration = Duration::from_secs(10);
/// Events that are listed.
const MOST_EVENTS: u32 = 500;

/// Makes the report and keeps it. Done again after a crash it begins anew, in a new upload.
pub(super) async fn make(scene: &TaskContext, f: &Facts, step: u16) -> Result<Outcome, ActError> {
    let target = &f.spec().target;
    let pod = match deadline(CALL, scene.pods().get(&target.pod)).await {
        Ok(pod) => pod,
        Err(error) if error.is_not_found() => {
            return Err(never(explain::refusal(Refusal::PodGone, &target.pod)));
        }
        Err(error) => return Err(ActError::of_call(Fault::Report, Refusal::Cluster, &error)),
    };
    if pod.metadata.uid.as_deref() != Some(target.pod_uid.as_str()) {
        return Err(never(explain::refusal(Refusal::PodReplaced, &target.pod)));
    }
    let upload = fresh_upload(scene, f, step).await?;
    let (key, id) = names(&upload)?;
    let limit_bytes = f.spec().steps[usize::from(step)].limit_bytes;
    let rules = scene
        .context
        .config
        .redaction
        .compile()
        .map_err(|error| never(explain::refusal(Refusal::Invalid, &format!("redaction: {error}"))))?;
    let journal_key = control::journal_key(
        scene.context.secret.expose(),
        f.capture.metadata.uid.as_deref().unwrap_or_default(),
        f.attempt_number(),
    );
    let sink = Sink {
        store: &scene.context.store,
        key: &key,
        upload: &id,
    };
    let mut artifact = Artifact::new(sink, upload.part_size_bytes, limit_bytes, &rules);
    let started = scene.now();
    let written = write(scene, f, &pod, &mut artifact).await;
    let report = match written {
        Ok(()) => artifact.finish(&journal_key).await,
        Err(error) => Err(error),
    }
    .map_err(|error| ActError::of_store(Fault::Report, &error))?;
    let outcome = if report.cut {
        StepOutcome::Truncated { limit_bytes }
    } else {
        StepOutcome::Done
    };
    let result = StepResult {
        step,
        artifact: Some(report.artifact),
        outcome,
        started_ms: u64::try_from(started.as_millisecond()).unwrap_or_default(),
        ended_ms: u64::try_from(scene.now().as_millisecond()).unwrap_or_default(),
    };
    let Some(report) = &result.artifact else {
        return Ok(Outcome::Recorded);
    };
    let stored = scene
        .context
        .store
        .complete(&key, &id, report, upload.part_size_bytes)
        .await
        .map_err(|error| ActError::of_store(Fault::Report, &error))?;
    keep::keep(scene, f, &result, &upload, &stored).await
}

fn never(explanation: diagbot_api::capture::Explanation) -> ActError {
    ActError::Never(Fault::Report, explanation)
}

/// An upload of this life: what an earlier one uploaded is not known.
async fn fresh_upload(scene: &TaskContext, f: &Facts, step: u16) -> Result<UploadRecord, ActError> {
    if f.may_hold_open_uploads() {
        uploads::abort(scene, f, Fault::Report).await?;
    }
    let upload = uploads::open_one(scene, f, step).await?;
    uploads::record(scene, f, std::slice::from_ref(&upload)).await?;
    Ok(upload)
}

/// All sections, the short and telling ones first.
async fn write(
    scene: &TaskContext,
    f: &Facts,
    pod: &Pod,
    artifact: &mut Artifact<'_>,
) -> Result<(), diagbot_artifacts::StoreError> {
    let target = &f.spec().target;
    let client = &scene.cluster.client;
    let events: Api<Event> = Api::namespaced(client.clone(), &target.namespace);
    let params = ListParams::default()
        .fields(&format!("involvedObject.uid={}", target.pod_uid))
        .limit(MOST_EVENTS);
    let nodes: Api<Node> = Api::all(client.clone());
    let node_name = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
    let (events, node) = tokio::join!(deadline(CALL, events.list(&params)), async {
        if node_name.is_empty() {
            return None;
        }
        Some(deadline(CALL, nodes.get(&node_name)).await)
    });
    artifact
        .push(text::head(&target.cluster, pod, scene.now()).as_bytes())
        .await?;
    artifact.push(text::containers(pod).as_bytes()).await?;
    let events = match events {
        Ok(list) => text::events(&list.items),
        Err(error) => text::absent("Events", &why(&error)),
    };
    artifact.push(events.as_bytes()).await?;
    let node = match node {
        Some(Ok(node)) => text::node(&node),
        Some(Err(error)) => text::absent("Node", &why(&error)),
        None => text::absent("Node", "the pod is on none"),
    };
    artifact.push(node.as_bytes()).await?;
    let manifest = redact::manifest(pod);
    artifact.push(text::manifest(&manifest).as_bytes()).await?;
    logs::write(&scene.streaming_pods(), pod, artifact).await
}

/// Why something is missing, in words for the report.
fn why(error: &CallError) -> String {
    let said = error.status().map_or_else(|| error.to_string(), |s| s.message.clone());
    explain::clean(&said)
}

//! An Event on the pod: who looked at it, for those who own it and read no Slack. A courtesy: where it can't be written, the
//! capture ends without it.

use std::time::Duration;

use diagbot_api::capture::{CapturePhase, DiagnosticCapture};
use diagbot_cluster::deadline;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};

use super::TaskContext;
use crate::plan::{CaptureOutcome, Facts};

/// Longest wait for it.
const CALL: Duration = Duration::from_secs(2);

/// Posts the Event. Its name follows from the capture: posted twice, it is one.
pub(super) async fn post(scene: &TaskContext, f: &Facts, capture_outcome: &CaptureOutcome) {
    let event = event(&f.capture, capture_outcome.phase, scene.now());
    let namespace = &f.spec().target.namespace;
    let events: Api<Event> = Api::namespaced(scene.cluster.client.clone(), namespace);
    match deadline(CALL, events.create(&PostParams::default(), &event)).await {
        Ok(_) => {}
        Err(error) if error.is_conflict() => {}
        Err(error) => tracing::debug!(
            error = %diagbot_base::telemetry::Chain(&error),
            "the pod's owners could not be told by an Event"
        ),
    }
}

fn event(capture: &DiagnosticCapture, phase: CapturePhase, now: Timestamp) -> Event {
    let (spec, target) = (&capture.spec, &capture.spec.target);
    let names: Vec<&str> = spec.steps.iter().map(|step| step.diagnostic.as_str()).collect();
    let good = phase == CapturePhase::Succeeded;
    Event {
        metadata: ObjectMeta {
            name: capture.metadata.name.clone(),
            namespace: Some(target.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(target.namespace.clone()),
            name: Some(target.pod.clone()),
            uid: Some(target.pod_uid.clone()),
            ..ObjectReference::default()
        },
        reason: Some(format!("Diagnostic{}", phase.as_str())),
        message: Some(format!(
            "{} asked for {} beside container {} (run {})",
            spec.requester,
            names.join(", "),
            target.container,
            spec.run
        )),
        type_: Some(if good { "Normal" } else { "Warning" }.to_owned()),
        source: Some(EventSource {
            component: Some("diagbot".to_owned()),
            host: None,
        }),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn the_event_is_about_the_very_pod_and_names_person_and_run() {
        let capture = samples::capture();
        let event = event(&capture, CapturePhase::Succeeded, samples::at(1));
        assert_eq!(event.involved_object.uid.as_deref(), Some("uid-of-pod"));
        let message = event.message.unwrap_or_default();
        assert!(
            message.contains("slack:T1:U1 asked for ") && message.contains(&capture.spec.run),
            "{message}"
        );
    }
}

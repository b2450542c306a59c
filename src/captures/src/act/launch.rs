//! Actions up to the running container.

use std::sync::Arc;

use diagbot_api::capture::{AgentIdentity, CapturePhase, StepMethod};
use diagbot_cluster::deadline;
use diagbot_wire::control::CancelReason;
use k8s_openapi::{
    api::core::v1::{EphemeralContainer, Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use super::{ActError, CALL, Outcome, TaskContext, session};
use crate::{
    container::container_name,
    explain::{self, Refusal},
    launch::container_events,
    plan::{Facts, Fault, PodFact},
};

/// Events of one pod that are looked at.
const MOST_EVENTS: u32 = 200;

/// Records the attempt; the former one's agent, which has no ticket, is told to end.
pub(super) async fn attempt(
    scene: &TaskContext,
    f: &Facts,
    number: u32,
    identity: AgentIdentity,
) -> Result<Outcome, ActError> {
    let by_agent = f.spec().steps.iter().any(|s| s.method == StepMethod::Ephemeral);
    let name = f.capture.metadata.name.clone().unwrap_or_default();
    let container = by_agent.then(|| container_name(&name, number));
    let now = scene.now();
    if f.attempt.journal.hello.is_some() {
        // It ends by itself after its wait; being told only saves it that.
        session::send_cancel(scene, f, CancelReason::Unknown).await.ok();
    }
    scene
        .write(f, |status| {
            if status.attempt >= number {
                return;
            }
            status.attempt = number;
            status.container.clone_from(&container);
            status.identity = by_agent.then_some(identity);
            status.ticket_sent_at = None;
            status.control_seq = 0;
            status.phase = CapturePhase::Launching;
            status.waiting = None;
            status.trace.clear();
            status.trace.insert("launched".to_owned(), MicroTime(now));
        })
        .await?;
    Ok(Outcome::NewAttempt)
}

/// Adds the container. The same name with the same spec again changes nothing, so that an unknown outcome is repeated.
pub(super) async fn add_container(scene: &TaskContext, f: &Facts) -> Result<Outcome, ActError> {
    let Some(container) = &f.attempt.wanted else {
        return Err(ActError::Never(
            Fault::StatusWriter,
            explain::refusal(Refusal::Invalid, ""),
        ));
    };
    let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [container.as_ref()]}}));
    let pods = scene.pods();
    let params = PatchParams::default();
    let pod = &f.spec().target.pod;
    record_container(scene, f, container);
    let call = pods.patch_ephemeral_containers(pod, &params, &patch);
    match deadline(CALL, call).await {
        Ok(pod) => Ok(Outcome::Added(Box::new(pod))),
        Err(error) => match error.status() {
            Some(status) if !error.is_transient() && !error.is_conflict() => {
                Ok(Outcome::Refused(explain::launch_refusal(status)))
            }
            _ => Err(ActError::Later {
                what: "the API server did not take the container yet".to_owned(),
                after: None,
            }),
        },
    }
}

/// On record before it is done; once for each attempt at it.
fn record_container(scene: &TaskContext, f: &Facts, container: &EphemeralContainer) {
    let target = &f.spec().target;
    let pod = [
        ("cluster", &target.cluster),
        ("namespace", &target.namespace),
        ("pod", &target.pod),
        ("uid", &target.pod_uid),
    ];
    scene.context.audit_log.add(diagbot_audit::Event::Container {
        run: f.spec().run.clone(),
        capture: f.capture.metadata.name.clone().unwrap_or_default(),
        person: f.spec().requester.clone(),
        pod: pod.map(|(key, value)| (key.to_owned(), value.clone())).into(),
        spec: serde_json::to_value(container).unwrap_or_default(),
    });
}

/// Looks at a container that is being created for long: at the pod itself, since a watch may have gone quiet, and at the
/// events about it. Where those may not be read, there are none.
pub(super) async fn look_closer(scene: &TaskContext, f: &Facts) -> Result<Outcome, ActError> {
    let target = &f.spec().target;
    let events: Api<Event> = Api::namespaced(scene.cluster.client.clone(), &target.namespace);
    let params = ListParams::default()
        .fields(&format!("involvedObject.uid={}", target.pod_uid))
        .limit(MOST_EVENTS);
    let pods = scene.pods();
    let (pod, events) = tokio::join!(
        deadline(CALL, pods.get_opt(&target.pod)),
        deadline(CALL, events.list(&params))
    );
    let pod = match pod {
        Ok(pod) => pod.map_or(PodFact::Gone, |pod| PodFact::Seen(Arc::new(pod))),
        Err(error) => return Err(ActError::of_call(Fault::StatusWriter, Refusal::Cluster, &error)),
    };
    let name = f.recorded(|s| s.container.clone()).unwrap_or_default();
    let events = events.map_or_else(|_| Vec::new(), |list| container_events(&list.items, &name));
    Ok(Outcome::Looked { pod, events })
}

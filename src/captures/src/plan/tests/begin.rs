//! From the record to the tool: container, hello, ticket, URLs.

use diagbot_wire::journal::{Event, Hello};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::json;

use super::{
    super::*,
    case::{Case, aborted},
};
use crate::samples;

#[test]
fn a_capture_goes_from_record_to_end_one_action_after_the_other() {
    assert!(matches!(
        Case::fresh().actions()[..],
        [Action::Attempt { number: 1, .. }]
    ));
    let recorded = Case::launched()
        .with(|f| f.attempt.added_at = None)
        .status(|s| s.uploads.clear());
    assert_eq!(
        recorded.actions(),
        [Action::OpenUploads, Action::AddContainer],
        "side by side"
    );
    assert_eq!(Case::launched().actions(), []);
    let running = Case::launched().container(&json!({"running": {}})).plan();
    assert!(running.follow && running.control && running.actions.is_empty());
    assert_eq!(Case::met().actions(), [Action::SendTicket]);
    assert_eq!(Case::started().actions(), []);
    assert_eq!(Case::ended().actions(), [Action::Complete { step: 0 }]);
    assert_eq!(Case::ended().stored().actions(), [Action::WriteManifest]);
    let done = Case::ended().stored().with(|f| f.manifest_written = true);
    assert_eq!(done.capture_outcome(), (CapturePhase::Succeeded, String::new()));
    assert!(Case::ended().status(|s| s.phase = CapturePhase::Succeeded).plan().over);
}

#[test]
fn nothing_is_added_to_a_pod_that_is_not_the_pinned_one() {
    let gone = Case::fresh().with(|f| f.pod = PodFact::Gone);
    assert_eq!(gone.capture_outcome(), (CapturePhase::Failed, "PodGone".to_owned()));
    let replaced = Case::fresh().pod(|pod| pod["metadata"]["uid"] = "other".into());
    assert_eq!(replaced.capture_outcome().1, "PodReplaced");
    let unread = Case::fresh().with(|f| f.pod = PodFact::Unknown);
    assert!(unread.plan().actions.is_empty());
    assert_eq!(
        unread.at(300).capture_outcome().0,
        CapturePhase::TimedOut,
        "never read, never for ever"
    );
}

#[test]
fn a_ticket_waits_for_the_right_process_and_the_recorded_upload() {
    let early = Case::met().status(|s| s.uploads.clear());
    assert_eq!(early.actions(), [Action::OpenUploads]);
    let sent = Case::met().with(|f| f.attempt.ticket_at = Some(samples::at(1)));
    assert_eq!(sent.actions(), [], "sent and not answered yet");
    assert_eq!(
        sent.at(3).actions(),
        [Action::SendTicket],
        "sent again after two seconds"
    );
    let other = hello_with(|h| h.processes[0].uid = 33);
    assert!(
        matches!(other.actions()[..], [Action::Attempt { number: 2, identity }] if identity.uid == 33),
        "a second attempt as the process's user"
    );
    let third = hello_with(|h| h.processes[0].uid = 33).status(|s| s.attempt = 3);
    assert_eq!(
        third.actions(),
        [Action::SendCancel {
            reason: CancelReason::TargetReplaced
        }]
    );
    let told = third
        .status(|s| s.uploads[0].closed = true)
        .with(|f| f.attempt.cancelled_at = Some((f.now, f.now)));
    assert_eq!(told.capture_outcome().1, "NoIdentity");
}

fn hello_with(change: impl FnOnce(&mut Hello)) -> Case {
    let mut hello = samples::hello();
    change(&mut hello);
    Case::launched()
        .container(&json!({"running": {}}))
        .says(&[Event::Hello(hello)])
}

#[test]
fn an_agent_that_may_have_acted_is_never_followed_by_another() {
    let ticketed =
        hello_with(|h| h.processes[0].uid = 33).status(|s| s.ticket_sent_at = Some(MicroTime(samples::at(1))));
    assert!(!ticketed.actions().iter().any(|a| matches!(a, Action::Attempt { .. })));
    let wrong = hello_with(|h| h.processes[0].container_id = "bb".to_owned());
    let wrong = wrong.with(|f| f.attempt.cancelled_at = Some((f.now, f.now)));
    assert_eq!(aborted(wrong).capture_outcome().1, "WrongContainer");
    let foreign = Case::launched().container(&json!({"running": {}})).pod(|pod| {
        pod["spec"]["ephemeralContainers"][0]["image"] = "other".into();
    });
    assert!(
        matches!(foreign.actions()[..], [Action::Attempt { number: 2, .. }]),
        "not ours: another name"
    );
}

#[test]
fn of_several_containers_processes_the_targets_own_gets_the_ticket() {
    let mut neighbour = samples::hello().processes[0].clone();
    neighbour.container_id = "bb".to_owned();
    neighbour.uid = 33;
    neighbour.pinned.pid = 7;
    let mut unknown = neighbour.clone();
    unknown.container_id = String::new();
    let mut hello = samples::hello();
    hello.processes.splice(0..0, [neighbour.clone(), unknown.clone()]);
    let facts = Case::launched().0;
    assert_eq!(chosen(&facts, &hello), [&samples::hello().processes[0]]);
    hello.processes.pop();
    assert_eq!(chosen(&facts, &hello), [&unknown], "the target's alone are seen");
    let met = hello_with(|h| h.processes.insert(0, neighbour));
    assert!(met.actions().iter().any(|a| matches!(a, Action::SendTicket)));
}

/// How a capture ends whose agent found a process of that container, in a pod with these fields in its spec.
fn ends_of(container_id: &str, field: Option<&str>) -> Option<String> {
    let met = hello_with(|h| h.processes[0].container_id = container_id.to_owned());
    let met = met.pod(|pod| {
        if let Some(field) = field {
            pod["spec"][field] = true.into();
        }
    });
    if met.actions().iter().any(|a| matches!(a, Action::SendTicket)) {
        return None;
    }
    let told = met.with(|f| f.attempt.cancelled_at = Some((f.now, f.now)));
    Some(aborted(told).capture_outcome().1)
}

#[test]
fn a_process_without_container_counts_only_where_none_is_shared() {
    let shared = Some("shareProcessNamespace");
    assert_eq!(ends_of("", None), None);
    assert_eq!(ends_of("", shared).as_deref(), Some("ContainerUnknown"));
    assert_eq!(ends_of("", Some("hostPID")).as_deref(), Some("HostProcesses"));
    assert_eq!(ends_of("aa", shared), None);
    for other in ["a", "bb", "a1"] {
        assert_eq!(ends_of(other, shared).as_deref(), Some("WrongContainer"), "{other}");
        assert_eq!(ends_of(other, None).as_deref(), Some("WrongContainer"), "{other}");
    }
}

#[test]
fn in_a_shared_pod_what_carries_no_id_comes_after_the_target() {
    let mut unknown = samples::hello().processes[0].clone();
    unknown.container_id = String::new();
    unknown.pinned.pid = 7;
    let mut neighbour = unknown.clone();
    neighbour.container_id = "bb".to_owned();
    let mut hello = samples::hello();
    hello.processes.splice(0..0, [neighbour, unknown.clone()]);
    let facts = Case::launched()
        .pod(|pod| pod["spec"]["shareProcessNamespace"] = true.into())
        .0;
    assert_eq!(chosen(&facts, &hello), [&samples::hello().processes[0]]);
    hello.processes.pop();
    assert_eq!(chosen(&facts, &hello), [&unknown]);
}

#[test]
fn the_deciding_check_ends_the_capture_before_anything_is_touched() {
    let refused = Case::met()
        .status(|s| s.ticket_sent_at = Some(MicroTime(samples::at(1))))
        .with(|f| f.attempt.verdict = Some(explain::refusal(Refusal::TargetReplaced, "")));
    assert_eq!(
        refused.actions(),
        [Action::SendCancel {
            reason: CancelReason::TargetReplaced
        }]
    );
    let told = refused.with(|f| f.attempt.cancelled_at = Some((f.now, f.now)));
    assert_eq!(
        aborted(told).capture_outcome(),
        (CapturePhase::Failed, "TargetReplaced".to_owned())
    );
}

#[test]
fn requests_for_urls_are_served_once_and_again_when_they_had_no_effect() {
    let asks = Case::started().says(&[Event::NeedUrls { step: 0, from_part: 5 }]);
    let urls = Action::SendUrls {
        step: 0,
        from_part: 5,
        asked: 3,
    };
    assert_eq!(asks.actions(), std::slice::from_ref(&urls));
    let served = asks.with(|f| {
        f.attempt.urls_at.insert(0, (3, f.now));
    });
    assert_eq!(served.actions(), []);
    assert_eq!(served.at(3).actions(), [urls]);
}

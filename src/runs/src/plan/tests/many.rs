//! Runbooks, and runs with several targets.

use diagbot_api::{
    approval::ANNOTATION_APPROVAL,
    capture::{CapturePhase, StepMethod},
    run::{Phase, RunStatus, Selection},
    target,
};
use diagbot_cluster::resolve::How;
use k8s_openapi::api::core::v1::Pod;

use super::{
    code,
    samples::{self, NOW, World, allowed, found, pod, run},
};
use crate::{
    admission::Use,
    plan::{Action, uses},
};

const ALL: Option<Selection> = Some(Selection { max: None });

fn crashed(name: &str) -> Pod {
    let mut pod = pod(name);
    let statuses = pod
        .status
        .as_mut()
        .and_then(|status| status.container_statuses.as_mut());
    for status in statuses.into_iter().flatten() {
        status.ready = false;
        status.state = Some(
            serde_json::from_value(serde_json::json!({ "waiting": { "reason": "CrashLoopBackOff" } }))
                .expect("a state"),
        );
    }
    pod
}

fn pods(status: &RunStatus) -> Vec<&str> {
    status
        .captures
        .iter()
        .map(|capture| capture.target.pod.as_str())
        .collect()
}

fn workload(names: &[&str]) -> World {
    let mut world = World::new(run(|spec| {
        spec.target = target::parse("shop/deploy/checkout").expect("a target");
        spec.targets = ALL;
    }));
    world.target = Ok(found(How::Workload(target::TargetKind::Deployment), names));
    world
}

#[test]
fn a_runbook_is_one_capture_by_the_bot_and_one_by_the_agent_with_all_its_steps() {
    let mut world = World::new(run(|spec| spec.diagnostic = "first-response".into()));
    let status = world.settle();
    assert_eq!(status.phase, Phase::Capturing, "{:?}", status.reason);
    assert_eq!(status.diagnostic.as_deref(), Some("first-response"));
    let reviewed = world.acts.iter().find_map(|act| match act {
        Action::Review { diagnostics, .. } => Some(diagnostics.join(" ")),
        _ => None,
    });
    assert_eq!(
        reviewed.as_deref(),
        Some("jstack pod-report process sockets"),
        "each must be allowed"
    );
    let steps: Vec<Vec<&str>> = world
        .captures
        .iter()
        .map(|capture| capture.spec.steps.iter().map(|step| step.diagnostic.as_str()).collect())
        .collect();
    assert_eq!(steps, [vec!["pod-report"], vec!["process", "sockets", "jstack"]]);
    assert_eq!(world.captures[0].spec.steps[0].method, StepMethod::Api);
    assert!(world.captures[1].spec.steps[2].optional, "only where there is a JVM");

    // One of the two fails: the rest is there, and that is told.
    world.report_phase(CapturePhase::Succeeded);
    let last = std::sync::Arc::make_mut(&mut world.captures[1]);
    last.status.get_or_insert_default().phase = CapturePhase::Failed;
    assert_eq!(world.settle().phase, Phase::PartlyFailed);
}

#[test]
fn what_does_not_fit_the_containers_state_is_left_out_and_told() {
    let mut world = World::new(run(|spec| spec.diagnostic = "first-response".into()));
    let mut answer = found(How::Exact, &[]);
    answer.pods = vec![crashed("checkout-1")];
    answer.count = 1;
    world.target = Ok(answer);
    let status = world.settle();
    assert_eq!(status.captures.len(), 1);
    assert!(
        status.notes[0].contains("jstack, process, sockets"),
        "{:?}",
        status.notes
    );
}

#[test]
fn the_sick_pod_is_compared_with_a_healthy_replica() {
    let mut world = World::new(run(|spec| spec.diagnostic = "slow-network".into()));
    let mut answer = found(How::Exact, &["checkout-1"]);
    answer.siblings = vec![crashed("checkout-2"), pod("checkout-3")];
    world.target = Ok(answer);
    let status = world.settle();
    assert_eq!(pods(&status), ["checkout-1", "checkout-1", "checkout-3", "checkout-3"]);
    assert_eq!(status.captures.iter().filter(|capture| capture.control).count(), 2);
    let paused: Vec<bool> = world.captures[1]
        .spec
        .steps
        .iter()
        .map(|s| s.step.contains(";after=5"))
        .collect();
    assert_eq!(paused, [false, true, true, false]);
}

#[test]
fn a_healthy_replica_of_a_pod_is_looked_at_alone_and_confirmed_where_it_would_stand_still() {
    let of_replica = |diagnostic: &str, siblings: Vec<Pod>| {
        let mut world = World::new(run(|spec| {
            spec.diagnostic = diagnostic.into();
            spec.target.healthy_replica = true;
        }));
        let mut answer = found(How::Exact, &["checkout-1"]);
        answer.siblings = siblings;
        world.target = Ok(answer);
        world.settle()
    };
    let replicas = || vec![crashed("checkout-2"), pod("checkout-3")];
    let status = of_replica("jstack", replicas());
    assert_eq!((status.phase, pods(&status)), (Phase::Capturing, vec!["checkout-3"]));
    assert!(status.captures[0].control);
    assert_eq!(
        code(&of_replica("jstack", vec![crashed("checkout-2")])),
        "NoHealthyReplica"
    );
    assert_eq!(code(&of_replica("heap-histogram", replicas())), "ConfirmationNeeded");
}

#[test]
fn all_pods_are_captures_of_one_run_and_one_that_can_not_be_looked_at_is_told_among_them() {
    let mut world = workload(&["checkout-1", "checkout-2"]);
    if let Ok(answer) = &mut world.target {
        answer.pods.insert(0, crashed("checkout-0"));
        answer.count = 3;
    }
    let status = world.settle();
    assert_eq!(status.phase, Phase::Capturing);
    assert_eq!(pods(&status), ["checkout-0", "checkout-1", "checkout-2"]);
    assert_eq!(world.made(), 2);
    world.report_phase(CapturePhase::Succeeded);
    let status = world.settle();
    assert_eq!((status.phase, code(&status)), (Phase::PartlyFailed, "TargetNotRunning"));
}

#[test]
fn several_targets_with_an_impact_are_confirmed_and_too_many_are_refused() {
    let mut world = workload(&["checkout-1", "checkout-2"]);
    world.run.spec.diagnostic = "heap-dump".into();
    let status = world.settle();
    assert_eq!((status.phase, code(&status)), (Phase::Refused, "ConfirmationNeeded"));
    assert!(status.needs_confirmation && status.candidates.is_empty());

    let names: Vec<String> = (0..201).map(|index| format!("checkout-{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(code(&workload(&names).settle()), "TooManyTargets");
    let mut some = workload(&names);
    some.run.spec.targets = Some(Selection { max: Some(2) });
    let status = some.settle();
    assert_eq!(pods(&status).len(), 2);
    assert!(status.notes[0].contains("fits 201 pods"), "{:?}", status.notes);

    let mut spread = workload(&["checkout-1", "checkout-2"]);
    if let Ok(answer) = &mut spread.target {
        answer.pods[1].metadata.namespace = Some("other".into());
    }
    assert_eq!(code(&spread.settle()), "SeveralNamespaces");
}

fn first_response() -> World {
    World::new(run(|spec| spec.diagnostic = "first-response".into()))
}

#[test]
fn the_rules_hold_for_each_diagnostic_of_a_runbook() {
    let mut denied = first_response();
    let mut decision = allowed(false);
    decision.diagnostic = "sockets".into();
    denied.review = Ok(vec![decision]);
    let status = denied.settle();
    assert_eq!((status.phase, code(&status)), (Phase::Denied, "NotAllowed"));
    assert!(
        status
            .reason
            .expect("an end has a reason")
            .message
            .contains("`sockets`")
    );

    let mut asked = first_response();
    let preflight = asked.preflight.as_mut().expect("a sample");
    let annotations = &mut preflight.snapshots[0].annotations;
    annotations.insert(ANNOTATION_APPROVAL.to_owned(), "sockets".to_owned());
    let status = asked.settle();
    assert_eq!((status.phase, asked.made()), (Phase::AwaitingApproval, 0));
    let questions = asked.acts.iter().find_map(|act| match act {
        Action::Preflight(question) => Some((question.diagnostics.join(" "), question.targets.len())),
        _ => None,
    });
    assert_eq!(questions, Some(("jstack pod-report process sockets".to_owned(), 2)));
    let approval = status.approval.clone().expect("it is asked for");
    assert_eq!((&approval.steps, approval.images.len()), (&status.steps, 4));

    // What was consented to is not what would be taken.
    let recorded = asked.run.status.as_mut().expect("it is recorded");
    recorded.steps[0].parameters.insert("depth".into(), "9".into());
    asked.say("U2", true);
    let status = asked.settle();
    assert_eq!((status.phase, code(&status)), (Phase::Refused, "ApprovalVoid"));
}

#[test]
fn the_rules_hold_for_each_target() {
    let mut outside = workload(&["checkout-1", "checkout-2"]);
    let preflight = outside.preflight.as_mut().expect("a sample");
    let mut second = preflight.snapshots[0].clone();
    second.labels.clear();
    preflight.snapshots.push(second);
    assert_eq!(code(&outside.settle()), "NamespaceNotEnabled");

    // The other runs use what there is.
    let mut crowded = workload(&["checkout-1", "checkout-2"]);
    let used = |index: usize| Use {
        cluster: "local".into(),
        namespace: "shop".into(),
        pod_uid: format!("uid-{index}"),
        at: NOW,
        running: true,
        pausing: false,
    };
    crowded.uses = (0..40).map(used).collect();
    assert_eq!(code(&crowded.settle()), "OverBudget");
}

#[test]
fn replicas_that_may_not_all_stand_still_are_taken_one_after_the_other() {
    let mut world = workload(&["checkout-1", "checkout-2"]);
    world.run.spec.diagnostic = "heap-histogram".into();
    world.run.spec.confirmed = true;
    let status = world.settle();
    assert_eq!(
        (status.phase, status.at_once, world.made()),
        (Phase::Capturing, Some(1), 1)
    );
    assert!(
        status.notes.iter().any(|note| note.contains("1 at a time")),
        "{:?}",
        status.notes
    );
    let mut other = run(|_| {});
    other.metadata.name = Some("d-other".into());
    let counted = uses([&world.run].into_iter(), &samples::catalog(), &other);
    assert_eq!(
        counted.iter().filter(|one| one.running).count(),
        1,
        "the other one waits"
    );
    world.report_phase(CapturePhase::Succeeded);
    assert_eq!(world.settle().phase, Phase::Capturing);
    assert_eq!(world.made(), 2);
    let deadlines: Vec<_> = world.captures.iter().map(|capture| capture.spec.deadline.0).collect();
    assert!(deadlines[1] > deadlines[0], "its time begins later");
    world.report_phase(CapturePhase::Succeeded);
    assert_eq!(world.settle().phase, Phase::Succeeded);
}

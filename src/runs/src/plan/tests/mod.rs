//! Runs through the plan, in a world without a cluster.

use std::sync::Arc;

use diagbot_api::{
    capture::{CapturePhase, Explanation, StepMethod},
    run::{Phase, RunSpec, RunStatus},
    target,
};
use diagbot_cluster::resolve::How;
use jiff::SignedDuration;

use self::samples::{NOW, World, found, run};
use super::Action;
use crate::{access::IdentityError, reason::Reason};

mod armed;
mod launch;
mod many;
mod rules;
pub(crate) mod samples;

fn code(status: &RunStatus) -> &str {
    status.reason.as_ref().map_or("", |reason| reason.code.as_str())
}

#[test]
fn a_request_becomes_one_pinned_capture_and_its_end_is_the_runs_end() {
    let mut world = World::new(run(|_| {}));
    let status = world.settle();
    assert_eq!(status.phase, Phase::Capturing);
    assert_eq!(world.made(), 1);
    let capture = Arc::clone(&world.captures[0]);
    let target = &capture.spec.target;
    assert_eq!(
        (
            target.pod_uid.as_str(),
            target.container_id.as_str(),
            target.restart_count
        ),
        ("uid-of-checkout-1", "containerd://c1", 2)
    );
    assert_eq!(capture.spec.image, "agent@sha256:0");
    assert_eq!(capture.spec.requester, "slack:T1:U1");
    assert!(capture.spec.steps[0].step.starts_with("jstack;process=jvm;"));
    let owner = &capture.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(owner.uid, "run-uid");

    world.report(|status| {
        status.phase = CapturePhase::Launching;
        status.waiting = Some("pulling the image".into());
    });
    assert_eq!(world.settle().captures[0].waiting, None, "most captures end sooner");
    world.now = NOW + SignedDuration::from_secs(1);
    assert_eq!(world.settle().captures[0].waiting.as_deref(), Some("pulling the image"));
    world.report_phase(CapturePhase::Succeeded);
    let status = world.settle();
    assert_eq!(status.phase, Phase::Succeeded);
    let entered: Vec<&String> = status.entered.keys().collect();
    assert_eq!(entered, ["Authorizing", "Capturing", "Resolving", "Succeeded"]);
    assert_eq!(world.made(), 1);
}

#[test]
fn what_was_decided_is_recorded_before_it_is_done_and_doing_it_again_is_the_same() {
    let mut world = World::new(run(|_| {}));
    world.settle();
    let kinds: Vec<&str> = world
        .acts
        .iter()
        .map(|act| match act {
            Action::FindTarget { .. } => "find",
            Action::Review { .. } => "review",
            Action::Preflight(_) => "survey",
            Action::Record(_) => "record",
            Action::CreateCapture(_) => "create",
            Action::CancelCaptures(_) => "cancel",
            Action::Wait(_) => "wait",
        })
        .collect();
    assert_eq!(
        kinds,
        ["find", "review", "survey", "record", "create", "record", "wait"]
    );

    // A crash after the create and before its record: the same object is made again, so that its name refuses it.
    let made = world.captures.clone();
    let mut again = World::new(world.run.clone());
    again.run.status.as_mut().unwrap().captures[0].uid = None;
    again.now = NOW + SignedDuration::from_mins(1);
    again.settle();
    assert_eq!(again.captures[0].spec, made[0].spec);
    assert_eq!(again.captures[0].metadata, made[0].metadata);
}

#[test]
fn a_capture_that_somebody_deleted_is_not_made_a_second_time() {
    let mut world = World::new(run(|_| {}));
    world.settle();
    world.captures.clear();
    let status = world.settle();
    assert_eq!((status.phase, code(&status)), (Phase::Failed, "CaptureVanished"));
    assert_eq!(world.made(), 1);
}

#[test]
fn what_can_not_be_meant_is_refused_with_a_reason_and_a_remedy() {
    type SpecChange = fn(&mut RunSpec);
    let cases: [(&str, SpecChange); 8] = [
        ("UnknownDiagnostic", |s| s.diagnostic = "jstak".into()),
        ("UnknownDiagnostic", |s| s.diagnostic = "$(reboot)".into()),
        ("SeveralDiagnostics", |s| s.diagnostic = "heap".into()),
        ("BadParameters", |s| {
            s.parameters = [("depth".to_owned(), "9".to_owned())].into();
        }),
        ("UnknownCluster", |s| s.target.cluster = Some("mars".into())),
        ("NoTarget", |s| s.target.name = String::new()),
        ("UnknownContainer", |s| s.target.container = Some("sidecar".into())),
        ("TargetReplaced", |s| s.target.pod_uid = Some("another".into())),
    ];
    for (wanted, change) in cases {
        let mut world = World::new(run(change));
        let status = world.settle();
        assert_eq!((status.phase, code(&status)), (Phase::Refused, wanted));
        let Explanation { message, remedy, .. } = status.reason.unwrap();
        assert!(!message.is_empty() && !remedy.is_empty(), "{wanted}");
        assert_eq!(world.made(), 0, "{wanted}");
    }
    let mut world = World::new(run(|s| s.diagnostic = "jstak".into()));
    assert!(world.settle().reason.unwrap().remedy.contains("`jstack`"));
}

#[test]
fn several_targets_are_offered_and_a_chosen_one_is_taken() {
    let two = || found(How::Prefix, &["checkout-1", "checkout-2"]);
    let mut world = World::new(run(|s| s.target = target::parse("shop/checkout").unwrap()));
    world.target = Ok(two());
    let status = world.settle();
    assert_eq!((status.phase, code(&status)), (Phase::Refused, "SeveralTargets"));
    let offered: Vec<_> = status
        .candidates
        .iter()
        .map(|c| (c.pod.as_str(), c.hint.as_str()))
        .collect();
    assert_eq!(
        offered,
        [("checkout-1", "ready, 2 restarts"), ("checkout-2", "ready, 2 restarts")]
    );

    let mut world = World::new(run(|s| s.target.pod_uid = Some("uid-of-checkout-2".into())));
    world.target = Ok(two());
    assert_eq!(world.settle().captures[0].target.pod, "checkout-2");
}

#[test]
fn a_completed_name_is_told_and_confirmed_first_where_there_is_an_impact() {
    let completed = |diagnostic: &str, confirmed: bool, dry_run: bool| {
        let mut world = World::new(run(|s| {
            s.diagnostic = diagnostic.into();
            s.confirmed = confirmed;
            s.dry_run = dry_run;
        }));
        world.target = Ok(found(How::Prefix, &["checkout-1"]));
        world.settle()
    };
    let harmless = completed("jstack", false, false);
    assert_eq!(harmless.phase, Phase::Capturing);
    assert!(harmless.notes[0].contains("shop/checkout-1"), "{:?}", harmless.notes);

    let dump = completed("heap-dump", false, false);
    assert_eq!((dump.phase, code(&dump)), (Phase::Refused, "ConfirmationNeeded"));
    assert!(dump.needs_confirmation);
    assert_eq!(dump.candidates[0].pod_uid, "uid-of-checkout-1");

    assert_eq!(completed("heap-dump", true, false).phase, Phase::Capturing);
    assert_eq!(completed("heap-dump", false, true).phase, Phase::Succeeded);
}

#[test]
fn a_dry_run_tells_what_would_happen_and_does_nothing() {
    let mut world = World::new(run(|s| s.dry_run = true));
    let status = world.settle();
    assert_eq!(status.phase, Phase::Succeeded);
    let plan = status.plan.join("\n");
    for wanted in [
        "shop/checkout-1",
        "agent@sha256:0",
        "--step=jstack;",
        "64MiB and 60 s",
        "slack:T1:U1",
    ] {
        assert!(plan.contains(wanted), "{wanted} in {plan}");
    }
    assert_eq!((world.made(), status.captures.len()), (0, 0));
}

#[test]
fn the_record_of_a_crashed_pod_can_be_had_while_nothing_starts_beside_it() {
    let crashed = |diagnostic: &str| {
        let mut world = World::new(run(|s| s.diagnostic = diagnostic.into()));
        let found = world.target.as_mut().unwrap();
        let status = found.pods[0].status.as_mut().unwrap();
        status.container_statuses.as_mut().unwrap()[0].state = None;
        world.settle();
        world
    };
    let refused = crashed("jstack").run.status.unwrap();
    assert_eq!((refused.phase, code(&refused)), (Phase::Refused, "TargetNotRunning"));
    assert!(refused.reason.unwrap().remedy.contains("pod-report shop/checkout-1"));
    let report = crashed("pod-report");
    assert_eq!(report.captures[0].spec.steps[0].method, StepMethod::Api);
    assert_eq!(report.captures[0].spec.image, "");
}

#[test]
fn without_a_permission_or_without_an_answer_nothing_starts() {
    let mut denied = World::new(run(|_| {}));
    denied.review = Ok(vec![samples::allowed(false)]);
    let status = denied.settle();
    assert_eq!((status.phase, code(&status)), (Phase::Denied, "NotAllowed"));
    assert!(status.reason.unwrap().remedy.contains("slack:T1:U1"));
    assert_eq!(denied.made(), 0);

    for reason in [
        Reason::IdentityRefused(IdentityError::Guest),
        Reason::ReviewFailed { what: "x".into() },
    ] {
        let mut world = World::new(run(|_| {}));
        let wanted = reason.code();
        world.review = Err(reason);
        let status = world.settle();
        assert_eq!((status.phase, code(&status)), (Phase::Denied, wanted));
        assert_eq!(world.made(), 0);
    }
}

#[test]
fn a_cancel_before_the_start_starts_nothing_and_a_later_one_waits_for_the_proof() {
    let mut early = World::new(run(|_| {}));
    early.cancel();
    let status = early.settle();
    assert_eq!((status.phase, early.made()), (Phase::Cancelled, 0));
    assert_eq!(status.cancelled_by, Some(samples::ada()));

    let mut world = World::new(run(|_| {}));
    world.settle();
    world.cancel();
    assert_eq!(world.settle().phase, Phase::Cancelling, "not before it is proven");
    assert!(world.acts.iter().any(|act| matches!(act, Action::CancelCaptures(_))));
    world.report_phase(CapturePhase::Cancelled);
    assert_eq!(world.settle().phase, Phase::Cancelled);
}

#[test]
fn a_cancel_that_came_too_late_says_what_really_happened() {
    let mut world = World::new(run(|_| {}));
    world.settle();
    world.cancel();
    world.settle();
    world.report_phase(CapturePhase::Succeeded);
    assert_eq!(world.settle().phase, Phase::Succeeded);
}

#[test]
fn a_cancel_between_the_decision_and_the_capture_makes_none() {
    let mut world = World::new(run(|_| {}));
    world.settle();
    world.captures.clear();
    world.acts.clear();
    world.run.status.as_mut().unwrap().captures[0].uid = None;
    world.cancel();
    assert_eq!((world.settle().phase, world.made()), (Phase::Cancelled, 0));
}

#[test]
fn a_run_that_can_not_start_in_time_expires_and_one_that_never_ends_is_stopped() {
    let mut last = World::new(run(|_| {}));
    last.now = NOW + SignedDuration::from_mins(10);
    assert_eq!(last.settle().phase, Phase::Capturing);
    let mut late = World::new(run(|_| {}));
    late.now = NOW + SignedDuration::from_mins(10) + SignedDuration::from_secs(1);
    let status = late.settle();
    assert_eq!((status.phase, code(&status)), (Phase::Expired, "NotStarted"));

    let mut stuck = World::new(run(|_| {}));
    stuck.settle();
    let Some(Action::Wait(Some(until))) = stuck.acts.last() else {
        panic!("a run under way has a deadline");
    };
    // Ten minutes to launch, one for the tool, 16 s to upload 64 MiB, two to verify, five of grace.
    let ends = SignedDuration::from_mins(10 + 1 + 2 + 5) + SignedDuration::from_secs(16);
    assert_eq!(*until, NOW + ends);
    stuck.now = *until + SignedDuration::from_secs(1);
    let status = stuck.settle();
    assert_eq!((status.phase, code(&status)), (Phase::TimedOut, "RunTimedOut"));
    assert!(stuck.acts.iter().any(|act| matches!(act, Action::CancelCaptures(_))));
}

#[test]
fn a_run_that_is_being_cancelled_ends_at_its_deadline_too() {
    let mut world = World::new(run(|_| {}));
    world.settle();
    world.cancel();
    assert_eq!(world.settle().phase, Phase::Cancelling);
    let Some(Action::Wait(Some(until))) = world.acts.last() else {
        panic!("a run that is being cancelled has a deadline");
    };
    world.now = *until + SignedDuration::from_secs(1);
    let status = world.settle();
    assert_eq!((status.phase, code(&status)), (Phase::TimedOut, "RunTimedOut"));
}

#[test]
fn a_capture_that_the_api_server_refuses_fails_the_run_with_its_words() {
    let mut world = World::new(run(|_| {}));
    let name = format!("{}-0", world.run.metadata.name.clone().unwrap());
    world.refused = Some((name, "denied by policy".into()));
    let status = world.settle();
    assert_eq!((status.phase, code(&status)), (Phase::Failed, "CaptureRefused"));
    assert!(status.reason.unwrap().message.contains("denied by policy"));
}

#[test]
fn an_offer_is_what_fits_the_target_and_what_the_person_may_run_and_starts_nothing() {
    let asks = |world: &mut World| {
        world.run.spec.diagnostic = "offer".into();
        let may = |name: &str, allowed| diagbot_api::decision::Decision {
            diagnostic: name.into(),
            ..samples::allowed(allowed)
        };
        world.review = Ok(vec![
            may("jstack", true),
            may("pod-report", true),
            may("heap-dump", false),
        ]);
        world.settle()
    };
    let names = |status: &RunStatus| -> Vec<String> { status.offers.iter().map(|o| o.diagnostic.clone()).collect() };
    let mut running = World::new(run(|_| {}));
    let status = asks(&mut running);
    assert_eq!(status.phase, Phase::Succeeded);
    assert_eq!(
        names(&status),
        ["pod-report", "jstack"],
        "what a JVM alone has comes last where none is seen"
    );
    assert_eq!((running.made(), status.candidates.len()), (0, 1));

    let mut java = World::new(run(|_| {}));
    if let Ok(found) = &mut java.target {
        let spec = found.pods[0].spec.as_mut().unwrap();
        spec.containers[0].command = Some(vec!["/usr/bin/java".into()]);
    }
    assert_eq!(names(&asks(&mut java)), ["jstack", "pod-report"]);

    let mut crashed = World::new(run(|_| {}));
    if let Ok(found) = &mut crashed.target {
        let status = found.pods[0].status.as_mut().unwrap();
        status.container_statuses.as_mut().unwrap()[0].state = None;
    }
    assert_eq!(names(&asks(&mut crashed)), ["pod-report"]);

    let mut nobody = World::new(run(|spec| spec.diagnostic = "offer".into()));
    nobody.review = Ok(vec![samples::allowed(false)]);
    let status = nobody.settle();
    assert_eq!((status.phase, code(&status)), (Phase::Denied, "NotAllowed"));
}

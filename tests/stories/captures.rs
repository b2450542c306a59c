//! Captures on the sandbox: faults of every kind on the way, bots that die, pods that can't reach the store. Whatever
//! happens, a capture ends once, with one container, one artifact and nothing left open.

#[allow(dead_code, reason = "shared with the stories on a real cluster, which have a JVM")]
#[path = "../e2e/captures/steps.rs"]
mod steps;
mod world;

use std::time::Duration;

use diagbot_api::capture::{CapturePhase, CaptureStatus, Proof};
use diagbot_sandbox::{
    kubernetes::FaultKind,
    store::{Fault as StoreFault, FaultKind as StoreFaultKind, Operation},
};
use steps::Step;
use world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_api_server_on_the_way_costs_time_and_nothing_else() {
    let world = World::start(false).await;
    let cut = |after_bytes| FaultKind::LogCut { after_bytes };
    let faults = [
        (FaultKind::LostAnswer, Some("patch"), "pods/ephemeralcontainers", 1),
        (FaultKind::InternalError, Some("patch"), "pods/ephemeralcontainers", 2),
        (FaultKind::TooManyRequests, Some("patch"), "pods/ephemeralcontainers", 2),
        (FaultKind::LostAnswer, Some("update"), "diagnosticcaptures/status", 3),
        (FaultKind::InternalError, Some("update"), "diagnosticcaptures/status", 3),
        (FaultKind::InternalError, Some("get"), "pods", 2),
        (FaultKind::WatchCloses, Some("watch"), "pods", 1),
        (FaultKind::WatchQuiet, Some("watch"), "pods", 1),
        (cut(0), None, "pods/log", 2),
        (cut(200), None, "pods/log", 2),
        (FaultKind::InternalError, None, "pods/attach", 2),
        (FaultKind::StreamReset { after_bytes: 0 }, None, "pods/attach", 1),
        (FaultKind::StreamEndsEarly { after_bytes: 0 }, None, "pods/attach", 1),
    ];
    for (asked, (kind, verb, resource, count)) in faults.into_iter().enumerate() {
        world.arm(kind, verb, resource, count);
        let capture = world.ask(&world.target, &[Step::Process]).await;
        let status = world.end(&capture).await;
        let what = format!("{kind:?} of {verb:?} {resource}: {:?}", status.reason);
        assert_eq!(status.phase, CapturePhase::Succeeded, "{what}");
        assert_eq!((status.attempt, status.artifacts.len()), (1, 1), "{what}");
        assert_eq!(status.artifacts[0].proof, Proof::StoreChecked, "{what}");
        world.read(&status.artifacts[0]).await;
        assert_eq!(world.containers().await.len(), asked + 1, "{what}");
        assert_eq!(world.server.armed(), [], "{what}: never struck");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_dies_at_any_moment_is_followed_by_one_that_goes_on() {
    let mut world = World::start(false).await;
    let moments = [0, 10, 20, 30, 50, 80, 120, 200];
    for pause_ms in moments {
        let capture = world.ask(&world.target, &[Step::Process]).await;
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        world.kill().await;
        world.lead();
        let status = world.end(&capture).await;
        assert_eq!(
            status.phase,
            CapturePhase::Succeeded,
            "{pause_ms} ms: {:?}",
            status.reason
        );
        assert_eq!((status.attempt, status.artifacts.len()), (1, 1), "{pause_ms} ms");
        world.read(&status.artifacts[0]).await;
    }
    assert_eq!(world.containers().await.len(), moments.len(), "one container a capture");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_streams_break_is_taken_up_at_the_byte_and_verified() {
    let world = World::start(true).await;
    let faults = [
        None,
        Some(FaultKind::StreamReset { after_bytes: 300 }),
        Some(FaultKind::StreamEndsEarly { after_bytes: 300 }),
    ];
    for kind in faults {
        if let Some(kind) = kind {
            world.arm(kind, None, "pods/exec", 2);
        }
        let capture = world.ask(&world.target, &[Step::Process]).await;
        let status = world.end(&capture).await;
        assert_eq!(status.phase, CapturePhase::Succeeded, "{kind:?}: {:?}", status.reason);
        assert!(
            status.notes.iter().any(|n| n.contains("through the bot")),
            "{:?}",
            status.notes
        );
        world.read(&status.artifacts[0]).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relayed_parts_that_the_store_refuses_or_gets_damaged_are_fetched_again() {
    let world = World::start_behind_a_proxy().await;
    let faults = [
        StoreFaultKind::SlowDown,
        StoreFaultKind::Cut { after_bytes: 5_000_000 },
        StoreFaultKind::LostAnswer,
        StoreFaultKind::Corrupt,
    ];
    for kind in faults {
        world.arm_store(StoreFault::of(kind).on(Operation::UploadPart).times(2));
        let capture = world.ask(&world.target, &[Step::Noise]).await;
        let status = world.end(&capture).await;
        assert_eq!(status.phase, CapturePhase::Succeeded, "{kind:?}: {:?}", status.reason);
        assert_eq!(status.artifacts[0].size_bytes, 20_000_000, "{kind:?}");
        assert_eq!(status.artifacts[0].proof, Proof::StoreChecked, "{kind:?}");
        assert_eq!(world.armed_in_store(), 0, "{kind:?} was met");
    }
    world.finish().await;
}

/// The store opened it and the answer was lost; before anybody could look for it, the capture was stopped.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_opening_nobody_heard_of_is_closed_when_the_capture_is_stopped() {
    let world = World::start_behind_a_proxy().await;
    world.arm_store(StoreFault::of(StoreFaultKind::LostAnswer).on(Operation::OpenUpload));
    let looking = StoreFault::of(StoreFaultKind::InternalError).on(Operation::ListUploads);
    world.arm_store(looking.times(u32::MAX));
    let capture = world.ask(&world.target, &[Step::Process]).await;
    let troubled = |status: &CaptureStatus| {
        status
            .waiting
            .as_deref()
            .is_some_and(|why| why.starts_with("the store:"))
    };
    let status = world.status(&capture, troubled).await;
    assert!(status.uploads.is_empty(), "{:?}", status.uploads);
    world.cancel(&capture).await;
    let stopping = |status: &CaptureStatus| status.phase == CapturePhase::Cancelling || status.phase.is_final();
    world.status(&capture, stopping).await;
    world.mend_store();
    let status = world.end(&capture).await;
    assert_eq!(status.phase, CapturePhase::Cancelled, "{:?}", status.reason);
    let told: Vec<_> = status.conditions.iter().map(|c| (&*c.type_, &*c.reason)).collect();
    assert_eq!(told, [("Failed", "Cancelled")]);
    world.finish().await;
}

/// The store opened one and refused the other for good.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_closed_where_that_of_another_step_is_refused() {
    let world = World::start_behind_a_proxy().await;
    world.arm_store(StoreFault {
        key: Some("/2-".to_owned()),
        ..StoreFault::of(StoreFaultKind::AccessDenied).on(Operation::OpenUpload)
    });
    let capture = world.ask(&world.target, &[Step::Process, Step::Process]).await;
    let status = world.end(&capture).await;
    assert_eq!(status.phase, CapturePhase::Failed);
    assert_eq!(status.reason.unwrap().code, "Store");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_outlives_the_bot_that_began_it() {
    let mut world = World::start(true).await;
    for pause_ms in [0, 60, 140, 240] {
        let capture = world.ask(&world.target, &[Step::Process]).await;
        world.status(&capture, |status| status.ticket_sent_at.is_some()).await;
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        world.kill().await;
        world.lead();
        let status = world.end(&capture).await;
        assert_eq!(
            status.phase,
            CapturePhase::Succeeded,
            "{pause_ms} ms: {:?}",
            status.reason
        );
        assert_eq!((status.attempt, status.artifacts.len()), (1, 1), "{pause_ms} ms");
        world.read(&status.artifacts[0]).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_restarts_before_the_ticket_is_never_looked_at() {
    let world = World::start(false).await;
    world.server.restart_container("shop", &world.target.pod, None).unwrap();
    let capture = world.ask(&world.target, &[Step::Process]).await;
    let status = world.end(&capture).await;
    assert_eq!(status.phase, CapturePhase::Failed);
    let code = status.reason.map(|r| r.code).unwrap_or_default();
    assert!(code == "TargetReplaced" || code == "TargetNotRunning", "{code}");
    assert!(status.artifacts.is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_report_tells_everything_but_secrets() {
    let world = World::start(false).await;
    let capture = world.ask(&world.target, &[Step::PodReport]).await;
    let status = world.end(&capture).await;
    assert_eq!(status.phase, CapturePhase::Succeeded, "{:?}", status.reason);
    let text = world.read(&status.artifacts[0]).await;
    for wanted in [
        "Pod report of shop/ledger",
        "== Containers ==",
        "LEDGER_PASSWORD",
        "== Log of ",
    ] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
    assert!(!text.contains("correct-horse"), "{text}");
    assert!(world.containers().await.is_empty());
    world.finish().await;
}

//! Runs on the sandbox's Kubernetes: accepted once, decided by its access rules, followed to their end. The captures'
//! controller is played by the test.

pub(crate) mod world;

use std::time::{Duration, Instant};

use diagbot_api::{
    capture::{CapturePhase, CaptureStatus},
    requester::Requester,
    run::Phase,
};
use diagbot_runs::service::{AcceptError, CancelOutcome, RunFilter, ServiceError};
use diagbot_sandbox::kubernetes::FaultKind;
use world::{ADA, BOB, GUEST, World, code, request};

/// Where people ask.
const CHANNEL: &str = "C0RANDOM01";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_becomes_one_capture_of_the_pinned_container_and_ends_with_it() {
    let world = World::start().await;
    let replica = world.replica().await;
    let asked = request("1", ADA, "jstack", "checkout");
    let accepted = replica.service.accept(asked.clone()).await.unwrap();
    assert!(!accepted.repeated);

    let capture = world.capture(&accepted.name).await;
    assert_eq!(capture.spec.target.pod, "checkout-7d9f8b6c5-x2x4z");
    assert_eq!(capture.spec.target.namespace, "shop");
    assert!(!capture.spec.target.pod_uid.is_empty() && !capture.spec.target.container_id.is_empty());
    let status = world.run(&accepted.name, |run| run.phase() == Phase::Capturing).await;
    assert!(status.decision.unwrap().allowed);
    assert!(status.notes[0].contains("deployment `checkout`"), "{:?}", status.notes);

    world.report(&capture, CapturePhase::Succeeded).await;
    let status = world.run(&accepted.name, |run| run.phase().is_final()).await;
    assert_eq!(status.phase, Phase::Succeeded);
    let again = replica.service.accept(asked).await.unwrap();
    assert!(again.repeated, "a redelivery is the same run, also after its end");
    assert_eq!(world.captures().await.len(), 1);

    let found = replica.service.named(&accepted.name.short()).pop().unwrap();
    assert_eq!(found.name(), Some(accepted.name.clone()));
    assert!(replica.service.named("d-zzz-zzz").is_empty());
    let filter = RunFilter {
        target: Some("checkout-7d".into()),
        requester: Some(requester(ADA)),
        ..RunFilter::default()
    };
    assert_eq!(replica.service.list(&filter).len(), 1);
    assert!(
        replica
            .service
            .links(&accepted.name, &requester(ADA), CHANNEL)
            .await
            .unwrap()
            .is_empty()
    );
    let foreign = replica.service.links(&accepted.name, &requester(BOB), CHANNEL).await;
    assert!(matches!(foreign, Err(ServiceError::Denied(_))), "{foreign:?}");
    world.stop(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_answer_is_lost_ends_as_one_run_and_the_person_is_told_which() {
    let world = World::start().await;
    let replica = world.replica().await;
    for (id, fault, repeated) in [
        ("lost", FaultKind::LostAnswer, true),
        ("timeout", FaultKind::Timeout, false),
        ("error", FaultKind::InternalError, false),
    ] {
        world.arm(fault, "create", "diagnosticruns", 1);
        let asked = request(id, ADA, "process", "shop/ledger");
        let begun = Instant::now();
        let outcome = replica.service.accept(asked.clone()).await;
        assert!(
            begun.elapsed() < Duration::from_millis(2500),
            "{id}: {:?}",
            begun.elapsed()
        );
        let Err(AcceptError::Unconfirmed { name, .. }) = outcome else {
            panic!("{id}: {outcome:?}");
        };
        let confirmed = replica.service.confirm(&name, asked, &replica.stop).await.unwrap();
        assert_eq!((confirmed.name.clone(), confirmed.repeated), (name, repeated), "{id}");
        world.capture(&confirmed.name).await;
    }
    assert_eq!(world.runs().await.len(), 3);
    world.stop(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_access_rules_do_not_grant_is_denied_and_names_stay_unseen() {
    let world = World::start().await;
    let replica = world.replica().await;
    let exact = "shop/checkout-7d9f8b6c5-x2x4z";
    for (id, user, diagnostic, target, wanted) in [
        ("a", ADA, "heap-dump", exact, "NotAllowed"),
        ("b", BOB, "jstack", exact, "NotAllowed"),
        ("c", GUEST, "jstack", exact, "IdentityRefused"),
        ("j", GUEST, "jstack", "checkout", "IdentityRefused"),
        ("d", "U404", "jstack", exact, "ReviewFailed"),
        ("e", ADA, "jstack", "checkuot", "UnknownTarget"),
        ("f", BOB, "jstack", "checkuot", "UnknownTarget"),
        ("g", BOB, "jstack", "checkout", "UnknownTarget"),
        ("h", ADA, "jstack", "shop/billing", "TargetNotRunning"),
        ("i", ADA, "jstack", "nowhere/checkout", "UnknownTarget"),
    ] {
        let mut asked = request(id, user, diagnostic, target);
        if user == "U404" {
            // The directory never answers for this one; the patience has passed already.
            asked.received_at -= jiff::SignedDuration::from_mins(3);
        }
        let accepted = replica.service.accept(asked).await.unwrap();
        let status = world.run(&accepted.name, |run| run.phase().is_final()).await;
        assert_eq!(code(&status), wanted, "{id}: {:?}", status.reason);
        let denied = matches!(wanted, "NotAllowed" | "IdentityRefused" | "ReviewFailed");
        let phase = if denied { Phase::Denied } else { Phase::Refused };
        assert_eq!(status.phase, phase, "{id}");
        let reason = status.reason.unwrap();
        let told = format!("{} {} {:?}", reason.message, reason.remedy, status.candidates);
        assert_eq!(told.contains("x2x4z"), matches!(id, "e"), "{id}: {told}");
    }
    assert_eq!(world.captures().await.len(), 0);
    world.stop(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_stops_the_capture_first_and_names_who_was_first() {
    let world = World::start().await;
    let replica = world.replica().await;
    let accepted = replica
        .service
        .accept(request("1", ADA, "process", "ledger"))
        .await
        .unwrap();
    let capture = world.capture(&accepted.name).await;
    world.report(&capture, CapturePhase::Running).await;
    let foreign = replica.service.cancel(&accepted.name, &requester(BOB), CHANNEL).await;
    assert!(matches!(foreign, Err(ServiceError::Denied(_))), "{foreign:?}");
    let first = replica
        .service
        .cancel(&accepted.name, &requester(ADA), CHANNEL)
        .await
        .unwrap();
    assert_eq!(first, CancelOutcome::Asked);
    let second = replica
        .service
        .cancel(&accepted.name, &requester(BOB), CHANNEL)
        .await
        .unwrap();
    assert!(matches!(second, CancelOutcome::AlreadyAsked { by, .. } if by == requester(ADA)));
    world.cancel_seen(&accepted.name).await;
    world.run(&accepted.name, |run| run.phase() == Phase::Cancelling).await;
    world.report(&capture, CapturePhase::Cancelled).await;
    let status = world.run(&accepted.name, |run| run.phase().is_final()).await;
    assert_eq!(
        (status.phase, status.cancelled_by),
        (Phase::Cancelled, Some(requester(ADA)))
    );
    let late = replica
        .service
        .cancel(&accepted.name, &requester(ADA), CHANNEL)
        .await
        .unwrap();
    assert_eq!(late, CancelOutcome::AlreadyEnded(Phase::Cancelled));
    world.stop(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_api_server_delay_a_run_and_make_no_second_capture() {
    let world = World::start().await;
    let replica = world.replica().await;
    world.arm(FaultKind::InternalError, "list", "pods", 1);
    world.arm(FaultKind::TooManyRequests, "create", "subjectaccessreviews", 1);
    world.arm(FaultKind::LostAnswer, "update", "diagnosticruns/status", 2);
    world.arm(FaultKind::LostAnswer, "create", "diagnosticcaptures", 1);
    world.arm(FaultKind::WatchCloses, "watch", "diagnosticcaptures", 1);
    let accepted = replica
        .service
        .accept(request("1", ADA, "process", "ledger"))
        .await
        .unwrap();
    let capture = world.capture(&accepted.name).await;
    world.arm(FaultKind::WatchCloses, "watch", "diagnosticruns", 1);
    world.arm(FaultKind::TooManyRequests, "update", "diagnosticruns/status", 2);
    world.report(&capture, CapturePhase::Succeeded).await;
    let status = world.run(&accepted.name, |run| run.phase().is_final()).await;
    assert_eq!(status.phase, Phase::Succeeded);
    assert_eq!(world.captures().await.len(), 1);
    world.all_struck().await;
    world.stop(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_reviews_fail_everything_is_denied_with_its_reason() {
    let world = World::start().await;
    let replica = world.replica().await;
    world.arm(FaultKind::InternalError, "create", "subjectaccessreviews", u32::MAX);
    for (id, diagnostic, target) in [
        ("a", "sockets", "shop/ledger"),
        ("b", "jstack", "shop/checkout-7d9f8b6c5-x2x4z"),
        ("c", "heap-dump", "shop/checkout-7d9f8b6c5-x2x4z"),
    ] {
        let mut asked = request(id, ADA, diagnostic, target);
        // An answer was waited for long enough.
        asked.received_at -= jiff::SignedDuration::from_mins(3);
        let accepted = replica.service.accept(asked).await.unwrap();
        let status = world.run(&accepted.name, |run| run.phase().is_final()).await;
        assert_eq!((status.phase, code(&status)), (Phase::Denied, "ReviewFailed"), "{id}");
        let reason = status.reason.unwrap();
        assert!(
            reason.message.contains("could not be asked for permission"),
            "{reason:?}"
        );
    }
    assert_eq!(world.captures().await.len(), 0, "nothing is launched");
    world.stop(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_replicas_one_leads_and_the_other_takes_over_with_a_higher_epoch() {
    let world = World::start().await;
    let (first, second) = (world.replica().await, world.replica().await);
    let asked = request("1", ADA, "process", "ledger");
    let both = tokio::join!(first.service.accept(asked.clone()), second.service.accept(asked));
    let (one, other) = (both.0.unwrap(), both.1.unwrap());
    assert_eq!(one.name, other.name);
    assert!(one.repeated != other.repeated, "exactly one of them made the run");
    let capture = world.capture(&one.name).await;
    let before = world.run(&one.name, |run| run.phase() == Phase::Capturing).await;

    let (leader, follower) = if first.service.leadership().current().is_some() {
        (first, second)
    } else {
        (second, first)
    };
    assert!(follower.service.leadership().current().is_none());
    leader.stop().await;
    world.report(&capture, CapturePhase::Succeeded).await;
    let after = world.run(&one.name, |run| run.phase().is_final()).await;
    assert_eq!(after.phase, Phase::Succeeded);
    assert!(after.epoch > before.epoch, "{} then {}", before.epoch, after.epoch);
    assert_eq!(world.captures().await.len(), 1);
    world.stop(vec![follower]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_counts_what_the_former_one_admitted_though_its_watch_has_not_told_it() {
    let world = World::start().await;
    world.lead_elsewhere("somebody").await;
    let replica = world.replica().await;
    let mut names = Vec::new();
    for id in ["former", "later"] {
        let asked = request(id, ADA, "process", "ledger");
        names.push(replica.service.accept(asked).await.unwrap().name);
    }
    world.run_seen(&replica, &names).await;
    world.arm(FaultKind::WatchQuiet, "watch", "diagnosticruns", 1);
    // As many captures of the pod as may be at a time.
    world.admit_elsewhere(&names[0], 4).await;
    world.lead_elsewhere("").await;
    let status = world
        .run(&names[1], |run| {
            run.phase().is_final() || run.phase() == Phase::Capturing
        })
        .await;
    assert_eq!(
        (status.phase, code(&status)),
        (Phase::Refused, "OverBudget"),
        "{:?}",
        status.reason
    );
    world.stop(vec![replica]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_without_a_word_is_replaced_within_30_s() {
    let world = World::start().await;
    let leader = world.replica().await;
    let accepted = leader
        .service
        .accept(request("1", ADA, "process", "ledger"))
        .await
        .unwrap();
    let capture = world.capture(&accepted.name).await;
    let before = world.run(&accepted.name, |run| run.phase() == Phase::Capturing).await;
    leader.die().await;
    let died = Instant::now();
    let follower = world.replica().await;
    world.report(&capture, CapturePhase::Succeeded).await;
    let after = world.run(&accepted.name, |run| run.phase().is_final()).await;
    assert!(died.elapsed() < Duration::from_secs(30), "{:?}", died.elapsed());
    assert_eq!((after.phase, after.epoch), (Phase::Succeeded, before.epoch + 1));
    assert_eq!(world.captures().await.len(), 1);
    world.stop(vec![follower]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_former_leader_writes_late_is_refused() {
    let world = World::start().await;
    let replica = world.replica().await;
    let accepted = replica
        .service
        .accept(request("1", ADA, "process", "ledger"))
        .await
        .unwrap();
    let capture = world.capture(&accepted.name).await;
    world.report(&capture, CapturePhase::Running).await;
    let status = world
        .run(&accepted.name, |run| {
            let captures = run.status.iter().flat_map(|status| &status.captures);
            captures
                .into_iter()
                .any(|capture| capture.phase == CapturePhase::Running)
        })
        .await;
    let term = replica.service.leadership().current().unwrap();
    let former = diagbot_cluster::lease::Term {
        epoch: term.epoch - 1,
        ..term
    };
    let over = diagbot_cluster::lease::Term {
        valid_until: Instant::now(),
        ..term
    };
    for late in [former, over] {
        let outcome = replica
            .service
            .record_telling(&accepted.name, status.telling.clone(), true, &late)
            .await;
        assert!(matches!(outcome, Err(ServiceError::NotLeading)), "{outcome:?}");
    }
    let told = replica
        .service
        .record_telling(&accepted.name, status.telling, true, &term)
        .await;
    told.unwrap();
    let status = world
        .run(&accepted.name, |run| {
            run.status.as_ref().is_some_and(|s| !s.conditions.is_empty())
        })
        .await;
    assert_eq!(status.conditions[0].status, "True");
    assert_eq!(status.phase, Phase::Capturing, "telling leaves the rest as it is");
    world.stop(vec![replica]).await;
}

fn requester(user: &str) -> Requester {
    world::requester(user)
}

/// What the captures' controller would have written.
fn reported(phase: CapturePhase) -> CaptureStatus {
    CaptureStatus {
        phase,
        ..CaptureStatus::default()
    }
}

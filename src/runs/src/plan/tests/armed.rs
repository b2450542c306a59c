//! Runs that wait for the next restart.

use diagbot_api::{
    run::{DiagnosticRun, Phase},
    target,
};
use diagbot_cluster::resolve::{Found, How};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{
    code,
    samples::{NOW, World, allowed, found, run},
};
use crate::{
    plan::{Action, armed::MOST_PODS},
    reason::Reason,
};

fn armed() -> DiagnosticRun {
    run(|spec| {
        spec.target = target::parse("shop/checkout").unwrap();
        spec.armed_until = Some(MicroTime(NOW + SignedDuration::from_hours(24)));
    })
}

/// Both pods of a workload; the second one's container has so many restarts, and runs or not.
fn pods(restarts: i32, runs: bool) -> Found {
    let mut found = found(
        How::Workload(target::TargetKind::Deployment),
        &["checkout-1", "checkout-2"],
    );
    let status = found.pods[1].status.as_mut().unwrap();
    let container = &mut status.container_statuses.as_mut().unwrap()[0];
    container.restart_count = restarts;
    if !runs {
        container.state = None;
    }
    found
}

#[test]
fn it_waits_for_hours_and_then_captures_the_very_pod_that_was_restarted_once() {
    let mut world = World::new(armed());
    world.target = Ok(pods(2, true));
    let status = world.settle();
    assert_eq!(
        (status.phase, status.armed.unwrap().restarts.len()),
        (Phase::Resolving, 2)
    );
    assert!(world.run.is_armed());
    world.now = NOW + SignedDuration::from_hours(20);
    assert_eq!(world.settle().phase, Phase::Resolving);
    // Nothing can be taken beside a container that does not run again yet; a cluster that is away is waited for.
    world.target = Ok(pods(3, false));
    assert_eq!(world.settle().phase, Phase::Resolving);
    world.target = Err(Reason::ClusterUnavailable {
        cluster: "local".into(),
        answer: "away".into(),
    });
    assert_eq!(world.settle().phase, Phase::Resolving);
    assert_eq!(world.made(), 0);

    world.target = Ok(pods(3, true));
    let status = world.settle();
    assert_eq!(status.phase, Phase::Capturing, "{:?}", status.reason);
    assert_eq!(world.captures[0].spec.target.pod_uid, "uid-of-checkout-2");
    assert!(
        status
            .notes
            .iter()
            .any(|note| note.contains("`checkout-2` was restarted")),
        "{:?}",
        status.notes
    );
    assert!(!world.run.is_armed());
    world.target = Ok(pods(4, true));
    world.settle();
    assert_eq!(world.made(), 1, "the next restart is another's");
}

#[test]
fn it_expires_and_can_be_cancelled_and_what_has_no_or_too_many_pods_is_refused() {
    let mut world = World::new(armed());
    world.target = Ok(pods(2, true));
    world.settle();
    world.now = NOW + SignedDuration::from_hours(24);
    let status = world.settle();
    assert_eq!((status.phase, code(&status)), (Phase::Expired, "NeverRestarted"));

    let mut world = World::new(armed());
    world.target = Ok(pods(2, true));
    world.settle();
    world.cancel();
    assert_eq!(world.settle().phase, Phase::Cancelled);

    let mut none = World::new(armed());
    none.target = Ok(found(How::Nothing, &[]));
    let status = none.settle();
    assert_eq!((status.phase, code(&status)), (Phase::Refused, "UnknownTarget"));
    let mut many = World::new(armed());
    let mut crowd = found(How::Prefix, &["checkout-1"]);
    crowd.count = MOST_PODS + 1;
    many.target = Ok(crowd);
    let status = many.settle();
    assert_eq!((status.phase, code(&status)), (Phase::Refused, "TooManyToWaitFor"));
}

#[test]
fn who_may_not_hears_so_before_anything_is_waited_for_and_who_may_no_more_when_it_came() {
    let mut world = World::new(armed());
    world.target = Ok(pods(2, true));
    world.review = Ok(vec![allowed(false)]);
    let status = world.settle();
    assert_eq!((status.phase, code(&status)), (Phase::Denied, "NotAllowed"));
    assert!(status.armed.is_none(), "nothing is waited for");
    let reviewed = |world: &World| {
        let asked = |act: &&Action| matches!(act, Action::Review { namespace, diagnostics, .. } if namespace == "shop" && diagnostics == &["jstack"]);
        world.acts.iter().filter(asked).count()
    };
    assert_eq!(reviewed(&world), 1);

    let mut world = World::new(armed());
    world.target = Ok(pods(2, true));
    assert_eq!(world.settle().phase, Phase::Resolving);
    // Waiting asks nobody again and again.
    world.settle();
    assert_eq!(reviewed(&world), 1);
    world.target = Ok(pods(3, true));
    world.review = Ok(vec![allowed(false)]);
    let status = world.settle();
    assert_eq!((status.phase, code(&status)), (Phase::Denied, "NotAllowed"));
    assert_eq!((reviewed(&world), world.made()), (2, 0));
}

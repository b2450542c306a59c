//! Before each launch of a run with several targets: what was reviewed is reviewed again.

use diagbot_api::{
    approval::{ANNOTATION_APPROVAL, Appeal},
    capture::CapturePhase,
    run::{Phase, RunStatus, Selection},
    target,
};
use diagbot_cluster::resolve::How;
use jiff::SignedDuration;

use super::{
    code,
    samples::{NOW, World, allowed, found, run},
};
use crate::{access::IdentityError, plan::Action, reason::Reason};

/// A run of three replicas, one at a time, of which the first was launched.
fn begun(appeal: Appeal, two_people: bool) -> World {
    let mut world = World::new(run(|spec| {
        spec.target = target::parse("shop/deploy/checkout").expect("a target");
        spec.targets = Some(Selection { max: None });
        spec.diagnostic = "heap-histogram".into();
        spec.confirmed = true;
        spec.origin.channel = "C1".into();
        spec.appeal = appeal;
    }));
    let names = ["checkout-1", "checkout-2"];
    world.target = Ok(found(How::Workload(target::TargetKind::Deployment), &names));
    let preflight = world.preflight.as_mut().expect("a sample");
    preflight.break_glass = Some(allowed(true));
    preflight.members = Some(3);
    if two_people {
        let annotations = &mut preflight.snapshots[0].annotations;
        annotations.insert(ANNOTATION_APPROVAL.to_owned(), "all".to_owned());
        assert_eq!(world.settle().phase, Phase::AwaitingApproval);
        for (snapshot, name) in world
            .preflight
            .as_mut()
            .expect("a sample")
            .snapshots
            .iter_mut()
            .zip(names)
        {
            snapshot.pod_uid = Some(format!("uid-of-{name}"));
        }
        world.say("U2", true);
    }
    let status = world.settle();
    assert_eq!(
        (status.phase, world.made()),
        (Phase::Capturing, 1),
        "{:?}",
        status.reason
    );
    world
}

/// The first target is done; so much later something has changed.
fn goes_on(world: &mut World, after: SignedDuration, change: impl FnOnce(&mut World)) -> RunStatus {
    world.report_phase(CapturePhase::Succeeded);
    world.acts.clear();
    world.now = NOW + after;
    change(world);
    world.settle()
}

fn reviews(world: &World) -> usize {
    let asks = |act: &&Action| matches!(act, Action::Review { .. });
    world.acts.iter().filter(asks).count()
}

#[test]
fn a_launch_is_reviewed_again_after_10_seconds() {
    for (seconds, asked) in [(9, 0), (10, 1), (600, 1)] {
        let mut world = begun(Appeal::default(), false);
        goes_on(&mut world, SignedDuration::from_secs(seconds), |_| {});
        assert_eq!((world.made(), reviews(&world)), (1, asked), "after {seconds} s");
    }
}

#[test]
fn what_was_taken_away_meanwhile_stops_the_rest() {
    type Change = fn(&mut World);
    let right: Change = |w| w.review = Ok(vec![allowed(false)]);
    let account: Change = |w| w.review = Err(Reason::IdentityRefused(IdentityError::Guest));
    let unanswered: Change = |w| w.review = Err(Reason::ReviewFailed { what: "away".into() });
    let label: Change = |w| w.preflight.as_mut().expect("a sample").snapshots[0].labels.clear();
    for (change, wanted) in [
        (right, "NotAllowed"),
        (account, "IdentityRefused"),
        (unanswered, "ReviewFailed"),
        (label, "NamespaceNotEnabled"),
    ] {
        let mut world = begun(Appeal::default(), false);
        let status = goes_on(&mut world, SignedDuration::from_mins(1), change);
        assert_eq!((status.phase, code(&status)), (Phase::PartlyFailed, wanted));
        assert_eq!(world.made(), 0, "{wanted}");
        let reason = status.captures[1].reason.as_ref().expect("the target says why");
        assert_eq!(reason.code, wanted);
    }
}

#[test]
fn a_consent_must_still_hold_at_each_launch() {
    type Change = fn(&mut World);
    let holds: Change = |_| {};
    let image: Change = |w| w.agent_image = "agent@sha256:1";
    let approver: Change = |w| w.preflight.as_mut().expect("a sample").approver = Some(allowed(false));
    for (change, wanted) in [(holds, ""), (image, "ApprovalVoid"), (approver, "ApproverMayNot")] {
        let mut world = begun(Appeal::default(), true);
        let status = goes_on(&mut world, SignedDuration::from_mins(1), change);
        assert_eq!((code(&status), world.made()), (wanted, usize::from(wanted.is_empty())));
    }
    let breaks = Appeal {
        ask_owners: false,
        break_glass: Some("checkout is down".into()),
    };
    let mut world = begun(breaks, false);
    let status = goes_on(&mut world, SignedDuration::from_mins(1), |w| {
        w.preflight.as_mut().expect("a sample").break_glass = Some(allowed(false));
    });
    assert_eq!((code(&status), world.made()), ("BreakGlassNotAllowed", 0));
}

#[test]
fn without_a_free_slot_nothing_is_made_or_reviewed() {
    let mut world = begun(Appeal::default(), false);
    let status = goes_on(&mut world, SignedDuration::from_mins(1), |w| w.slots = 0);
    assert_eq!((status.phase, world.made(), reviews(&world)), (Phase::Capturing, 0, 0));
    let soon = world.now + SignedDuration::from_secs(1);
    assert_eq!(world.acts.last(), Some(&Action::Wait(Some(soon))));
    world.slots = 1;
    world.settle();
    assert_eq!((world.made(), reviews(&world)), (1, 1));
}

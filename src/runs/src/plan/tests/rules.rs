//! The rules before a launch: each with a world in which it says no, and how that is told.

use diagbot_api::{
    approval::{ANNOTATION_APPROVAL, Appeal},
    pause::{LABEL_PAUSED, Pause},
    run::{Phase, RunStatus},
};
use jiff::SignedDuration;

use super::samples::{NOW, World, allowed, run};
use crate::{admission::Use, plan::approval::APPROVAL_WINDOW, preflight::Preflight};

/// What becomes different in a world.
type Change = fn(&mut World);

fn preflight(world: &mut World) -> &mut Preflight {
    world.preflight.as_mut().expect("a sample")
}

fn asks_for_two(world: &mut World) {
    let annotations = &mut preflight(world).snapshots[0].annotations;
    annotations.insert(ANNOTATION_APPROVAL.to_owned(), "heap-dump, jstack".to_owned());
}

fn end(arrange: impl FnOnce(&mut World)) -> (World, RunStatus) {
    let mut world = World::new(run(|_| {}));
    arrange(&mut world);
    let status = world.settle();
    (world, status)
}

#[track_caller]
fn ended(status: &RunStatus, phase: Phase, code: &str) {
    let reason = status.reason.clone().expect("an end has a reason");
    assert_eq!((status.phase, reason.code.as_str()), (phase, code), "{reason:?}");
    assert!(!reason.remedy.is_empty());
}

#[test]
fn each_rule_refuses_and_nothing_is_made() {
    type Arrange = fn(&mut World);
    let paused: Arrange = |w| w.pauses = vec![Pause::by_label()];
    let unlabelled: Arrange = |w| preflight(w).snapshots[0].labels.clear();
    let standing: Arrange = |w| {
        let second = |pod: &str| Use {
            cluster: "local".into(),
            namespace: "shop".into(),
            pod_uid: pod.into(),
            at: NOW,
            running: true,
            pausing: true,
        };
        w.run = run(|spec| spec.diagnostic = "heap-histogram".into());
        w.uses = vec![second("uid-of-checkout-2")];
    };
    for (arrange, code) in [
        (paused, "Paused"),
        (unlabelled, "NamespaceNotEnabled"),
        (standing, "OverBudget"),
    ] {
        let (world, status) = end(arrange);
        ended(&status, Phase::Refused, code);
        assert_eq!(world.made(), 0, "{code}");
    }
}

#[test]
fn a_pause_stops_what_runs() {
    let mut world = World::new(run(|_| {}));
    world.settle();
    assert_eq!(world.made(), 1);
    world.pauses = vec![Pause::by_label()];
    let status = world.settle();
    assert_eq!(status.phase, Phase::Cancelling);
    assert!(status.cancelled_by.unwrap().user.contains(LABEL_PAUSED));
    assert_eq!(status.stopped_by_pause.as_deref(), Some("all clusters"));
}

#[test]
fn what_takes_two_people_waits_and_begins_with_the_consent_of_another() {
    let (mut world, status) = end(asks_for_two);
    assert_eq!((status.phase, world.made()), (Phase::AwaitingApproval, 0));
    let approval = status.approval.unwrap();
    assert_eq!(approval.targets[0].pod_uid, "uid-of-checkout-1");
    assert!(approval.why.contains("`shop`") && !approval.catalog_sha256.is_empty());
    // The start window is over; the approval has a time of its own.
    world.now = NOW + SignedDuration::from_mins(12);
    world.say("U2", true);
    let status = world.settle();
    assert_eq!((status.phase, world.made()), (Phase::Capturing, 1));
    let said = status.approval.unwrap().verdict.unwrap();
    assert!(said.approved && said.by.user == "U2" && said.decision.unwrap().allowed);
}

#[test]
fn a_diagnostic_can_ask_for_two_people_wherever_it_runs() {
    let text = include_str!("../../../../../commands/jstack.yaml").to_owned() + "\napproval: required\n";
    let allowances = diagbot_catalog::load::Allowances { unpinned_images: true };
    let catalog = diagbot_catalog::Catalog::parse(&[("jstack.yaml".into(), text)], allowances).unwrap();
    let (_, status) = end(|w| w.catalog = catalog);
    assert_eq!(status.phase, Phase::AwaitingApproval);
    assert!(status.approval.unwrap().why.contains("wherever it runs"));
}

#[test]
fn a_consent_counts_once_in_time_from_another_who_may_and_for_what_was_asked() {
    let refused: Change = |w| w.say("U2", false);
    let own: Change = |w| w.say("U1", true);
    let may_not: Change = |w| {
        w.say("U2", true);
        preflight(w).approver = Some(allowed(false));
    };
    let late: Change = |w| w.now = NOW + SignedDuration::from_mins(15);
    let replaced: Change = |w| {
        w.say("U2", true);
        preflight(w).snapshots[0].pod_uid = Some("another".into());
    };
    let restarted: Change = |w| {
        w.say("U2", true);
        preflight(w).snapshots[0].container_id = "containerd://c2".into();
    };
    let forgotten: Change = |w| {
        w.say("U2", true);
        w.now = NOW + SignedDuration::from_hours(2);
    };
    let left: Change = |w| {
        w.say("U2", true);
        w.review = Ok(vec![allowed(false)]);
    };
    for (change, phase, code) in [
        (forgotten, Phase::Expired, "NotStarted"),
        (refused, Phase::Denied, "ApprovalRefused"),
        (own, Phase::Denied, "ApproverMayNot"),
        (may_not, Phase::Denied, "ApproverMayNot"),
        (late, Phase::Expired, "ApprovalExpired"),
        (replaced, Phase::Refused, "ApprovalVoid"),
        (restarted, Phase::Refused, "ApprovalVoid"),
        (left, Phase::Denied, "NotAllowed"),
    ] {
        let (mut world, status) = end(asks_for_two);
        assert_eq!(status.phase, Phase::AwaitingApproval);
        change(&mut world);
        let status = world.settle();
        ended(&status, phase, code);
        assert_eq!(world.made(), 0, "{code}");
    }
}

#[test]
fn a_consent_is_bound_to_allowlist_image_and_15_minutes() {
    assert_eq!(
        APPROVAL_WINDOW,
        SignedDuration::from_mins(15),
        "deploy/README.md names it"
    );
    let allowlist: Change = |w| {
        let text = include_str!("../../../../../commands/jstack.yaml").replace("deadline: 60s", "deadline: 61s");
        let allowances = diagbot_catalog::load::Allowances { unpinned_images: true };
        w.catalog = diagbot_catalog::Catalog::parse(&[("jstack.yaml".into(), text)], allowances).unwrap();
    };
    let image: Change = |w| w.agent_image = "agent@sha256:1";
    let nothing: Change = |_| {};
    let late = NOW + SignedDuration::from_mins(15);
    let in_time = late - SignedDuration::from_secs(1);
    for (change, said_at, phase, told) in [
        (allowlist, NOW, Phase::Refused, "the allowlist has changed"),
        (image, NOW, Phase::Refused, "the image has changed"),
        (nothing, late, Phase::Expired, "15 minutes"),
        (nothing, in_time, Phase::Capturing, ""),
    ] {
        let (mut world, status) = end(asks_for_two);
        assert_eq!(status.phase, Phase::AwaitingApproval);
        change(&mut world);
        world.now = said_at;
        world.say("U2", true);
        let status = world.settle();
        let message = status.reason.map(|reason| reason.message).unwrap_or_default();
        assert_eq!(status.phase, phase, "{message}");
        assert!(message.contains(told), "{told} in {message}");
        assert_eq!(world.made(), usize::from(phase == Phase::Capturing), "{told}");
    }
}

#[test]
fn who_may_not_can_ask_the_owners_or_break_the_glass_where_that_is_given_by_name() {
    let appeal = |appeal: Appeal| move |spec: &mut diagbot_api::run::RunSpec| spec.appeal = appeal;
    let asks = Appeal {
        ask_owners: true,
        break_glass: None,
    };
    let breaks = Appeal {
        ask_owners: false,
        break_glass: Some("checkout is down".into()),
    };
    let mut world = World::new(run(appeal(asks)));
    world.review = Ok(vec![allowed(false)]);
    assert_eq!(world.settle().phase, Phase::AwaitingApproval);
    world.say("U2", true);
    assert_eq!(world.settle().phase, Phase::Capturing);

    let with_glass = |may: bool| {
        let mut world = World::new(run(appeal(breaks.clone())));
        world.run.spec.origin.channel = "C1".into();
        asks_for_two(&mut world);
        preflight(&mut world).break_glass = Some(allowed(may));
        preflight(&mut world).members = Some(3);
        world
    };
    let status = with_glass(true).settle();
    assert_eq!(status.phase, Phase::Capturing);
    assert!(status.break_glass.unwrap().allowed && status.approval.is_none());
    ended(&with_glass(false).settle(), Phase::Denied, "BreakGlassNotAllowed");
    let mut unheard = with_glass(true);
    unheard.run.spec.origin.channel = "D1".into();
    ended(&unheard.settle(), Phase::Refused, "BreakGlassUnheard");
    // The person and the bot alone, or a channel whose members Slack does not tell.
    for members in [Some(2), None] {
        let mut unheard = with_glass(true);
        preflight(&mut unheard).members = members;
        let status = unheard.settle();
        ended(&status, Phase::Refused, "BreakGlassUnheard");
        assert_eq!(unheard.made(), 0, "{members:?}");
    }
}

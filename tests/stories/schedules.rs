//! Evidence again and again: a person adds a schedule, sees when it would run, saves it, and hears of failures only.

use std::{collections::BTreeSet, time::Duration};

use diagbot_api::{
    approval::Appeal,
    request_key::RequestKey,
    run::{Cause, DiagnosticRun, KeyKind, Origin, Phase},
    schedule::DiagnosticSchedule,
};
use diagbot_runs::request::RunRequest;
use diagbot_sandbox::{installation::Plan, wait};
use jiff::{SignedDuration, Timestamp, ToSpan as _, tz::TimeZone};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::product::{LEDGER, Product};

/// Longest wait: a schedule's finest step is a minute.
pub(crate) const LONGEST: Duration = Duration::from_secs(100);

fn schedules(product: &Product) -> Api<DiagnosticSchedule> {
    Api::namespaced(product.installation.runs().into_client(), "diagbot")
}

/// Names of the schedules on record.
async fn names(product: &Product) -> Vec<String> {
    let all = schedules(product).list(&ListParams::default()).await.unwrap().items;
    all.into_iter().filter_map(|schedule| schedule.metadata.name).collect()
}

/// The runs of schedules, once there are so many and each has ended.
pub(crate) async fn were_due(product: &Product, least: usize) -> Vec<DiagnosticRun> {
    let runs = &product.installation.runs();
    wait::until(LONGEST, "the schedules were due", || async move {
        let mut all = runs.list(&ListParams::default()).await?.items;
        all.retain(|run| run.spec.key.kind == KeyKind::Schedule);
        let ended = all.iter().all(|run| run.phase().is_final());
        Ok((all.len() >= least && ended).then_some(all))
    })
    .await
    .unwrap()
}

pub(crate) async fn saved(product: &Product, text: &str) {
    let answer = product.types(text).await;
    assert!(answer.contains("Not saved yet"), "{answer}");
    assert_eq!(answer.matches('•').count(), 5, "the next five times: {answer}");
    let messages = product.messages("incidents").await;
    let draft = messages.iter().rfind(|m| m.text.contains("Not saved yet")).unwrap();
    product.people.click("ada", "incidents", &draft.ts, "Save").await;
    wait::until(LONGEST, "the person hears that it is saved", || async {
        let all = product.messages("incidents").await;
        let last = all.iter().rfind(|m| m.text.starts_with("Saved:"));
        Ok(last.filter(|m| m.ephemeral).map(|_| ()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_seen_before_it_is_saved_runs_once_a_due_time_and_is_quiet_unless_it_fails() {
    let plan = Plan {
        replicas: 2,
        ..Plan::default()
    };
    let product = Product::with(plan).await;
    saved(
        &product,
        "schedule add quiet \"* * * * *\" first-response shop/ledger --keep 2 --tz Europe/Berlin",
    )
    .await;
    saved(
        &product,
        "schedule add gone \"* * * * *\" process shop/deploy/no-such-thing",
    )
    .await;
    let source = |run: &DiagnosticRun| run.spec.origin.cause.as_ref().unwrap().source.clone();
    let all = wait::until(LONGEST * 2, "both schedules were due", || async {
        let all = were_due(&product, 2).await;
        let ran = |name: &str| all.iter().any(|run| source(run) == name);
        Ok((ran("schedule quiet") && ran("schedule gone")).then_some(all))
    })
    .await
    .unwrap();
    let mut instants = BTreeSet::new();
    for run in &all {
        let decision = run.status.as_ref().unwrap().decision.as_ref();
        match decision {
            Some(decision) => assert!(decision.user.starts_with("slack:T"), "the owner's rights: {decision:?}"),
            // Whoever has no target is asked about none.
            None => assert_eq!(source(run), "schedule gone"),
        }
        let due = run.spec.origin.cause.as_ref().unwrap().raised_at.as_ref().unwrap().0;
        assert_eq!(due.as_second() % 60, 0);
        assert!(instants.insert((source(run), due)), "one run a due time: {due}");
    }
    // Whatever was told was told of the one that fails.
    wait::until(LONGEST, "the failure is told", || async {
        let all = product.public().await;
        Ok(all.iter().any(|m| m.text.contains("no-such-thing")).then_some(()))
    })
    .await
    .unwrap();
    let public = product.public().await;
    assert!(public.iter().all(|m| m.text.contains("no-such-thing")), "{public:#?}");

    assert!(product.types("schedule list").await.contains("Europe/Berlin"));
    // Who may not know that the place exists hears of no schedule there.
    for (text, answer) in [
        ("schedule list", "There are no schedules"),
        ("schedule show quiet", "There is no schedule"),
        ("schedule delete quiet", "There is no schedule"),
    ] {
        let said = product.people.command("linus", "incidents", text).await;
        assert!(said.contains(answer) && !said.contains("shop"), "{text}: {said}");
    }
    assert!(product.types("schedule pause gone").await.contains("is paused"));
    let show = product.types("schedule show gone").await;
    assert!(show.contains("Missed so far: 0") && show.contains("Next"), "{show}");
    assert!(product.types("schedule resume gone").await.contains("is resumed"));
    for name in ["gone", "quiet"] {
        assert!(
            product
                .types(&format!("schedule delete {name}"))
                .await
                .contains("is deleted")
        );
    }
    assert_eq!(names(&product).await, [""; 0]);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_can_t_be_is_refused_and_health_says_what_works() {
    let product = Product::start().await;
    for (text, wanted) in [
        ("schedule add x \"0 0 30 2 *\" process shop/ledger", "never fires"),
        (
            "schedule add x \"every day\" process shop/ledger",
            "is not a valid cron expression",
        ),
        ("schedule add x 0 3 * * * process shop/ledger", "quotation marks"),
        (
            "schedule add x \"0 3 * * *\" process shop/ledger --tz Mars/Olympus",
            "is not a known time zone",
        ),
        ("schedule add x \"0 3 * * *\"", "needs a diagnostic"),
        ("schedule add x \"0 3 * * *\" jstak shop/ledger", "no diagnostic"),
        ("schedule add X_y \"0 3 * * *\" process shop/ledger", "can't be"),
        ("schedule add x \"0 3 * * *\" process kube-system/etcd", "You may not"),
        ("schedule frobnicate x", "none of add, list"),
        ("schedule pause nobody", "There is no schedule"),
    ] {
        let answer = product.types(text).await;
        assert!(
            answer.contains(wanted) && answer.contains("*What to do:*"),
            "{wanted}: {answer}"
        );
    }
    assert_eq!(names(&product).await, [""; 0]);
    // What was not saved is typed anew under its name, and the former button saves nothing.
    let mut buttons = Vec::new();
    for times in ["0 3 * * *", "0 4 * * *"] {
        let answer = product
            .types(&format!("schedule add again \"{times}\" process shop/ledger"))
            .await;
        assert!(answer.contains("Not saved yet") && answer.contains(times), "{answer}");
        let messages = product.messages("incidents").await;
        buttons.push(
            messages
                .iter()
                .rfind(|m| m.text.contains("Not saved yet"))
                .unwrap()
                .ts
                .clone(),
        );
    }
    product.people.click("ada", "incidents", &buttons[0], "Save").await;
    product.people.reads("incidents", "nothing was saved").await;
    product.people.click("ada", "incidents", &buttons[1], "Save").await;
    product.people.reads("incidents", "Saved: `again`").await;
    assert_eq!(names(&product).await, ["again"]);
    assert!(product.types("schedule delete again").await.contains("is deleted"));
    let health = product.types("health").await;
    for words in [
        "Slack: ok",
        "Cluster `sandbox`: ok",
        "Store: ok",
        "Queue: 0 waiting, 0 under way",
        "leads",
    ] {
        assert!(health.contains(words), "{words}: {health}");
    }
    product.stop().await;
}

/// A schedule as an operator applies it, due once: a minute ago, and again tomorrow.
async fn due(product: &Product, name: &str, owner: &str, target: Value) -> DiagnosticSchedule {
    let minute = SignedDuration::from_mins(1);
    let ago = Timestamp::now().saturating_sub(minute).unwrap();
    let schedule: DiagnosticSchedule = serde_json::from_value(json!({
        "apiVersion": "diagbot.dev/v1alpha1", "kind": "DiagnosticSchedule", "metadata": { "name": name },
        "spec": {
            "schedule": ago.to_zoned(TimeZone::UTC).strftime("%M %H * * *").to_string(),
            "target": target, "diagnostic": "process", "channel": "C0INCIDENT",
            "owner": { "team": "T0DIAG0001", "user": owner },
        },
    }))
    .unwrap();
    let api = schedules(product);
    let made = api.create(&PostParams::default(), &schedule).await.unwrap();
    let settled = json!({ "status": { "settledUntil": MicroTime(ago.saturating_sub(minute * 2).unwrap()) } });
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&settled))
        .await
        .unwrap();
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_whose_owner_left_or_whose_workload_is_gone_says_so_once_and_starts_nothing() {
    let product = Product::start().await;
    let ledger = || json!({ "namespace": "shop", "kind": "Deployment", "name": "ledger" });
    product.add_stateful(
        "web",
        1,
        &json!([{ "name": "app", "image": "registry.sandbox/idle:1" }]),
    );
    product.pod_runs("web-0").await;

    let left = json!({ "user": "U0GRACE001", "deleted": true });
    product.people.act("account", left).await;
    product.operate("web-0", "delete").await;
    let web = json!({ "namespace": "shop", "kind": "StatefulSet", "name": "web" });
    due(&product, "of-nothing", "U0ADA00001", web).await;
    due(&product, "of-who-left", "U0GRACE001", ledger()).await;
    let told = |cause: &'static str| {
        let product = &product;
        async move {
            wait::until(LONGEST, cause, || async {
                let all = product.public().await;
                Ok(all.into_iter().find(|m| m.text.contains(cause)))
            })
            .await
            .unwrap()
        }
    };
    for cause in ["the account is deactivated", "statefulset/web` was found"] {
        let message = told(cause).await;
        assert!(message.text.contains("What to do:"), "{}", message.text);
    }
    // Each is one run and one message, and the schedules go on tomorrow.
    let runs = product
        .installation
        .runs()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    let mut phases: Vec<&str> = runs.iter().map(|run| run.phase().as_str()).collect();
    phases.sort_unstable();
    assert_eq!(phases, ["Denied", "Refused"]);
    let public = product.public().await;
    assert_eq!(public.len(), 2, "{public:#?}");
    assert!(product.ephemeral(LEDGER).await.is_empty());
    assert_eq!(names(&product).await.len(), 2);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_whose_owner_has_no_right_is_told_in_its_channel_and_starts_nothing() {
    let product = Product::start().await;
    let ledger = json!({ "namespace": "shop", "kind": "Deployment", "name": "ledger" });
    let pod = json!({ "namespace": "shop", "kind": "Pod", "name": LEDGER });
    due(&product, "of-a-stranger", "U0LINUS001", ledger).await;
    due(&product, "of-a-stranger-to-the-pod", "U0LINUS001", pod).await;
    let runs = were_due(&product, 2).await;
    let mut phases: Vec<&str> = runs.iter().map(|run| run.phase().as_str()).collect();
    phases.sort_unstable();
    assert_eq!(phases, ["Denied", "Refused"]);
    let all = wait::until(LONGEST, "both are told", || async {
        let all = product.public().await;
        Ok((all.len() == 2 && all.iter().all(|m| m.text.contains("What to do:"))).then_some(all))
    })
    .await
    .unwrap();
    // Where the owner may not even know of a workload, its absence is told.
    for cause in [
        "Nothing called `shop/deployment/ledger` was found in namespace `shop`, as far as you may see",
        "You may not `run` the diagnostic `process` in namespace `shop`",
    ] {
        assert!(all.iter().any(|m| m.text.contains(cause)), "{cause}: {all:#?}");
    }
    assert!(product.ephemeral(LEDGER).await.is_empty());
    product.stop().await;
}

/// A run that the schedule made, long ago.
async fn snapshot(product: &Product, schedule: &DiagnosticSchedule, due: Timestamp, phase: Phase) -> String {
    let spec = &schedule.spec;
    let request = RunRequest {
        key: RequestKey::Schedule {
            uid: schedule.metadata.uid.clone().unwrap(),
            due,
        },
        requester: spec.owner.clone(),
        origin: Origin {
            channel: spec.channel.clone(),
            quiet: true,
            cause: Some(Cause {
                source: "schedule nightly".to_owned(),
                raised_at: Some(MicroTime(due)),
                ..Cause::default()
            }),
            ..Origin::default()
        },
        diagnostic: spec.diagnostic.clone(),
        parameters: spec.parameters.clone(),
        target: spec.target.clone(),
        targets: None,
        appeal: Appeal::default(),
        armed_until: None,
        dry_run: false,
        confirmed: true,
        received_at: due,
    };
    let runs = product.installation.runs();
    let run = DiagnosticRun::new(request.name().as_str(), request.spec());
    runs.create(&PostParams::default(), &run).await.unwrap();
    let status = json!({ "status": { "phase": phase, "reason": null, "captures": [], "entered": { phase.as_str(): MicroTime(due) } } });
    let name = request.name();
    runs.patch_status(name.as_str(), &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
    name.short()
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_a_series_that_holds_the_last_of_each_day_and_shows_them() {
    let product = Product::start().await;
    saved(
        &product,
        "schedule add nightly \"0 3 * * *\" process shop/ledger --keep 3 --keep-per-day 1 --tz Europe/Berlin",
    )
    .await;
    let schedule = schedules(&product).get("nightly").await.unwrap();
    let midnight = Timestamp::now().to_zoned(TimeZone::get("Europe/Berlin").unwrap());
    let midnight = midnight.start_of_day().unwrap();
    let at = |days: i64, hour: i64| {
        let day = midnight.checked_sub(days.days()).unwrap();
        day.checked_add(hour.hours()).unwrap().timestamp()
    };
    // Older than runs are kept otherwise; two of one day, and one that took nothing.
    let mut made = Vec::new();
    for (days, hour, phase) in [
        (10, 3, Phase::Succeeded),
        (9, 3, Phase::Succeeded),
        (8, 3, Phase::PartlyFailed),
        (7, 3, Phase::Succeeded),
        (7, 4, Phase::Succeeded),
        (6, 3, Phase::Refused),
    ] {
        made.push(snapshot(&product, &schedule, at(days, hour), phase).await);
    }
    let held = [&made[4], &made[2], &made[1]];
    let shown = wait::until(LONGEST, "the series is thinned out", || async {
        let shown = product.types("schedule show nightly").await;
        Ok((product.recorded().await <= 4).then_some(shown))
    })
    .await
    .unwrap();
    assert!(
        shown.contains("keeps the last 3 snapshots, at most 1 of a day"),
        "{shown}"
    );
    let (_, snapshots) = shown.split_once("Snapshots").unwrap();
    let places: Vec<Option<usize>> = held.iter().map(|id| snapshots.find(id.as_str())).collect();
    assert!(places.is_sorted() && places.iter().all(Option::is_some), "{shown}");
    for gone in [&made[0], &made[3], &made[5]] {
        assert!(!snapshots.contains(gone.as_str()), "{gone}: {shown}");
    }
    product.stop().await;
}

//! Evidence again and again: a person adds a schedule, sees when it would run, saves it, and hears of failures only.

use std::time::Duration;

use diagbot::runs::{resource::DiagnosticRun, schedule::DiagnosticSchedule};
use diagbot_sandbox::{installation::Plan, wait};
use kube::{Api, api::ListParams};

use crate::product::Product;

/// Longest wait: a schedule's finest step is a minute.
const LONGEST: Duration = Duration::from_secs(100);

fn schedules(product: &Product) -> Api<DiagnosticSchedule> {
    Api::namespaced(product.installation.runs().into_client(), "diagbot")
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
    let ended = |run: &DiagnosticRun| run.phase().is_final();
    let runs = &product.installation.runs();
    let runs = wait::until(LONGEST, "both ran", || async move {
        let all = runs.list(&ListParams::default()).await?.items;
        Ok((all.len() >= 2 && all.iter().all(ended)).then_some(all))
    })
    .await
    .unwrap();
    for run in &runs {
        let user = &run
            .status
            .as_ref()
            .unwrap()
            .decision
            .as_ref()
            .map(|decision| decision.user.clone());
        assert!(
            user.as_ref().is_none_or(|user| user.starts_with("slack:T")),
            "the owner's rights: {user:?}"
        );
        let due = run.spec.origin.cause.as_ref().unwrap().raised_at.as_ref().unwrap().0;
        assert_eq!(due.as_second() % 60, 0);
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
    assert!(
        schedules(&product)
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_can_t_be_is_refused_and_health_says_what_works() {
    let product = Product::start().await;
    for (text, wanted) in [
        ("schedule add x \"0 0 30 2 *\" process shop/ledger", "never fires"),
        ("schedule add x \"every day\" process shop/ledger", "is no cron text"),
        ("schedule add x 0 3 * * * process shop/ledger", "quotation marks"),
        (
            "schedule add x \"0 3 * * *\" process shop/ledger --tz Mars/Olympus",
            "no time zone",
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
    assert!(
        schedules(&product)
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
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

//! Asking: what is typed loosely is understood and told, and whatever needs a choice comes as a button.

use diagbot_api::{capture::CapturePhase, run::Phase};
use diagbot_sandbox::{installation::Plan, kubernetes::FaultKind};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::product::{LEDGER, Product, link_in, open, pull_fault};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_loosely_is_understood_and_told() {
    let product = Product::start().await;
    let answer = product.types("Proc Ledger").await;
    assert!(answer.contains("`Proc` is taken for `process`"), "{answer}");
    let told = product.ended(&crate::product::run_in(&answer).unwrap()).await;
    told.says(&[
        "`proc` was completed to `process`",
        "The deployment `ledger` has one pod that fits",
    ]);
    let aliased = product.runs("ps pod/ledger-6c").await;
    aliased.says(&["*process* of", "The target `pod/ledger-6c` was completed to"]);

    let misspelt = product.types("jstak checkout").await;
    assert!(misspelt.contains("Did you mean `jstack`?"), "{misspelt}");
    let list = product.types("list").await;
    for name in [
        "heap-dump",
        "heap-histogram",
        "jstack",
        "pod-report",
        "process",
        "sockets",
    ] {
        assert!(list.contains(&format!("`{name}` – ")), "{name}: {list}");
    }
    let help = product.types("help").await;
    assert!(help.contains("/diag &lt;diagnostic&gt; &lt;target&gt;"), "{help}");
    let help = product.types("help jmap").await;
    assert!(
        help.contains("*heap-dump*") && help.contains("sensitive: links are sent privately only"),
        "{help}"
    );
    let status = product.types(&format!("status {}", told.id.replace('-', " "))).await;
    assert!(
        status.contains("State: *done*") && status.contains(&told.id),
        "{status}"
    );
    let runs = product.types("runs ledger --since 1h").await;
    assert!(runs.contains(&told.id) && runs.contains(&aliased.id), "{runs}");
    let none = product.types("cancel").await;
    assert!(none.contains("There is no run of yours that fits"), "{none}");
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mention_is_answered_in_its_thread_where_a_run_implies_the_target() {
    let product = Product::start().await;
    let alert = json!({ "user": "grace", "channel": "incidents", "text": "ledger is slow again" });
    let alert = product.people.act("message", alert).await["ts"]
        .as_str()
        .unwrap()
        .to_owned();
    product.mentions("process ledger", Some(&alert)).await;
    let first = product.ended_in_thread(&alert, "*process* of").await;
    first.downloads().await;
    product.mentions("sockets", Some(&alert)).await;
    let second = product.ended_in_thread(&alert, "*sockets* of").await;
    second.says(&[LEDGER]);
    product.mentions("status", Some(&alert)).await;
    product.mentions("jstak", Some(&alert)).await;
    let messages = product.people.reads("incidents", "Did you mean `jstack`?").await;
    for answer in messages.iter().filter(|m| m.by_bot) {
        assert_eq!(answer.thread_ts.as_deref(), Some(alert.as_str()), "{}", answer.text);
    }

    let lonely = product.mentions("sockets", None).await;
    let messages = product.people.reads("incidents", "There is no target").await;
    let answer = messages.iter().find(|m| m.text.contains("There is no target")).unwrap();
    assert_eq!(answer.thread_ts.as_deref(), Some(lonely.as_str()));
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_pods_one_is_chosen_by_a_button() {
    let product = Product::start().await;
    let mut second = product.pods().get(LEDGER).await.unwrap();
    let (labels, owners) = (second.metadata.labels.take(), second.metadata.owner_references.take());
    second.metadata = ObjectMeta {
        name: Some("ledger-6c7d5b9f4-zz9zz".to_owned()),
        namespace: Some("shop".to_owned()),
        labels,
        owner_references: owners,
        ..ObjectMeta::default()
    };
    second.status = None;
    let mut manifest = serde_json::to_value(&second).unwrap();
    manifest["apiVersion"] = json!("v1");
    manifest["kind"] = json!("Pod");
    product.installation.kubernetes().add(manifest).unwrap();
    product.pod_runs("ledger-6c7d5b9f4-zz9zz").await;

    let asked = product.runs("process ledger").await;
    assert_eq!(asked.run.phase(), Phase::Refused);
    asked.explains("fits 2 targets");
    asked.says(&[LEDGER, "ledger-6c7d5b9f4-zz9zz"]);
    let click = json!({ "user": "ada", "channel": "incidents", "ts": asked.root.ts, "action_id": "diag.choose-1" });
    product.people.act("click", click).await;
    let chosen = product.ended_in_thread(&asked.root.ts, "ledger-6c7d5b9f4-zz9zz").await;
    chosen.downloads().await;
    product.people.reads("incidents", "Chosen by @ada as run").await;
    assert!(product.ephemeral(LEDGER).await.is_empty());
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guess_is_confirmed_before_anything_with_an_impact() {
    let product = Product::start().await;
    let asked = product.runs("heap-histogram ledg").await;
    asked.explains("was completed from what you typed");
    assert!(product.ephemeral(LEDGER).await.is_empty());
    product
        .people
        .click("ada", "incidents", &asked.root.ts, "Yes, run it")
        .await;
    let confirmed = product.ended_in_thread(&asked.root.ts, "*heap-histogram* of").await;
    confirmed.explains("it looks for `jvm`");
    product.people.reads("incidents", "Confirmed by @ada as run").await;
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_repeated_and_linked_by_its_buttons() {
    let product = Product::start().await;
    let first = product.runs("process ledger").await;
    product
        .people
        .click("grace", "incidents", &first.root.ts, "Send me a link")
        .await;
    let messages = product.people.reads("incidents", "for you:").await;
    let private: Vec<_> = messages.iter().filter(|m| m.text.contains("for you:")).collect();
    assert!(private.len() == 1 && private[0].ephemeral, "{private:#?}");
    let seen = product
        .people
        .see("channels/incidents?as=ada&plain=1")
        .await
        .to_string();
    assert!(!seen.contains("for you:"), "only grace sees her link: {seen}");
    let bytes = open(&link_in(&private[0].text).unwrap()).await;
    assert!(bytes.starts_with(b"== Process =="));

    product
        .people
        .click("grace", "incidents", &first.root.ts, "Run again")
        .await;
    let second = product.ended_in_thread(&first.root.ts, "*process* of").await;
    second.says(&["Asked by @grace"]);
    second.downloads().await;
    assert_ne!(second.id, first.id);
    product.people.reads("incidents", "Run again by @grace as run").await;
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_says_for_what_and_is_cancelled_by_its_button() {
    let mut plan = Plan::default();
    let slow = FaultKind::SlowPull { millis: 60_000 };
    plan.kubernetes
        .faults
        .push(pull_fault(slow, "registry.sandbox/diagbot-agent", 1));
    let product = Product::with(plan).await;
    let id = product.asks("process ledger").await;
    let messages = product.people.reads("incidents", "ulling").await;
    let root = messages.iter().find(|m| m.by_bot && !m.ephemeral).unwrap().clone();
    product.people.click("ada", "incidents", &root.ts, "Cancel").await;
    let told = product.ended(&id).await;
    assert_eq!(told.run.phase(), Phase::Cancelled, "{}", told.text());
    told.says(&["*cancelled* by @ada"]);
    let status = told.run.status.as_ref().unwrap();
    assert_eq!(status.captures[0].phase, CapturePhase::Cancelled);
    assert!(product.open_uploads().is_empty() && product.objects().is_empty());
    product.stop().await;
}

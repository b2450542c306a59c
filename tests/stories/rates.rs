//! How often: a person, a channel and a diagnostic have counts of their own at the door, and looking has another. Each refusal
//! says how long to wait, and what stops something is never counted.

use diagbot_sandbox::installation::Plan;
use serde_json::{Value, json};

use crate::{
    form::{form, offered},
    product::{Product, run_in},
};

/// The answer to whoever was too fast.
const TOO_MANY: &str = "Too many requests at a time.";

async fn with(rates: Value) -> Product {
    let mut plan = Plan {
        config: json!({ "rates": rates }),
        ..Plan::default()
    };
    plan.slack.rate_limited = false;
    Product::with(plan).await
}

fn is_told_to_wait(answer: &str) {
    assert!(
        answer.contains(TOO_MANY) && answer.contains("Ask again in "),
        "{answer}"
    );
}

fn is_recorded(answer: &str) {
    assert!(run_in(answer).is_some(), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_is_told_how_long_to_wait_and_may_still_stop_things() {
    let product = with(json!({ "personPerMinute": 2 })).await;
    let run = product.asks("pod-report ledger").await;
    is_recorded(&product.types("sockets ledger").await);
    is_told_to_wait(&product.types("process ledger").await);
    product.mentions("process ledger", None).await;
    product.people.reads("incidents", TOO_MANY).await;
    assert_eq!(product.recorded().await, 2);

    // Nobody else waits for it, and what stops something is taken.
    is_recorded(&product.people.command("grace", "incidents", "process ledger").await);
    for stops in [&format!("cancel {run}"), "pause shop", "resume shop"] {
        let answer = product.types(stops).await;
        assert!(!answer.contains(TOO_MANY), "{stops}: {answer}");
    }
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_and_a_diagnostic_have_counts_of_their_own() {
    let product = with(json!({ "channelPerMinute": 2, "commandPerMinute": 3 })).await;
    let say = async |user: &str, channel: &str, text: &str| product.people.command(user, channel, text).await;
    is_recorded(&say("ada", "incidents", "pod-report ledger").await);
    is_recorded(&say("grace", "incidents", "pod-report ledger").await);
    is_told_to_wait(&say("linus", "incidents", "pod-report ledger").await);
    is_recorded(&say("linus", "shop-oncall", "pod-report ledger").await);
    // By any of its names, and whoever asks.
    for (name, channel) in [
        ("report", "shop-oncall"),
        ("pod-r", "war-room"),
        ("pod-report", "random"),
    ] {
        is_told_to_wait(&say("grace", channel, &format!("{name} ledger")).await);
    }
    is_recorded(&say("grace", "war-room", "sockets ledger").await);
    assert_eq!(product.recorded().await, 4);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_has_a_count_of_its_own() {
    let product = with(json!({ "looksPerMinute": 3 })).await;
    let told = product.runs("pod-report ledger").await;
    product.types("").await;
    let view = form(&product, "ada", |_| true).await;
    assert!(!offered(&product, "ada", &view, "ledger").await.is_empty());
    assert!(product.types("list").await.contains("`pod-report`"));

    for looks in ["list", "help", "status", "runs", "health", "schedule list", ""] {
        is_told_to_wait(&product.types(looks).await);
    }
    assert!(offered(&product, "ada", &view, "ledger").await.is_empty());
    let link = |user: &'static str| product.people.click(user, "incidents", &told.root.ts, "Send me a link");
    link("ada").await;
    product.people.reads("incidents", TOO_MANY).await;

    // A run is no look, and others look as they like.
    is_recorded(&product.types("pod-report ledger").await);
    let listed = product.people.command("grace", "incidents", "list").await;
    assert!(listed.contains("`pod-report`"), "{listed}");
    product.stop().await;
}

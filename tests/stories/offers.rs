//! Buttons in an incident's channel: what fits the target and the person, pressed by whoever is there, told where it stands.

use std::time::Duration;

use diagbot_sandbox::wait;

use crate::{
    product::{LEDGER, Product},
    slack::people::Message,
};

/// The message with the offers, once it is as wanted.
async fn offer(product: &Product, what: &str, wanted: impl Fn(&Message) -> bool) -> Message {
    wait::until(Duration::from_secs(30), what, || async {
        let all = product.messages("incidents").await;
        let found = all.into_iter().find(|m| m.text.contains("press what shall be taken"));
        Ok(found.filter(|found| wanted(found)))
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_is_offered_once_pressed_answered_in_its_thread_and_told_where_it_was_offered() {
    let product = Product::start().await;
    product.types("offer deploy/ledger -n shop").await;
    let offered = offer(&product, "the offers stand in the channel", |_| true).await;
    assert!(offered.text.contains(LEDGER), "{}", offered.text);
    for name in ["process", "sockets", "pod-report", "first-response"] {
        assert!(
            offered.text.contains(&format!("`{name}` – ")),
            "{name}: {}",
            offered.text
        );
    }
    product.people.click("grace", "incidents", &offered.ts, "process").await;
    let told = offer(&product, "the offer says who pressed and how it went", |m| {
        m.text.contains("pressed by") && m.text.contains("*done*")
    })
    .await;
    assert!(!told.text.contains("[process]"), "{}", told.text);
    let thread = product.messages("incidents").await;
    let answer = thread.iter().find(|m| m.text.contains("*process* of")).unwrap();
    assert_eq!(
        answer.thread_ts.as_deref(),
        Some(offered.ts.as_str()),
        "in the offer's thread"
    );
    assert_eq!(product.recorded().await, 2, "the offer and what was pressed");

    // Who may not is told so, in the same thread, and nothing is taken.
    product.people.click("linus", "incidents", &offered.ts, "sockets").await;
    let denied = offer(&product, "the denial is told", |m| m.text.contains("*denied*")).await;
    assert_eq!(product.ephemeral(LEDGER).await.len(), 1);
    // What one may not do is left to others.
    assert!(denied.text.contains("[sockets]"), "{}", denied.text);
    product.people.click("grace", "incidents", &offered.ts, "sockets").await;
    let told = offer(&product, "it was pressed by another", |m| {
        m.text.matches("*done*").count() == 2
    })
    .await;
    assert!(
        !told.text.contains("[sockets]") && !told.text.contains("*denied*"),
        "{}",
        told.text
    );
    assert_eq!(product.ephemeral(LEDGER).await.len(), 2);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_run_nothing_there_is_offered_nothing() {
    let product = Product::start().await;
    let answer = product
        .people
        .command("linus", "incidents", "offer ledger -n shop")
        .await;
    assert!(answer.contains("is recorded"), "{answer}");
    let said = product.people.reads("incidents", "State: *").await;
    let told = said.iter().find(|m| m.text.contains("State: *")).unwrap();
    assert!(
        !told.text.contains("process") && !told.text.contains(LEDGER),
        "{}",
        told.text
    );
    product.stop().await;
}

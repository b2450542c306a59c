//! Permission: who may not is told why, sees no names, and gets no link.

use diagbot_api::run::Phase;

use crate::product::{LEDGER, Product, run_in};

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_why_and_nothing_is_started() {
    let product = Product::start().await;
    let cases = [
        (
            "gus",
            "incidents",
            "process ledger",
            "guests may not run diagnostics",
            "full member",
            Phase::Denied,
        ),
        (
            "sam",
            "partners",
            "process ledger",
            "another organisation or workspace",
            "full member",
            Phase::Denied,
        ),
        (
            "linus",
            "incidents",
            "process ledger",
            "Nothing called `ledger`",
            "ask the owners",
            Phase::Refused,
        ),
        (
            "linus",
            "incidents",
            "process shop/pod/ledger-6c7d5b9f4-q8w2k",
            "You may not `run` the diagnostic `process` in namespace `shop`",
            "slack:T0DIAG0001:U0LINUS001",
            Phase::Denied,
        ),
        (
            "grace",
            "incidents",
            "heap-dump ledger",
            "You may not `run` the diagnostic `heap-dump`",
            "`diagnostics.diagbot.dev`",
            Phase::Denied,
        ),
    ];
    for (person, channel, text, cause, remedy, phase) in cases {
        let answer = product.people.command(person, channel, text).await;
        let told = product.ended_in(&run_in(&answer).unwrap(), channel).await;
        assert_eq!(told.run.phase(), phase, "{person}: {}", told.text());
        told.explains(cause);
        told.says(&[remedy, &format!("Asked by @{person}")]);
        let names_the_pod = told.text().contains(LEDGER);
        assert_eq!(
            names_the_pod,
            text.contains(LEDGER) || person == "grace",
            "{person}: {}",
            told.text()
        );
    }
    assert!(product.ephemeral(LEDGER).await.is_empty());
    assert!(product.objects().is_empty());
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_gets_no_link_and_cancels_nothing_of_others() {
    let product = Product::start().await;
    let told = product.runs("process ledger").await;
    for (person, cause) in [
        ("linus", "You may not `read` the diagnostic `process`"),
        ("gus", "guests may not run diagnostics"),
    ] {
        product
            .people
            .click(person, "incidents", &told.root.ts, "Send me a link")
            .await;
        let messages = product.people.reads("incidents", cause).await;
        let answer = messages.iter().find(|m| m.text.contains(cause)).unwrap();
        assert!(answer.ephemeral && answer.text.contains("What to do:") && answer.text.contains(&told.id));
        assert!(!answer.text.contains("Download"), "{}", answer.text);
    }
    // A button acts as the person who presses it, not as the one who asked.
    product
        .people
        .click("linus", "incidents", &told.root.ts, "Run again")
        .await;
    let again = product.ended_in_thread(&told.root.ts, "Asked by @linus").await;
    assert_ne!(again.run.phase(), Phase::Succeeded, "{}", again.text());
    assert_eq!(product.ephemeral(LEDGER).await.len(), 1);
    product.stop().await;
}

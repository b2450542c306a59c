//! Faults of Slack: evidence is captured whatever Slack does, and people are told once, in order, where they can be told.

use std::time::Duration;

use diagbot_api::run::Phase;
use diagbot_sandbox::{
    installation::Plan,
    people::fetch,
    slack::{RedeliveredEnvelope, Redelivery},
    wait,
};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::product::{Product, run_in};

impl Product {
    async fn slack_fault(&self, method: &str, kind: &str, count: u32, retry_after: u64) {
        let fault = json!({ "method": method, "kind": kind, "count": count, "retry_after": retry_after });
        self.people.act("faults", fault).await;
    }

    async fn slack_heals(&self) {
        self.people.act("faults", json!({ "kind": "none" })).await;
    }

    /// Waits until the run has ended, told or not.
    async fn captured(&self, id: &str) {
        let run = self
            .run(id, "the evidence is captured", |run| run.phase().is_final())
            .await;
        assert_eq!(run.phase(), Phase::Succeeded);
        assert!(
            run.status.unwrap().telling.final_at.is_none(),
            "nobody can have been told"
        );
    }

    async fn until_ready(&self) {
        let url = format!("{}/readyz", self.installation.addresses().bots[0]);
        wait::until(Duration::from_secs(30), "the bot can work", || async {
            let (status, _) = fetch(&url).await?;
            Ok((status == StatusCode::OK).then_some(()))
        })
        .await
        .unwrap();
    }

    /// Waits until so many connections were asked for, and one is up.
    async fn until_ready_again(&self, opened: usize) {
        wait::until(Duration::from_secs(40), "connections are opened again", || async {
            Ok((self.calls("apps.connections.open").await >= opened).then_some(()))
        })
        .await
        .unwrap();
        self.until_ready().await;
    }

    /// Waits until the bot can't work and says so in these words.
    async fn until_told(&self, words: &str) {
        let url = format!("{}/readyz", self.installation.addresses().bots[0]);
        wait::until(Duration::from_secs(30), "the bot says why it can't work", || async {
            let (status, body) = fetch(&url).await?;
            let told = String::from_utf8_lossy(&body).contains(words);
            Ok((told && status != StatusCode::OK).then_some(()))
        })
        .await
        .unwrap();
    }

    /// Calls of a method so far.
    async fn calls(&self, method: &str) -> usize {
        let log = self.people.see("log").await;
        let calls: Vec<Value> = log["calls"].as_array().cloned().unwrap_or_default();
        calls.iter().filter(|call| call["method"] == method).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_slack_is_away_evidence_is_captured_and_afterwards_told_in_order() {
    let product = Product::start().await;
    // Who asks is known from here on, for the time that such facts count.
    product.runs("process ledger").await;
    // An outage of hours differs from this one in nothing but the waits, which grow to a minute and stay there.
    product.slack_fault("*", "status_500", u32::MAX, 0).await;
    let mut asked = Vec::new();
    for what in [
        "process ledger",
        "sockets ledger",
        "pod-report ledger",
        "process deployment/ledger",
    ] {
        asked.push(product.asks(what).await);
    }
    for id in &asked {
        product.captured(id).await;
    }
    product.people.act("outage", json!({ "kind": "break" })).await;
    product.people.see("connections?at_most=0&wait_ms=20000").await;
    product.slack_heals().await;
    let mut stamps = Vec::new();
    for id in &asked {
        let told = product.ended(id).await;
        told.downloads().await;
        stamps.push(told.root.ts.clone());
    }
    assert!(stamps.is_sorted(), "told in the order of the requests: {stamps:?}");
    product.until_ready().await;
    assert!(product.types("status").await.contains("State: *done*"));
    assert_eq!(product.public().await.len(), 1 + asked.len());
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_retry_after_holds_up_its_own_method_and_is_kept() {
    let product = Product::start().await;
    product.slack_fault("users.info", "rate_limited", 1, 1).await;
    product.slack_fault("usergroups.list", "rate_limited", 1, 1).await;
    product.slack_fault("chat.update", "rate_limited", 1, 5).await;
    let begun = std::time::Instant::now();
    let first = product.asks("process ledger").await;
    product.captured(&first).await;
    let edits = wait::until(Duration::from_secs(10), "an edit was tried", || async {
        let calls = product.calls("chat.update").await;
        Ok((calls > 0).then_some(calls))
    });
    let edits = edits.await.unwrap();
    // Posts go on meanwhile.
    let posts = product.calls("chat.postMessage").await;
    let second = product.asks("sockets ledger").await;
    product.captured(&second).await;
    wait::until(Duration::from_secs(4), "the next run was posted", || async {
        Ok((product.calls("chat.postMessage").await > posts).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(product.calls("chat.update").await, edits, "the wait was kept");
    product.ended(&first).await.downloads().await;
    product.ended(&second).await.downloads().await;
    assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(product.public().await.len(), 2);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_holds_up_the_opening_of_connections_and_is_kept() {
    let product = Product::start().await;
    let before = product.calls("apps.connections.open").await;
    // Both connections break, and each is told to wait longer than it would by itself.
    product.slack_fault("apps.connections.open", "rate_limited", 2, 6).await;
    product.people.act("outage", json!({ "kind": "break" })).await;
    product.until_ready_again(before + 3).await;
    let log = product.people.see("log?method=apps.connections.open").await;
    let calls: Vec<(Timestamp, u64)> = log["calls"].as_array().into_iter().flatten().map(opened).collect();
    let after: Vec<_> = calls[before..].iter().collect();
    assert_eq!((after[0].1, after[1].1), (429, 429), "{calls:?}");
    let waited = after[2].0.duration_since(after[0].0);
    assert!(waited >= SignedDuration::from_secs(6), "{waited}: {calls:?}");
    assert!(after.len() <= 4, "{calls:?}");
    let told = product.runs("process ledger").await;
    assert_eq!(told.run.phase(), Phase::Succeeded);
    product.stop().await;
}

/// When a call came, and the status of its answer.
fn opened(call: &Value) -> (Timestamp, u64) {
    let time = call["time"].as_str().unwrap().parse().unwrap();
    (time, call["status"].as_u64().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mention_whose_acknowledgement_is_lost_and_that_comes_again_as_new_is_one_run() {
    let mut plan = Plan::default();
    plan.slack.ack_limit = Duration::from_millis(400);
    let again = |millis, envelope| Redelivery {
        after: Duration::from_millis(millis),
        envelope,
    };
    // Slack's own: at once, and the very same envelope again with `retry_attempt` 0.
    plan.slack.event_redelivery = vec![
        again(500, RedeliveredEnvelope::New),
        again(900, RedeliveredEnvelope::Same),
    ];
    let product = Product::with(plan).await;
    for _ in 0..2 {
        product.people.fault("events_api", "lost_ack", 1).await;
    }
    let alert = json!({ "user": "grace", "channel": "incidents", "text": "ledger is slow again" });
    let alert = product.people.act("message", alert).await;
    let thread = alert["ts"].as_str().unwrap();
    product.mentions("process ledger", Some(thread)).await;
    let told = product.ended_in_thread(thread, "*process* of").await;
    product.people.acknowledges("events_api", 1).await;
    told.downloads().await;
    let log = product.people.see("log").await;
    let deliveries = log["envelopes"].as_array().unwrap().len();
    assert!(deliveries >= 2, "{log}");
    assert_eq!(product.recorded().await, 1);
    assert_eq!(product.public().await.len(), 1);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_channel_takes_nothing_the_person_is_told_directly_and_why() {
    let product = Product::start().await;
    for refusal in ["error:channel_not_found", "error:not_in_channel", "error:is_archived"] {
        product.people.fault("chat.postMessage", refusal, 1).await;
        let id = product.asks("process ledger").await;
        let told = product.ended_in(&id, "@ada").await;
        told.says(&["/invite", "State: *done*"]);
        told.downloads().await;
    }
    assert_eq!(product.public().await.len(), 0);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_slack_refuses_as_blocks_is_answered_as_text() {
    let product = Product::start().await;
    let alert = json!({ "user": "grace", "channel": "incidents", "text": "ledger is slow again" });
    let alert = product.people.act("message", alert).await;
    let thread = alert["ts"].as_str().unwrap();
    product
        .people
        .fault("chat.postMessage", "error:invalid_blocks", 1)
        .await;
    product.mentions("help jstack", Some(thread)).await;
    let messages = product.people.reads("incidents", "Impact on the target").await;
    let answer = messages.iter().rfind(|m| m.by_bot).unwrap();
    assert_eq!(
        (answer.blocks, answer.thread_ts.as_deref()),
        (0, Some(thread)),
        "{answer:?}"
    );
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_named_and_once_it_is_renewed_people_are_told() {
    let mut product = Product::start().await;
    product.runs("process ledger").await;
    for method in ["chat.postMessage", "chat.update", "apps.connections.open"] {
        product.slack_fault(method, "error:account_inactive", u32::MAX, 0).await;
    }
    let id = product.asks("process ledger").await;
    product.captured(&id).await;
    product.people.act("outage", json!({ "kind": "break" })).await;
    product.until_told("account_inactive").await;
    let opened = product.calls("apps.connections.open").await;
    // An operator renews the token: Slack takes it, and the bot is restarted.
    product.slack_heals().await;
    product.installation.restart_bot(0).await.unwrap();
    let told = product.ended(&id).await;
    told.downloads().await;
    assert!(opened <= 6, "a final refusal is not tried again and again: {opened}");
    assert_eq!(product.public().await.len(), 2);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_are_not_answered_with_more() {
    let product = Product::start().await;
    let before = product.people.see("connections").await["opened"].as_u64().unwrap();
    let body = json!({ "reason": "too_many_websockets", "count": 1 });
    product.people.act("disconnect", body).await;
    let answer = product.types("process ledger").await;
    product.ended(&run_in(&answer).unwrap()).await.downloads().await;
    let after = product.people.see("connections").await;
    assert_eq!(
        after["opened"].as_u64().unwrap(),
        before,
        "others must go first: {after}"
    );
    product.until_ready().await;
    product.stop().await;
}

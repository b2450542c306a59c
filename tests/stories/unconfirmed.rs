//! Requests whose record is not certain: whatever becomes of the process, the person hears which, or knows when to ask again.

use std::time::Duration;

use diagbot_api::run::Phase;
use diagbot_sandbox::{
    installation::{Plan, Signal},
    kubernetes::{Fault, FaultKind},
    slack::{RedeliveredEnvelope, Redelivery},
    wait,
};
use serde_json::json;

use crate::product::{LEDGER, Product, run_in};

/// Longest wait for a redelivery.
const REDELIVERED: Duration = Duration::from_secs(30);

impl Product {
    /// No run can be recorded until the API server is healed.
    fn records_nothing(&self, kind: FaultKind) {
        let fault = Fault::of(kind).on("create", "diagnosticruns").times(u32::MAX);
        self.installation.kubernetes().arm(fault);
    }

    /// Types a command that is not confirmed; gives its short id.
    async fn asks_in_vain(&self) -> String {
        let typed = json!({ "user": "ada", "channel": "incidents", "text": "/diag process ledger" });
        let answer = self.people.act("command", typed).await;
        let text = answer["ack"]["text"].as_str().unwrap_or_default();
        assert!(text.contains("not confirmed yet"), "{answer}");
        assert!(text.contains("hear nothing for 10 minutes"), "{answer}");
        run_in(text).unwrap()
    }

    async fn comes_back(&mut self, replicas: usize) {
        for replica in 0..replicas {
            self.installation.start_bot(replica).unwrap();
        }
        self.installation.wait_until_ready().await.unwrap();
    }

    async fn captured_once(&self, id: &str) {
        let told = self.ended(id).await;
        assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
        assert_eq!(self.recorded().await, 1);
        assert_eq!(self.ephemeral(LEDGER).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_while_a_request_is_not_confirmed_tries_on_and_says_which_it_was() {
    tokio::join!(never_recorded(), recorded_in_time());
}

async fn never_recorded() {
    let mut product = Product::start().await;
    product.records_nothing(FaultKind::Unavailable);
    let id = product.asks_in_vain().await;
    product.installation.stop_bot(0).await.unwrap();
    let messages = product.people.reads("incidents", "not be confirmed").await;
    let said = messages.iter().find(|m| m.text.contains("not be confirmed")).unwrap();
    assert!(said.ephemeral && said.text.contains(&id), "{said:?}");
    assert!(said.text.contains("send it again"), "{said:?}");
    product.installation.kubernetes().disarm();
    product.comes_back(1).await;
    assert_eq!(product.recorded().await, 0);
    let again = product.runs("process ledger").await;
    assert_eq!(again.run.phase(), Phase::Succeeded, "{}", again.text());
    product.stop().await;
}

async fn recorded_in_time() {
    let mut product = Product::start().await;
    product.records_nothing(FaultKind::Unavailable);
    let id = product.asks_in_vain().await;
    product.installation.signal_bot(0, Signal::TERM).unwrap();
    product.installation.kubernetes().disarm();
    let messages = product.people.reads("incidents", "is confirmed").await;
    assert!(
        messages.iter().any(|m| m.ephemeral && m.text.contains(&id)),
        "{messages:?}"
    );
    product.installation.stop_bot(0).await.unwrap();
    product.comes_back(1).await;
    product.captured_once(&id).await;
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_answer_was_lost_with_the_process_is_told_by_the_next() {
    let mut product = Product::start().await;
    let lost = Fault::of(FaultKind::LostAnswer).on("create", "diagnosticruns");
    product.installation.kubernetes().arm(lost);
    // It never learns that there is a record.
    product.records_nothing(FaultKind::Timeout);
    let id = product.asks_in_vain().await;
    product.installation.kill_bot(0).await.unwrap();
    product.installation.kubernetes().disarm();
    product.comes_back(1).await;
    product.captured_once(&id).await;
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mention_is_acknowledged_once_it_is_recorded_so_that_none_dies_with_a_process() {
    let mut plan = Plan {
        replicas: 2,
        ..Plan::default()
    };
    let again = |after| Redelivery {
        after: Duration::from_secs(after),
        envelope: RedeliveredEnvelope::New,
    };
    plan.slack.event_redelivery = [5, 15, 25, 35].map(again).to_vec();
    let mut product = Product::with(plan).await;
    product.records_nothing(FaultKind::Unavailable);
    product.mentions("process ledger", None).await;
    let messages = product.people.reads("incidents", "not confirmed yet").await;
    let id = messages.iter().find_map(|m| run_in(&m.text)).unwrap();
    for replica in 0..2 {
        product.installation.kill_bot(replica).await.unwrap();
    }
    product.installation.kubernetes().disarm();
    product.comes_back(2).await;
    product.captured_once(&id).await;
    // Told apart from the answers of the first process: nobody asked twice.
    wait::until(REDELIVERED, "the redelivery was acknowledged", || async {
        let log = product.people.see("log").await;
        let envelopes = log["envelopes"].as_array().into_iter().flatten();
        let acknowledged = envelopes.filter(|e| e["type"] == "events_api" && e["ack_ms"].is_u64());
        Ok((acknowledged.count() == 1).then_some(()))
    })
    .await
    .unwrap();
    product.stop().await;
}

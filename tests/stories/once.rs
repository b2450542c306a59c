//! Exactly once: what is delivered again - after a restart, by another replica, after the run's end - is the run that it was.

use std::time::Duration;

use diagbot_api::run::Phase;
use diagbot_sandbox::{
    installation::Plan,
    kubernetes::{Fault, FaultKind},
    slack::{RedeliveredEnvelope, Redelivery},
};
use kube::api::ListParams;
use serde_json::json;

use crate::product::{LEDGER, Product, run_in};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_comes_again_after_its_end_and_to_other_processes_is_still_one_run() {
    let mut plan = Plan {
        replicas: 2,
        ..Plan::default()
    };
    plan.slack.ack_limit = Duration::from_millis(800);
    let again = |after, envelope| Redelivery {
        after: Duration::from_secs(after),
        envelope,
    };
    plan.slack.interaction_redelivery = vec![
        again(1, RedeliveredEnvelope::Same),
        again(8, RedeliveredEnvelope::New),
        again(14, RedeliveredEnvelope::Same),
        again(20, RedeliveredEnvelope::New),
    ];
    let mut product = Product::with(plan).await;
    // Every acknowledgement but the last gets lost, so Slack delivers four times.
    product.people.fault("slash_commands", "lost_ack", 3).await;
    let typed = json!({ "user": "ada", "channel": "incidents", "text": "/diag process ledger" });
    let unheard = product.people.act("command", typed).await;
    assert_eq!(unheard["delivered"], false, "{unheard}");
    let message = product.people.reads("incidents", "State: *done*").await;
    let root = message.iter().find(|m| m.text.contains("State: *done*")).unwrap();
    let footer = root.text.split("· run ").last().unwrap().to_owned();
    let told = product.ended(&run_in(&footer).unwrap()).await;
    // What comes now comes to processes that have never heard of it, after the run's end.
    for replica in 0..2 {
        product.installation.restart_bot(replica).await.unwrap();
    }
    product.people.acknowledges("slash_commands", 1).await;
    assert_eq!(told.run.phase(), Phase::Succeeded);
    assert_eq!(product.recorded().await, 1);
    assert_eq!(product.public().await.len(), 1);
    assert_eq!(product.ephemeral(LEDGER).await.len(), 1);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_answer_was_lost_is_one_run_and_the_person_is_told_which() {
    for kind in [FaultKind::LostAnswer, FaultKind::Timeout] {
        let product = Product::start().await;
        product
            .installation
            .kubernetes()
            .arm(Fault::of(kind).on("create", "diagnosticruns").times(2));
        let typed = json!({ "user": "ada", "channel": "incidents", "text": "/diag process ledger" });
        let answer = product.people.act("command", typed).await;
        assert_eq!(answer["delivered"], true, "{kind:?}: {answer}");
        let text = answer["ack"]["text"].as_str().unwrap_or_default();
        assert!(text.contains("not confirmed yet"), "{kind:?}: {answer}");
        let id = run_in(text).unwrap();
        product.people.reads("incidents", "is confirmed").await;
        let heard = product.messages("incidents").await;
        let heard = heard.iter().find(|m| m.text.contains("is confirmed")).unwrap();
        assert!(heard.ephemeral && heard.text.contains(&id), "{kind:?}: {heard:?}");
        let told = product.ended(&id).await;
        assert_eq!(told.run.phase(), Phase::Succeeded, "{kind:?}");
        let runs = product.installation.runs().list(&ListParams::default()).await.unwrap();
        assert_eq!(runs.items.len(), 1, "{kind:?}");
        assert_eq!(product.ephemeral(LEDGER).await.len(), 1, "{kind:?}");
        product.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_button_pressed_twice_and_by_two_people_is_one_run_and_the_second_hears_who_was_first() {
    let product = Product::start().await;
    let told = product.runs("pod-report ledger").await;
    // The button stays for a moment longer, so that all can press.
    product.people.fault("chat.update", "rate_limited", 2).await;
    for person in ["ada", "ada", "grace"] {
        product
            .people
            .click(person, "incidents", &told.root.ts, "Run again")
            .await;
    }
    let messages = product.people.reads("incidents", "was first").await;
    let heard: Vec<_> = messages.iter().filter(|m| m.text.contains("was first")).collect();
    assert_eq!(heard.len(), 1, "only grace needs to hear it: {heard:?}");
    assert!(heard[0].ephemeral && heard[0].text.contains("ada"), "{heard:?}");
    assert_eq!(product.recorded().await, 2, "the run and the one run again");
    product.stop().await;
}

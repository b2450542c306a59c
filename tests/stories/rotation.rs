//! Secrets are exchanged while the installation is in use: nothing that was accepted is lost, and the former secret is
//! worth nothing afterwards.

use std::{fs, time::Duration};

use diagbot_api::run::{DiagnosticRun, Phase};
use diagbot_sandbox::{
    installation::Plan,
    pagerduty::{TOKEN, signature},
    people::fetch,
    slack::SlackConfig,
    triggers::{ALERTMANAGER_TOKEN, PAGERDUTY_SECRETS},
    wait,
};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    metrics::total,
    product::{LONGEST, Product, link_in},
    tools::{seconds_of_our_own, until_processes, with_tool},
    triggers::{deliver, incident, pagerduty, slow_ledger, told},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_stores_key_is_exchanged_without_a_restart_and_the_bots_secret_with_one() {
    let seconds = seconds_of_our_own("12");
    let mut product = Product::with(with_tool("nap", &["sleep", &seconds], "1m", "1MiB")).await;
    let under_way = product.asks("nap ledger").await;
    until_processes(&format!("sleep {seconds}"), 1, LONGEST).await;

    let file = |name: &str| product.installation.file(name);
    let fresh = "a-new-secret-of-forty-characters-or-so-x";
    let former_link = link_in(product.runs("process ledger").await.text()).unwrap();
    let write = |accounts: Value| fs::write(file("store-keys"), accounts.to_string()).unwrap();
    let former = fs::read_to_string(file("secret-key")).unwrap();
    write(json!([{ "accessKey": "sandbox", "secretKey": former }, { "accessKey": "second", "secretKey": fresh }]));
    fs::write(file("access-key"), "second").unwrap();
    fs::write(file("secret-key"), fresh).unwrap();
    write(json!([{ "accessKey": "second", "secretKey": fresh }]));
    product.runs("process ledger").await.downloads().await;
    assert_eq!(fetch(&former_link).await.unwrap().0, StatusCode::FORBIDDEN);
    // What was under way with addresses that the former key signed gets new ones.
    let told = product.ended(&under_way).await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    told.downloads().await;

    // What runs meanwhile can't be trusted any more, and is not called undone.
    let under_way = product.asks("nap ledger").await;
    until_processes(&format!("sleep {seconds}"), 1, LONGEST).await;
    fs::write(file("secret"), "another Secret of the bot, long enough for an HMAC").unwrap();
    product.installation.restart_bot(0).await.unwrap();
    product.runs("process ledger").await.downloads().await;
    let told = product.ended(&under_way).await;
    assert_eq!(told.run.phase(), Phase::Failed, "{}", told.text());
    told.explains_as("AgentUnproven", "not proven to be the agent's");
    // Lines that were made with another key are counted: an alert of the manual stands on it.
    let rejected = total(&product, "diagbot_journal_lines_rejected_total").await.unwrap();
    assert!(rejected.is_some_and(|lines| lines >= 1.0), "{rejected:?}");
    product.stop().await;
}

/// Stops a replica in order and starts it again with what its files hold now.
pub(crate) async fn restart(product: &mut Product, replica: usize) {
    product.installation.stop_bot(replica).await.unwrap();
    product.installation.start_bot(replica).unwrap();
    product.installation.wait_until_ready().await.unwrap();
}

/// Whether the local Slack takes a token for a method.
async fn takes(product: &Product, method: &str, token: &str) -> Value {
    let url = format!("{}/{method}", product.installation.addresses().slack_api);
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let request = http::Request::post(url)
        .header(http::header::AUTHORIZATION, format!("Bearer {token}"))
        .body(http_body_util::Full::new(bytes::Bytes::new()))
        .unwrap();
    let answer = client.request(request).await.unwrap().into_body();
    let bytes = http_body_util::BodyExt::collect(answer).await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn slacks_tokens_are_exchanged_replica_by_replica_and_the_former_ones_are_worth_nothing() {
    let mut plan = Plan {
        replicas: 2,
        ..Plan::default()
    };
    plan.slack.rate_limited = false;
    let former = SlackConfig::default();
    let mut product = Product::with(plan).await;
    product.runs("process ledger").await.downloads().await;

    // Second tokens are made, and are written where the bot reads them.
    let (app, bot) = ("xapp-1-A0DIAG0001-2-rotated", "xoxb-2-rotated");
    let both = json!({ "app": [former.app_token, app], "bot": [former.bot_token, bot] });
    product.people.act("tokens", both).await;
    fs::write(product.installation.file("app-token"), app).unwrap();
    fs::write(product.installation.file("bot-token"), bot).unwrap();
    let mut asked = Vec::new();
    for replica in 0..2 {
        // What is asked for just before is told, by whichever replica lives.
        asked.push(product.asks("process ledger").await);
        restart(&mut product, replica).await;
    }
    asked.push(product.asks("process ledger").await);
    product
        .people
        .act("tokens", json!({ "app": [app], "bot": [bot] }))
        .await;
    for (method, token) in [
        ("apps.connections.open", former.app_token.as_str()),
        ("auth.test", former.bot_token.as_str()),
    ] {
        let answer = takes(&product, method, token).await;
        assert_eq!(answer["error"], "invalid_auth", "{method}: {answer}");
    }
    // Nothing that was accepted is lost, and everything works with the new ones alone: a new connection too.
    asked.push(product.asks("process ledger").await);
    product
        .people
        .act("disconnect", json!({ "reason": "refresh_requested" }))
        .await;
    asked.push(product.asks("process ledger").await);
    for id in asked {
        let told = product.ended(&id).await;
        assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    }
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secrets_of_webhooks_are_exchanged_while_both_count_and_the_former_ones_are_refused() {
    let mut product = Product::start().await;
    let (old_token, new_token) = (ALERTMANAGER_TOKEN, "a-new-token-of-alertmanager");
    let (old_secret, new_secret) = (PAGERDUTY_SECRETS[0], "a-new-secret-of-pagerduty");
    let file = |product: &Product, name: &str| product.installation.file(name);
    // One more for Alertmanager; PagerDuty's second place is free for the new one.
    let second = file(&product, "alertmanager-token-2");
    fs::write(&second, new_token).unwrap();
    fs::write(file(&product, "pagerduty-secret-2"), new_secret).unwrap();
    let config = product.installation.bot_config(0);
    let with_one = fs::read_to_string(&config).unwrap();
    let mut settings: Value = serde_saphyr::from_str(&with_one).unwrap();
    let tokens = &mut settings["triggers"]["sources"][0]["from"]["alertmanager"]["tokenFiles"];
    tokens.as_array_mut().unwrap().push(json!(second));
    fs::write(&config, settings.to_string()).unwrap();
    restart(&mut product, 0).await;
    let both = [StatusCode::ACCEPTED; 2];
    assert_eq!(
        tried(&product, "1", [old_token, new_token], [old_secret, new_secret]).await,
        both.map(|s| (s, s))
    );

    // The senders have the new ones: the former go.
    fs::write(file(&product, "alertmanager-token"), new_token).unwrap();
    fs::write(file(&product, "pagerduty-secret-1"), new_secret).unwrap();
    restart(&mut product, 0).await;
    let now = [StatusCode::UNAUTHORIZED, StatusCode::ACCEPTED];
    assert_eq!(
        tried(&product, "2", [old_token, new_token], [old_secret, new_secret]).await,
        now.map(|s| (s, s))
    );

    // What was accepted is done: the first alert and the first incident; the others were counted with them.
    wait::until(Duration::from_secs(45), "what was accepted is done", || async {
        let all = product
            .installation
            .runs()
            .list(&kube::api::ListParams::default())
            .await?;
        let done = all.items.iter().filter(|run| run.phase() == Phase::Succeeded).count();
        Ok((done == all.items.len() && done >= 2).then_some(()))
    })
    .await
    .unwrap();
    product.stop().await;
}

/// A delivery of each source under each of two secrets: what Alertmanager's and PagerDuty's were answered.
async fn tried(product: &Product, round: &str, tokens: [&str; 2], secrets: [&str; 2]) -> [(StatusCode, StatusCode); 2] {
    let mut answers = [(StatusCode::OK, StatusCode::OK); 2];
    for (n, answer) in answers.iter_mut().enumerate() {
        let token = format!("Bearer {}", tokens[n]);
        let body = slow_ledger().to_string();
        answer.0 = deliver(product, "alertmanager", ("authorization", &token), body)
            .await
            .0;
        let body = incident(&format!("01EVENT{round}{n}"), &format!("PINC{round}{n}"));
        let signed = signature(&[secrets[n]], body.as_bytes());
        answer.1 = deliver(product, "pagerduty", ("x-pagerduty-signature", &signed), body)
            .await
            .0;
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_pagerdutys_notes_is_exchanged_without_a_restart_and_no_note_is_lost() {
    let product = Product::start().await;
    let desk = product.installation.pagerduty();
    let file = product.installation.file("pagerduty-token");
    let fresh = "u+aNewKeyOfPagerDuty";
    // An incident, and what the desk has to show for all so far: one note each, in order.
    let raised = async |number: usize| {
        let body = incident(&format!("01EVENT{number}"), &format!("PINC{number}"));
        let (status, answer) = pagerduty(&product, &body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    };
    let noted = async |count: usize| {
        let known = wait::until(LONGEST, &format!("{count} notes"), || async {
            let runs = product
                .installation
                .runs()
                .list(&kube::api::ListParams::default())
                .await?;
            let settled = runs.items.len() == count && runs.items.iter().all(DiagnosticRun::is_noted);
            Ok(settled.then(|| desk.notes()))
        })
        .await
        .unwrap();
        let of: Vec<String> = known.into_iter().map(|(incident, _)| incident).collect();
        assert_eq!(of, (1..=count).map(|n| format!("PINC{n}")).collect::<Vec<_>>());
    };
    let last_status = || desk.exchanges().last().map(|exchange| exchange.status);
    raised(1).await;
    noted(1).await;

    // Both count while the file is replaced.
    desk.take_keys(&[TOKEN, fresh]);
    fs::write(&file, fresh).unwrap();
    raised(2).await;
    noted(2).await;
    desk.take_keys(&[fresh]);
    assert_eq!(desk.faults(), [""; 0], "no key was refused");

    // In the wrong order: the key is gone before the file is written anew. The note waits for it.
    desk.take_keys(&[TOKEN]);
    raised(3).await;
    told(&product, 3).await;
    wait::until(LONGEST, "the former key is refused", || async {
        Ok((last_status() == Some(StatusCode::UNAUTHORIZED)).then_some(()))
    })
    .await
    .unwrap();
    fs::write(&file, TOKEN).unwrap();
    noted(3).await;
    product.stop().await;
}

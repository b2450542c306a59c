//! The form: opened by the command alone or from a message, filled while names are offered, and told like any other run.

use std::time::Duration;

use diagbot_sandbox::wait;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use crate::product::{LEDGER, Product};

/// The form that is open for a person; waits until one is, and is as wanted.
pub(crate) async fn form(product: &Product, user: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = wait::until(Duration::from_secs(20), "a form is open", async || {
        let views = product.people.see(&format!("views?user={user}")).await;
        let open = views["views"].as_array().and_then(|views| views.last()).cloned();
        Ok(open.map(|open| open["view"].clone()).filter(|view| wanted(view)))
    });
    found.await.unwrap()
}

/// What a person is offered for what they typed.
pub(crate) async fn offered(product: &Product, user: &str, view: &Value, typed: &str) -> Vec<String> {
    let body = json!({ "user": user, "view_id": view["id"], "action_id": "target", "value": typed });
    let reply = product.people.act("suggest", body).await;
    let options = reply["ack"]["options"].as_array().cloned().unwrap_or_default();
    let values = options.iter().filter_map(|option| option["value"].as_str());
    values.map(str::to_owned).collect()
}

fn chosen(value: &str) -> Value {
    json!({ "type": "static_select", "selected_option": { "value": value } })
}

async fn submit(product: &Product, user: &str, view: &Value, values: Value) -> Value {
    let body = json!({ "user": user, "view_id": view["id"], "values": values });
    product.people.act("submit", body).await["ack"].clone()
}

fn block<'a>(view: &'a Value, id: &str) -> Option<&'a Value> {
    view["blocks"].as_array()?.iter().find(|block| block["block_id"] == id)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_alone_opens_a_form_that_offers_what_may_be_seen_and_starts_a_run() {
    let product = Product::start().await;
    product.people.command("linus", "incidents", "").await;
    let foreign = form(&product, "linus", |_| true).await;
    assert_eq!(offered(&product, "linus", &foreign, "led").await, Vec::<String>::new());

    product.people.command("ada", "incidents", "").await;
    let view = form(&product, "ada", |_| true).await;
    assert_eq!(
        offered(&product, "ada", &view, "Led").await,
        ["shop/deployment/ledger".to_owned(), format!("shop/pod/{LEDGER}")]
    );
    assert_eq!(
        offered(&product, "ada", &view, "nowhere/led").await,
        Vec::<String>::new()
    );

    // Choosing a diagnostic brings its parameters; theirs are checked at their fields.
    let choice = json!({ "user": "ada", "view_id": view["id"], "action_id": "diagnostic", "selected": "heap-dump" });
    product.people.act("click", choice).await;
    let view = form(&product, "ada", |view| block(view, "parameter.objects").is_some()).await;
    assert!(view.to_string().contains("heavy: stands still"), "{view}");
    let wrong = json!({
        "diagnostic": { "diagnostic": chosen("heap-dump") },
        "container": { "container": { "type": "plain_text_input", "value": "$(reboot)" } },
        "parameter.objects": { "parameter.objects": chosen("everything") },
    });
    let answer = submit(&product, "ada", &view, wrong).await;
    assert_eq!(answer["response_action"], "errors", "{answer}");
    for field in ["target", "container", "parameter.objects"] {
        assert!(answer["errors"][field].is_string(), "{field}: {answer}");
    }
    assert_eq!(product.recorded().await, 0);

    let right = json!({
        "target": { "target": { "type": "external_select", "selected_option": { "value": "shop/deployment/ledger" } } },
        "diagnostic": { "diagnostic": chosen("process") },
    });
    let answer = submit(&product, "ada", &view, right).await;
    assert!(answer.is_null(), "{answer}");
    let messages = product.people.reads("incidents", "State: *done*").await;
    assert!(
        messages
            .iter()
            .any(|m| m.text.contains("*process* of") && m.text.contains(LEDGER))
    );
    assert_eq!(product.recorded().await, 1);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_of_another_bot_is_diagnosed_from_its_menu_and_answered_in_its_thread() {
    let product = Product::start().await;
    let alert = json!({ "user": "grace", "channel": "incidents",
        "text": "[FIRING:1] KubePodNotReady: pod `shop/ledger-6c7d5b9f4-q8w2k` (and secret-plans-0) is not ready" });
    let alert = product.people.act("message", alert).await["ts"]
        .as_str()
        .unwrap()
        .to_owned();
    let menu = json!({ "user": "ada", "channel": "incidents", "ts": alert, "callback_id": "diag_from_message" });
    product.people.act("shortcut", menu).await;
    let view = form(&product, "ada", |view| block(view, "found").is_some()).await;
    let found = &block(&view, "found").unwrap()["element"]["options"];
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    let answers = json!({
        "found": { "found": chosen(found[0]["value"].as_str().unwrap()) },
        "diagnostic": { "diagnostic": chosen("process") },
    });
    let answer = submit(&product, "ada", &view, answers).await;
    assert!(answer.is_null(), "{answer}");
    product.ended_in_thread(&alert, "State: *done*").await;
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_chosen_before_its_pod_went_or_its_run_was_forgotten_is_over_and_nothing_else_is_taken() {
    let product = Product::start().await;
    let earlier = product.runs("process ledger").await;
    assert_eq!(product.ephemeral(LEDGER).await.len(), 1);

    // A form that stood open while the pod died.
    product.people.command("ada", "incidents", "").await;
    let view = form(&product, "ada", |_| true).await;
    let pod = format!("shop/pod/{LEDGER}");
    assert_eq!(
        offered(&product, "ada", &view, LEDGER).await,
        std::slice::from_ref(&pod)
    );
    product.operate(LEDGER, "delete").await;
    product.gone(LEDGER).await;
    let answers = json!({
        "target": { "target": { "type": "external_select", "selected_option": { "value": pod } } },
        "diagnostic": { "diagnostic": chosen("process") },
    });
    let answer = submit(&product, "ada", &view, answers).await;
    assert!(answer.is_null(), "{answer}");
    let refused = product.people.reads("incidents", "State: *refused*").await;
    let refused: Vec<_> = refused.iter().filter(|m| m.text.contains("State: *refused*")).collect();
    assert_eq!(refused.len(), 1, "{refused:#?}");
    assert!(
        refused[0].text.contains(&format!("pod/{LEDGER}` was found")),
        "{}",
        refused[0].text
    );
    assert!(refused[0].text.contains("What to do:"), "{}", refused[0].text);

    // A button of last year: the message stands, its run is forgotten.
    let name = earlier.run.metadata.name.as_deref().unwrap();
    product
        .installation
        .runs()
        .delete(name, &DeleteParams::default())
        .await
        .unwrap();
    let recorded = product.recorded().await;
    for button in ["Run again", "Send me a link"] {
        product.people.click("ada", "incidents", &earlier.root.ts, button).await;
    }
    let over = "That button is over";
    wait::until(Duration::from_secs(20), "both clicks are answered", async || {
        let all = product.messages("incidents").await;
        let count = all.iter().filter(|m| m.ephemeral && m.text.contains(over)).count();
        Ok((count == 2).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(product.recorded().await, recorded, "nothing is recorded");
    let pods = product.pods().list(&ListParams::default()).await.unwrap().items;
    assert!(!pods.is_empty());
    for pod in pods {
        let started = pod.spec.unwrap().ephemeral_containers.unwrap_or_default();
        assert!(started.is_empty(), "nothing is started: {started:?}");
    }
    product.stop().await;
}

//! Secrets and addresses that were in play in a full story are nowhere but where they belong.

use std::{collections::BTreeMap, fs};

use diagbot::{captures::resource::DiagnosticCapture, runs::resource::Phase};
use diagbot_sandbox::{installation::Plan, people::fetch};
use diagbot_wire::control;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Event, Pod},
};
use kube::{
    Api,
    api::{ListParams, LogParams},
};
use serde_json::json;

use crate::product::{BILLING, LEDGER, Product, files};

/// A value of a target's Secret, in its environment.
const TARGETS_SECRET: &str = "correct-horse-battery";

/// Words that only an address that is a secret has.
const ADDRESSES: [&str; 4] = ["X-Amz-Signature", "X-Amz-Credential", "/response/", "ticket_id"];

#[tokio::test(flavor = "multi_thread")]
async fn every_secret_and_address_in_play_is_nowhere_but_where_it_belongs() {
    let plan = Plan {
        log: "debug",
        config: json!({ "agent": { "redaction": { "rules": [
            { "name": "currency", "pattern": "unknown currency .(?P<secret>[A-Z]+)" },
        ] } } }),
        ..Plan::default()
    };
    let product = Product::with(plan).await;
    product.pod_waits(BILLING, "CrashLoopBackOff").await;
    let told = product.runs("process ledger").await;
    told.downloads().await;
    let report = product.runs("pod-report billing").await.downloads().await;
    assert!(
        report.contains("[redacted:currency]") && !report.contains("EURO"),
        "{report}"
    );
    product.runs("pod-report ledger").await;
    product
        .people
        .click("ada", "incidents", &told.root.ts, "Send me a link")
        .await;
    product.people.reads("incidents", "for you:").await;
    let refused = product.runs("process billing").await;
    assert_ne!(refused.run.status.as_ref().unwrap().phase, Phase::Succeeded);
    product.types("process").await;

    let secrets = secrets(&product).await;
    let places = places(&product).await;
    for wanted in [
        "bot-0.log",
        "bot-0.record",
        "pods",
        "journals",
        "captures",
        "slack",
        "store",
        "metrics",
    ] {
        assert!(
            places.get(wanted).is_some_and(|text| !text.is_empty()),
            "nothing was found at {wanted}"
        );
    }
    let mut found = Vec::new();
    for (place, text) in &places {
        for (name, secret) in &secrets {
            if text.contains(secret) && !belongs(name, place) {
                found.push(format!("{name} in {place}: {}", around(text, secret)));
            }
        }
        for word in ADDRESSES {
            if text.contains(word) && !belongs(word, place) {
                found.push(format!("{word} in {place}: {}", around(text, word)));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    // The search finds what is there: links are told in Slack, and the target's Secret stands in its own pod.
    assert!(places["slack"].contains("X-Amz-Signature") && places["pods"].contains(TARGETS_SECRET));
    product.stop().await;
}

/// Links are told to people; a pod's own environment is its owners'.
fn belongs(what: &str, place: &str) -> bool {
    match place {
        "slack" => what.starts_with("X-Amz-"),
        "pods" => what == "the target's Secret",
        _ => false,
    }
}

fn around<'a>(text: &'a str, word: &str) -> &'a str {
    let at = text.find(word).unwrap_or_default();
    let begin = text.floor_char_boundary(at.saturating_sub(120));
    &text[begin..text.floor_char_boundary(at + word.len() + 40)]
}

/// Every secret by its name: tokens, keys, and what is made from them.
async fn secrets(product: &Product) -> Vec<(String, String)> {
    let read = |name: &str| fs::read_to_string(product.installation.file(name)).unwrap();
    let mut all: Vec<(String, String)> = ["app-token", "bot-token", "secret", "secret-key"]
        .map(|name| (name.to_owned(), read(name)))
        .into();
    all.push(("the target's Secret".to_owned(), TARGETS_SECRET.to_owned()));
    for who in ["bot", "admin"] {
        let kubeconfig = read(&format!("{who}.kubeconfig"));
        let token = kubeconfig
            .split("token: ")
            .nth(1)
            .and_then(|rest| rest.lines().next())
            .unwrap();
        all.push((format!("token of {who}"), token.trim().to_owned()));
    }
    let secret = read("secret");
    for capture in captures(product).await {
        let uid = capture.metadata.uid.unwrap();
        let attempts = 1..=capture.status.map_or(1, |status| status.attempt.max(1));
        for attempt in attempts {
            let nonce = control::nonce(secret.as_bytes(), &uid, attempt);
            all.push((format!("nonce {attempt} of {uid}"), hex::encode(nonce)));
            let key = control::journal_key(secret.as_bytes(), &uid, attempt);
            all.push((format!("journal key {attempt} of {uid}"), hex::encode(key)));
        }
    }
    assert!(
        all.iter().all(|(name, secret)| secret.len() > 12 || name.is_empty()),
        "{all:?}"
    );
    all
}

async fn captures(product: &Product) -> Vec<DiagnosticCapture> {
    let client = product.installation.runs().into_client();
    let api: Api<DiagnosticCapture> = Api::namespaced(client, "diagbot");
    api.list(&ListParams::default()).await.unwrap().items
}

/// Everything that anybody but the holder of a secret may read, by place.
async fn places(product: &Product) -> BTreeMap<String, String> {
    let installation = &product.installation;
    let client = installation.runs().into_client();
    let mut places: BTreeMap<String, String> = installation.logs().unwrap().into_iter().collect();
    let pods: Vec<Pod> = Api::all(client.clone())
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    places.insert("pods".to_owned(), json!(pods).to_string());
    let events: Vec<Event> = Api::all(client.clone())
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    let looked_at = events
        .iter()
        .filter(|event| event.reason.as_deref() == Some("DiagnosticSucceeded"));
    assert!(
        looked_at.count() >= 3,
        "each capture is an Event on its pod: {events:#?}"
    );
    places.insert("events".to_owned(), json!(events).to_string());
    let leases: Vec<Lease> = Api::all(client.clone())
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    places.insert("leases".to_owned(), json!(leases).to_string());
    let runs = installation.runs().list(&ListParams::default()).await.unwrap().items;
    places.insert("runs".to_owned(), json!(runs).to_string());
    places.insert("captures".to_owned(), json!(captures(product).await).to_string());
    places.insert("journals".to_owned(), journals(product).await);
    let mut slack = String::new();
    for channel in ["incidents"] {
        slack += &product.people.see(&format!("channels/{channel}")).await.to_string();
    }
    places.insert("slack".to_owned(), slack);
    let bot = &installation.addresses().bots[0];
    for path in ["metrics", "readyz", "healthz", "nothing"] {
        let (_, body) = fetch(&format!("{bot}/{path}")).await.unwrap();
        places.insert(path.to_owned(), String::from_utf8_lossy(&body).into_owned());
    }
    // Names, tags and headers of every object, and the objects themselves.
    let mut store = String::new();
    for file in files(&installation.store_folder()) {
        store += &file.to_string_lossy();
        store += &String::from_utf8_lossy(&fs::read(&file).unwrap_or_default());
    }
    places.insert("store".to_owned(), store);
    places
}

/// What our containers have written into their logs.
async fn journals(product: &Product) -> String {
    let mut all = String::new();
    for container in product.ephemeral(LEDGER).await {
        let params = LogParams {
            container: Some(container),
            ..LogParams::default()
        };
        all += &product.pods().logs(LEDGER, &params).await.unwrap();
    }
    all
}

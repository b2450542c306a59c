//! Evidence: from a command to a verified file behind a link.

use std::fs;

use diagbot_api::{condition::COMPLETE, run::Phase};
use diagbot_sandbox::{installation::Plan, people::fetch};
use diagbot_wire::{control::journal_key, redaction::original_digest};
use http::StatusCode;

use crate::product::{BILLING, LEDGER, Product, Told, json_of, link_in, open};

/// What only the bot's Secret makes of a text in which redaction found nothing, so that the artifact is the text.
fn keyed_digest(product: &Product, told: &Told) -> String {
    let capture = &told.run.status.as_ref().unwrap().captures[0];
    let removed = capture.artifacts[0].redaction.as_ref().map(|redaction| redaction.count);
    assert_eq!(removed, Some(0), "nothing is removed");
    let secret = fs::read(product.installation.file("secret")).unwrap();
    let key = journal_key(&secret, capture.uid.as_ref().unwrap(), 1);
    original_digest(&key, &capture.artifacts[0].sha256)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_becomes_a_verified_file_behind_a_link_and_its_record_lies_beside_it() {
    let product = Product::start().await;
    let told = product.runs("process ledger").await;
    told.says(&[
        "*process* of `shop/ledger-6c7d5b9f4-q8w2k`",
        "State: *done*",
        "Asked by @ada",
        "== Process ==",
    ]);
    let status = told.run.status.as_ref().unwrap();
    assert!(
        status
            .conditions
            .iter()
            .any(|c| c.type_ == COMPLETE && c.status == "True"),
        "{:?}",
        status.conditions
    );
    let report = told.downloads().await;
    assert!(report.contains("ledger-writer"), "the threads are listed: {report}");

    let artifact = told.run.status.as_ref().unwrap().captures[0].artifacts[0].clone();
    let beside = |name: &str| artifact.key.replace("process.txt", name);
    let mut wanted = vec![beside("manifest.json"), artifact.key.clone(), beside("result.json")];
    wanted.sort();
    assert_eq!(product.objects(), wanted);
    assert!(product.open_uploads().is_empty(), "{:?}", product.open_uploads());
    let manifest = json_of(&product.object(&beside("manifest.json")));
    assert_eq!(manifest["requester"], "slack:T0DIAG0001:U0ADA00001");
    assert_eq!(manifest["target"]["pod"], LEDGER);
    assert_eq!(manifest["artifacts"][0]["sha256"], artifact.sha256.as_str());
    assert_eq!(manifest["artifacts"][0]["proof"], "store-checked");
    let redaction = &manifest["artifacts"][0]["redaction"];
    assert_eq!(
        redaction["originalDigest"],
        keyed_digest(&product, &told),
        "{redaction}"
    );
    assert_ne!(
        redaction["originalDigest"],
        artifact.sha256.as_str(),
        "guesses could be tried"
    );
    assert_eq!(manifest["container"]["securityContext"]["runAsUser"], 1000);
    let result = json_of(&product.object(&beside("result.json")));
    let body = json_of(result["body"].as_str().unwrap().as_bytes());
    assert_eq!(body["steps"][0]["artifact"]["sha256"], artifact.sha256.as_str());

    let link = link_in(told.text()).unwrap();
    let (key, signature) = link.rsplit_once('=').unwrap();
    let forged: String = signature.chars().map(|c| if c == '0' { '1' } else { '0' }).collect();
    let (status, body) = fetch(&format!("{key}={forged}")).await.unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN, "{}", String::from_utf8_lossy(&body));

    let sockets = product.runs("sockets deployment/ledger").await;
    let report = sockets.downloads().await;
    assert!(report.contains("LISTEN"), "{report}");
    assert_eq!(product.public().await.len(), 2, "one message a run");
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_crashes_is_reported_with_its_last_words_and_no_secret_value() {
    let product = Product::start().await;
    product.pod_waits(BILLING, "CrashLoopBackOff").await;
    let refused = product.runs("process billing").await;
    refused.explains("nothing can be started beside it");
    refused.says(&["pod-report shop/billing-5f6b8c7d9-m4n7p", "TargetNotRunning"]);

    let report = product.runs("pod-report billing").await.downloads().await;
    for wanted in ["unknown currency \"EURO\"", "CrashLoopBackOff", BILLING] {
        assert!(report.contains(wanted), "{wanted}: {report}");
    }
    assert_eq!(product.ephemeral(BILLING).await.len(), 0);

    let report = product.runs("pod-report ledger").await.downloads().await;
    assert!(report.contains("LEDGER_PASSWORD"), "{report}");
    for key in product.objects() {
        let text = String::from_utf8(product.object(&key)).unwrap();
        assert!(!text.contains("correct-horse-battery"), "{key} holds a secret value");
    }
    let channel = product.people.see("channels/incidents").await.to_string();
    assert!(!channel.contains("correct-horse-battery"));
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_what_would_happen_and_starts_nothing() {
    let product = Product::start().await;
    let told = product.runs("process ledger \u{2014}dry-run").await;
    told.says(&[
        "nothing was started",
        "Would run: process beside container ledger of shop/ledger-6c7d5b9f4-q8w2k",
        "Permission: allowed",
    ]);
    assert_eq!(product.objects(), Vec::<String>::new());
    assert!(product.ephemeral(LEDGER).await.is_empty());
    let told = product.runs("heap-dump ledger --dry-run").await;
    told.says(&["nothing was started", "Impact: stops the target for long"]);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a JDK"]
async fn a_thread_dump_of_a_real_jvm_shows_its_deadlock() {
    let product = Product::with_jvm(Plan::default()).await;
    product.pod_runs("checkout-7d9f8b6c5-x2x4z").await;
    let told = product.runs("jstack checkout").await;
    let dump = told.downloads().await;
    for wanted in ["Full thread dump", "Found one Java-level deadlock"] {
        assert!(dump.contains(wanted), "{wanted}: {dump}");
    }
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a JDK"]
async fn a_heap_dump_is_linked_to_its_reader_alone() {
    let product = Product::with_jvm(Plan::default()).await;
    product.pod_runs("checkout-7d9f8b6c5-x2x4z").await;
    let told = product.runs("heap-dump checkout").await;
    assert_eq!(
        told.run.status.as_ref().unwrap().phase,
        Phase::Succeeded,
        "{}",
        told.text()
    );
    told.says(&["*Sensitive:*", "Send me a link"]);
    assert_eq!(link_in(told.text()), None, "no link where everybody reads");
    assert!(!told.text().contains("```"), "no preview: {}", told.text());

    // Linus may nothing here. (Grace, who agrees to what others ask for, may read it.)
    product
        .people
        .click("linus", "incidents", &told.root.ts, "Send me a link")
        .await;
    product
        .people
        .reads("incidents", "You may not `read` the diagnostic `heap-dump`")
        .await;
    product
        .people
        .click("ada", "incidents", &told.root.ts, "Send me a link")
        .await;
    let messages = product.people.reads("incidents", "for you:").await;
    let private: Vec<_> = messages.iter().filter(|m| link_in(&m.text).is_some()).collect();
    assert!(private.len() == 1 && private[0].ephemeral, "{private:#?}");
    let dump = open(&link_in(&private[0].text).unwrap()).await;
    let artifact = &told.run.status.as_ref().unwrap().captures[0].artifacts[0];
    assert_eq!(dump.len() as u64, artifact.size_bytes);
    product.stop().await;
}

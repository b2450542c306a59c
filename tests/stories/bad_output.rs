//! Tools that fail, hang, print bytes or print too much; links whose time is over; a catalog that is wrong.

use std::{
    fs,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use diagbot_api::run::Phase;
use diagbot_artifacts::Store;
use diagbot_base::clock::Clock;
use diagbot_sandbox::{installation::Plan, people::fetch, wait};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::process::Command;

use crate::{
    product::{LEDGER, Product, Told, link_in, open},
    tools::{processes, seconds_of_our_own, tool},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_misbehaves_is_told_in_one_message_and_its_output_is_never_taken_for_whole() {
    let seconds = seconds_of_our_own("86010");
    let mut plan = Plan {
        diagnostics: vec![
            tool("endless", &["yes", "again"], "20s", "64KiB"),
            tool(
                "hangs",
                &["timeout", "--foreground", "86010", "sleep", &seconds],
                "2s",
                "1MiB",
            ),
            tool("fails", &["ls", "-d", "/", "/no/such/folder"], "20s", "1MiB"),
            tool("absent", &["/no/such/tool"], "20s", "1MiB"),
            tool("binary", &["head", "-c", "4000", "/proc/self/exe"], "20s", "1MiB"),
            tool("silent", &["true"], "20s", "1MiB"),
        ],
        ..Plan::default()
    };
    plan.slack.rate_limited = false;
    let product = Product::with(plan).await;

    let endless = product.runs("endless ledger").await;
    assert_eq!(endless.run.phase(), Phase::Succeeded, "{}", endless.text());
    endless.says(&["*Not whole:* the output exceeded its limit", "64.0 KiB"]);
    assert_eq!(endless.downloads().await.len(), 64 << 10);
    let artifact = &endless.run.status.as_ref().unwrap().captures[0].artifacts[0];
    assert!(artifact.truncated);

    for (name, cause) in [
        ("hangs", "the tool was stopped after 2 s"),
        ("fails", "/no/such/folder"),
        ("absent", "the tool is not in the agent's image"),
    ] {
        let told = product.runs(&format!("{name} ledger")).await;
        assert_eq!(told.run.phase(), Phase::Failed, "{name}: {}", told.text());
        told.explains(cause);
        if let Some(part) = told.run.status.as_ref().unwrap().captures[0].artifacts.first() {
            assert!(part.truncated, "{name}: half of an output is no whole one");
            told.says(&["*Not whole:* its tool failed or was stopped"]);
        }
    }
    assert_eq!(processes(&format!("sleep {seconds}")), Vec::<u32>::new());

    let binary = product.runs("binary ledger").await;
    assert_eq!(binary.run.phase(), Phase::Succeeded, "{}", binary.text());
    let bytes = open(&link_in(binary.text()).unwrap()).await;
    assert!(bytes.starts_with(b"\x7fELF") && bytes.len() == 4000);
    assert!(
        !binary.text().contains("ELF") && !binary.text().contains('\u{fffd}'),
        "{}",
        binary.text()
    );

    let silent = product.runs("silent ledger").await;
    assert_eq!(silent.run.phase(), Phase::Succeeded, "{}", silent.text());
    assert_eq!(silent.downloads().await, "");
    assert_eq!(product.public().await.len(), 6, "one message each");
    assert_eq!(product.ephemeral(LEDGER).await.len(), 6);
    assert!(product.open_uploads().is_empty(), "{:?}", product.open_uploads());
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_time_is_over_says_so_and_another_is_sent() {
    let plan = Plan {
        config: json!({ "store": { "links": { "normal": "1m", "sensitive": "1m" } } }),
        ..Plan::default()
    };
    let product = Product::with(plan).await;
    let told = product.runs("process ledger").await;
    let link = link_in(told.text()).unwrap();
    open(&link).await;
    // The clock is compressed where links are signed: this one was signed an hour ago, for a minute.
    let (status, body) = fetch(&earlier(&product, &told).await).await.unwrap();
    let text = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
    assert!(
        text.contains("<Code>AccessDenied</Code>") && text.contains("expired"),
        "{text}"
    );
    let longer = link.replace("X-Amz-Expires=", "X-Amz-Expires=1");
    assert_ne!(longer, link);
    let key = link.replace("process.txt", "manifest.json");
    for tampered in [longer, key] {
        let (status, body) = fetch(&tampered).await.unwrap();
        let text = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
        assert!(text.contains("SignatureDoesNotMatch"), "{text}");
    }
    product
        .people
        .click("ada", "incidents", &told.root.ts, "Send me a link")
        .await;
    let messages = product.people.reads("incidents", "for you:").await;
    let renewed = messages
        .iter()
        .find_map(|m| m.text.contains("for you:").then(|| link_in(&m.text))?);
    assert!(open(&renewed.unwrap()).await.starts_with(b"== Process =="));
    product.stop().await;
}

/// A link to the run's artifact as the bot signed it an hour ago.
async fn earlier(product: &Product, told: &Told) -> String {
    let file = |name: &str| product.installation.bot_config(0).with_file_name(name);
    let config = json!({
        "bucket": "evidence", "region": "us-east-1", "endpoint": product.installation.addresses().store,
        "accessKeyFile": file("access-key"), "secretKeyFile": file("secret-key"),
        "links": { "normal": "1m", "sensitive": "1m" },
    });
    let then = Clock::Test(Arc::new(Mutex::new(Timestamp::now() - SignedDuration::from_hours(1))));
    let store = Store::connect(&serde_json::from_value(config).unwrap(), then)
        .await
        .unwrap();
    let artifact = told.run.status.as_ref().unwrap().captures[0].artifacts[0].clone();
    let key = artifact.key.try_into().unwrap();
    let link = store
        .link(&key, artifact.version.as_deref(), &artifact.name, false)
        .await
        .unwrap();
    link.into_exposed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_catalog_is_refused_with_every_fault_at_once_by_check_and_at_the_start() {
    let product = Product::start().await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let (name, good) = tool("good", &["true"], "20s", "1MiB");
    write(&name, &good);
    write(
        "twin.yaml",
        &good.replace("name: good\n", "name: twin\naliases: [good]\n"),
    );
    write(
        "shell.yaml",
        &good
            .replace("name: good\n", "name: shell\n")
            .replace("[\"true\"]", "[sh, -c, id]"),
    );
    write("broken.yaml", "name: broken\nsummary: [\n");
    write("typo.yaml", &good.replace("name: good\n", "name: typo\nargs: []\n"));
    let config = fs::read_to_string(product.installation.bot_config(0)).unwrap();
    let commands = product.installation.bot_config(0).with_file_name("commands");
    let config = config.replace(commands.to_str().unwrap(), folder.path().to_str().unwrap());
    let path = folder.path().join("bot.conf");
    fs::write(&path, config).unwrap();
    for command in ["check", "serve"] {
        let output = Command::new(env!("CARGO_BIN_EXE_sandbox-under-test"))
            .args(["bot", command, "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(30), output)
            .await
            .unwrap()
            .unwrap();
        assert!(!output.status.success(), "{command} goes on");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        for wanted in [
            ("twin.yaml", "names must be unique"),
            ("shell.yaml", "shell"),
            ("broken.yaml", ""),
            ("typo.yaml", "args"),
        ] {
            let (file, rule) = wanted;
            let told = said.lines().any(|line| line.contains(file) && line.contains(rule));
            assert!(told, "{command}: {wanted:?} in {said}");
        }
    }
    // Nobody of the running installation noticed.
    wait::until(Duration::from_secs(5), "the bot goes on", || async {
        Ok(product.types("list").await.contains("jstack").then_some(()))
    })
    .await
    .unwrap();
    product.stop().await;
}

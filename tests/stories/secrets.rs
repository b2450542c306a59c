//! Secrets and addresses that were in play in a full story are nowhere but where they belong.

use std::{collections::BTreeMap, fs};

use diagbot_api::{capture::DiagnosticCapture, run::Phase, schedule::DiagnosticSchedule};
use diagbot_sandbox::{
    installation::Plan,
    pagerduty::TOKEN,
    people::fetch,
    triggers::{ALERTMANAGER_TOKEN, PAGERDUTY_SECRETS},
    wait,
};
use diagbot_wire::control;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Event, Namespace, Pod},
};
use kube::{
    Api,
    api::{ListParams, LogParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::process::Command;

use crate::{
    product::{BILLING, LEDGER, LONGEST, Product, Told, files, link_in, open, run_in},
    schedules,
    tools::tool,
    triggers,
};

/// A value of a target's Secret, in its environment.
const TARGETS_SECRET: &str = "correct-horse-battery";

/// What only the JVM of `checkout` knows: a text on its heap.
const HEAPS_SECRET: &str = "card-key-of-checkout-5f41c02e9d";

/// The JVM's pod.
const CHECKOUT: &str = "checkout-7d9f8b6c5-x2x4z";

/// Name of the links to the sensitive artifact.
const PRIVATE_LINK: &str = "a link to what is sensitive";

/// Words that only an address that is a secret has.
const ADDRESSES: [&str; 4] = ["X-Amz-Signature", "X-Amz-Credential", "/response/", "ticket_id"];

/// What only somebody else could have asked for: a delivery with this token is refused.
const GUESSED_TOKEN: &str = "guessed-token-of-somebody";

#[tokio::test(flavor = "multi_thread")]
async fn every_secret_and_address_in_play_is_nowhere_but_where_it_belongs() {
    let (file, text) = tool("vault", &["/bin/echo", "what the vault holds"], "1m", "1MiB");
    let mut plan = Plan {
        log: "debug",
        config: json!({ "agent": { "redaction": { "rules": [
            { "name": "currency", "pattern": "unknown currency .(?P<secret>[A-Z]+)" },
        ] } } }),
        diagnostics: vec![(file, text.replace("sensitivity: normal", "sensitivity: sensitive"))],
        ..Plan::default()
    };
    plan.slack.rate_limited = false;
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
    let refused = product.runs("process billing").await;
    assert_ne!(refused.run.status.as_ref().unwrap().phase, Phase::Succeeded);
    product.types("process").await;
    let answer = product.people.command("ada", "war-room", "process ledger").await;
    product.ended_in(&run_in(&answer).unwrap(), "war-room").await;
    product.people.reads("@ada", "Download").await;

    let sensitive = sensitive_links(&product).await;
    let answers = alerts(&product).await;
    scheduled(&product).await;

    let mut secrets = secrets(&product).await;
    secrets.extend(sensitive.into_iter().map(|link| (PRIVATE_LINK.to_owned(), link)));
    let mut places = places(&product).await;
    places.insert("answers to webhooks".to_owned(), answers);
    for wanted in [
        "bot-0.log",
        "bot-0.record",
        "store.log",
        "pods",
        "events",
        "leases",
        "runs",
        "schedules",
        "journals",
        "captures",
        "slack, for everybody",
        "slack, for one person",
        "notes of PagerDuty",
        "answers to webhooks",
        "processes",
        "configuration",
        "store",
        "metrics",
    ] {
        assert!(
            places.get(wanted).is_some_and(|text| !text.is_empty()),
            "nothing was found at {wanted}: {:?}",
            places.keys()
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
    let one = &places["slack, for one person"];
    let private: Vec<&String> = secrets
        .iter()
        .filter(|(name, _)| name == PRIVATE_LINK)
        .map(|(_, s)| s)
        .collect();
    assert!(
        private.len() == 2 && private.iter().all(|link| one.contains(*link)),
        "{one}"
    );
    assert!(places["slack, for everybody"].contains("X-Amz-Signature") && places["pods"].contains(TARGETS_SECRET));
    assert!(places["notes of PagerDuty"].contains("X-Amz-Signature"));
    product.stop().await;
}

/// A sensitive run that a second person agrees to.
async fn approved(product: &Product, diagnostic: &str, target: &str) -> Told {
    let namespaces: Api<Namespace> = Api::all(product.installation.runs().into_client());
    let demand = Patch::Merge(json!({ "metadata": { "annotations": { "diagbot.dev/approval": diagnostic } } }));
    namespaces
        .patch("shop", &PatchParams::default(), &demand)
        .await
        .unwrap();
    let id = product.asks(&format!("{diagnostic} {target}")).await;
    let messages = product.people.reads("incidents", "It takes a second person").await;
    let asked = messages
        .iter()
        .rfind(|m| m.by_bot && m.text.contains(&format!("run `{id}`")))
        .unwrap();
    product.people.click("grace", "incidents", &asked.ts, "Approve").await;
    let told = product.ended(&id).await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    told.says(&["*Sensitive:*", "*Approved* by @grace"]);
    told
}

/// The links to a file that ada has had sent once more, which is the `count`th time.
async fn sent_links(product: &Product, told: &Told, file: &str, count: usize) -> Vec<String> {
    let links = async || -> Vec<String> {
        let seen = product.messages("incidents").await;
        let sent = seen.iter().filter(|m| m.ephemeral && m.text.contains(file));
        sent.filter_map(|m| link_in(&m.text)).collect()
    };
    product
        .people
        .click("ada", "incidents", &told.root.ts, "Send me a link")
        .await;
    wait::until(LONGEST, "the link is sent", || async {
        Ok(Some(links().await).filter(|links| links.len() == count))
    })
    .await
    .unwrap()
}

/// A sensitive run that takes two people, and its link asked for twice: signatures of both links, which only one person gets.
async fn sensitive_links(product: &Product) -> Vec<String> {
    let told = approved(product, "vault", "ledger").await;
    sent_links(product, &told, "vault.txt", 1).await;
    let links = sent_links(product, &told, "vault.txt", 2).await;
    assert_eq!(open(&links[1]).await, "what the vault holds\n");
    let signature = |link: &String| link.split("X-Amz-Signature=").nth(1).unwrap()[..64].to_owned();
    links.iter().map(signature).collect()
}

/// Evidence that two sources of alerts bring about, and deliveries that prove nothing; what was answered.
async fn alerts(product: &Product) -> String {
    let before = product.recorded().await;
    let (_, firing) = triggers::alertmanager(product, &triggers::slow_ledger()).await;
    let (_, incident) = triggers::pagerduty(product, &triggers::incident("01EVENT", "PGR0VU2")).await;
    let guessed = format!("Bearer {GUESSED_TOKEN}");
    let proof = ("authorization", guessed.as_str());
    let (status, refused) = triggers::deliver(product, "alertmanager", proof, "{}").await;
    assert_eq!(status, http::StatusCode::UNAUTHORIZED, "{refused}");
    triggers::told(product, before + 2).await;
    let desk = product.installation.pagerduty();
    wait::until(LONGEST, "the incident has its note", || async {
        Ok((!desk.notes().is_empty()).then_some(()))
    })
    .await
    .unwrap();
    format!("{firing} {incident} {refused}")
}

/// What a schedule brings about.
async fn scheduled(product: &Product) {
    schedules::saved(product, "schedule add often \"* * * * *\" process shop/ledger").await;
    schedules::were_due(product, 1).await;
    product.types("schedule pause often").await;
}

/// Links are told to people, that of a sensitive artifact to one of them; a pod's own environment is its owners'.
fn belongs(what: &str, place: &str) -> bool {
    match place {
        "slack, for one person" => what.starts_with("X-Amz-") || what == PRIVATE_LINK,
        "slack, for everybody" | "notes of PagerDuty" => what.starts_with("X-Amz-"),
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
    let known = [
        ("the target's Secret", TARGETS_SECRET),
        ("Alertmanager's token", ALERTMANAGER_TOKEN),
        ("a secret of PagerDuty", PAGERDUTY_SECRETS[0]),
        ("the other secret of PagerDuty", PAGERDUTY_SECRETS[1]),
        ("the key of PagerDuty's API", TOKEN),
        ("a token that was guessed", GUESSED_TOKEN),
    ];
    all.extend(known.map(|(name, secret)| (name.to_owned(), secret.to_owned())));
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
    let schedules: Api<DiagnosticSchedule> = Api::namespaced(client.clone(), "diagbot");
    let schedules = schedules.list(&ListParams::default()).await.unwrap().items;
    places.insert("schedules".to_owned(), json!(schedules).to_string());
    places.insert("journals".to_owned(), journals(product).await);
    let (mut everybody, mut one) = (String::new(), String::new());
    for channel in ["incidents", "war-room", "@ada", "@grace"] {
        let seen = product.people.see(&format!("channels/{channel}")).await;
        for message in seen["messages"].as_array().unwrap() {
            let private = channel.starts_with('@') || message["ephemeral_to"].is_string();
            *(if private { &mut one } else { &mut everybody }) += &message.to_string();
        }
    }
    places.insert("slack, for everybody".to_owned(), everybody);
    places.insert("slack, for one person".to_owned(), one);
    let notes = installation.pagerduty().notes();
    places.insert("notes of PagerDuty".to_owned(), json!(notes).to_string());
    // What everybody on the machine sees of the bot, and what stands beside the files of its secrets.
    let mut processes = String::new();
    for pid in installation.bot_pids() {
        for part in ["cmdline", "environ"] {
            processes += &String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{part}")).unwrap());
        }
    }
    places.insert("processes".to_owned(), processes);
    let configuration = ["bot-0.yaml", "store.yaml"].map(|name| fs::read_to_string(installation.file(name)).unwrap());
    places.insert("configuration".to_owned(), configuration.concat());
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
    for pod in [LEDGER, CHECKOUT] {
        for container in product.ephemeral(pod).await {
            let params = LogParams {
                container: Some(container),
                ..LogParams::default()
            };
            all += &product.pods().logs(pod, &params).await.unwrap();
        }
    }
    all
}

/// A heap dump as it is without the compression that the JVM gave it.
async fn plain(dump: &[u8]) -> Vec<u8> {
    if !dump.starts_with(&[0x1f, 0x8b]) {
        return dump.to_owned();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), dump).unwrap();
    let unpacked = Command::new("gzip").arg("-dc").stdin(file.reopen().unwrap()).output();
    unpacked.await.unwrap().stdout
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a JDK"]
async fn what_stands_on_a_heap_is_in_its_dump_and_nowhere_else() {
    let mut plan = Plan {
        log: "debug",
        ..Plan::default()
    };
    plan.slack.rate_limited = false;
    let product = Product::with_jvm(plan).await;
    product.pod_runs(CHECKOUT).await;
    for text in ["jstack checkout", "process checkout", "process ledger"] {
        product.runs(text).await.downloads().await;
    }
    let told = approved(&product, "heap-dump", "checkout").await;
    let links = sent_links(&product, &told, "heap.hprof", 1).await;
    let dump = open(&links[0]).await;
    let holds = |bytes: &[u8]| {
        bytes
            .windows(HEAPS_SECRET.len())
            .any(|at| at == HEAPS_SECRET.as_bytes())
    };
    assert!(
        holds(&plain(&dump).await),
        "the heap's dump has it: {} bytes",
        dump.len()
    );

    let mut places = places(&product).await;
    // The store has the dump itself, which must be there once; nothing beside it holds the secret.
    places.remove("store");
    let (mut dumps, mut others) = (0, 0);
    for file in files(&product.installation.store_folder()) {
        let stored = fs::read(&file).unwrap_or_default();
        assert!(!file.to_string_lossy().contains(HEAPS_SECRET), "{}", file.display());
        if stored == dump {
            dumps += 1;
        } else {
            others += 1;
            assert!(!holds(&plain(&stored).await), "{}", file.display());
        }
    }
    assert!(dumps == 1 && others > 10, "{dumps} dumps, {others} others");
    let found: Vec<&String> = places
        .iter()
        .filter(|(_, text)| text.contains(HEAPS_SECRET))
        .map(|(place, _)| place)
        .collect();
    assert_eq!(found, [""; 0], "of {:?}", places.keys());
    println!(
        "1 dump holds it, {others} other files and these places do not: {:?}",
        places.keys()
    );
    product.stop().await;
}

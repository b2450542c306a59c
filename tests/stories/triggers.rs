//! Alerts become evidence without anybody typing: deliveries of PagerDuty and Alertmanager as they are documented.

use std::time::Duration;

use bytes::Bytes;
use diagbot_api::run::DiagnosticRun;
use diagbot_sandbox::{
    installation::Plan,
    pagerduty::signature,
    triggers::{ALERTMANAGER_TOKEN, PAGERDUTY_SECRETS, pods_as_a_source},
    wait,
};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::product::{BILLING, LEDGER, Product};

const TRIGGERED: &str = include_str!("../data/pagerduty/incident-triggered.json");
const PING: &str = include_str!("../data/pagerduty/ping.json");
const FIRING: &str = include_str!("../data/alertmanager/firing.json");
/// Longest wait for anything that a trigger brings about.
const LONGEST: Duration = Duration::from_secs(45);

/// Delivers a body; the status and the answer.
pub(crate) async fn deliver(
    product: &Product,
    source: &str,
    proof: (&str, &str),
    body: impl Into<Bytes>,
) -> (StatusCode, Value) {
    let url = format!("{}/webhooks/{source}", product.installation.addresses().webhooks[0]);
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(url)
        .header(proof.0, proof.1)
        .body(Full::new(body.into()))
        .unwrap();
    let answer = client.request(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

pub(crate) async fn alertmanager(product: &Product, body: &Value) -> (StatusCode, Value) {
    let token = format!("Bearer {ALERTMANAGER_TOKEN}");
    deliver(
        product,
        "alertmanager",
        (header::AUTHORIZATION.as_str(), &token),
        body.to_string(),
    )
    .await
}

pub(crate) async fn pagerduty(product: &Product, body: &str) -> (StatusCode, Value) {
    // As PagerDuty does while a secret is exchanged: one signature for each, and one of them we don't have.
    let signed = signature(&["a secret that is gone", PAGERDUTY_SECRETS[1]], body.as_bytes());
    deliver(
        product,
        "pagerduty",
        ("x-pagerduty-signature", &signed),
        body.to_owned(),
    )
    .await
}

fn event(template: &str, event: &str, incident: &str, age: jiff::SignedDuration) -> String {
    let at = jiff::Timestamp::now() - age;
    template
        .replace("OCCURRED_AT", &at.to_string())
        .replace("EVENT", event)
        .replace("INCIDENT", incident)
}

/// An incident of the service `Ledger` that was triggered a second ago.
pub(crate) fn incident(id: &str, incident: &str) -> String {
    event(TRIGGERED, id, incident, jiff::SignedDuration::from_secs(1))
}

/// The alert by which Alertmanager has a process report of `ledger` taken.
pub(crate) fn slow_ledger() -> Value {
    json!({ "version": "4", "alerts": [{ "status": "firing", "fingerprint": "f1", "labels": {
        "alertname": "Slow", "severity": "critical", "namespace": "shop", "service": "ledger",
    } }] })
}

/// The runs once there are that many, and each has ended and was told.
pub(crate) async fn told(product: &Product, count: usize) -> Vec<DiagnosticRun> {
    let runs = &product.installation.runs();
    wait::until(LONGEST, "the runs have ended and were told", || async move {
        let all = runs.list(&ListParams::default()).await?.items;
        let told = |run: &DiagnosticRun| {
            let status = run.status.as_ref();
            status.is_some_and(|s| s.phase.is_final() && s.telling.final_at.is_some())
        };
        Ok((all.len() == count && all.iter().all(told)).then_some(all))
    })
    .await
    .unwrap()
}

fn outcomes(answer: &Value) -> Vec<&str> {
    let alerts = answer["alerts"].as_array().unwrap();
    alerts.iter().map(|alert| alert["outcome"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_evidence_in_the_channel_and_a_storm_of_it_is_one_capture_and_a_count() {
    let product = Product::start().await;
    product.pod_waits(BILLING, "CrashLoopBackOff").await;
    let firing: Value = serde_json::from_str(FIRING).unwrap();
    let (status, answer) = alertmanager(&product, &firing).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(answer["message"], "2 firing, 1 resolved, 2 started");
    let runs = told(&product, 2).await;
    for run in &runs {
        assert_eq!(run.spec.requester.user, "trigger:alertmanager");
        assert_eq!(run.phase().as_str(), "Succeeded", "{:?}", run.status);
        assert_eq!(
            run.status.as_ref().unwrap().decision.as_ref().unwrap().user,
            "trigger:alertmanager"
        );
    }
    let said: Vec<String> = product.public().await.into_iter().map(|m| m.text).collect();
    assert_eq!(said.len(), 2, "{said:#?}");
    for words in [
        &[BILLING, "rule `crashing`: Pod is crash looping"][..],
        &[LEDGER, "rule `slow`: Ledger answers slowly"],
    ] {
        assert!(
            said.iter().any(|text| words.iter().all(|w| text.contains(w))),
            "{words:?}: {said:#?}"
        );
    }

    // The storm: the same alerts a hundred times, as Alertmanager sends them again and again.
    let mut storm = firing.clone();
    storm["alerts"] = json!(vec![firing["alerts"][1].clone(); 50]);
    for _ in 0..2 {
        let (_, answer) = alertmanager(&product, &storm).await;
        assert!(
            outcomes(&answer).iter().all(|outcome| *outcome == "counted"),
            "{answer}"
        );
    }
    assert_eq!(product.recorded().await, 2, "100 alerts more and no capture more");
    wait::until(LONGEST, "the storm is told", || async {
        let all = product.public().await;
        let told = all.iter().any(|m| m.text.contains("100 more alerts of this kind came"));
        Ok(told.then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(
        product.public().await.len(),
        2,
        "it is told in the message that there is"
    );
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_gets_one_note_with_a_link_and_a_replayed_event_starts_nothing() {
    let product = Product::start().await;
    let body = incident("01EVENT", "PGR0VU2");
    // The note is taken, and its answer lost: it must not be written twice.
    product.installation.pagerduty().lose_answers(1);
    let (status, answer) = pagerduty(&product, &body).await;
    assert_eq!(
        (status, outcomes(&answer)),
        (StatusCode::ACCEPTED, vec!["started"]),
        "{answer}"
    );
    for _ in 0..2 {
        let (status, answer) = pagerduty(&product, &body).await;
        assert_eq!(
            (status, outcomes(&answer)),
            (StatusCode::ACCEPTED, vec!["replayed"]),
            "{answer}"
        );
    }
    let runs = told(&product, 1).await;
    let noted = wait::until(LONGEST, "the note is recorded", || async {
        let run = product
            .installation
            .runs()
            .get(runs[0].metadata.name.as_ref().unwrap())
            .await?;
        Ok(run.is_noted().then_some(run))
    })
    .await
    .unwrap();
    assert_eq!(noted.alerts(), 0, "a replay is no other alert");
    let desk = product.installation.pagerduty();
    assert_eq!(desk.faults(), Vec::<String>::new());
    let notes = desk.notes();
    let [(incident, note)] = &notes[..] else {
        panic!("one note: {notes:#?}")
    };
    assert_eq!(incident, "PGR0VU2");
    let id = noted.name().unwrap().short();
    for words in [
        format!("diagbot {id}: process of"),
        format!("shop/{LEDGER}"),
        "http://".to_owned(),
    ] {
        assert!(note.contains(&words), "{words}: {note}");
    }
    let link = note
        .split_whitespace()
        .find(|word| word.starts_with("http://"))
        .unwrap();
    assert!(!crate::product::open(link).await.is_empty());
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_that_prove_nothing_say_nothing_or_name_what_is_not_theirs_start_nothing() {
    let product = Product::start().await;
    let second = jiff::SignedDuration::from_secs(1);
    let good = incident("01EVENT", "PGR0VU2");
    let token = format!("Bearer {ALERTMANAGER_TOKEN}");
    let bearer = (header::AUTHORIZATION.as_str(), token.as_str());
    let forged = signature(&["not a live secret, not at all"], good.as_bytes());
    let other = signature(&PAGERDUTY_SECRETS, b"another body");
    let malformed = signature(&PAGERDUTY_SECRETS, b"{\"event\":");
    let signed = "x-pagerduty-signature";
    let cases: [(&str, (&str, &str), Bytes, StatusCode); 10] = [
        (
            "pagerduty",
            ("x-other", "1"),
            good.clone().into(),
            StatusCode::UNAUTHORIZED,
        ),
        (
            "pagerduty",
            (signed, &forged),
            good.clone().into(),
            StatusCode::UNAUTHORIZED,
        ),
        (
            "pagerduty",
            (signed, &other),
            good.clone().into(),
            StatusCode::UNAUTHORIZED,
        ),
        (
            "pagerduty",
            (signed, "v1=,v1=zz,v2="),
            good.clone().into(),
            StatusCode::UNAUTHORIZED,
        ),
        (
            "pagerduty",
            (signed, &malformed),
            "{\"event\":".into(),
            StatusCode::BAD_REQUEST,
        ),
        (
            "alertmanager",
            ("authorization", "Bearer guessed-token-of-somebody"),
            FIRING.into(),
            StatusCode::UNAUTHORIZED,
        ),
        ("alertmanager", bearer, "[]".into(), StatusCode::BAD_REQUEST),
        (
            "alertmanager",
            bearer,
            "{\"version\":\"3\",\"alerts\":[]}".into(),
            StatusCode::BAD_REQUEST,
        ),
        (
            "alertmanager",
            bearer,
            vec![b' '; 2 << 20].into(),
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
        ("opsgenie", bearer, FIRING.into(), StatusCode::NOT_FOUND),
    ];
    for (source, proof, body, wanted) in cases {
        let (status, answer) = deliver(&product, source, proof, body).await;
        assert_eq!(status, wanted, "{source} {}: {answer}", proof.0);
        assert!(
            answer["message"].as_str().is_some_and(|words| words.len() > 8),
            "{answer}"
        );
    }
    let old = event(TRIGGERED, "01OLD", "POLD01", jiff::SignedDuration::from_hours(1));
    let (status, answer) = pagerduty(&product, &old).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        answer["message"].as_str().unwrap().contains("s old and starts nothing"),
        "{answer}"
    );
    let (status, answer) = pagerduty(&product, &event(PING, "01PING", "", second)).await;
    assert_eq!(
        (status, &answer["message"]),
        (StatusCode::OK, &json!("an event `pagey.ping` starts nothing"))
    );

    let alert = |labels: Value| json!({ "version": "4", "alerts": [{ "status": "firing", "fingerprint": "f1", "labels": labels }] });
    let crash = |namespace: &str, pod: &str| {
        alert(json!({ "alertname": "KubePodCrashLooping", "namespace": namespace, "pod": pod, "deployment": "x" }))
    };
    let refused = [
        (crash("kube-system", "etcd"), "may not name the namespace `kube-system`"),
        (crash("shop", "../../etc"), "is not a valid target"),
        (crash("shop", "$(reboot)"), "is not a valid target"),
        (
            alert(json!({ "alertname": "KubePodCrashLooping", "namespace": "shop" })),
            "has no labels.deployment",
        ),
        (alert(json!({ "alertname": "Watchdog" })), "no rule fits"),
    ];
    for (body, words) in refused {
        let (status, answer) = alertmanager(&product, &body).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        assert!(
            answer["alerts"][0]["why"].as_str().unwrap().contains(words),
            "{words}: {answer}"
        );
    }
    assert_eq!(product.recorded().await, 0);
    product.stop().await;
}

/// A plan in which the pods of `shop` are a source themselves.
fn watching_pods() -> Plan {
    Plan {
        config: json!({ "triggers": { "sources": [pods_as_a_source("sandbox", "shop")] } }),
        ..Plan::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_body_whose_head_proves_nothing() {
    let product = Product::start().await;
    let door = product.installation.addresses().webhooks[0].clone();
    let address = door.strip_prefix("http://").unwrap();
    for (source, proof) in [
        ("alertmanager", "authorization: Bearer guessed"),
        ("pagerduty", "x-other: 1"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("POST /webhooks/{source} HTTP/1.1\r\nhost: x\r\n{proof}\r\ncontent-length: 100000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(LONGEST, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{source}: {answer}");
        assert!(answer.contains("connection: close"), "{source}: {answer}");
    }
    product.stop().await;
}

/// Waits until so many further alerts were counted on the run.
async fn counted(product: &Product, run: &DiagnosticRun, least: u64) {
    let name = run.metadata.name.as_deref().unwrap();
    wait::until(LONGEST, "further alerts are counted", || async {
        let run = product.installation.runs().get(name).await?;
        Ok((run.alerts() >= least).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_crashes_again_and_again_is_captured_by_itself_once() {
    let mut plan = watching_pods();
    plan.replicas = 2;
    let product = Product::with(plan).await;
    let runs = told(&product, 1).await;
    assert_eq!(runs[0].spec.requester.user, "trigger:kubernetes");
    assert_eq!(runs[0].phase().as_str(), "Succeeded", "{:?}", runs[0].status);
    let said = product.public().await;
    assert!(
        said[0].text.contains(BILLING) && said[0].text.contains("crash-looping"),
        "{said:#?}"
    );
    // It goes on crashing: that is counted, and nothing is captured.
    counted(&product, &runs[0], 1).await;
    assert_eq!(product.recorded().await, 1);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_evicted_is_captured_by_itself_where_somebody_looked_at_its_workload() {
    let mut plan = watching_pods();
    plan.config["triggers"]["sources"][0]["from"]["kubernetes"]["signals"] = json!(["evicted", "terminating"]);
    let product = Product::with(plan).await;
    // Nobody looked at this one.
    product.operate(BILLING, "evict").await;
    let asked = product.runs("process ledger").await;
    assert_eq!(asked.run.phase().as_str(), "Succeeded", "{}", asked.text());
    product.operate(LEDGER, "evict").await;
    let runs = told(&product, 2).await;
    let run = runs
        .iter()
        .find(|run| run.spec.requester.user == "trigger:kubernetes")
        .unwrap();
    assert_eq!(run.phase().as_str(), "Succeeded", "{:?}", run.status);
    let cause = run.spec.origin.cause.as_ref().unwrap();
    assert_eq!(cause.fingerprint, "sandbox/shop/deployment/ledger");
    let words = format!("evicted: {LEDGER}: The node was low on resource: memory");
    assert_eq!(cause.title, words);
    assert!(product.public().await.iter().any(|m| m.text.contains(&words)));
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_whose_pods_are_killed_for_memory_all_at_once_is_one_capture_and_a_count() {
    let mut plan = watching_pods();
    plan.config["triggers"]["sources"][0]["from"]["kubernetes"]["signals"] = json!(["oom-killed"]);
    let product = Product::with(plan).await;
    let name = |n: usize| format!("web-7d9f8b6c5-{n}");
    for n in 0..8 {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name(n), "namespace": "shop", "labels": { "pod-template-hash": "7d9f8b6c5" },
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d9f8b6c5", "uid": "r", "controller": true
                }],
            },
            "spec": { "containers": [{ "name": "app", "image": "registry.sandbox/idle:1" }] },
        });
        product.installation.kubernetes().add(pod).unwrap();
        product.pod_runs(&name(n)).await;
    }
    for n in 0..8 {
        let ended = json!({ "exitCode": 137, "reason": "OOMKilled", "finishedAt": jiff::Timestamp::now().to_string() });
        let status = json!({ "status": { "containerStatuses": [{
            "name": "app", "image": "registry.sandbox/idle:1", "imageID": "", "ready": true, "restartCount": 1,
            "state": { "running": {} }, "lastState": { "terminated": ended },
        }] } });
        let params = PatchParams::default();
        product
            .pods()
            .patch_status(&name(n), &params, &Patch::Merge(&status))
            .await
            .unwrap();
    }
    let runs = told(&product, 1).await;
    assert_eq!(runs[0].phase().as_str(), "Succeeded", "{:?}", runs[0].status);
    let cause = runs[0].spec.origin.cause.as_ref().unwrap();
    assert_eq!(cause.fingerprint, "sandbox/shop/deployment/web");
    assert!(cause.title.starts_with("oom-killed: web-7d9f8b6c5-"), "{cause:?}");
    counted(&product, &runs[0], 7).await;
    wait::until(LONGEST, "the storm is told", || async {
        let all = product.public().await;
        let told = all.iter().any(|m| m.text.contains("7 more alerts of this kind came"));
        Ok(told.then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(product.recorded().await, 1);
    product.stop().await;
}

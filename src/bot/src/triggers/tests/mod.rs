use diagbot_api::{
    approval::Appeal,
    capture::PinnedTarget,
    request_key::RequestKey,
    requester::Requester,
    run::{Cause, DiagnosticRun, KeyKind, Origin},
    target::{TargetKind, parse},
};
use diagbot_catalog::{Catalog, load::Allowances};
use diagbot_cluster::pod_signals::{PodSignal, Signal};
use diagbot_runs::request::RunRequest;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    alertmanager,
    config::{KubernetesConfig, TriggersConfig},
    kubernetes,
    pagerduty::{self, Meaning},
    rule::{Capture, Verdict, judge},
    secrets::Live,
    window::{Recorded, Subject},
};

const TRIGGERED: &str = include_str!("../../../../../tests/data/pagerduty/incident-triggered.json");
const FIRING: &str = include_str!("../../../../../tests/data/alertmanager/firing.json");
const CONFIG: &str = "
listen: 127.0.0.1:0
sources:
  - name: am
    from: { alertmanager: { tokenFiles: [token] } }
    clusters: { local: [shop] }
    channel: C1
    rules:
      - name: crashing
        when: { labels: { alertname: '~Kube.*' } }
        namespace: ${labels.namespace}
        target: deploy/${labels.deployment}
        pod: ${labels.pod}
        diagnostic: pod-report
      - name: slow
        cluster: ${labels.cluster}
        namespace: shop
        target: deploy/${labels.service}
        fingerprint: ${labels.alertname}
        diagnostic: jstack
        channel: C2
";

fn config(text: &str) -> TriggersConfig {
    serde_saphyr::from_str(text).expect("a configuration")
}

fn catalog() -> Catalog {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../commands");
    Catalog::load(folder.as_ref(), Allowances::default()).expect("the shipped catalog")
}

fn live(secrets: &[&str]) -> Live {
    let folder = tempfile::tempdir().expect("a folder");
    let files: Vec<_> = secrets
        .iter()
        .enumerate()
        .map(|(number, secret)| {
            let path = folder.path().join(number.to_string());
            std::fs::write(&path, format!("{secret}\n")).expect("write");
            path
        })
        .collect();
    Live::read(&files).expect("secrets")
}

#[test]
fn a_signature_under_any_live_secret_counts_and_nothing_else() {
    // Made with `openssl dgst -sha256 -hmac`: the digest that PagerDuty would send, not one of our own making.
    let body = b"{\"event\":{}}";
    let known = "a6f4bfa42545e2bcb9bb78cbf7c11a16b4b71bb2a6f5cb24b5d9c8e0b1d5a5dd";
    let secrets = live(&["first-secret-0123456789", "second-secret-012345678"]);
    let right = format!("v1={}", include_str!("signature.hex").trim());
    for (header, wanted) in [
        (right.clone(), true),
        (format!("v1={known}, {right}"), true),
        (right.to_uppercase().replace("V1", "v1"), true),
        (right.replace("v1=", "v0="), false),
        (right[..60].to_owned(), false),
        (format!("v1={known}"), false),
        (String::new(), false),
    ] {
        assert_eq!(pagerduty::is_signed(Some(&header), body, &secrets), wanted, "{header}");
    }
    assert!(!pagerduty::is_signed(None, body, &secrets));
    assert!(!pagerduty::is_signed(Some(&right), b"{\"event\":{} }", &secrets));
    assert!(alertmanager::is_known(Some("Bearer second-secret-012345678"), &secrets));
    for header in ["Bearer ", "Bearer second-secret", "second-secret-012345678"] {
        assert!(!alertmanager::is_known(Some(header), &secrets), "{header}");
    }
}

#[test]
fn an_event_is_new_within_the_window_and_only_then() {
    let now: Timestamp = "2026-11-23T01:00:00Z".parse().unwrap();
    let window = SignedDuration::from_mins(10);
    let read = |at: &str| pagerduty::read(TRIGGERED.replace("OCCURRED_AT", at).as_bytes(), now, window).unwrap();
    let Meaning::Alert(alert) = read("2026-11-23T00:51:00Z") else {
        panic!("an alert")
    };
    assert_eq!(
        (alert.service.as_str(), alert.incident.as_deref()),
        ("Ledger", Some("INCIDENT"))
    );
    assert_eq!(alert.details["priority"], "P1");
    assert_eq!(alert.details["urgency"], "high");
    for stale in ["2026-11-23T00:49:00Z", "2026-11-23T01:11:00Z"] {
        assert!(matches!(read(stale), Meaning::Stale(_)), "{stale}");
    }
}

#[test]
fn the_first_rule_that_fits_counts_and_names_only_what_the_source_may() {
    let config = config(CONFIG);
    let catalog = catalog();
    let (alerts, resolved) = alertmanager::read(FIRING.as_bytes()).unwrap();
    assert_eq!((alerts.len(), resolved), (2, 1));
    let judged = |change: &dyn Fn(&mut super::alert::Alert), which: usize| {
        let mut alert = alerts[which].clone();
        change(&mut alert);
        judge(&config.sources[0], &alert, &catalog, "local")
    };
    let capture = |verdict: Verdict| -> Capture {
        match verdict {
            Verdict::Capture(capture) => *capture,
            other => panic!("{other:?}"),
        }
    };
    let crashing = capture(judged(&|_| {}, 0));
    assert_eq!(crashing.target.to_string(), "local:shop/pod/billing-5f6b8c7d9-m4n7p");
    assert!(!crashing.target.sickest);
    let said = capture(judged(
        &|alert| drop(alert.labels.insert("cluster".into(), "local".into())),
        0,
    ));
    assert_eq!(said.target, crashing.target, "the home cluster, said or not");
    let without_pod = capture(judged(&|alert| drop(alert.labels.remove("pod")), 0));
    assert_eq!(without_pod.target.to_string(), "local:shop/deployment/billing");
    assert!(without_pod.target.sickest, "the sickest of the workload is meant");
    let slow = capture(judged(
        &|alert| drop(alert.labels.insert("cluster".into(), "local".into())),
        1,
    ));
    assert_eq!(
        (slow.fingerprint.as_str(), slow.channel.as_str()),
        ("HighLatency", "C2")
    );

    let refused: [(&str, &str, &str); 7] = [
        (
            "cluster",
            "mars",
            "may not name the namespace `shop` of the cluster `mars`",
        ),
        ("namespace", "kube-system", "may not name the namespace `kube-system`"),
        ("namespace", "shop/x", "may not name"),
        ("pod", "a/b/c/d", "at most three parts"),
        ("pod", "eu:x", "is not a valid target"),
        ("pod", "$(x)", "is not a valid target"),
        ("pod", "\u{202e}x", "is not a valid target"),
    ];
    for (label, value, words) in refused {
        let verdict = judged(&|alert| drop(alert.labels.insert(label.into(), value.into())), 0);
        let Verdict::Refused { why, .. } = verdict else {
            panic!("{value}: {verdict:?}")
        };
        assert!(why.contains(words), "{words}: {why}");
    }
    let elsewhere = judged(&|alert| drop(alert.labels.insert("cluster".into(), "eu".into())), 1);
    assert!(matches!(elsewhere, Verdict::Refused { .. }), "{elsewhere:?}");
}

#[test]
fn faulty_rules_are_found_before_an_alert_finds_them() {
    let clusters = ["local".to_owned()];
    assert_eq!(config(CONFIG).faults(&clusters), Vec::<String>::new());
    assert_eq!(config(CONFIG).faults_against(&catalog()), Vec::<String>::new());
    let broken = CONFIG.replace("local: [shop]", "eu: []").replace("name: am", "name: A");
    let faults = config(&broken).faults(&clusters).join("\n");
    for words in [
        "not a configured cluster",
        "at least one namespace",
        "lower-case letters",
    ] {
        assert!(faults.contains(words), "{words}: {faults}");
    }
    let broken = CONFIG.replace("pod-report", "heap-dump").replace("jstack", "jstak");
    let faults = config(&broken).faults_against(&catalog()).join("\n");
    for words in [
        "rules[0].diagnostic: `heap-dump` does more",
        "rules[1].diagnostic: there is no diagnostic or runbook `jstak`",
    ] {
        assert!(faults.contains(words), "{words}: {faults}");
    }
    for (right, wrong) in [("'~Kube.*'", "'~Kube('"), ("${labels.pod}", "${pod}")] {
        let text = CONFIG.replace(right, wrong);
        assert!(serde_saphyr::from_str::<TriggersConfig>(&text).is_err(), "{wrong}");
    }
}

#[test]
fn a_window_has_one_key_and_another_fingerprint_or_target_another() {
    let subject = Subject {
        source: "am".into(),
        fingerprint: "f".into(),
        target: Some("local:shop/deployment/x".into()),
        diagnostic: "process".into(),
    };
    let window = SignedDuration::from_mins(15);
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let first = subject.key(at("2026-11-23T01:00:00Z"), window);
    assert_eq!(first, subject.key(at("2026-11-23T01:14:59Z"), window));
    assert_ne!(first, subject.key(at("2026-11-23T01:15:00Z"), window));
    let other = Subject {
        target: Some("local:shop/deployment/y".into()),
        ..subject.clone()
    };
    assert_ne!(first, other.key(at("2026-11-23T01:00:00Z"), window));
}

fn pod_signal(signal: Signal, pod: &str) -> PodSignal {
    PodSignal {
        signal,
        namespace: "shop".into(),
        pod: pod.into(),
        pod_uid: format!("uid of {pod}"),
        container: "app".into(),
        restarts: 3,
        workload: (TargetKind::Deployment, "billing".into()),
        at: "2026-11-23T01:00:00Z".parse().unwrap(),
        words: "exit code 1".into(),
    }
}

#[test]
fn sick_pods_of_one_workload_are_one_subject_and_each_end_of_a_container_is_one_event() {
    let (first, second) = (
        kubernetes::alert("local", &pod_signal(Signal::CrashLooping, "billing-1-a")),
        kubernetes::alert("local", &pod_signal(Signal::OomKilled, "billing-1-b")),
    );
    assert_eq!(first.fingerprint, second.fingerprint);
    assert_ne!(first.event, second.event);
    let again = PodSignal {
        restarts: 4,
        ..pod_signal(Signal::CrashLooping, "billing-1-a")
    };
    assert_ne!(first.event, kubernetes::alert("local", &again).event);
    assert_eq!(first.title, "crash-looping: billing-1-a (container app): exit code 1");
    assert_eq!(first.labels["signal"], "crash-looping");

    // Whichever pod was captured, its workload was.
    let target = parse("local:shop/pod/billing-1-a").unwrap();
    let request = RunRequest {
        key: RequestKey::Webhook {
            source: "k".into(),
            id: "1".into(),
        },
        requester: Requester::trigger("k"),
        origin: Origin {
            cause: Some(Cause {
                source: "k".into(),
                fingerprint: first.fingerprint,
                ..Cause::default()
            }),
            ..Origin::default()
        },
        diagnostic: "pod-report".into(),
        parameters: std::collections::BTreeMap::new(),
        target: target.clone(),
        targets: None,
        armed_until: None,
        dry_run: false,
        confirmed: false,
        appeal: Appeal::default(),
        received_at: "2026-11-23T01:00:01Z".parse().unwrap(),
    };
    let run = std::sync::Arc::new(DiagnosticRun::new(request.name().as_str(), request.spec()));
    let recorded = Recorded::of(&[run]);
    let of = |target| Subject {
        source: "k".into(),
        fingerprint: second.fingerprint.clone(),
        target,
        diagnostic: "pod-report".into(),
    };
    let at = "2026-11-23T01:05:00Z".parse().unwrap();
    let window = SignedDuration::from_mins(15);
    assert_eq!(of(None).captured(&recorded, at, window), Some(request.name()));
    assert_eq!(
        of(Some("local:shop/pod/billing-1-b".into())).captured(&recorded, at, window),
        None
    );
    assert_eq!(
        of(Some(target.to_string())).captured(&recorded, at, window),
        Some(request.name())
    );
}

#[test]
fn a_workload_in_an_incident_is_known_by_its_pods_owner_and_not_by_how_its_name_begins() {
    let now = "2026-11-23T01:10:00Z".parse().unwrap();
    let config = KubernetesConfig {
        signals: Signal::ALL.to_vec(),
        incident: std::time::Duration::from_hours(1),
    };
    let asked = |pod: &str, workload: Option<&str>, key: KeyKind| {
        let run: DiagnosticRun = serde_json::from_value(json!({
            "apiVersion": "diagbot.dev/v1alpha1", "kind": "DiagnosticRun", "metadata": { "name": "d-0123456789abcdef" },
            "spec": {
                "key": { "kind": key, "id": "1" }, "requester": { "team": "T1", "user": "U1" },
                "origin": { "channel": "C1" }, "diagnostic": "jstack", "target": { "name": "x", "namespace": "shop" },
                "receivedAt": "2026-11-23T01:00:00.000000Z",
            },
            "status": { "phase": "Succeeded", "captures": [{
                "name": "d-0123456789abcdef-0", "phase": "Succeeded", "workload": workload,
                "target": PinnedTarget {
                    cluster: "local".into(), namespace: "shop".into(), pod: pod.into(), pod_uid: format!("uid of {pod}"),
                    ..PinnedTarget::default()
                },
            }] },
        }))
        .expect("a run");
        [std::sync::Arc::new(run)]
    };
    let goes = |pod: &str, workload: &str| PodSignal {
        workload: (TargetKind::Deployment, workload.into()),
        ..pod_signal(Signal::Terminating, pod)
    };
    let concerns = |runs: &[std::sync::Arc<DiagnosticRun>], cluster: &str, pod_signal: &PodSignal| {
        kubernetes::is_in_incident(runs, cluster, pod_signal, &config, now)
    };
    let api = asked(
        "checkout-api-7d9f8b6c5-a",
        Some("deployment/checkout-api"),
        KeyKind::Command,
    );
    assert!(concerns(
        &api,
        "local",
        &goes("checkout-api-7d9f8b6c5-b", "checkout-api")
    ));
    assert!(
        !concerns(&api, "local", &goes("checkout-5f6b8c7d9-a", "checkout")),
        "nobody asked about `checkout`"
    );
    assert!(!concerns(&api, "eu", &goes("checkout-api-7d9f8b6c5-b", "checkout-api")));
    // A pod is itself, whosever it is; a schedule asks always.
    let alone = asked("lonely", None, KeyKind::Command);
    assert!(concerns(&alone, "local", &goes("lonely", "anything")));
    let of_schedule = asked(
        "checkout-api-7d9f8b6c5-a",
        Some("deployment/checkout-api"),
        KeyKind::Schedule,
    );
    assert!(!concerns(
        &of_schedule,
        "local",
        &goes("checkout-api-7d9f8b6c5-b", "checkout-api")
    ));
}

#[test]
fn a_window_ends_and_is_of_one_fingerprint_and_diagnostic() {
    let at = Timestamp::constant(1_800_000_000, 0);
    let window = SignedDuration::from_mins(10);
    let request = RunRequest {
        key: RequestKey::Webhook {
            source: "am".into(),
            id: "1".into(),
        },
        requester: Requester {
            team: "trigger".into(),
            user: "am".into(),
        },
        origin: Origin {
            cause: Some(Cause {
                source: "am".into(),
                fingerprint: "crashing".into(),
                ..Cause::default()
            }),
            ..Origin::default()
        },
        diagnostic: "jstack".into(),
        parameters: [].into(),
        target: parse("shop/checkout").expect("a target"),
        targets: None,
        armed_until: None,
        dry_run: false,
        confirmed: true,
        appeal: Appeal::default(),
        received_at: at,
    };
    let run = DiagnosticRun::new(request.name().as_str(), request.spec());
    let recorded = Recorded::of(&[std::sync::Arc::new(run)]);
    let subject = Subject {
        source: "am".into(),
        fingerprint: "crashing".into(),
        target: None,
        diagnostic: "jstack".into(),
    };
    let other = |change: fn(&mut Subject)| {
        let mut other = subject.clone();
        change(&mut other);
        other
    };
    let captured = |of: &Subject, later| {
        of.captured(&recorded, at + SignedDuration::from_secs(later), window)
            .is_some()
    };
    assert!(captured(&subject, 0) && captured(&subject, 599));
    assert!(!captured(&subject, 600), "the window is over");
    let key = |of: &Subject, later| of.key(at + SignedDuration::from_secs(later), window);
    assert_eq!(key(&subject, 0), key(&subject, 599), "{at} begins a window");
    assert_ne!(key(&subject, 0), key(&subject, 600));
    for another in [
        other(|s| s.diagnostic = "process".into()),
        other(|s| s.fingerprint = "slow".into()),
        other(|s| s.source = "pd".into()),
    ] {
        assert!(!captured(&another, 0), "{another:?}");
        assert_ne!(key(&another, 0), key(&subject, 0), "{another:?}");
    }
}

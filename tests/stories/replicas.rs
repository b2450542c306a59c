//! Two replicas: one that hangs is replaced and does no harm when it comes back; one that is told to stop hands over at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use diagbot_api::{
    capture::{CapturePhase, DiagnosticCapture},
    run::{DiagnosticRun, Phase},
};
use diagbot_sandbox::{
    installation::{Plan, Signal},
    kubernetes::FaultKind,
    people::fetch,
    wait,
};
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::product::{LEDGER, Product, Told, pull_fault};

const AGENT: &str = "registry.sandbox/diagbot-agent";
/// A leader must be replaced by then.
const REPLACED: Duration = Duration::from_secs(30);

/// Longest time of a story, also where something outside ends its processes.
const STORY: Duration = Duration::from_mins(5);

async fn within(story: impl Future<Output = ()>) {
    tokio::time::timeout(STORY, Box::pin(story)).await.unwrap();
}

/// Two replicas; the agent's image takes so long to arrive.
async fn two_replicas(pull: Duration) -> Product {
    let mut plan = Plan {
        replicas: 2,
        network_faults: true,
        config: json!({ "agent": { "launchLimitS": 90 } }),
        ..Plan::default()
    };
    let millis = u64::try_from(pull.as_millis()).unwrap();
    let slow = pull_fault(FaultKind::SlowPull { millis }, AGENT, 1);
    plan.kubernetes.faults.push(slow);
    Product::with(plan).await
}

async fn holder(product: &Product) -> String {
    let leases: Api<Lease> = Api::namespaced(product.installation.runs().into_client(), "diagbot");
    let lease = leases.get("diagbot-leader").await.unwrap();
    lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default()
}

/// The replica that leads: its process id is part of its name in the lease.
async fn leader(product: &Product) -> usize {
    let (holder, pids) = (holder(product).await, product.installation.bot_pids());
    let leads = |pid: &u32| holder.contains(&format!("-{pid}-"));
    pids.iter()
        .position(leads)
        .unwrap_or_else(|| panic!("{holder} is none of {pids:?}"))
}

async fn asked_and_launching(product: &Product) -> String {
    let id = product.asks("process ledger").await;
    let launching = |run: &DiagnosticRun| {
        let captures = run.status.iter().flat_map(|status| &status.captures);
        captures.into_iter().any(|c| c.phase == CapturePhase::Launching)
    };
    product.run(&id, "the container waits for its image", launching).await;
    id
}

/// Every epoch that was written into a status, by object, in the order of the writes.
#[derive(Default)]
struct Epochs {
    seen: Arc<Mutex<BTreeMap<String, Vec<u64>>>>,
    watches: JoinSet<()>,
}

impl Epochs {
    /// Without a pause between attempts, a watch of a server that has gone would never let the runtime end.
    fn watch(product: &Product) -> Self {
        let mut epochs = Self::default();
        let client = product.installation.runs().into_client();
        let runs: Api<DiagnosticRun> = Api::namespaced(client.clone(), "diagbot");
        let captures: Api<DiagnosticCapture> = Api::namespaced(client, "diagbot");
        let seen = Arc::clone(&epochs.seen);
        epochs.watches.spawn(async move {
            let mut events = Box::pin(watcher(runs, watcher::Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                if let Ok(watcher::Event::Apply(run) | watcher::Event::InitApply(run)) = event {
                    let epoch = run.status.as_ref().map_or(0, |s| s.epoch);
                    seen.lock().unwrap().entry(run.name_any()).or_default().push(epoch);
                }
            }
        });
        let seen = Arc::clone(&epochs.seen);
        epochs.watches.spawn(async move {
            let mut events = Box::pin(watcher(captures, watcher::Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                if let Ok(watcher::Event::Apply(capture) | watcher::Event::InitApply(capture)) = event {
                    let epoch = capture.status.as_ref().map_or(0, |s| s.epoch);
                    seen.lock().unwrap().entry(capture.name_any()).or_default().push(epoch);
                }
            }
        });
        epochs
    }

    /// A write of a former leader would stand behind one of a later epoch.
    fn assert_no_former_leader_wrote(&self) {
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.len(), 2, "a run and its capture: {seen:?}");
        for (name, epochs) in seen.iter() {
            assert!(epochs.is_sorted(), "{name}: {epochs:?}");
            assert!(
                epochs.last() > epochs.iter().find(|e| **e > 0),
                "{name} saw two leaders: {epochs:?}"
            );
        }
    }
}

/// What people and the store have of a run, without what differs from run to run: times, digests, addresses.
async fn remains(product: &Product, told: &Told) -> (Vec<String>, usize, Vec<String>) {
    let words = |text: &str| {
        let lines = text
            .lines()
            .filter(|line| !line.contains("SHA-256") && !line.contains("http"));
        let letters = lines.map(|line| {
            line.chars()
                .filter(|c| c.is_alphabetic() || *c == ' ')
                .collect::<String>()
        });
        letters
            .map(|line| line.replace(&told.id, "").trim().to_owned())
            .collect::<Vec<_>>()
    };
    let keys = product.objects();
    let names = keys.iter().filter_map(|key| key.rsplit('/').next()).map(str::to_owned);
    // The preview shows the target's own numbers; state, title and proof stand before it.
    let head = words(told.text()).into_iter().take(2).collect();
    (head, product.ephemeral(LEDGER).await.len(), names.collect())
}

async fn assert_captured_once(product: &Product, told: &Told) {
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    told.downloads().await;
    assert_eq!(product.ephemeral(LEDGER).await.len(), 1);
    assert_eq!(product.recorded().await, 1);
    assert_eq!(product.public().await.len(), 1);
    assert!(product.open_uploads().is_empty(), "{:?}", product.open_uploads());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hangs_is_replaced_and_what_it_does_afterwards_changes_nothing() {
    within(hanging_leader()).await;
}

async fn hanging_leader() {
    let calm = two_replicas(Duration::ZERO).await;
    let told = calm.runs("process ledger").await;
    let expected = remains(&calm, &told).await;
    calm.stop().await;

    let product = two_replicas(Duration::from_secs(24)).await;
    let epochs = Epochs::watch(&product);
    let id = asked_and_launching(&product).await;
    let (hanging, former) = (leader(&product).await, holder(&product).await);
    product.installation.signal_bot(hanging, Signal::STOP).unwrap();
    let hangs = Instant::now();
    wait::until(REPLACED, "the other replica leads", || async {
        Ok((holder(&product).await != former).then_some(()))
    })
    .await
    .unwrap();
    assert!(hangs.elapsed() < REPLACED, "{:?}", hangs.elapsed());
    // It wakes in the middle of the capture, and believes for a moment that it leads.
    product.installation.signal_bot(hanging, Signal::CONT).unwrap();
    let told = product.ended(&id).await;
    // It has had its say: it answers again.
    let bot = product.installation.addresses().bots[hanging].clone();
    wait::until(REPLACED, "the former leader answers", || async {
        Ok(fetch(&format!("{bot}/healthz")).await.ok().map(|_| ()))
    })
    .await
    .unwrap();
    assert_captured_once(&product, &told).await;
    assert_eq!(remains(&product, &told).await, expected);
    epochs.assert_no_former_leader_wrote();
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_alone_is_cut_off_is_replaced_and_what_it_does_afterwards_changes_nothing() {
    within(leader_cut_off()).await;
}

async fn leader_cut_off() {
    let product = two_replicas(Duration::from_secs(24)).await;
    let epochs = Epochs::watch(&product);
    let id = asked_and_launching(&product).await;
    let (alone, former) = (leader(&product).await, holder(&product).await);
    product.installation.plug(alone, false);
    let cut = Instant::now();
    wait::until(REPLACED, "the other replica leads", || async {
        Ok((holder(&product).await != former).then_some(()))
    })
    .await
    .unwrap();
    assert!(cut.elapsed() < REPLACED, "{:?}", cut.elapsed());
    // In the middle of the capture it hears again what it missed, and sends what it still wanted to send.
    product.installation.plug(alone, true);
    let told = product.ended(&id).await;
    assert_captured_once(&product, &told).await;
    // It serves on as one of two.
    let bot = product.installation.addresses().bots[alone].clone();
    wait::until(REPLACED, "the former leader is ready", || async {
        let (status, _) = fetch(&format!("{bot}/readyz")).await?;
        Ok(status.is_success().then_some(()))
    })
    .await
    .unwrap();
    assert_captured_once(&product, &told).await;
    epochs.assert_no_former_leader_wrote();
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_hands_over_at_once_and_fails_no_run() {
    within(rolling_update()).await;
}

async fn rolling_update() {
    let mut product = two_replicas(Duration::from_secs(6)).await;
    let id = asked_and_launching(&product).await;
    let (first, former) = (leader(&product).await, holder(&product).await);
    product.installation.stop_bot(first).await.unwrap();
    let stopped = Instant::now();
    wait::until(REPLACED, "the other replica leads", || async {
        let holder = holder(&product).await;
        Ok((!holder.is_empty() && holder != former).then_some(()))
    })
    .await
    .unwrap();
    assert!(
        stopped.elapsed() < Duration::from_secs(8),
        "it was not given up: {:?}",
        stopped.elapsed()
    );
    product.installation.start_bot(first).unwrap();
    product.installation.wait_until_ready().await.unwrap();
    product.installation.stop_bot(1 - first).await.unwrap();
    product.installation.start_bot(1 - first).unwrap();
    let told = product.ended(&id).await;
    assert_captured_once(&product, &told).await;
    product.stop().await;
}

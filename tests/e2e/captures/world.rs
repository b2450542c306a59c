//! A namespace of a real cluster, a store that its pods reach, and the captures controller between them.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use diagbot_api::capture::{
    ANNOTATION_CANCEL, ArtifactRecord, CaptureSpec, CaptureStatus, DiagnosticCapture, PinnedTarget,
};
use diagbot_artifacts::{Store, StoreConfig, Transfer};
use diagbot_audit::AuditLog;
use diagbot_base::{clock::Clock, telemetry::metrics::Metrics};
use diagbot_captures::{CapturesConfig, CapturesContext, SecretKey, config::PullPolicy, controller};
use diagbot_cluster::{ClusterConfig, Clusters, lease::Leadership};
use diagbot_store_server::{StoreServer, StoreServerConfig};
use k8s_openapi::{
    api::core::v1::{Namespace, Pod},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{LogParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::steps::Step;
use crate::installation::{Turn, shared_turn};

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_mins(1);
/// Address of the node's bridge: pods reach what listens there.
const NODE: &str = "10.88.0.1";
/// The agent's image, by digest, present on the node.
const AGENT_IMAGE: &str = "DIAGBOT_E2E_AGENT_IMAGE";

/// The stage of one story.
pub(crate) struct World {
    pub(crate) client: Client,
    clusters: Clusters,
    store: Store,
    config: CapturesConfig,
    namespace: String,
    captures: Api<DiagnosticCapture>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _server: StoreServer,
    _folder: TempDir,
    _turn: Turn,
}

/// How a story's stage differs from the usual one.
#[derive(Default)]
pub(crate) struct Staging {
    /// Pods are given a store address that nobody answers.
    pub(crate) store_out_of_reach: bool,
    /// Labels of the namespace.
    pub(crate) labels: Vec<(&'static str, &'static str)>,
    /// Another image for the agent.
    pub(crate) image: Option<&'static str>,
}

impl World {
    pub(crate) async fn start(staging: Staging) -> Self {
        let turn = shared_turn().await;
        let kubeconfig = std::env::var("KUBECONFIG").expect("KUBECONFIG names a cluster's file");
        let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/base/crds.yaml");
        let applied = Command::new("kubectl")
            .args(["apply", "--server-side", "--force-conflicts", "-f", crds])
            .output()
            .expect("kubectl");
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        let namespace = format!("e2e-{:08x}", rand::random::<u32>());
        let home: ClusterConfig =
            serde_json::from_value(json!({"name": "local", "kubeconfig": kubeconfig})).expect("settings");
        let clusters = Clusters::connect(&home, &[], &namespace).await.expect("clients");
        let client = clusters.home().client.clone();
        let labels: serde_json::Map<String, Value> = staging
            .labels
            .iter()
            // What a killed run leaves behind is removed by this label.
            .chain(&[("diagbot.dev/e2e", "true")])
            .map(|(k, v)| ((*k).to_owned(), (*v).into()))
            .collect();
        let object: Namespace =
            serde_json::from_value(json!({"metadata": {"name": namespace, "labels": labels}})).expect("a namespace");
        Api::all(client.clone())
            .create(&PostParams::default(), &object)
            .await
            .expect("a namespace");
        let folder = tempfile::tempdir().expect("a folder");
        let server = StoreServer::start(server_config(folder.path())).await.expect("a store");
        let store = Store::connect(&store_config(folder.path(), &server, &staging), Clock::System)
            .await
            .expect("a client of the store");
        let image = std::env::var(AGENT_IMAGE).unwrap_or_else(|_| panic!("{AGENT_IMAGE} names the agent's image"));
        let mut world = Self {
            captures: Api::namespaced(client.clone(), &namespace),
            client,
            clusters,
            store,
            config: serde_json::from_value(json!({
                "image": staging.image.map_or(image, str::to_owned), "pullPolicy": "IfNotPresent", "launchLimitS": 20,
            }))
            .expect("settings"),
            namespace,
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            _server: server,
            _folder: folder,
            _turn: turn,
        };
        world.config.pull_policy = PullPolicy::IfNotPresent;
        world.lead(1);
        world
    }

    /// Starts a bot that leads with this epoch.
    pub(crate) fn lead(&mut self, epoch: u64) {
        self.stop = CancellationToken::new();
        let context = CapturesContext {
            clusters: self.clusters.clone(),
            store: diagbot_artifacts::Destination::Store(self.store.clone()),
            audit_log: AuditLog::new("story", Clock::System),
            leadership: Leadership::always(epoch),
            secret: Arc::new(SecretKey::try_from(vec![9; 32]).expect("long enough")),
            config: self.config.clone(),
            metrics: Metrics::new(),
            clock: Clock::System,
        };
        self.tasks.spawn(controller::run(context, self.stop.clone()));
    }

    /// The bot dies: everything it had in memory is gone.
    pub(crate) async fn kill(&mut self) {
        self.tasks.shutdown().await;
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates a pod of one container `app` and waits until it runs.
    pub(crate) async fn pod(&self, name: &str, spec: Value) -> PinnedTarget {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("a pod");
        let begun = std::time::Instant::now();
        loop {
            match self.pods().create(&PostParams::default(), &pod).await {
                Ok(_) => break,
                // The namespace's service account is made a moment after the namespace.
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            pause().await;
        }
        let pod = eventually("the pod runs", async || {
            let pod = self.pods().get(name).await.ok()?;
            let status = pod.status.as_ref()?;
            let ready = status
                .container_statuses
                .as_ref()?
                .iter()
                .all(|c| c.started == Some(true));
            ready.then_some(pod)
        })
        .await;
        pinned(&pod, &self.namespace)
    }

    /// Creates the capture of one request.
    pub(crate) async fn ask(&self, target: PinnedTarget, steps: &[Step]) -> String {
        let run = format!("d-{:016x}", rand::random::<u64>());
        let name = format!("{run}-0");
        let now = Clock::System.now();
        let spec = CaptureSpec {
            run,
            index: 0,
            target,
            steps: steps.iter().copied().map(Step::spec).collect(),
            image: self.config.image.clone(),
            requester: "slack:T1:U1".to_owned(),
            catalog_sha256: "e2e".to_owned(),
            deadline: MicroTime(now + jiff::SignedDuration::from_secs(90)),
        };
        let capture = DiagnosticCapture::new(&name, spec);
        self.captures
            .create(&PostParams::default(), &capture)
            .await
            .expect("a capture");
        name
    }

    /// Waits until the capture's status is as asked.
    pub(crate) async fn status(&self, name: &str, wanted: impl Fn(&CaptureStatus) -> bool) -> CaptureStatus {
        let mut last = None;
        let begun = std::time::Instant::now();
        loop {
            last = self.captures.get(name).await.ok().and_then(|c| c.status).or(last);
            if let Some(status) = last.as_ref().filter(|s| wanted(s)) {
                return status.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "{name} stays at {last:#?}");
            pause().await;
        }
    }

    /// Waits until the capture is over.
    pub(crate) async fn end(&self, name: &str) -> CaptureStatus {
        let status = self.status(name, |status| status.phase.is_final()).await;
        println!("{:?} {:?} {}", status.phase, status.reason, trace(&status));
        assert!(status.uploads.iter().all(|u| u.closed), "{:?}", status.uploads);
        status
    }

    pub(crate) async fn cancel(&self, name: &str) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION_CANCEL: "{}"}}}));
        self.captures
            .patch(name, &PatchParams::default(), &patch)
            .await
            .expect("an annotation");
    }

    /// What a container has printed.
    pub(crate) async fn log(&self, pod: &str, container: &str) -> String {
        let of = LogParams {
            container: Some(container.to_owned()),
            ..LogParams::default()
        };
        self.pods().logs(pod, &of).await.expect("a log")
    }

    /// The artifact's bytes, as the store has them.
    pub(crate) async fn read(&self, artifact: &ArtifactRecord) -> Vec<u8> {
        let key = artifact.key.clone().try_into().expect("a key");
        let bytes = self
            .store
            .read_small(&key, 64 << 20)
            .await
            .expect("the store")
            .expect("the artifact");
        assert_eq!(artifact.size_bytes, bytes.len() as u64);
        assert_eq!(artifact.sha256, diagbot_wire::digest::sha256_hex(&bytes));
        bytes.to_vec()
    }

    /// The manifest beside an artifact.
    pub(crate) async fn manifest(&self, artifact: &ArtifactRecord) -> Value {
        let (folder, _) = artifact.key.rsplit_once('/').expect("a path");
        let key = format!("{folder}/manifest.json").try_into().expect("a key");
        let bytes = self
            .store
            .read_small(&key, 1 << 20)
            .await
            .expect("the store")
            .expect("a manifest");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// Ends the story: no upload may be left open.
    pub(crate) async fn finish(mut self) {
        // (What a bot that died was probing the store with is the sweep's.)
        let mut open = self.store.open_uploads().await.expect("the store");
        open.retain(|(key, _, _)| key.as_str().contains(&self.namespace));
        assert!(open.is_empty(), "{} uploads were left open", open.len());
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Also where the story failed: its pods would go on and slow down all other stories.
impl Drop for World {
    fn drop(&mut self) {
        let gone = Command::new("kubectl")
            .args([
                "delete",
                "namespace",
                &self.namespace,
                "--ignore-not-found",
                "--wait=false",
            ])
            .output();
        if !gone.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("the namespace {} is left: {gone:?}", self.namespace);
        }
    }
}

/// Pins what a pod runs now.
fn pinned(pod: &Pod, namespace: &str) -> PinnedTarget {
    let status = pod
        .status
        .as_ref()
        .and_then(|s| s.container_statuses.as_ref())
        .expect("statuses");
    let container = status.iter().find(|c| c.name == "app").expect("the container `app`");
    PinnedTarget {
        cluster: "local".to_owned(),
        namespace: namespace.to_owned(),
        pod: pod.metadata.name.clone().unwrap_or_default(),
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
        container: "app".to_owned(),
        container_id: container.container_id.clone().unwrap_or_default(),
        restart_count: container.restart_count,
        node: String::new(),
    }
}

fn server_config(folder: &Path) -> StoreServerConfig {
    let keys = folder.join("keys.yaml");
    std::fs::write(&keys, "- { accessKey: e2e, secretKey: e2e-secret-of-the-store }\n").expect("a file");
    StoreServerConfig::new(
        format!("{NODE}:0").parse().expect("an address"),
        folder.join("data"),
        "evidence",
        keys,
    )
}

fn store_config(folder: &Path, server: &StoreServer, staging: &Staging) -> StoreConfig {
    let (access, secret) = (folder.join("access"), folder.join("secret"));
    std::fs::write(&access, "e2e").expect("a file");
    std::fs::write(&secret, "e2e-secret-of-the-store").expect("a file");
    let for_pods = if staging.store_out_of_reach {
        format!("http://{NODE}:9")
    } else {
        server.url()
    };
    let config: StoreConfig = serde_json::from_value(json!({
        "bucket": "evidence", "region": "us-east-1", "endpoint": server.url(), "endpointForPods": for_pods,
        "pathStyle": true, "accessKeyFile": access, "secretKeyFile": secret,
    }))
    .expect("settings");
    assert_eq!(config.transfer, Transfer::Auto);
    config
}

/// Milliseconds between the trace's moments.
fn trace(status: &CaptureStatus) -> String {
    let mut moments: Vec<_> = status.trace.iter().map(|(name, at)| (at.0, name)).collect();
    moments.sort();
    let first = moments.first().map_or_else(|| Clock::System.now(), |m| m.0);
    let texts: Vec<_> = moments
        .iter()
        .map(|(at, name)| format!("{name} +{}", at.as_millisecond() - first.as_millisecond()))
        .collect();
    texts.join(", ")
}

/// Waits for something that must come.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        pause().await;
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

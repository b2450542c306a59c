//! The sandbox's cluster and node, a store, and bots that come and go: as much of an installation as captures need.

use std::{path::Path, sync::Arc, time::Duration};

use diagbot_api::capture::{
    ANNOTATION_CANCEL, ArtifactRecord, CaptureSpec, CaptureStatus, DiagnosticCapture, PinnedTarget,
};
use diagbot_artifacts::Store;
use diagbot_audit::AuditLog;
use diagbot_base::{clock::Clock, telemetry::metrics::Metrics};
use diagbot_captures::{CapturesContext, SecretKey, controller};
use diagbot_cluster::{ClusterConfig, Clusters, lease::Leadership};
use diagbot_sandbox::{
    kubernetes::{Fault, FaultKind, KubernetesConfig, KubernetesServer},
    store::{self, StoreProxy},
};
use diagbot_store_server::{StoreServer, StoreServerConfig};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::steps::Step;

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(45);
/// The agent's image, as the sandbox's node knows it.
const AGENT_IMAGE: &str =
    "registry.sandbox/diagbot-agent@sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// The stage of one story.
pub(crate) struct World {
    pub(crate) server: KubernetesServer,
    pub(crate) store: Store,
    pub(crate) target: PinnedTarget,
    clusters: Clusters,
    captures: Api<DiagnosticCapture>,
    pods: Api<Pod>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    epoch: u64,
    /// Stands between the bot and the store, where a story wants that.
    store_proxy: Option<StoreProxy>,
    _store_server: StoreServer,
    _folder: TempDir,
}

impl World {
    /// A cluster whose `ledger` runs, and one bot. Pods reach the store unless `out_of_reach`.
    pub(crate) async fn start(out_of_reach: bool) -> Self {
        Self::start_with(out_of_reach, false).await
    }

    /// The same where pods don't reach the store and the bot reaches it through something that has faults.
    pub(crate) async fn start_behind_a_proxy() -> Self {
        Self::start_with(true, true).await
    }

    async fn start_with(out_of_reach: bool, proxied: bool) -> Self {
        let config = KubernetesConfig {
            program: Some(env!("CARGO_BIN_EXE_sandbox-under-test").into()),
            ..KubernetesConfig::default()
        };
        let server = KubernetesServer::start(config).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("bot");
        std::fs::write(&kubeconfig, server.kubeconfig("bot")).unwrap();
        let home: ClusterConfig = serde_json::from_value(json!({"name": "local", "kubeconfig": kubeconfig})).unwrap();
        let clusters = Clusters::connect(&home, &[], "diagbot").await.unwrap();
        let store_server = StoreServer::start(server_config(folder.path())).await.unwrap();
        let store_proxy = if proxied {
            Some(StoreProxy::start(store_server.addr, Vec::new()).await.unwrap())
        } else {
            None
        };
        let door = store_proxy
            .as_ref()
            .map_or_else(|| store_server.url(), |proxy| format!("http://{}", proxy.address()));
        let store = store_client(folder.path(), &door, out_of_reach).await;
        let admin = folder.path().join("admin");
        std::fs::write(&admin, server.kubeconfig("admin")).unwrap();
        let admin: ClusterConfig = serde_json::from_value(json!({"name": "local", "kubeconfig": admin})).unwrap();
        let admin = Clusters::connect(&admin, &[], "diagbot")
            .await
            .unwrap()
            .home()
            .client
            .clone();
        let pods = Api::namespaced(admin.clone(), "shop");
        let target = running(&pods, "ledger-6c7d5b9f4-q8w2k").await;
        let mut world = Self {
            captures: Api::namespaced(admin, "diagbot"),
            server,
            store,
            target,
            clusters,
            pods,
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
            epoch: 0,
            store_proxy,
            _store_server: store_server,
            _folder: folder,
        };
        world.lead();
        world
    }

    /// Starts a bot; its epoch is higher than that of every one before.
    pub(crate) fn lead(&mut self) {
        self.epoch += 1;
        let config = json!({"image": AGENT_IMAGE, "launchLimitS": 10});
        let context = CapturesContext {
            clusters: self.clusters.clone(),
            store: diagbot_artifacts::Destination::Store(self.store.clone()),
            audit_log: AuditLog::new("story", Clock::System),
            leadership: Leadership::always(self.epoch),
            secret: Arc::new(SecretKey::try_from(vec![9; 32]).unwrap()),
            config: serde_json::from_value(config).unwrap(),
            metrics: Metrics::new(),
            clock: Clock::System,
        };
        self.tasks.spawn(controller::run(context, self.stop.clone()));
    }

    /// The bot dies: what it had in memory is gone.
    pub(crate) async fn kill(&mut self) {
        self.tasks.shutdown().await;
    }

    pub(crate) fn arm(&self, kind: FaultKind, verb: Option<&str>, resource: &str, count: u32) {
        self.server.arm(Fault {
            verb: verb.map(str::to_owned),
            resource: Some(resource.to_owned()),
            ..Fault::of(kind).times(count)
        });
    }

    /// Arms a fault of the store.
    pub(crate) fn arm_store(&self, fault: store::Fault) {
        if let Some(proxy) = &self.store_proxy {
            proxy.arm(fault);
        }
    }

    /// The store is well again.
    pub(crate) fn mend_store(&self) {
        if let Some(proxy) = &self.store_proxy {
            proxy.disarm();
        }
    }

    /// Faults of the store that nothing has met yet.
    pub(crate) fn armed_in_store(&self) -> usize {
        self.store_proxy.as_ref().map_or(0, |proxy| proxy.armed().len())
    }

    /// Creates the capture of one request.
    pub(crate) async fn ask(&self, target: &PinnedTarget, steps: &[Step]) -> String {
        let run = format!("d-{:016x}", rand::random::<u64>());
        let name = format!("{run}-0");
        let spec = CaptureSpec {
            run,
            index: 0,
            target: target.clone(),
            steps: steps.iter().copied().map(Step::spec).collect(),
            image: AGENT_IMAGE.to_owned(),
            requester: "slack:T1:U1".to_owned(),
            catalog_sha256: "story".to_owned(),
            deadline: MicroTime(Clock::System.now() + jiff::SignedDuration::from_secs(60)),
        };
        let capture = DiagnosticCapture::new(&name, spec);
        self.captures.create(&PostParams::default(), &capture).await.unwrap();
        name
    }

    /// Asks the capture to stop.
    pub(crate) async fn cancel(&self, name: &str) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION_CANCEL: "{}"}}}));
        self.captures
            .patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Waits until the capture's status is as wanted.
    pub(crate) async fn status(&self, name: &str, wanted: impl Fn(&CaptureStatus) -> bool) -> CaptureStatus {
        let mut last = None;
        let begun = std::time::Instant::now();
        loop {
            last = self.captures.get(name).await.ok().and_then(|c| c.status).or(last);
            if let Some(status) = last.as_ref().filter(|s| wanted(s)) {
                return status.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "{name} stays at {last:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the capture is over; nothing of it is left open.
    pub(crate) async fn end(&self, name: &str) -> CaptureStatus {
        let status = self.status(name, |status| status.phase.is_final()).await;
        assert!(status.uploads.iter().all(|u| u.closed), "{:?}", status.uploads);
        status
    }

    /// The artifact's bytes, as the store has them, compared with the record.
    pub(crate) async fn read(&self, artifact: &ArtifactRecord) -> String {
        let key = artifact.key.clone().try_into().unwrap();
        let bytes = self
            .store
            .read_small(&key, 64 << 20)
            .await
            .unwrap()
            .expect("the artifact");
        assert_eq!(artifact.size_bytes, bytes.len() as u64);
        assert_eq!(artifact.sha256, diagbot_wire::digest::sha256_hex(&bytes));
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// Names of the containers that were added to the target's pod.
    pub(crate) async fn containers(&self) -> Vec<String> {
        let pod = self.pods.get(&self.target.pod).await.unwrap();
        let added = pod.spec.and_then(|s| s.ephemeral_containers).unwrap_or_default();
        added.into_iter().map(|c| c.name).collect()
    }

    /// Ends the story: no upload may be left open, and every task must end by itself.
    pub(crate) async fn finish(mut self) {
        // (What a bot that died was probing the store with is the sweep's.)
        let mut open = self.store.open_uploads().await.unwrap();
        open.retain(|(key, _, _)| key.as_str().contains("/shop/"));
        assert!(open.is_empty(), "{} uploads were left open", open.len());
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.server.stop().await;
    }
}

async fn running(pods: &Api<Pod>, name: &str) -> PinnedTarget {
    let begun = std::time::Instant::now();
    loop {
        let pod = pods.get(name).await.unwrap();
        let statuses = pod.status.and_then(|s| s.container_statuses).unwrap_or_default();
        let up =
            |c: &&k8s_openapi::api::core::v1::ContainerStatus| c.state.as_ref().is_some_and(|s| s.running.is_some());
        if let Some(container) = statuses.iter().find(up) {
            return PinnedTarget {
                cluster: "local".to_owned(),
                namespace: "shop".to_owned(),
                pod: name.to_owned(),
                pod_uid: pod.metadata.uid.unwrap(),
                container: container.name.clone(),
                container_id: container.container_id.clone().unwrap(),
                restart_count: container.restart_count,
                node: String::new(),
            };
        }
        assert!(begun.elapsed() < PATIENCE, "{name} does not run: {statuses:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn server_config(folder: &Path) -> StoreServerConfig {
    let keys = folder.join("keys.yaml");
    std::fs::write(&keys, "- { accessKey: story, secretKey: story-secret-of-the-store }\n").unwrap();
    StoreServerConfig::new("127.0.0.1:0".parse().unwrap(), folder.join("data"), "evidence", keys)
}

async fn store_client(folder: &Path, url: &str, out_of_reach: bool) -> Store {
    let (access, secret) = (folder.join("access"), folder.join("secret"));
    std::fs::write(&access, "story").unwrap();
    std::fs::write(&secret, "story-secret-of-the-store").unwrap();
    let for_pods = if out_of_reach {
        "http://127.0.0.1:9".to_owned()
    } else {
        url.to_owned()
    };
    let config = json!({
        "bucket": "evidence", "region": "us-east-1", "endpoint": url, "endpointForPods": for_pods,
        "pathStyle": true, "accessKeyFile": access, "secretKeyFile": secret,
    });
    Store::connect(&serde_json::from_value(config).unwrap(), Clock::System)
        .await
        .unwrap()
}

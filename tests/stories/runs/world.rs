//! A sandbox cluster with people, and replicas of the bot's run service and controller on it.

use std::{future::Future, sync::Arc, time::Duration};

use diagbot_api::{
    capture::{ANNOTATION_CANCEL, CapturePhase, DiagnosticCapture},
    request_key::{RequestKey, RunName},
    requester::Requester,
    run::{DiagnosticRun, Origin, RunStatus},
    target,
};
use diagbot_artifacts::Store;
use diagbot_audit::AuditLog;
use diagbot_base::{clock::Clock, telemetry::metrics::Metrics};
use diagbot_catalog::{Catalog, load::Allowances};
use diagbot_cluster::{ClusterConfig, Clusters, lease, pod_index::PodIndex};
use diagbot_runs::{
    access::{Access, AccessConfig, ChannelFacts, Directory, DirectoryError, PersonFacts},
    admission::{RateConfig, RateLimiter},
    controller::{self, RunsContext},
    request::RunRequest,
    service::{RunService, ServiceParts},
};
use diagbot_sandbox::kubernetes::{Fault, FaultKind, KubernetesConfig, KubernetesServer};
use futures::future::BoxFuture;
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const ADA: &str = "U1";
pub(crate) const BOB: &str = "U2";
pub(crate) const GUEST: &str = "U3";

const TEAM: &str = "T1";
/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(40);

/// Ada (and the guest, whom the rules would grant it) may run what pauses nothing, in `shop`.
const RULES: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: observer }
rules:
- apiGroups: [diagbot.dev]
  resources: [diagnostics]
  resourceNames: [jstack, process, sockets, pod-report]
  verbs: [run, read, list, cancel]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: ada, namespace: shop }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: observer }
subjects:
- { kind: Group, apiGroup: rbac.authorization.k8s.io, name: "slack:email:ada@example.com" }
- { kind: User, apiGroup: rbac.authorization.k8s.io, name: "slack:T1:U3" }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: shown }
rules:
- apiGroups: [diagbot.dev]
  resources: [diagnostics]
  verbs: [read]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: channels, namespace: shop }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: shown }
subjects:
- { kind: Group, apiGroup: rbac.authorization.k8s.io, name: "slack:channel:C0INCIDENT" }
- { kind: Group, apiGroup: rbac.authorization.k8s.io, name: "slack:channel:C0SHOPONCL" }
"#;

/// A sandbox cluster.
pub(crate) struct World {
    server: KubernetesServer,
    folder: TempDir,
    runs: Api<DiagnosticRun>,
    captures: Api<DiagnosticCapture>,
}

/// One process of the bot, as far as runs go.
pub(crate) struct Replica {
    pub(crate) service: RunService,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: JoinSet<()>,
}

struct People;

impl Directory for People {
    fn person<'a>(&'a self, team: &'a str, user: &'a str) -> BoxFuture<'a, Result<PersonFacts, DirectoryError>> {
        Box::pin(async move {
            if user == "U404" {
                return Err(DirectoryError {
                    about: "the person",
                    source: "Slack is away".into(),
                });
            }
            Ok(PersonFacts {
                team: team.to_owned(),
                email: (user == ADA).then(|| "ada@example.com".to_owned()),
                guest: user == GUEST,
                ..PersonFacts::default()
            })
        })
    }

    fn channel<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<ChannelFacts, DirectoryError>> {
        Box::pin(async { Ok(ChannelFacts::default()) })
    }
}

pub(crate) fn requester(user: &str) -> Requester {
    Requester {
        team: TEAM.to_owned(),
        user: user.to_owned(),
    }
}

pub(crate) fn request(id: &str, user: &str, diagnostic: &str, target: &str) -> RunRequest {
    RunRequest {
        key: RequestKey::Command {
            team: TEAM.to_owned(),
            trigger_id: id.to_owned(),
        },
        requester: requester(user),
        origin: Origin::default(),
        diagnostic: diagnostic.to_owned(),
        parameters: [].into(),
        target: target::parse(target).unwrap(),
        targets: None,
        armed_until: None,
        dry_run: false,
        confirmed: false,
        appeal: diagbot_api::approval::Appeal::default(),
        received_at: Clock::System.now(),
    }
}

pub(crate) fn code(status: &RunStatus) -> &str {
    status.reason.as_ref().map_or("", |reason| reason.code.as_str())
}

impl World {
    pub(crate) async fn start() -> Self {
        let config = KubernetesConfig {
            without_workloads: true,
            manifests: vec![RULES.to_owned()],
            ..KubernetesConfig::default()
        };
        let server = KubernetesServer::start(config).await.unwrap();
        let running = json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
        let crashed = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        let pods = [
            pod("checkout", "7d9f8b6c5", "x2x4z", &running),
            pod("ledger", "6c7d5b9f4", "q8w2k", &running),
            pod("billing", "5f6b8c7d9", "m4n7p", &crashed),
        ];
        let folder = tempfile::tempdir().unwrap();
        for user in ["bot", "admin"] {
            std::fs::write(folder.path().join(user), server.kubeconfig(user)).unwrap();
        }
        for key in ["access", "secret"] {
            std::fs::write(folder.path().join(key), "sandbox").unwrap();
        }
        let admin = clusters(&folder, "admin").await;
        let client = admin.home().client.clone();
        for pod in pods {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let status = Patch::Merge(json!({ "status": pod["status"] }));
            server.add(pod).unwrap();
            let api: Api<Pod> = Api::namespaced(client.clone(), "shop");
            api.patch_status(&name, &PatchParams::default(), &status).await.unwrap();
        }
        Self {
            runs: Api::namespaced(client.clone(), "diagbot"),
            captures: Api::namespaced(client, "diagbot"),
            server,
            folder,
        }
    }

    /// Starts a replica; it takes part in the election.
    pub(crate) async fn replica(&self) -> Replica {
        self.replica_asking(Arc::new(People)).await
    }

    /// Starts a replica that asks this directory about people.
    pub(crate) async fn replica_asking(&self, directory: Arc<dyn Directory>) -> Replica {
        let clusters = clusters(&self.folder, "bot").await;
        let metrics = Metrics::new();
        let (sender, leadership) = lease::leadership(&metrics);
        let path = |name: &str| self.folder.path().join(name);
        let store = serde_json::from_value(json!({
            "bucket": "evidence", "endpoint": "http://127.0.0.1:9",
            "accessKeyFile": path("access"), "secretKeyFile": path("secret"),
        }))
        .unwrap();
        let commands = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../commands");
        let catalog = Catalog::load(&commands, Allowances { unpinned_images: true }).unwrap();
        let parts = ServiceParts {
            clusters: clusters.clone(),
            catalog: Arc::new(catalog),
            access: Access::new(directory, AccessConfig::default(), Clock::System),
            store: Store::connect(&store, Clock::System).await.unwrap(),
            rate_limiter: RateLimiter::new(RateConfig::default()),
            audit_log: AuditLog::new("story", Clock::System),
            leadership: leadership.clone(),
            pod_index: PodIndex::default(),
            clock: Clock::System,
        };
        let (service, watch) = RunService::new(parts);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(watch.run(stop.clone()));
        let context = RunsContext {
            service: service.clone(),
            agent_image: "registry.sandbox/agent@sha256:0".to_owned(),
            budgets: diagbot_runs::admission::BudgetConfig::default(),
            concurrency: 32,
            metrics,
        };
        tasks.spawn(controller::run(context, stop.clone()));
        let identity = format!("replica-{}", Clock::System.now().as_nanosecond());
        let home = clusters.home().clone();
        let lease = "diagbot-leader".to_owned();
        tasks.spawn(lease::hold(
            home,
            "diagbot".into(),
            lease,
            identity,
            stop.clone(),
            sender,
        ));
        self.until("the replica has read the runs", async || service.ready().then_some(()))
            .await;
        Replica { service, stop, tasks }
    }

    pub(crate) fn arm(&self, kind: FaultKind, verb: &str, resource: &str, count: u32) {
        self.server.arm(Fault::of(kind).on(verb, resource).times(count));
    }

    /// Every armed fault strikes.
    pub(crate) async fn all_struck(&self) {
        self.until("every armed fault has struck", async || {
            self.server.armed().is_empty().then_some(())
        })
        .await;
    }

    pub(crate) async fn runs(&self) -> Vec<DiagnosticRun> {
        self.runs.list(&ListParams::default()).await.unwrap().items
    }

    pub(crate) async fn captures(&self) -> Vec<DiagnosticCapture> {
        self.captures.list(&ListParams::default()).await.unwrap().items
    }

    /// Waits for the run's first capture.
    pub(crate) async fn capture(&self, run: &RunName) -> DiagnosticCapture {
        let name = format!("{run}-0");
        self.until("the capture is made", async || {
            self.captures.get_opt(&name).await.unwrap()
        })
        .await
    }

    /// Waits until the run is as wanted.
    pub(crate) async fn run(&self, name: &RunName, wanted: impl Fn(&DiagnosticRun) -> bool) -> RunStatus {
        let read = async || self.runs.get_opt(name.as_str()).await.unwrap();
        let run = self
            .until("the run moves on", async || read().await.filter(|run| wanted(run)))
            .await;
        run.status.unwrap_or_default()
    }

    /// Gives the lead to somebody who is none of ours, or to nobody.
    pub(crate) async fn lead_elsewhere(&self, holder: &str) {
        let leases: Api<Lease> = Api::namespaced(self.runs.clone().into_client(), "diagbot");
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "diagbot-leader" },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 1 },
        });
        let params = PatchParams::apply("story").force();
        let written = leases.patch("diagbot-leader", &params, &Patch::Apply(lease)).await;
        written.unwrap();
    }

    /// Waits until a replica's watch has told it of these runs.
    pub(crate) async fn run_seen(&self, replica: &Replica, names: &[RunName]) {
        self.until("the replica has seen the runs", async || {
            let seen = names.iter().all(|name| replica.service.get(name).is_some());
            seen.then_some(())
        })
        .await;
    }

    /// Admits a run with so many captures of the pod `ledger`, as another leader would.
    pub(crate) async fn admit_elsewhere(&self, name: &RunName, captures: usize) {
        let pods: Api<Pod> = Api::namespaced(self.runs.clone().into_client(), "shop");
        let pod = pods.get("ledger-6c7d5b9f4-q8w2k").await.unwrap();
        let captures: Vec<Value> = (0..captures)
            .map(|n| {
                json!({
                    "name": format!("{name}-{n}"), "phase": "Pending",
                    "target": {
                        "cluster": "local", "namespace": "shop", "pod": "ledger-6c7d5b9f4-q8w2k",
                        "podUid": pod.metadata.uid, "container": "app",
                    },
                })
            })
            .collect();
        let mut run = self.runs.get(name.as_str()).await.unwrap();
        let status = json!({
            "phase": "Capturing", "epoch": 1, "diagnostic": "process", "captures": captures,
            "entered": { "Capturing": MicroTime(Clock::System.now()) },
        });
        run.status = Some(serde_json::from_value(status).unwrap());
        let params = PostParams::default();
        self.runs.replace_status(name.as_str(), &params, &run).await.unwrap();
    }

    /// Waits until the run's capture was asked to stop.
    pub(crate) async fn cancel_seen(&self, run: &RunName) {
        let name = format!("{run}-0");
        self.until("the capture is asked to stop", async || {
            let capture = self.captures.get(&name).await.unwrap();
            let annotations = capture.metadata.annotations.unwrap_or_default();
            annotations.contains_key(ANNOTATION_CANCEL).then_some(())
        })
        .await;
    }

    /// Plays the captures' controller.
    pub(crate) async fn report(&self, capture: &DiagnosticCapture, phase: CapturePhase) {
        let name = capture.metadata.name.clone().unwrap();
        let mut capture = self.captures.get(&name).await.unwrap();
        capture.status = Some(super::reported(phase));
        let params = PostParams::default();
        self.captures.replace_status(&name, &params, &capture).await.unwrap();
    }

    /// Waits for a condition; a failure says for which.
    async fn until<T, F: Future<Output = Option<T>>>(&self, what: &str, condition: impl Fn() -> F) -> T {
        let wait = async {
            loop {
                if let Some(value) = condition().await {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(value) => value,
            Err(elapsed) => panic!("not in time ({elapsed}): {what}; runs: {:#?}", self.runs().await),
        }
    }

    pub(crate) async fn stop(self, replicas: Vec<Replica>) {
        for replica in replicas {
            replica.stop().await;
        }
        self.server.stop().await;
    }
}

impl Replica {
    /// Ends the replica as a crash would: nothing is released, nothing is finished.
    pub(crate) async fn die(mut self) {
        self.tasks.shutdown().await;
    }

    /// Ends the replica; its tasks must end by themselves, without a panic.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let ended = async {
            while let Some(task) = self.tasks.join_next().await {
                task.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("the replica stops");
    }
}

/// A pod of a Deployment as the API server shows it. The images start no process.
fn pod(app: &str, template: &str, suffix: &str, state: &Value) -> Value {
    let replica_set = format!("{app}-{template}");
    let running = state.get("running").is_some();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{replica_set}-{suffix}"), "namespace": "shop",
            "labels": { "app": app, "pod-template-hash": template },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": replica_set, "uid": "0", "controller": true,
            }],
        },
        "spec": {
            "nodeName": "sandbox",
            "containers": [{
                "name": app,
                "image": if running { "registry.sandbox/idle:1" } else { "registry.sandbox/absent:1" },
            }],
        },
        "status": { "phase": "Running", "containerStatuses": [{
            "name": app, "image": "i", "imageID": "i", "ready": running, "restartCount": 1, "state": state,
            "containerID": format!("containerd://{app}"),
        }] },
    })
}

async fn clusters(folder: &TempDir, user: &str) -> Clusters {
    let config: ClusterConfig =
        serde_json::from_value(json!({ "name": "local", "kubeconfig": folder.path().join(user) })).unwrap();
    Clusters::connect(&config, &[], "diagbot").await.unwrap()
}

//! A local Kubernetes: an API server with the verbs that diagbot's access rules name, and a node that runs containers as
//! real processes.
//!
//! Owns the server, its state and every process that its node starts; all end with [`KubernetesServer::stop`]. Never
//! pretends: what it does not serve is answered with 501 and says that this is the sandbox.
//!
//! # Design notes
//! * One store with one revision counter, and a bounded log that watches read from: `resourceVersion`, 409 and 410 follow
//!   from it instead of being imitated (`store`).
//! * Texts of refusals are those measured on Kubernetes 1.36; the contract test runs kubectl itself against them.
//! * Plain HTTP on loopback; see `identity` for how kubectl's token gets through.
//! * Faults are part of the simulator, armed from outside (`faults`); no code path knows about tests.

mod alone;
mod answer;
mod cluster;
mod control;
mod discovery;
mod faults;
mod fence;
mod form;
mod http;
mod identity;
mod kind;
mod log;
mod node;
mod outage;
mod patch;
mod pod;
mod rbac;
mod review;
mod schema;
mod seed;
mod selector;
mod store;
mod stream;
mod target;
mod verbs;
mod watch;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

pub use alone::serve_alone;
pub use answer::ApiError;
use cluster::Cluster;
pub use faults::{Fault, FaultKind};
pub use node::{container_init, workload};
pub use seed::SeedError;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How a sandbox cluster is made.
#[derive(Debug, Clone, Default)]
pub struct KubernetesConfig {
    /// The multi-call program (`diagbot-sandbox`) that containers are started from; the running program unless given.
    pub program: Option<PathBuf>,
    /// A program of its own for the agent, such as a former one; the multi-call program's unless given.
    pub agent: Option<PathBuf>,
    /// Leave the sample workloads out.
    pub without_workloads: bool,
    /// Further manifests (YAML, several documents allowed), loaded at the start: access rules, pods.
    pub manifests: Vec<String>,
    /// Faults armed from the start.
    pub faults: Vec<Fault>,
}

/// Why a server can't be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No socket, or no room for containers.
    #[error("start the sandbox's Kubernetes API")]
    Io(#[from] io::Error),
    /// A manifest is wrong.
    #[error("load the sandbox's cluster")]
    Seed(#[from] SeedError),
}

/// A running sandbox cluster.
#[derive(Debug)]
pub struct KubernetesServer {
    cluster: Arc<Cluster>,
    address: SocketAddr,
}

impl KubernetesServer {
    /// Starts the API on a free port of loopback, and the node.
    pub async fn start(config: KubernetesConfig) -> Result<Self, StartError> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let program = match config.program {
            Some(program) => program,
            None => std::env::current_exe()?,
        };
        let cluster = Arc::new(Cluster {
            store: store::Store::new(),
            tokens: identity::Tokens::default(),
            faults: faults::Faults::new(config.faults),
            outage: outage::Outage::default(),
            schemas: schema::Schemas::load().map_err(SeedError::from)?,
            node: node::Node::new(program, config.agent)?,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        seed::load(&cluster.store, !config.without_workloads, &config.manifests)?;
        cluster.tasks.spawn(http::listen(Arc::clone(&cluster), listener));
        cluster.tasks.spawn(node::run(Arc::clone(&cluster)));
        Ok(Self { cluster, address })
    }

    /// Base address of the API and of `/sandbox/…`: `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A kubeconfig (YAML) for `admin`, `bot`, `system:serviceaccount:<namespace>:<name>`, or any other user name.
    pub fn kubeconfig(&self, user: &str) -> String {
        identity::kubeconfig(&self.url(), &self.cluster.tokens.issue(user))
    }

    /// How the node isolates containers, in words for a startup line.
    pub fn isolation(&self) -> String {
        self.cluster.node.isolation().to_string()
    }

    /// Adds `count` pods named `<prefix>-<n>` that only pretend to run, for tests with many of them.
    pub fn add_idle_pods(&self, namespace: &str, prefix: &str, count: usize) -> Result<(), SeedError> {
        for n in 0..count {
            self.add(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": format!("{prefix}-{n}"), "namespace": namespace, "labels": { "app": prefix } },
                "spec": { "containers": [{ "name": "app", "image": "registry.sandbox/idle:1" }] },
            }))?;
        }
        Ok(())
    }

    /// Adds one object; an object of that name that is there already stays.
    pub fn add(&self, object: Value) -> Result<(), SeedError> {
        seed::apply(&self.cluster.store, object)
    }

    /// Arms a fault.
    pub fn arm(&self, fault: Fault) {
        self.cluster.faults.arm(fault);
    }

    /// Faults that have not struck, or not as often as they should.
    pub fn armed(&self) -> Vec<Fault> {
        self.cluster.faults.list()
    }

    /// Disarms every fault.
    pub fn disarm(&self) {
        self.cluster.faults.clear();
    }

    /// Restarts the API server: every connection breaks, none is taken for so long, and watches can't be resumed. The node
    /// and its containers go on.
    pub fn restart(&self, away: Duration) {
        self.cluster.store.compact();
        self.cluster.outage.begin(away);
    }

    /// Kills a running container (the pod's first unless named); the node restarts it.
    pub fn restart_container(&self, namespace: &str, pod: &str, container: Option<&str>) -> Result<(), ApiError> {
        let key = store::Key::new(&kind::POD, namespace, pod);
        let container = container.map(str::to_owned);
        self.cluster
            .node
            .disturb(&self.cluster, &key, node::Disturbance::Restart { container })
    }

    /// Ends every connection and every container, and waits for them.
    pub async fn stop(self) {
        self.cluster.stop.cancel();
        self.cluster.tasks.close();
        self.cluster.tasks.wait().await;
        self.cluster.node.close();
    }
}

impl Drop for KubernetesServer {
    /// A server that is dropped without [`Self::stop`] still ends its processes, though nobody waits for them.
    fn drop(&mut self) {
        self.cluster.stop.cancel();
    }
}

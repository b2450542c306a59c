//! The whole installation: what `cargo run -p diagbot-sandbox` starts, and stops again.
//!
//! Slack and Kubernetes are served in this process; store and bot are child processes of this same program, configured by
//! files and talked to over sockets, as in production.

mod files;
mod part;
mod plan;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use diagbot_api::run::DiagnosticRun;
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
pub use rustix::process::Signal;
use serde::Serialize;
use tempfile::TempDir;

pub use self::{files::budgets_of_stories, plan::Plan};
use self::{
    files::{Files, NAMESPACE},
    part::{Part, failpoint_file},
};
use crate::{
    kubernetes::KubernetesServer, network_fault::NetworkFault, pagerduty::PagerDuty, people::People,
    slack::SlackServer, store::StoreProxy, triggers, wait,
};

/// Ports of the parts, below those of outgoing connections (Linux: `ip_local_port_range`).
const PORTS: Range<u16> = 20_000..32_000;
/// Ports that are tried before none counts as free.
const PORT_TRIES: usize = 64;
/// Longest start of a part.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// Where everything is.
#[derive(Debug, Clone, Serialize)]
pub struct Addresses {
    /// The page that looks like a channel; also the base of the people API.
    pub page: String,
    /// The local Slack's Web API.
    pub slack_api: String,
    /// A kubeconfig for the cluster's administrator.
    pub kubeconfig: PathBuf,
    /// The local Kubernetes API, and its faults below `/sandbox/`.
    pub kubernetes: String,
    /// The store; its faults below `/sandbox/`, where there is a proxy.
    pub store: String,
    /// Health and metrics of each replica of the bot.
    pub bots: Vec<String>,
    /// Where alerts are delivered to each replica: `/webhooks/alertmanager`, `/webhooks/pagerduty`.
    pub webhooks: Vec<String>,
}

/// A running installation.
pub struct Installation {
    folder: TempDir,
    slack: SlackServer,
    kubernetes: KubernetesServer,
    store: Part,
    proxy: Option<StoreProxy>,
    bots: Vec<Part>,
    network_faults: Vec<NetworkFault>,
    webhooks: Vec<SocketAddr>,
    pagerduty: PagerDuty,
    runs: Api<DiagnosticRun>,
    people: People,
    program: PathBuf,
    verbose: bool,
}

impl Installation {
    /// Starts every part; the program is this very one.
    pub async fn start(plan: &Plan) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        Self::start_with(&program, plan).await
    }

    /// Starts every part; children are started from `program`, the sandbox's own.
    pub async fn start_with(program: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("diagbot-sandbox-")
            .tempdir()
            .context("make a folder")?;
        let slack = SlackServer::start(plan.slack.clone())
            .await
            .context("start the local Slack")?;
        let kubernetes = KubernetesServer::start(plan.kubernetes.clone()).await?;
        let files = Files::write(folder.path(), &slack, &kubernetes, plan)?;
        let store_address = free_address()?;
        files.write_store(store_address)?;
        let mut store = Part::start(
            program,
            "store",
            &["store", "--config"],
            &files.store_config(),
            store_address,
            plan,
        )?;
        store.wait_until(&format!("http://{store_address}/"), |_| true).await?;
        let proxy = match &plan.store_faults {
            Some(faults) => Some(StoreProxy::start(store_address, faults.clone()).await?),
            None => None,
        };
        let store_seen = proxy.as_ref().map_or(store_address, StoreProxy::address);
        let pagerduty = PagerDuty::start().await.context("start the local PagerDuty")?;
        let mut bots = Vec::new();
        let mut network_faults = Vec::new();
        let mut webhooks = Vec::new();
        for replica in 0..plan.replicas {
            let address = free_address()?;
            let listen = free_address()?;
            webhooks.push(listen);
            let triggers = triggers::configure(folder.path(), listen, &pagerduty.url())?;
            if plan.network_faults {
                let network_fault = NetworkFault::start(kubernetes.address()).await.context("lay a cable")?;
                files.lead_over(replica, &kubernetes, &network_fault)?;
                network_faults.push(network_fault);
            }
            let config = files.write_bot(replica, address, store_seen, &triggers, plan)?;
            bots.push(Part::start(
                program,
                &format!("bot {replica}"),
                &["serve", "--config"],
                &config,
                address,
                plan,
            )?);
        }
        let runs = Api::namespaced(client(&files.admin).await?, NAMESPACE);
        let people = People::at(&slack.people_url());
        let program = program.to_owned();
        let verbose = plan.verbose;
        let mut installation = Self {
            folder,
            slack,
            kubernetes,
            store,
            proxy,
            bots,
            network_faults,
            webhooks,
            pagerduty,
            runs,
            people,
            program,
            verbose,
        };
        installation.wait_until_ready().await?;
        if !plan.kubernetes.without_workloads {
            wait_for_workloads(client(&files.admin).await?).await?;
        }
        Ok(installation)
    }

    /// Where everything is.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            page: self.slack.people_url(),
            slack_api: self.slack.api_url(),
            kubeconfig: self.folder.path().join("admin.kubeconfig"),
            kubernetes: self.kubernetes.url(),
            store: format!(
                "http://{}",
                self.proxy.as_ref().map_or(self.store.address, StoreProxy::address)
            ),
            bots: self.bots.iter().map(|bot| format!("http://{}", bot.address)).collect(),
            webhooks: self
                .webhooks
                .iter()
                .map(|address| format!("http://{address}"))
                .collect(),
        }
    }

    /// The people of the local Slack.
    pub fn people(&self) -> &People {
        &self.people
    }

    /// The runs, read as the cluster's administrator.
    pub fn runs(&self) -> Api<DiagnosticRun> {
        self.runs.clone()
    }

    /// The local PagerDuty, for its notes.
    pub fn pagerduty(&self) -> &PagerDuty {
        &self.pagerduty
    }

    /// The local Kubernetes, for its faults.
    pub fn kubernetes(&self) -> &KubernetesServer {
        &self.kubernetes
    }

    /// The proxy in front of the store, if the plan asked for one.
    pub fn store_proxy(&self) -> Option<&StoreProxy> {
        self.proxy.as_ref()
    }

    /// The folder in which the store keeps its objects.
    pub fn store_folder(&self) -> PathBuf {
        self.folder.path().join("objects")
    }

    /// What the children have logged so far, by file: `<name>.log` is standard error, `<name>.record` standard output.
    pub fn logs(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut logs = Vec::new();
        for entry in fs::read_dir(self.folder.path()).context("list the logs")? {
            let path = entry.context("list the logs")?.path();
            if path.extension().is_some_and(|e| e == "log" || e == "record") {
                let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                logs.push((
                    path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                    text,
                ));
            }
        }
        Ok(logs)
    }

    /// A file that configures the children, such as the secret `bot-token`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Process ids of the bot's replicas.
    pub fn bot_pids(&self) -> Vec<u32> {
        self.bots.iter().filter_map(|bot| bot.child.id()).collect()
    }

    /// The configuration file of a replica.
    pub fn bot_config(&self, replica: usize) -> PathBuf {
        self.bots[replica].config.clone()
    }

    /// Kills a replica of the bot with SIGKILL and starts it again with the same configuration.
    pub async fn restart_bot(&mut self, replica: usize) -> anyhow::Result<()> {
        self.kill_bot(replica).await?;
        self.start_bot(replica)?;
        self.wait_until_ready().await
    }

    /// Kills a replica of the bot with SIGKILL.
    pub async fn kill_bot(&mut self, replica: usize) -> anyhow::Result<()> {
        self.bots[replica].child.kill().await.context("kill the bot")
    }

    /// Starts a replica of the bot that has ended, with the same configuration; does not wait for it.
    pub fn start_bot(&mut self, replica: usize) -> anyhow::Result<()> {
        let bot = &mut self.bots[replica];
        let config = bot.config.clone();
        let plan = Plan {
            verbose: self.verbose,
            ..Plan::default()
        };
        *bot = Part::start(
            &self.program,
            &bot.name,
            &["serve", "--config"],
            &config,
            bot.address,
            &plan,
        )?;
        Ok(())
    }

    /// Whether a replica of the bot has ended.
    pub fn bot_has_ended(&mut self, replica: usize) -> anyhow::Result<bool> {
        let ended = self.bots[replica].child.try_wait().context("look at the bot")?;
        Ok(ended.is_some())
    }

    /// Has a replica of the bot die the next time it comes by that failpoint.
    pub fn arm_failpoint(&self, replica: usize, failpoint: &str) -> anyhow::Result<()> {
        fs::write(self.failpoint_file(replica), failpoint).context("arm a failpoint")
    }

    /// The file that arms a failpoint of a replica; gone once it has died there.
    pub fn failpoint_file(&self, replica: usize) -> PathBuf {
        failpoint_file(&self.bots[replica].config)
    }

    /// Sends a replica of the bot a signal.
    pub fn signal_bot(&self, replica: usize, signal: Signal) -> anyhow::Result<()> {
        self.bots[replica].signal(signal)
    }

    /// Plugs a replica's network to the API server in, or out.
    pub fn plug(&self, replica: usize, plugged: bool) {
        if let Some(network_fault) = self.network_faults.get(replica) {
            network_fault.plug(plugged);
        }
    }

    /// Tells a replica of the bot to stop, and waits until it has.
    pub async fn stop_bot(&mut self, replica: usize) -> anyhow::Result<()> {
        self.bots[replica].stop().await
    }

    /// Returns when every replica of the bot is ready; fails when one has ended.
    pub async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        for bot in &mut self.bots {
            let url = format!("http://{}/readyz", bot.address);
            bot.wait_until(&url, |status| status == StatusCode::OK).await?;
        }
        Ok(())
    }

    /// Stops the bot, the store, Kubernetes and Slack, in that order.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for mut bot in self.bots {
            bot.stop().await?;
        }
        if let Some(proxy) = self.proxy {
            proxy.stop().await;
        }
        self.store.stop().await?;
        self.kubernetes.stop().await;
        self.slack.stop().await;
        self.pagerduty.stop().await;
        Ok(())
    }
}

/// A port that is free now; the child that gets it binds it at once. It is none of those that the system gives to outgoing
/// connections (from 32768 on): one of them would have it while the child is restarted.
fn free_address() -> anyhow::Result<SocketAddr> {
    let mut tries = (0..PORT_TRIES).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, rand::random_range(PORTS))));
    let listener = tries.find_map(Result::ok).context("find a free port")?;
    listener.local_addr().context("read the free port")
}

/// Returns when every sample workload runs, or is known not to: a JVM takes a second, and some machines have none.
async fn wait_for_workloads(client: Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client, "shop");
    wait::until(START_DEADLINE, "the sample workloads run", || async {
        let all = pods
            .list(&ListParams::default())
            .await
            .context("list the sample pods")?;
        Ok((!all.items.is_empty() && all.iter().all(is_settled)).then_some(()))
    })
    .await
}

/// Whether a container of the pod runs, or waits for more than its start.
fn is_settled(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    statuses.into_iter().any(|status| {
        let state = status.state.as_ref();
        let waiting = state.and_then(|s| s.waiting.as_ref()).and_then(|w| w.reason.as_deref());
        state.is_some_and(|s| s.running.is_some() || s.terminated.is_some())
            || waiting.is_some_and(|reason| reason != "ContainerCreating")
    })
}

async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig).context("read the kubeconfig")?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .context("read the kubeconfig")?;
    Client::try_from(config).context("make a client")
}

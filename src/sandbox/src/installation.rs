//! The whole installation: what `cargo run -p diagbot-sandbox` starts, and stops again.
//!
//! Slack and Kubernetes are served in this process; store and bot are child processes of this same program, configured by
//! files and talked to over sockets, as in production.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use diagbot::runs::resource::DiagnosticRun;
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
pub use rustix::process::Signal;
use serde::Serialize;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{
    cable::Cable,
    kubernetes::{KubernetesConfig, KubernetesServer},
    pagerduty::PagerDuty,
    people::{self, People},
    slack::{SlackConfig, SlackServer},
    store::{self, StoreProxy},
    triggers, wait,
};

/// Namespace of the bot.
const NAMESPACE: &str = "diagbot";
/// Name of the one cluster.
const CLUSTER: &str = "sandbox";
/// Bucket of the store.
const BUCKET: &str = "evidence";
/// The agent's image; the local node knows it by name and runs this program's agent.
const AGENT_IMAGE: &str =
    "registry.sandbox/diagbot-agent@sha256:0000000000000000000000000000000000000000000000000000000000000000";
/// Ports of the parts, below those of outgoing connections (Linux: `ip_local_port_range`).
const PORTS: Range<u16> = 20_000..32_000;
/// Ports that are tried before none counts as free.
const PORT_TRIES: usize = 64;
/// Longest start of a part.
const START_DEADLINE: Duration = Duration::from_mins(1);
/// Longest orderly end of a child before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(25);

/// What to start.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Replicas of the bot.
    pub replicas: usize,
    /// Show the children's logs; else they go to files ([`Installation::logs`]).
    pub verbose: bool,
    /// What the children log, as their option `--log` takes it.
    pub log: &'static str,
    /// How the local Slack behaves.
    pub slack: SlackConfig,
    /// How the local Kubernetes behaves.
    pub kubernetes: KubernetesConfig,
    /// Further diagnostics beside the shipped ones: file name and content.
    pub diagnostics: Vec<(String, String)>,
    /// Each replica of the bot reaches the API server by a cable of its own ([`Installation::plug`]).
    pub cables: bool,
    /// A proxy in front of the store, with these faults armed; none unless given.
    pub store_faults: Option<Vec<store::Fault>>,
    /// Keys of the bot's configuration that replace the sandbox's own, as JSON merged into it.
    pub config: serde_json::Value,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            replicas: 1,
            verbose: false,
            log: "info",
            slack: SlackConfig::default(),
            kubernetes: KubernetesConfig::default(),
            diagnostics: Vec::new(),
            cables: false,
            store_faults: None,
            config: json!({}),
        }
    }
}

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
    cables: Vec<Cable>,
    webhooks: Vec<SocketAddr>,
    pagerduty: PagerDuty,
    runs: Api<DiagnosticRun>,
    people: People,
    program: PathBuf,
    verbose: bool,
}

/// A child process and where its health is.
#[derive(Debug)]
struct Part {
    name: String,
    child: Child,
    address: SocketAddr,
    config: PathBuf,
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
        let mut cables = Vec::new();
        let mut webhooks = Vec::new();
        for replica in 0..plan.replicas {
            let address = free_address()?;
            let listen = free_address()?;
            webhooks.push(listen);
            let triggers = triggers::configure(folder.path(), listen, &pagerduty.url())?;
            if plan.cables {
                let cable = Cable::start(kubernetes.address()).await.context("lay a cable")?;
                files.lead_over(replica, &kubernetes, &cable)?;
                cables.push(cable);
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
            cables,
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

    /// Plugs a replica's cable to the API server in, or out.
    pub fn plug(&self, replica: usize, plugged: bool) {
        if let Some(cable) = self.cables.get(replica) {
            cable.plug(plugged);
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

impl Part {
    fn start(
        program: &Path,
        name: &str,
        arguments: &[&str],
        config: &Path,
        address: SocketAddr,
        plan: &Plan,
    ) -> anyhow::Result<Self> {
        let child = Command::new(program)
            .arg("bot")
            .args(arguments)
            .arg(config)
            .args(["--log-format", "text"])
            .env("DIAGBOT_FAILPOINT_FILE", failpoint_file(config))
            .args(["--log", plan.log])
            .stdin(Stdio::null())
            .stdout(log_file(config, name, "record")?)
            .stderr(if plan.verbose {
                Stdio::inherit()
            } else {
                log_file(config, name, "log")?.into()
            })
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start the {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            address,
            config: config.to_owned(),
        })
    }

    /// Waits until its address answers as it should; fails when it has ended.
    async fn wait_until(&mut self, url: &str, good: impl Fn(StatusCode) -> bool) -> anyhow::Result<()> {
        let Self { name, child, .. } = self;
        wait::until(START_DEADLINE, &format!("the {name} answers"), || {
            let ended = child.try_wait();
            let good = &good;
            async move {
                if let Some(status) = ended.context("look at a part")? {
                    bail!("it ended: {status}; --verbose shows why");
                }
                let answer = people::fetch(url).await.ok();
                Ok(answer.filter(|(status, _)| good(*status)).map(|_| ()))
            }
        })
        .await
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        match pid.and_then(rustix::process::Pid::from_raw) {
            Some(pid) => rustix::process::kill_process(pid, signal).context("signal a part"),
            None => Ok(()),
        }
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        if tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await.is_err() {
            self.child.kill().await.context("kill a part")?;
        }
        Ok(())
    }
}

/// Where a part's output goes; one that is started again goes on in the same file.
fn log_file(config: &Path, name: &str, kind: &str) -> anyhow::Result<fs::File> {
    let path = config.with_file_name(format!("{}.{kind}", name.replace(' ', "-")));
    let file = fs::OpenOptions::new().create(true).append(true).open(&path);
    file.with_context(|| format!("open {}", path.display()))
}

/// The file that arms a failpoint of the part with this configuration.
fn failpoint_file(config: &Path) -> PathBuf {
    config.with_extension("failpoint")
}

/// The files that configure the children.
struct Files {
    folder: PathBuf,
    admin: PathBuf,
    bot: PathBuf,
    slack_api: String,
}

impl Files {
    fn write(folder: &Path, slack: &SlackServer, kubernetes: &KubernetesServer, plan: &Plan) -> anyhow::Result<Self> {
        let files = Self {
            folder: folder.to_owned(),
            admin: folder.join("admin.kubeconfig"),
            bot: folder.join("bot.kubeconfig"),
            slack_api: slack.api_url(),
        };
        fs::write(&files.admin, kubernetes.kubeconfig("admin")).context("write a kubeconfig")?;
        fs::write(&files.bot, kubernetes.kubeconfig("bot")).context("write a kubeconfig")?;
        files.secret("app-token", slack.app_token())?;
        files.secret("bot-token", slack.bot_token())?;
        files.secret("secret", &random_word(32))?;
        files.secret("access-key", "sandbox")?;
        files.secret("secret-key", &random_word(20))?;
        fs::create_dir(folder.join("objects")).context("make the store's folder")?;
        let commands = folder.join("commands");
        fs::create_dir_all(commands.join("runbooks")).context("make the catalog's folder")?;
        let further = plan
            .diagnostics
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()));
        for (name, text) in CATALOG.into_iter().chain(further) {
            fs::write(commands.join(name), text).context("write the catalog")?;
        }
        Ok(files)
    }

    fn secret(&self, name: &str, text: &str) -> anyhow::Result<()> {
        fs::write(self.folder.join(name), text).with_context(|| format!("write {name}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn store_config(&self) -> PathBuf {
        self.path("store.yaml")
    }

    fn write_store(&self, address: SocketAddr) -> anyhow::Result<()> {
        let keys = fs::read_to_string(self.path("secret-key")).context("read the store's key")?;
        let list = json!([{ "accessKey": "sandbox", "secretKey": keys }]);
        self.secret("store-keys", &list.to_string())?;
        let config = json!({
            "listen": address,
            "folder": self.path("objects"),
            "bucket": BUCKET,
            "credentialsFile": self.path("store-keys"),
        });
        self.yaml("store.yaml", &config).map(|_| ())
    }

    /// The replica's own way to the API server.
    fn lead_over(&self, replica: usize, kubernetes: &KubernetesServer, cable: &Cable) -> anyhow::Result<()> {
        let near = format!("http://{}", cable.address());
        let kubeconfig = kubernetes.kubeconfig("bot").replace(&kubernetes.url(), &near);
        fs::write(self.kubeconfig_of(replica), kubeconfig).context("write a kubeconfig")
    }

    fn kubeconfig_of(&self, replica: usize) -> PathBuf {
        self.path(&format!("bot-{replica}.kubeconfig"))
    }

    fn write_bot(
        &self,
        replica: usize,
        address: SocketAddr,
        store: SocketAddr,
        triggers: &serde_json::Value,
        plan: &Plan,
    ) -> anyhow::Result<PathBuf> {
        let mut config = json!({
            "cluster": { "name": CLUSTER, "kubeconfig": if plan.cables { self.kubeconfig_of(replica) } else { self.bot.clone() } },
            "namespace": NAMESPACE,
            "secretFile": self.path("secret"),
            "catalog": { "folder": self.path("commands") },
            "agent": { "image": AGENT_IMAGE },
            // Stories ask one pod more often than an incident does; what makes it stand still is limited as ever.
            "budgets": {
                "pod": { "concurrent": 500, "perHour": 100_000 },
                "workload": { "concurrent": 500, "perHour": 100_000 },
                "namespace": { "concurrent": 1_000, "perHour": 100_000 },
                "cluster": { "concurrent": 1_000, "perHour": 100_000 },
                "ephemeralContainers": 1_000,
            },
            "slack": {
                "apiUrl": self.slack_api,
                "botTokenFile": self.path("bot-token"),
                "appTokenFile": self.path("app-token"),
            },
            "store": {
                "bucket": BUCKET,
                "region": "us-east-1",
                "endpoint": format!("http://{store}"),
                "accessKeyFile": self.path("access-key"),
                "secretKeyFile": self.path("secret-key"),
            },
            "http": { "listen": address },
            "triggers": triggers,
        });
        merge(&mut config, &plan.config);
        self.yaml(&format!("bot-{replica}.yaml"), &config)
    }

    fn yaml(&self, name: &str, value: &serde_json::Value) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, serde_saphyr::to_string(value)?).with_context(|| format!("write {name}"))?;
        Ok(path)
    }
}

/// The shipped catalog, so that the sandbox runs from anywhere.
const CATALOG: [(&str, &str); 11] = [
    ("heap-dump.yaml", include_str!("../../../commands/heap-dump.yaml")),
    (
        "heap-histogram.yaml",
        include_str!("../../../commands/heap-histogram.yaml"),
    ),
    ("jstack.yaml", include_str!("../../../commands/jstack.yaml")),
    ("pod-report.yaml", include_str!("../../../commands/pod-report.yaml")),
    ("process.yaml", include_str!("../../../commands/process.yaml")),
    ("sockets.yaml", include_str!("../../../commands/sockets.yaml")),
    (
        "runbooks/crashloop.yaml",
        include_str!("../../../commands/runbooks/crashloop.yaml"),
    ),
    (
        "runbooks/first-response.yaml",
        include_str!("../../../commands/runbooks/first-response.yaml"),
    ),
    (
        "runbooks/jvm-hang.yaml",
        include_str!("../../../commands/runbooks/jvm-hang.yaml"),
    ),
    (
        "runbooks/jvm-memory.yaml",
        include_str!("../../../commands/runbooks/jvm-memory.yaml"),
    ),
    (
        "runbooks/slow-network.yaml",
        include_str!("../../../commands/runbooks/slow-network.yaml"),
    ),
];

/// Lays `over` on `base`: mappings are merged, anything else is replaced.
fn merge(base: &mut serde_json::Value, over: &serde_json::Value) {
    match (base, over) {
        (serde_json::Value::Object(base), serde_json::Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(serde_json::Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

fn random_word(bytes: usize) -> String {
    hex::encode((0..bytes).map(|_| rand::random::<u8>()).collect::<Vec<_>>())
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

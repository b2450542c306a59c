//! One installation a story: namespaces, a local Slack, a store and a bot, all ended with the story.
//!
//! The bot is a process on the node, but for the story in `deployed`; its rights are those of `deploy/base`.

mod requests;
mod settings;
mod story;

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use diagbot_sandbox::{
    people::People,
    slack::{SlackConfig, SlackServer},
    wait::until,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client, api::ListParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use self::settings::{store_config, write_secrets};
pub(crate) use self::{
    settings::agent_image,
    story::{Turn, Variation, shared_turn, story},
};
use crate::{
    kubectl::{apply, kubectl, log, ready},
    link,
    namespaces::{allow, make_namespaces, prepare_cluster},
    workload::Workload,
};

/// Longest wait for a run to end and to be told, unless a story says otherwise.
pub(crate) const RUN_DEADLINE: Duration = Duration::from_mins(1);
/// Longest wait for a process of ours to answer.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Who types.
pub(crate) const PERSON: &str = "ada";
/// Where.
pub(crate) const CHANNEL: &str = "incidents";

/// A running installation.
pub(crate) struct Installation {
    /// Talks to the cluster as its administrator.
    pub(crate) client: Client,
    /// The bot's namespace.
    pub(crate) home: String,
    /// The namespace that the story's pods are in.
    pub(crate) target: String,
    /// The people of the local Slack.
    pub(crate) people: People,
    /// Address of the store, as pods and people use it.
    pub(crate) store: SocketAddr,
    /// Everything that is written to disk.
    pub(crate) folder: TempDir,
    pub(crate) slack: SlackServer,
    /// Where pods knock for the local Slack, which itself listens on loopback only.
    pub(crate) slack_door: Option<TcpListener>,
    team: String,
    bot: Option<Child>,
    _store: Child,
}

impl Installation {
    async fn start(name: &str, variation: &Variation) -> anyhow::Result<Self> {
        let client = Client::try_default()
            .await
            .context("connect to the cluster of KUBECONFIG")?;
        prepare_cluster().await?;
        let folder = tempfile::tempdir().context("make a folder")?;
        let suffix = format!("{name}-{:04x}", rand::random::<u16>());
        let (home, target) = (format!("diagbot-{suffix}"), format!("shop-{suffix}"));
        make_namespaces(&home, &target, variation).await?;

        let address = node_address(&client).await?;
        let door = if variation.published_slack {
            Some(TcpListener::bind((address, 0)).context("listen for the pods")?)
        } else {
            None
        };
        let public_base = match &door {
            Some(door) => Some(format!(
                "http://{}",
                door.local_addr().context("a listener has an address")?
            )),
            None => None,
        };
        let config = SlackConfig {
            public_base,
            ..SlackConfig::default()
        };
        let slack = SlackServer::start(config).await.context("start the local Slack")?;
        let people = People::at(&slack.people_url());
        let directory = people.get("/people").await?;
        let team = directory["team"]
            .as_str()
            .context("the local Slack has a team")?
            .to_owned();
        let user = directory["users"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|u| u["name"] == PERSON)
            .and_then(|u| u["id"].as_str())
            .context("the local Slack knows the person")?
            .to_owned();
        allow(&target, &team, &user).await?;

        let store_address = free_address(address)?;
        write_secrets(folder.path(), &slack)?;
        let store = start_store(folder.path(), store_address).await?;
        let installation = Self {
            client,
            home,
            target,
            people,
            store: store_address,
            folder,
            slack,
            slack_door: door,
            team,
            bot: None,
            _store: store,
        };
        installation.write_bot_config(variation).await?;
        Ok(installation)
    }

    /// Starts the bot as a process on the node and waits until it is ready.
    pub(crate) async fn start_bot(&mut self) -> anyhow::Result<()> {
        self.bot = Some(self.bot_of("bot").await?);
        Ok(())
    }

    /// Starts one more replica of the bot; it ends with its handle.
    pub(crate) async fn start_replica(&self) -> anyhow::Result<Child> {
        let mut config = self.bot_settings("bot")?;
        config["http"]["listen"] = json!(free_address(IpAddr::from([127, 0, 0, 1]))?);
        let path = self.folder.path().join("replica.yaml");
        std::fs::write(path, config.to_string()).context("write the replica's settings")?;
        self.bot_of("replica").await
    }

    /// Kills the bot as the kernel would.
    pub(crate) async fn kill_bot(&mut self) -> anyhow::Result<()> {
        let mut bot = self.bot.take().context("the bot runs")?;
        bot.kill().await.context("kill the bot")
    }

    async fn bot_of(&self, settings: &str) -> anyhow::Result<Child> {
        let log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.folder.path().join(format!("{settings}.log")))
            .context("open the bot's log")?;
        let mut bot = program()
            .args(["bot", "--log", "info,diagbot=debug", "serve", "--config"])
            .arg(self.folder.path().join(format!("{settings}.yaml")))
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .spawn()
            .context("start the bot")?;
        let config = self.bot_settings(settings)?;
        let listen = config["http"]["listen"].as_str().context("the bot listens")?.to_owned();
        let ready = until(START_DEADLINE, "the bot is ready", async || {
            Ok(link::open(&format!("http://{listen}/readyz")).await.ok().map(|_| ()))
        });
        tokio::select! {
            ready = ready => ready?,
            ended = bot.wait() => bail!("the bot ended: {}", ended?),
        }
        Ok(bot)
    }

    fn bot_settings(&self, name: &str) -> anyhow::Result<Value> {
        let path = self.folder.path().join(format!("{name}.yaml"));
        let config = std::fs::read_to_string(path).context("read the bot's settings")?;
        serde_json::from_str(&config).context("the bot's settings are JSON")
    }

    /// The bot's process id.
    pub(crate) fn bot_pid(&self) -> anyhow::Result<u32> {
        self.bot.as_ref().and_then(Child::id).context("the bot runs")
    }

    /// Starts a pod in the target namespace and the bot, and waits until both are ready.
    pub(crate) async fn start_all(&mut self, workload: &Workload) -> anyhow::Result<()> {
        self.start_pod(workload).await?;
        self.start_bot().await
    }

    /// Starts a pod in the target namespace and waits until it is ready.
    pub(crate) async fn start_pod(&self, workload: &Workload) -> anyhow::Result<()> {
        apply(&workload.manifest(&self.target)).await?;
        ready(&self.target, workload.name()).await
    }

    /// The pod as the cluster sees it.
    pub(crate) async fn pod(&self, name: &str) -> anyhow::Result<Pod> {
        Ok(Api::namespaced(self.client.clone(), &self.target).get(name).await?)
    }

    /// Waits until the pod's container has said something.
    pub(crate) async fn wait_for_log(&self, pod: &str, words: &str) -> anyhow::Result<()> {
        until(RUN_DEADLINE, "the pod has said its words", async || {
            Ok(log(&self.target, pod, "app").await?.contains(words).then_some(()))
        })
        .await
    }

    /// Runs a program in the pod's container.
    pub(crate) async fn exec(&self, pod: &str, command: &[&str]) -> anyhow::Result<String> {
        let mut arguments = vec!["-n", &self.target, "exec", pod, "-c", "app", "--"];
        arguments.extend(command);
        kubectl(&arguments, None).await
    }

    /// The container's first process, by its number on the node, which is this machine.
    pub(crate) async fn container_pid(&self, pod: &str, container: &str) -> anyhow::Result<u32> {
        let status = self.pod(pod).await?.status.unwrap_or_default();
        let id = status
            .container_statuses
            .into_iter()
            .flatten()
            .find(|c| c.name == container)
            .and_then(|c| c.container_id)
            .context("the container runs")?;
        let id = id.rsplit('/').next().unwrap_or_default().to_owned();
        let of_container =
            |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroup| cgroup.contains(&id));
        std::fs::read_dir("/proc")
            .context("list processes")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(of_container)
            .min()
            .context("the container's process is on this machine")
    }

    async fn end(mut self, keep: bool) -> anyhow::Result<()> {
        if let Some(bot) = &mut self.bot {
            bot.kill().await.context("end the bot")?;
        }
        self.slack.stop().await;
        if keep {
            eprintln!(
                "kept: namespaces {} and {}, {}",
                self.home,
                self.target,
                self.folder.keep().display()
            );
        } else {
            let namespaces = [&self.home, &self.target].map(String::as_str);
            let flags = ["delete", "namespace", "--wait=false", "--ignore-not-found"];
            kubectl(&[&flags[..], &namespaces[..]].concat(), None).await?;
            let binding = format!("diagbot-cluster-{}", self.home);
            kubectl(&["delete", "clusterrolebinding", &binding], None).await?;
        }
        Ok(())
    }
}

/// Where the sources are.
pub(crate) fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The folder of the shipped diagnostics.
pub(crate) fn catalog() -> PathBuf {
    repository().join("commands")
}

/// The program under test, which ends with its handle.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox-under-test"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// The address of the only node: pods reach it, and so do we.
async fn node_address(client: &Client) -> anyhow::Result<IpAddr> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = nodes
        .list(&ListParams::default())
        .await?
        .items
        .into_iter()
        .next()
        .context("the cluster has a node")?;
    let addresses = node.status.and_then(|s| s.addresses).unwrap_or_default();
    let internal = addresses
        .iter()
        .find(|a| a.type_ == "InternalIP")
        .context("the node has an address")?;
    internal.address.parse().context("the node's address is one")
}

/// An address that nobody listens on right now.
fn free_address(ip: IpAddr) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((ip, 0)).with_context(|| format!("listen on {ip}"))?;
    listener.local_addr().context("a listener has an address")
}

async fn start_store(folder: &Path, listen: SocketAddr) -> anyhow::Result<Child> {
    let config = store_config(folder, listen);
    let path: PathBuf = folder.join("store.yaml");
    std::fs::write(&path, config.to_string()).context("write the store's settings")?;
    std::fs::create_dir_all(folder.join("store")).context("make the store's folder")?;
    let log = std::fs::File::create(folder.join("store.log")).context("make the store's log")?;
    let child = program()
        .args(["bot", "store", "--config"])
        .arg(&path)
        .stdout(log.try_clone().context("share the log")?)
        .stderr(log)
        .spawn()
        .context("start the store")?;
    until(START_DEADLINE, "the store listens", async || {
        Ok(tokio::net::TcpStream::connect(listen).await.ok().map(|_| ()))
    })
    .await?;
    Ok(child)
}

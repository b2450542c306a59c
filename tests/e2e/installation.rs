//! One installation a story: namespaces, a local Slack, a store and a bot, all ended with the story.
//!
//! The bot is a process on the node, but for the story in `deployed`; its rights are those of `deploy/base`.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use diagbot::{
    captures::resource::DiagnosticCapture,
    runs::{request::RequestKey, resource::DiagnosticRun},
};
use diagbot_sandbox::{
    people::People,
    slack::{SlackConfig, SlackServer},
    wait::until,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client, api::ListParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::{
    kubectl::{apply, kubectl, log, ready},
    link,
    namespaces::{allow, make_namespaces, prepare_cluster},
    outcome::{Outcome, is_told},
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

/// What a story changes about its installation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variation {
    /// Another image for the agent.
    pub(crate) agent_image: Option<String>,
    /// How long the agent's container may take to start, in seconds.
    pub(crate) launch_limit_s: Option<u32>,
    /// The local Slack is reached at the node's address, by pods.
    pub(crate) published_slack: bool,
    /// Another folder of diagnostics than the shipped one.
    pub(crate) catalog: Option<PathBuf>,
    /// Pods of the target namespace are captured by themselves when they are sick.
    pub(crate) watches_pods: bool,
    /// Labels of the target namespace.
    pub(crate) labels: Vec<(&'static str, &'static str)>,
    /// No other story has the cluster meanwhile.
    pub(crate) alone: bool,
}

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

/// Who has the cluster: one story that disturbs it for all, or any number of others.
static CLUSTER: RwLock<()> = RwLock::const_new(());

/// A story's turn on the cluster; over when dropped.
#[expect(dead_code, reason = "held for as long as the story lasts")]
pub(crate) enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// A turn beside other stories.
pub(crate) async fn shared_turn() -> Turn {
    Turn::Shared(CLUSTER.read().await)
}

/// Runs a story on an installation of its own; tells what it took, and on failure what people and logs saw.
pub(crate) async fn story(
    name: &str,
    variation: Variation,
    body: impl AsyncFnOnce(&mut Installation) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let _turn = if variation.alone {
        Turn::Alone(CLUSTER.write().await)
    } else {
        shared_turn().await
    };
    let mut installation = Installation::start(name, &variation).await?;
    let started = Instant::now();
    let result = body(&mut installation).await;
    match &result {
        Ok(()) => eprintln!("{name}: ok in {:.1} s", started.elapsed().as_secs_f64()),
        Err(error) => {
            eprintln!(
                "{name}: FAILED after {:.1} s: {error:#}",
                started.elapsed().as_secs_f64()
            );
            installation.explain().await;
        }
    }
    let keep = result.is_err() && std::env::var_os("DIAGBOT_E2E_KEEP").is_some();
    installation.end(keep).await?;
    result
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

    /// Types a command and returns the name of its run.
    pub(crate) async fn command(&self, text: &str) -> anyhow::Result<String> {
        self.command_of(PERSON, text).await
    }

    /// The same as another person.
    pub(crate) async fn command_of(&self, person: &str, text: &str) -> anyhow::Result<String> {
        let answer = self.people.command(person, CHANNEL, text).await?;
        ensure!(
            answer["delivered"] == json!(true),
            "the command was not delivered: {answer}"
        );
        let trigger_id = answer["trigger_id"]
            .as_str()
            .context("a command has a trigger")?
            .to_owned();
        let team = self.team.clone();
        Ok(RequestKey::Command { team, trigger_id }.run_name().as_str().to_owned())
    }

    /// Asks for a diagnostic of a pod in the target namespace and waits until people were told its end.
    pub(crate) async fn ask(&self, diagnostic: &str, pod: &str) -> anyhow::Result<Outcome> {
        self.ask_line(&format!("{diagnostic} {pod} -n {}", self.target)).await
    }

    /// The same with everything that stands behind `/diag`.
    pub(crate) async fn ask_line(&self, line: &str) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let run = self.command(&format!("/diag {line}")).await?;
        let outcome = self.outcome(&run, RUN_DEADLINE, started).await?;
        let took = outcome.took.as_secs_f64();
        eprintln!("  {line}: {:?} after {took:.2} s; {}", outcome.phase(), outcome.trace());
        Ok(outcome)
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

    /// Waits until a run has ended and people were told.
    pub(crate) async fn outcome(&self, run: &str, limit: Duration, started: Instant) -> anyhow::Result<Outcome> {
        let runs: Api<DiagnosticRun> = Api::namespaced(self.client.clone(), &self.home);
        let found = until(limit, "the run has ended and was told", async || {
            Ok(runs.get_opt(run).await?.filter(is_told))
        })
        .await?;
        let took = started.elapsed();
        let mut thread = self.people.read(CHANNEL).await?;
        thread.retain(|message| message.metadata["event_payload"]["run"] == json!(run));
        Ok(Outcome {
            captures: self.captures(run).await?,
            thread,
            run: found,
            took,
        })
    }

    /// The captures of a run, in order.
    pub(crate) async fn captures(&self, run: &str) -> anyhow::Result<Vec<DiagnosticCapture>> {
        let api: Api<DiagnosticCapture> = Api::namespaced(self.client.clone(), &self.home);
        let mut captures = api.list(&ListParams::default()).await?.items;
        captures.retain(|c| c.spec.run == run);
        captures.sort_by_key(|c| c.spec.index);
        Ok(captures)
    }

    /// Waits until the run's first capture satisfies a condition.
    pub(crate) async fn capture_until(
        &self,
        run: &str,
        what: &str,
        condition: impl Fn(&DiagnosticCapture) -> bool,
    ) -> anyhow::Result<DiagnosticCapture> {
        until(RUN_DEADLINE, what, async || {
            Ok(self.captures(run).await?.into_iter().next().filter(&condition))
        })
        .await
    }

    async fn explain(&self) {
        match self.people.read(CHANNEL).await {
            Ok(messages) => messages
                .iter()
                .for_each(|m| eprintln!("  | {}", m.plain.join("\n  | "))),
            Err(error) => eprintln!("  the thread can't be read: {error:#}"),
        }
        for what in ["drun,dcap"] {
            let seen = kubectl(&["-n", &self.home, "get", what, "-o", "yaml"], None).await;
            eprintln!("{}", seen.unwrap_or_else(|error| format!("{error:#}")));
        }
        for log in ["bot.log", "replica.log", "store.log"] {
            let text = std::fs::read_to_string(self.folder.path().join(log)).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(60).collect();
            eprintln!("--- end of {log}");
            lines.into_iter().rev().for_each(|line| eprintln!("{line}"));
        }
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

    async fn write_bot_config(&self, variation: &Variation) -> anyhow::Result<()> {
        let file = |name: &str| self.folder.path().join(name);
        let kubeconfig = self.bot_kubeconfig().await?;
        std::fs::write(file("kubeconfig"), kubeconfig.to_string()).context("write the bot's kubeconfig")?;
        let image = match &variation.agent_image {
            Some(image) => image.clone(),
            None => agent_image()?,
        };
        let store = format!("http://{}", self.store);
        let sources = if variation.watches_pods {
            json!([self.pods_as_a_source()])
        } else {
            json!([])
        };
        let config = json!({
            "triggers": { "sources": sources },
            "cluster": { "name": "local", "kubeconfig": file("kubeconfig") },
            "namespace": self.home,
            "secretFile": file("nonce-key"),
            "catalog": { "folder": variation.catalog.clone().unwrap_or_else(catalog) },
            "agent": { "image": image, "launchLimitS": variation.launch_limit_s.unwrap_or(120) },
            // One pod is asked more often than in an incident; what makes it stand still is limited as ever.
            "budgets": {
                "pod": { "concurrent": 500, "perHour": 100_000 },
                "workload": { "concurrent": 500, "perHour": 100_000 },
                "namespace": { "concurrent": 1_000, "perHour": 100_000 },
                "cluster": { "concurrent": 1_000, "perHour": 100_000 },
                "ephemeralContainers": 1_000,
            },
            "slack": {
                "apiUrl": self.slack.api_url(),
                "botTokenFile": file("slack-bot-token"),
                "appTokenFile": file("slack-app-token"),
            },
            "store": {
                "bucket": "evidence",
                "region": "local",
                "endpoint": store,
                "accessKeyFile": file("store-access-key"),
                "secretKeyFile": file("store-secret-key"),
            },
            "http": { "listen": free_address(IpAddr::from([127, 0, 0, 1]))? },
        });
        std::fs::write(file("bot.yaml"), config.to_string()).context("write the bot's settings")
    }

    /// The settings of a source that watches the target namespace.
    fn pods_as_a_source(&self) -> Value {
        json!({
            "name": "kubernetes",
            "from": { "kubernetes": {} },
            "clusters": { "local": [self.target] },
            "channel": "C0INCIDENT",
            "rules": [{
                "name": "sick",
                "namespace": "${labels.namespace}",
                "target": "${labels.kind}/${labels.workload}",
                "pod": "${labels.pod}",
                "diagnostic": "pod-report",
            }],
        })
    }

    /// A kubeconfig with a token of the bot's service account instead of the administrator's credentials.
    pub(crate) async fn bot_kubeconfig(&self) -> anyhow::Result<Value> {
        let token = kubectl(&["-n", &self.home, "create", "token", "diagbot", "--duration=1h"], None).await?;
        let view = kubectl(&["config", "view", "--raw", "--minify", "-o", "json"], None).await?;
        let mut config: Value = serde_json::from_str(&view).context("read the kubeconfig")?;
        config["users"][0]["user"] = json!({ "token": token.trim() });
        Ok(config)
    }
}

/// The agent's image on the node, by digest.
pub(crate) fn agent_image() -> anyhow::Result<String> {
    std::env::var("DIAGBOT_E2E_AGENT_IMAGE").context("DIAGBOT_E2E_AGENT_IMAGE names the agent's image")
}

/// Where the sources are.
pub(crate) fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The program under test, which ends with its handle.
/// The folder of the shipped diagnostics.
pub(crate) fn catalog() -> PathBuf {
    repository().join("commands")
}

/// The program under test.
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

fn write_secrets(folder: &Path, slack: &SlackServer) -> anyhow::Result<()> {
    let random: String = (0..64).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect();
    for (name, text) in [
        ("nonce-key", random.as_str()),
        ("store-access-key", "evidence"),
        ("store-secret-key", &random[..40]),
        ("slack-bot-token", slack.bot_token()),
        ("slack-app-token", slack.app_token()),
        (
            "credentials.yaml",
            &json!([{ "accessKey": "evidence", "secretKey": &random[..40] }]).to_string(),
        ),
    ] {
        std::fs::write(folder.join(name), text).with_context(|| format!("write {name}"))?;
    }
    Ok(())
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

fn store_config(folder: &Path, listen: SocketAddr) -> Value {
    json!({
        "listen": listen,
        "folder": folder.join("store"),
        "bucket": "evidence",
        "region": "local",
        "credentialsFile": folder.join("credentials.yaml"),
    })
}

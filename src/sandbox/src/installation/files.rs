//! The files that configure store and bot, as an owner would write them: secrets, kubeconfigs, the catalog, the configuration.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::json;

use super::Plan;
use crate::{kubernetes::KubernetesServer, network_fault::NetworkFault, slack::SlackServer};

/// Namespace of the bot.
pub(super) const NAMESPACE: &str = "diagbot";
/// Name of the one cluster.
const CLUSTER: &str = "sandbox";
/// Bucket of the store.
const BUCKET: &str = "evidence";
/// The agent's image; the local node knows it by name and runs this program's agent.
const AGENT_IMAGE: &str =
    "registry.sandbox/diagbot-agent@sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// The files that configure the children.
pub(super) struct Files {
    folder: PathBuf,
    pub(super) admin: PathBuf,
    bot: PathBuf,
    slack_api: String,
}

impl Files {
    pub(super) fn write(
        folder: &Path,
        slack: &SlackServer,
        kubernetes: &KubernetesServer,
        plan: &Plan,
    ) -> anyhow::Result<Self> {
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

    pub(super) fn store_config(&self) -> PathBuf {
        self.path("store.yaml")
    }

    pub(super) fn write_store(&self, address: SocketAddr) -> anyhow::Result<()> {
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
    pub(super) fn lead_over(
        &self,
        replica: usize,
        kubernetes: &KubernetesServer,
        network_fault: &NetworkFault,
    ) -> anyhow::Result<()> {
        let near = format!("http://{}", network_fault.address());
        let kubeconfig = kubernetes.kubeconfig("bot").replace(&kubernetes.url(), &near);
        fs::write(self.kubeconfig_of(replica), kubeconfig).context("write a kubeconfig")
    }

    fn kubeconfig_of(&self, replica: usize) -> PathBuf {
        self.path(&format!("bot-{replica}.kubeconfig"))
    }

    pub(super) fn write_bot(
        &self,
        replica: usize,
        address: SocketAddr,
        store: SocketAddr,
        triggers: &serde_json::Value,
        plan: &Plan,
    ) -> anyhow::Result<PathBuf> {
        let mut config = json!({
            "cluster": { "name": CLUSTER, "kubeconfig": if plan.network_faults { self.kubeconfig_of(replica) } else { self.bot.clone() } },
            "namespace": NAMESPACE,
            "secretFile": self.path("secret"),
            "catalog": { "folder": self.path("commands") },
            "agent": { "image": AGENT_IMAGE },
            "budgets": budgets_of_stories(),
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

/// The `budgets` of a configuration under which stories ask one pod more often than an incident does; what makes it stand
/// still is limited as ever.
pub fn budgets_of_stories() -> serde_json::Value {
    json!({
        "pod": { "concurrent": 500, "perHour": 100_000 },
        "workload": { "concurrent": 500, "perHour": 100_000 },
        "namespace": { "concurrent": 1_000, "perHour": 100_000 },
        "cluster": { "concurrent": 1_000, "perHour": 100_000 },
        "ephemeralContainers": 1_000,
    })
}

/// The shipped catalog, so that the sandbox runs from anywhere.
const CATALOG: [(&str, &str); 11] = [
    ("heap-dump.yaml", include_str!("../../../../commands/heap-dump.yaml")),
    (
        "heap-histogram.yaml",
        include_str!("../../../../commands/heap-histogram.yaml"),
    ),
    ("jstack.yaml", include_str!("../../../../commands/jstack.yaml")),
    ("pod-report.yaml", include_str!("../../../../commands/pod-report.yaml")),
    ("process.yaml", include_str!("../../../../commands/process.yaml")),
    ("sockets.yaml", include_str!("../../../../commands/sockets.yaml")),
    (
        "runbooks/crashloop.yaml",
        include_str!("../../../../commands/runbooks/crashloop.yaml"),
    ),
    (
        "runbooks/first-response.yaml",
        include_str!("../../../../commands/runbooks/first-response.yaml"),
    ),
    (
        "runbooks/jvm-hang.yaml",
        include_str!("../../../../commands/runbooks/jvm-hang.yaml"),
    ),
    (
        "runbooks/jvm-memory.yaml",
        include_str!("../../../../commands/runbooks/jvm-memory.yaml"),
    ),
    (
        "runbooks/slow-network.yaml",
        include_str!("../../../../commands/runbooks/slow-network.yaml"),
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

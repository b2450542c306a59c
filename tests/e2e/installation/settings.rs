//! The files by which bot and store are configured.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::Context as _;
use diagbot_sandbox::{installation::budgets_of_stories, slack::SlackServer, triggers::pods_as_a_source};
use serde_json::{Value, json};

use super::{Installation, catalog, free_address, story::Variation};
use crate::kubectl::kubectl;

impl Installation {
    pub(super) async fn write_bot_config(&self, variation: &Variation) -> anyhow::Result<()> {
        let file = |name: &str| self.folder.path().join(name);
        let kubeconfig = self.bot_kubeconfig().await?;
        std::fs::write(file("kubeconfig"), kubeconfig.to_string()).context("write the bot's kubeconfig")?;
        let image = match &variation.agent_image {
            Some(image) => image.clone(),
            None => agent_image()?,
        };
        let store = format!("http://{}", self.store);
        let sources = if variation.watches_pods {
            json!([pods_as_a_source("local", &self.target)])
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
            "budgets": budgets_of_stories(),
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

    /// A kubeconfig with a token of the bot's service account instead of the administrator's credentials.
    pub(crate) async fn bot_kubeconfig(&self) -> anyhow::Result<Value> {
        self.kubeconfig_of_token(&["--duration=1h"]).await
    }

    /// The same, with a token that is good for as long as this pod is there: as the kubelet gives it to the pod.
    pub(crate) async fn pod_kubeconfig(&self, pod: &str) -> anyhow::Result<Value> {
        let name = pod.trim_start_matches("pod/");
        let bound = ["--bound-object-kind=Pod", "--bound-object-name", name];
        self.kubeconfig_of_token(&bound).await
    }

    async fn kubeconfig_of_token(&self, options: &[&str]) -> anyhow::Result<Value> {
        let words = ["-n", &self.home, "create", "token", "diagbot"];
        let token = kubectl(&[&words[..], options].concat(), None).await?;
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

pub(super) fn write_secrets(folder: &Path, slack: &SlackServer) -> anyhow::Result<()> {
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

pub(super) fn store_config(folder: &Path, listen: SocketAddr) -> Value {
    json!({
        "listen": listen,
        "folder": folder.join("store"),
        "bucket": "evidence",
        "region": "local",
        "credentialsFile": folder.join("credentials.yaml"),
    })
}

//! Settings of the Slack front. Owns the rule that the worst rollout stays within Slack's ten connections an app.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

/// Open Socket Mode connections that Slack allows an app, over all of its processes.
pub const SLACK_CONNECTIONS: usize = 10;

/// How to reach Slack and how people call us.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlackConfig {
    /// Base of the Web API; default `https://slack.com/api` (GovSlack: `https://slack-gov.com/api`).
    #[serde(default = "default_api_url")]
    pub api_url: Url,
    /// File with the bot token (`xoxb-…`).
    pub bot_token_file: PathBuf,
    /// File with the app-level token (`xapp-…`, scope `connections:write`).
    pub app_token_file: PathBuf,
    /// The slash command's own name; default `/diag`.
    #[serde(default = "default_command")]
    pub command: String,
    /// Socket Mode connections of each process; default 2.
    #[serde(default = "default_two")]
    pub connections: usize,
    /// Replicas of the bot; default 2. A rollout may run one process more.
    #[serde(default = "default_two")]
    pub replicas: usize,
    /// HTTP proxy for everything that goes to Slack (CONNECT): `http://[user:password@]host:port`; default none.
    #[serde(default)]
    pub proxy: Option<Url>,
    /// Defaults by channel id (`C…`).
    #[serde(default)]
    pub channels: BTreeMap<String, ChannelDefaults>,
}

/// What a command in a channel means where it doesn't say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChannelDefaults {
    /// Cluster; default: the home cluster.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Namespace; default: wherever the name is unique.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Target as people type it, for commands without one.
    #[serde(default)]
    pub target: Option<String>,
}

fn default_api_url() -> Url {
    Url::parse("https://slack.com/api").expect("a constant URL is valid")
}

fn default_command() -> String {
    "/diag".to_owned()
}

const fn default_two() -> usize {
    2
}

impl SlackConfig {
    /// Every broken rule, as `key: rule`.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.connections == 0 || self.replicas == 0 {
            faults.push("slack.connections, slack.replicas: at least 1".to_owned());
        }
        let worst = self.most_connections();
        if worst > SLACK_CONNECTIONS {
            faults.push(format!(
                "slack.connections: a rollout could open {worst} connections and Slack allows {SLACK_CONNECTIONS}: \
                 (replicas + 1) x (connections + 1) must not exceed it"
            ));
        }
        if !matches!(self.api_url.scheme(), "https" | "http") || self.api_url.host_str().is_none() {
            faults.push("slack.apiUrl: an http(s) URL such as https://slack.com/api".to_owned());
        }
        if self
            .proxy
            .as_ref()
            .is_some_and(|p| p.scheme() != "http" || p.host_str().is_none())
        {
            faults.push("slack.proxy: a URL such as http://proxy.example:3128".to_owned());
        }
        let name = self.command.strip_prefix('/').unwrap_or_default();
        if name.is_empty() || name.len() > 31 || name.chars().any(|c| c.is_whitespace() || c == '/') {
            faults.push("slack.command: `/` and 1 to 31 characters without spaces".to_owned());
        }
        for (channel, defaults) in &self.channels {
            if let Some(Err(error)) = defaults.target.as_deref().map(diagbot_api::target::parse) {
                faults.push(format!("slack.channels.{channel}.target: {error}"));
            }
        }
        faults
    }

    /// Connections that the worst rollout opens: one process more than replicas, each with one link more while it
    /// exchanges another.
    pub fn most_connections(&self) -> usize {
        self.replicas
            .saturating_add(1)
            .saturating_mul(self.connections.saturating_add(1))
    }

    /// Connections that Slack should count outside a rollout, with one exchange under way.
    pub fn usual_connections(&self) -> usize {
        self.replicas.saturating_mul(self.connections).saturating_add(1)
    }

    /// The defaults of a channel.
    pub fn defaults(&self, channel: &str) -> ChannelDefaults {
        self.channels.get(channel).cloned().unwrap_or_default()
    }
}

/// The two tokens. `Debug` shows neither.
#[derive(Debug, Clone)]
pub struct SlackTokens {
    /// For the Web API.
    pub bot: SecretString,
    /// For `apps.connections.open` only.
    pub app: SecretString,
}

/// A token can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file can't be read.
    #[error("read the Slack token file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} holds no Slack token: it must begin with `{prefix}`", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// How such a token begins.
        prefix: &'static str,
    },
}

impl SlackTokens {
    /// Reads both files.
    pub fn read(config: &SlackConfig) -> Result<Self, TokenError> {
        Ok(Self {
            bot: read_token(&config.bot_token_file, "xoxb-")?,
            app: read_token(&config.app_token_file, "xapp-")?,
        })
    }
}

fn read_token(path: &PathBuf, prefix: &'static str) -> Result<SecretString, TokenError> {
    let text = fs::read_to_string(path).map_err(|source| TokenError::Read {
        path: path.clone(),
        source,
    })?;
    let token = text.trim();
    let fits = token.starts_with(prefix) && token.bytes().all(|b| b.is_ascii_graphic());
    if !fits {
        return Err(TokenError::Kind {
            path: path.clone(),
            prefix,
        });
    }
    Ok(SecretString::from(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(connections: usize, replicas: usize) -> SlackConfig {
        let yaml = format!(
            "botTokenFile: /b\nappTokenFile: /a\nconnections: {connections}\nreplicas: {replicas}\nchannels: {{C1: {{target: 'a b'}}}}"
        );
        serde_saphyr::from_str(&yaml).unwrap()
    }

    #[test]
    fn a_rollout_that_could_exceed_ten_connections_is_a_fault_of_the_configuration() {
        let about_connections = |c: &SlackConfig| c.faults().iter().filter(|f| f.contains("rollout")).count();
        assert_eq!(config(2, 2).most_connections(), 9);
        assert_eq!(about_connections(&config(2, 2)), 0);
        assert_eq!(about_connections(&config(2, 3)), 1);
        assert_eq!(about_connections(&config(1, 4)), 0);
    }

    #[test]
    fn a_channels_default_target_is_checked_at_the_start() {
        assert!(
            config(2, 2)
                .faults()
                .iter()
                .any(|f| f.contains("slack.channels.C1.target"))
        );
    }
}

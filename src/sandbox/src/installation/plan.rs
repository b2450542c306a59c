//! What an installation is to be: how many replicas, and how its Slack, Kubernetes, store and bot behave. Starts nothing.

use serde_json::json;

use crate::{kubernetes::KubernetesConfig, slack::SlackConfig, store};

/// What to start.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Replicas of the bot.
    pub replicas: usize,
    /// Show the children's logs; else they go to files ([`super::Installation::logs`]).
    pub verbose: bool,
    /// What the children log, as their option `--log` takes it.
    pub log: &'static str,
    /// How the local Slack behaves.
    pub slack: SlackConfig,
    /// How the local Kubernetes behaves.
    pub kubernetes: KubernetesConfig,
    /// Further diagnostics beside the shipped ones: file name and content.
    pub diagnostics: Vec<(String, String)>,
    /// Each replica of the bot reaches the API server by a network of its own ([`super::Installation::plug`]).
    pub network_faults: bool,
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
            network_faults: false,
            store_faults: None,
            config: json!({}),
        }
    }
}

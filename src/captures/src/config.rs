//! What captures are configured with, and the bot's Secret. Owns the settings' limits; reads no file itself.

use std::{fmt, sync::Arc};

use diagbot_artifacts::Destination;
use diagbot_audit::AuditLog;
use diagbot_base::{clock::Clock, telemetry::metrics::Metrics};
use diagbot_cluster::{Clusters, lease::Leadership};
use serde::Deserialize;

use super::RedactionConfig;

/// Longest wait of a container for its ticket, in seconds. A constant, since it stands in the container's arguments and
/// a bot that is restarted with other settings must recognise its own container.
pub const TICKET_WAIT_S: u32 = 60;
/// Shortest bot's Secret, in bytes: as long as the HMACs that are made with it.
pub const MIN_SECRET_BYTES: usize = 32;

/// Settings of the agent's container (`agent:` in the configuration file).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CapturesConfig {
    /// The agent's image, by digest.
    pub image: String,
    /// When the node pulls it. Default: `IfNotPresent`.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// Captures under way at once in one cluster; further ones wait. Default: 32.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// Longest time from adding the container to its first words, in seconds: pulling its image, mostly. Default: 120.
    #[serde(default = "default_launch_limit_s")]
    pub launch_limit_s: u32,
    /// What is removed from captured text.
    #[serde(default)]
    pub redaction: RedactionConfig,
}

impl CapturesConfig {
    /// The defaults with this image.
    pub fn of_image(image: String) -> Self {
        Self {
            image,
            pull_policy: PullPolicy::default(),
            concurrency: default_concurrency(),
            launch_limit_s: default_launch_limit_s(),
            redaction: RedactionConfig::default(),
        }
    }
}

/// When a node pulls the agent's image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum PullPolicy {
    /// Where it is absent.
    #[default]
    IfNotPresent,
    /// Before every start.
    Always,
    /// Not at all: the image was put there.
    Never,
}

impl PullPolicy {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IfNotPresent => "IfNotPresent",
            Self::Always => "Always",
            Self::Never => "Never",
        }
    }
}

fn default_concurrency() -> usize {
    32
}

fn default_launch_limit_s() -> u32 {
    120
}

/// The bot's Secret: nonces and journal keys are made from it. Never shown.
pub struct SecretKey(Vec<u8>);

/// The bot's Secret is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bot's Secret holds {found} bytes; it needs at least {MIN_SECRET_BYTES}")]
pub struct SecretTooShort {
    /// Its length in bytes.
    pub found: usize,
}

impl TryFrom<Vec<u8>> for SecretKey {
    type Error = SecretTooShort;

    fn try_from(bytes: Vec<u8>) -> Result<Self, SecretTooShort> {
        if bytes.len() < MIN_SECRET_BYTES {
            return Err(SecretTooShort { found: bytes.len() });
        }
        Ok(Self(bytes))
    }
}

impl SecretKey {
    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(redacted)")
    }
}

/// What the captures controller works with.
#[derive(Clone)]
pub struct CapturesContext {
    /// Home and target clusters.
    pub clusters: Clusters,
    /// Where artifacts go.
    pub store: Destination,
    /// Where everything that is done is told.
    pub audit_log: AuditLog,
    /// Whether we lead.
    pub leadership: Leadership,
    /// The bot's Secret.
    pub secret: Arc<SecretKey>,
    /// Settings.
    pub config: CapturesConfig,
    /// What is counted.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
}

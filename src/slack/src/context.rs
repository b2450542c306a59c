//! What the parts of the Slack front share.

use std::sync::Arc;

use diagbot_base::{clock::Clock, telemetry::metrics::Metrics};
use diagbot_runs::service::RunService;

use crate::{api::SlackApi, config::SlackConfig};

/// The shared parts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SlackContext {
    /// Settings.
    pub config: Arc<SlackConfig>,
    /// The Web API.
    pub api: SlackApi,
    /// The runs.
    pub service: RunService,
    /// Counters.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
}

impl SlackContext {
    /// Name of the home cluster.
    pub fn home(&self) -> &str {
        self.service.clusters().home().name.as_str()
    }
}

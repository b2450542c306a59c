//! The bot's Slack side against a local Slack, with runs on the sandbox's Kubernetes.

#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::sync::Arc;

use diagbot_api::request_key::RunName;
use diagbot_base::{clock::Clock, telemetry::metrics::Metrics};
use diagbot_sandbox::slack::{SlackConfig as LocalSlack, SlackServer};
use diagbot_slack::{
    api::SlackApi,
    config::{SlackConfig, SlackTokens},
    context::SlackContext,
    directory::SlackDirectory,
    handlers,
    socket::SocketHealth,
    thread,
};
use serde_json::json;

use super::people::People;
use crate::runs::world::{Replica, World};

/// The whole arrangement.
pub(crate) struct Bot {
    pub(crate) world: World,
    pub(crate) people: People,
    pub(crate) health: SocketHealth,
    slack: SlackServer,
    replica: Replica,
    config: Arc<SlackConfig>,
    tokens: SlackTokens,
}

impl Bot {
    pub(crate) async fn start(local: LocalSlack) -> Self {
        let slack = SlackServer::start(local).await.unwrap();
        let world = World::start().await;
        let folder = tempfile::tempdir().unwrap();
        let (bot, app) = (folder.path().join("bot"), folder.path().join("app"));
        std::fs::write(&bot, slack.bot_token()).unwrap();
        std::fs::write(&app, slack.app_token()).unwrap();
        let config: SlackConfig = serde_json::from_value(json!({
            "apiUrl": slack.api_url(), "botTokenFile": bot, "appTokenFile": app,
            "channels": { "C0SHOPONCL": { "namespace": "shop", "target": "checkout" } },
        }))
        .unwrap();
        assert_eq!(config.faults(), Vec::<String>::new());
        let tokens = SlackTokens::read(&config).unwrap();
        let config = Arc::new(config);
        let health = SocketHealth::default();
        let replica = process(&world, &config, &tokens, &health).await;
        let people = People::of(slack.people_url());
        let up = people.see("connections?at_least=2&wait_ms=20000").await;
        assert_eq!(up["connections"], 2, "{up}");
        Self {
            world,
            people,
            health,
            slack,
            replica,
            config,
            tokens,
        }
    }

    /// Ends the process and starts another one.
    pub(crate) async fn restart(&mut self) {
        self.health = SocketHealth::default();
        let next = process(&self.world, &self.config, &self.tokens, &self.health).await;
        std::mem::replace(&mut self.replica, next).stop().await;
    }

    /// The newest run.
    pub(crate) async fn newest(&self) -> RunName {
        let mut runs = self.world.runs().await;
        runs.sort_by_key(|run| run.spec.received_at.0);
        runs.last().and_then(diagbot_api::run::DiagnosticRun::name).unwrap()
    }

    pub(crate) async fn stop(self) {
        self.world.stop(vec![self.replica]).await;
        self.slack.stop().await;
    }
}

/// One process of the bot.
async fn process(world: &World, config: &Arc<SlackConfig>, tokens: &SlackTokens, health: &SocketHealth) -> Replica {
    let metrics = Metrics::new();
    let api = SlackApi::new(config, tokens, metrics.clone()).unwrap();
    let directory = SlackDirectory::new(api.clone());
    let mut replica = world.replica_asking(Arc::new(directory)).await;
    let context = SlackContext {
        config: Arc::clone(config),
        api,
        service: replica.service.clone(),
        metrics,
        clock: Clock::System,
    };
    let stop = replica.stop.clone();
    replica.tasks.spawn(thread::run(context.clone(), stop.clone()));
    replica.tasks.spawn(handlers::run(context, health.clone(), stop));
    replica
}

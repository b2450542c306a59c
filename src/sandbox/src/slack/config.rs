//! How a local Slack is set up: tokens, what the app may do, and how impatient Slack is.

use std::{net::SocketAddr, time::Duration};

use super::faults::Fault;

/// Scopes that cover every method served here; a stricter list comes from the app's manifest.
const DEFAULT_SCOPES: &[&str] = &[
    "app_mentions:read",
    "channels:history",
    "channels:read",
    "chat:write",
    "commands",
    "files:write",
    "groups:history",
    "groups:read",
    "im:history",
    "im:read",
    "im:write",
    "usergroups:read",
    "users:read",
    "users:read.email",
];

/// Which envelope carries a payload that nobody acknowledged, when it comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedeliveredEnvelope {
    /// The very same envelope, `retry_attempt` 0 (seen in the field: slackapi/bolt-js#2487).
    Same,
    /// A new envelope id, with `retry_attempt` and `retry_reason`.
    New,
}

/// One more delivery of a payload that was not acknowledged, counted from the first one.
#[derive(Clone, Copy, Debug)]
pub struct Redelivery {
    /// Time since the first delivery.
    pub after: Duration,
    /// Under which envelope id.
    pub envelope: RedeliveredEnvelope,
}

/// Set-up of one local Slack. `SlackConfig::default()` is a healthy one.
#[derive(Clone, Debug)]
pub struct SlackConfig {
    /// Where to listen; port 0 takes a free one. Anything but loopback is refused.
    pub listen: SocketAddr,
    /// Base of every address that it hands out, `http://host:port`, where the app reaches it through a forwarder; its own
    /// address unless given.
    pub public_base: Option<String>,
    /// App-level token, the only one that `apps.connections.open` takes.
    pub app_token: String,
    /// Bot token for every other method.
    pub bot_token: String,
    /// The bot's handle, without `@`.
    pub bot_name: String,
    /// Granted bot scopes; a method outside them answers `missing_scope`.
    pub scopes: Vec<String>,
    /// Events the app subscribed to: `app_mention`, `message.channels`, `message.groups`, `message.im`.
    pub events: Vec<String>,
    /// How long an envelope may stay unacknowledged. Slack: 3 s.
    pub ack_limit: Duration,
    /// Redelivery of unacknowledged events. Slack: about at once, 1 min, 5 min, and the same envelope again.
    pub event_redelivery: Vec<Redelivery>,
    /// Redelivery of unacknowledged commands and clicks. Reports contradict each other: treated as at least once.
    pub interaction_redelivery: Vec<Redelivery>,
    /// Most open connections of one app. Slack: 10.
    pub connection_cap: usize,
    /// Time between the `warning` (or `refresh_requested`) and the close. Slack: about 10 s.
    pub disconnect_grace: Duration,
    /// How often the server pings each connection. Official clients give up after 30 s without one.
    pub ping_interval: Duration,
    /// Whether rate limits are enforced.
    pub rate_limited: bool,
    /// An org-wide (Enterprise Grid) installation: clicks carry `"team": null`.
    pub enterprise_install: bool,
    /// So many more people, `p000`, `p001`, … with the ids `U0CROWD000`, …; every one is in every room.
    pub crowd: usize,
    /// So many more channels, `room-00`, … with the ids `C0ROOM0000`, …, which the bot is in.
    pub rooms: usize,
    /// Faults armed from the start.
    pub faults: Vec<Fault>,
}

impl Default for SlackConfig {
    fn default() -> Self {
        let redeliver = |seconds, envelope| Redelivery {
            after: Duration::from_secs(seconds),
            envelope,
        };
        SlackConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            public_base: None,
            app_token: "xapp-1-A0DIAG0001-1-sandbox".to_owned(),
            bot_token: "xoxb-1-sandbox".to_owned(),
            bot_name: "diag".to_owned(),
            scopes: DEFAULT_SCOPES.iter().map(|scope| (*scope).to_owned()).collect(),
            events: vec!["app_mention".to_owned()],
            ack_limit: Duration::from_secs(3),
            event_redelivery: vec![
                redeliver(4, RedeliveredEnvelope::New),
                redeliver(15, RedeliveredEnvelope::Same),
                redeliver(60, RedeliveredEnvelope::New),
                redeliver(300, RedeliveredEnvelope::New),
            ],
            interaction_redelivery: vec![redeliver(4, RedeliveredEnvelope::New)],
            connection_cap: 10,
            disconnect_grace: Duration::from_secs(10),
            ping_interval: Duration::from_secs(5),
            rate_limited: true,
            enterprise_install: false,
            crowd: 0,
            rooms: 0,
            faults: Vec::new(),
        }
    }
}

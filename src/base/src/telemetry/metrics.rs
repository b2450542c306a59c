//! The metrics, under Prometheus names; labels are closed sets only.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// Label set with one phase, kind or outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// A word of a closed set.
    pub outcome: &'static str,
}

/// Every metric; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Requests by how they were accepted: `created`, `repeated`, `unconfirmed`, `rejected`.
    pub requests: Family<Outcome, Counter>,
    /// Alerts by what became of them: `started`, `counted`, `replayed`, `unmatched`, `refused`, `unconfirmed`; and deliveries
    /// that have none: `unauthenticated`, `malformed`, `stale`, `ignored`, `unknown`, `unready`.
    pub alerts: Family<Outcome, Counter>,
    /// Seconds from an envelope's arrival to its ack.
    pub ack_seconds: Histogram,
    /// Finished runs by final phase.
    pub runs_finished: Family<Outcome, Counter>,
    /// Finished captures by final phase.
    pub captures_finished: Family<Outcome, Counter>,
    /// Captures under way.
    pub captures_active: Gauge,
    /// Seconds from acceptance to the link.
    pub link_seconds: Histogram,
    /// Bytes of verified artifacts.
    pub artifact_bytes: Counter,
    /// Open Slack connections.
    pub slack_connections: Gauge,
    /// Slack Web API calls by outcome: `ok`, `rate_limited`, `refused`, `unavailable`.
    pub slack_calls: Family<Outcome, Counter>,
    /// 1 on the replica that leads.
    pub leading: Gauge,
    /// Unix time of the last hello on a Slack connection.
    pub slack_hello_timestamp: Gauge<i64, std::sync::atomic::AtomicI64>,
    /// Journal lines that were not the agent's.
    pub journal_rejected: Counter<u64, AtomicU64>,
    /// Attempts to store the record's entries by outcome: `stored`, `unavailable`, `displaced` (another's object stood there).
    pub record_writes: Family<Outcome, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The outcomes of each family. They stand at zero from the start: the first failure is an increase then, and none is a zero.
const REQUESTS: [&str; 4] = ["created", "repeated", "unconfirmed", "rejected"];
const ALERTS: [&str; 12] = [
    "started",
    "counted",
    "replayed",
    "unmatched",
    "refused",
    "unconfirmed",
    "unauthenticated",
    "malformed",
    "stale",
    "ignored",
    "unknown",
    "unready",
];
const RUNS: [&str; 8] = [
    "Succeeded",
    "PartlyFailed",
    "Failed",
    "Refused",
    "Denied",
    "Expired",
    "Cancelled",
    "TimedOut",
];
const CAPTURES: [&str; 4] = ["Succeeded", "Failed", "Cancelled", "TimedOut"];
const SLACK_CALLS: [&str; 4] = ["ok", "rate_limited", "refused", "unavailable"];
const RECORD_WRITES: [&str; 3] = ["stored", "unavailable", "displaced"];

fn at_zero(outcomes: &[&'static str]) -> Family<Outcome, Counter> {
    let family = Family::<Outcome, Counter>::default();
    for outcome in outcomes {
        drop(family.get_or_create(&Outcome { outcome }));
    }
    family
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Arc::new(Registry::default()),
            requests: at_zero(&REQUESTS),
            alerts: at_zero(&ALERTS),
            ack_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 10)),
            runs_finished: at_zero(&RUNS),
            captures_finished: at_zero(&CAPTURES),
            captures_active: Gauge::default(),
            link_seconds: Histogram::new(exponential_buckets(0.125, 2.0, 14)),
            artifact_bytes: Counter::default(),
            slack_connections: Gauge::default(),
            slack_calls: at_zero(&SLACK_CALLS),
            leading: Gauge::default(),
            slack_hello_timestamp: Gauge::default(),
            journal_rejected: Counter::default(),
            record_writes: at_zero(&RECORD_WRITES),
        };
        metrics.registry = Arc::new(metrics.register());
        metrics
    }

    fn register(&self) -> Registry {
        let mut registry = Registry::with_prefix("diagbot");
        registry.register("requests", "Requests by acceptance", self.requests.clone());
        registry.register("alerts", "Alerts by what became of them", self.alerts.clone());
        registry.register_with_unit("ack", "Envelope to ack", Unit::Seconds, self.ack_seconds.clone());
        registry.register("runs_finished", "Finished runs by phase", self.runs_finished.clone());
        registry.register(
            "captures_finished",
            "Finished captures by phase",
            self.captures_finished.clone(),
        );
        registry.register("captures_active", "Captures under way", self.captures_active.clone());
        registry.register_with_unit("link", "Acceptance to link", Unit::Seconds, self.link_seconds.clone());
        registry.register_with_unit(
            "artifact",
            "Verified artifacts",
            Unit::Bytes,
            self.artifact_bytes.clone(),
        );
        registry.register(
            "slack_connections",
            "Open Slack connections",
            self.slack_connections.clone(),
        );
        registry.register(
            "slack_calls",
            "Slack Web API calls by outcome",
            self.slack_calls.clone(),
        );
        registry.register("leading", "1 on the replica that leads", self.leading.clone());
        registry.register_with_unit(
            "slack_hello_timestamp",
            "Unix time of the last hello from Slack",
            Unit::Seconds,
            self.slack_hello_timestamp.clone(),
        );
        registry.register(
            "journal_lines_rejected",
            "Journal lines that were not the agent's",
            self.journal_rejected.clone(),
        );
        registry.register(
            "record_writes",
            "Attempts to store entries of the record by outcome",
            self.record_writes.clone(),
        );
        registry
    }

    /// The exposition in OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => out,
            Err(fmt::Error) => String::new(),
        }
    }
}

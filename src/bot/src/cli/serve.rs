//! `diagbot serve`: wires the modules, starts their tasks, and names the one that ended if any does.

use std::{path::Path, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use diagbot_artifacts::{Destination, Store};
use diagbot_audit::{AuditLog, SinkParts, SinkState};
use diagbot_base::{clock::Clock, tasks::Tasks, telemetry::metrics::Metrics};
use diagbot_captures::CapturesContext;
use diagbot_cluster::{Clusters, lease, pod_index::PodIndex};
use diagbot_runs::{
    self,
    access::Access,
    admission::RateLimiter,
    service::{RunService, ServiceParts},
};
use diagbot_slack::{api::SlackApi, context::SlackContext, directory::SlackDirectory, socket::SocketHealth};
use kube::Api;
use tokio::net::TcpListener;

use super::signals;
use crate::{
    config::{Config, Secrets},
    http::{self, Check},
    schedules,
    triggers::{self, alert_counter::AlertCounter, config::TriggersConfig, front::TriggerFront, notes::Notes},
};

/// Name of the leader's lease.
pub(super) const LEASE: &str = "diagbot-leader";

/// Runs the bot until it is told to stop.
pub(super) async fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    let secrets = Secrets::read(&config)?;
    let catalog = Arc::new(config.catalog()?);
    let clock = Clock::default();
    let metrics = Metrics::new();
    let clusters = Clusters::connect(&config.cluster, &config.clusters, &config.namespace).await?;
    let store = Store::connect(&config.store, clock.clone()).await?;
    let listener = TcpListener::bind(config.http.listen)
        .await
        .context("listen for health and metrics")?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        cluster = %config.cluster.name,
        diagnostics = catalog.iter().count(),
        "diagbot starts"
    );

    let mut tasks = Tasks::new();
    let stop = tasks.stop_signal();
    let identity = identity();
    let audit_log = AuditLog::new(&identity, clock.clone());
    let sink = SinkParts {
        audit_log: audit_log.clone(),
        store: store.clone(),
        leases: Api::namespaced(clusters.home().client.clone(), &config.namespace),
        config: config.record,
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    tasks.start("record", diagbot_audit::keep(sink, stop.clone()));
    let (sender, leadership) = lease::leadership(&metrics);
    tasks.start(
        "leader election",
        lease::hold(
            clusters.home().clone(),
            config.namespace.clone(),
            LEASE.to_owned(),
            identity,
            stop.clone(),
            sender,
        ),
    );

    let api = SlackApi::new(&config.slack, &secrets.slack, metrics.clone())?;
    let directory = Arc::new(SlackDirectory::new(api.clone()));
    let (pod_index, pods) = PodIndex::new(&clusters);
    tasks.start("watch of pods", pods.run(stop.clone()));
    let (service, watch) = RunService::new(ServiceParts {
        clusters: clusters.clone(),
        catalog,
        rate_limiter: RateLimiter::new(config.rates),
        access: Access::new(directory, config.access.clone(), clock.clone()),
        store: store.clone(),
        audit_log: audit_log.clone(),
        leadership: leadership.clone(),
        pod_index,
        clock: clock.clone(),
    });
    tasks.start("watch of runs", watch.run(stop.clone()));
    let runs = diagbot_runs::controller::RunsContext {
        service: service.clone(),
        agent_image: config.agent.image.clone(),
        budgets: config.budgets,
        concurrency: config.agent.concurrency,
        metrics: metrics.clone(),
    };
    tasks.start("runs", diagbot_runs::controller::run(runs, stop.clone()));
    let captures = CapturesContext {
        clusters,
        store: Destination::Store(store),
        audit_log: audit_log.clone(),
        leadership,
        secret: Arc::new(secrets.key),
        config: config.agent,
        metrics: metrics.clone(),
        clock: clock.clone(),
    };
    tasks.start("captures", diagbot_captures::controller::run(captures, stop.clone()));

    let health = SocketHealth::default();
    let context = SlackContext {
        config: Arc::new(config.slack),
        api,
        service: service.clone(),
        metrics: metrics.clone(),
        clock,
    };
    tasks.start(
        "slack",
        diagbot_slack::handlers::run(context.clone(), health.clone(), stop.clone()),
    );
    tasks.start("telling", diagbot_slack::thread::run(context, stop.clone()));
    let watched = service.clone();
    let readiness: http::Readiness = Arc::new(move || readiness(&health, &service, &audit_log));
    tasks.start("schedules", schedules::controller::run(watched.clone(), stop.clone()));
    start_triggers(&config.triggers, &watched, &metrics, &mut tasks).await?;
    tasks.start("http", http::serve(listener, metrics, readiness, stop.clone()));
    tasks.start("signals", signals::stop_on_signal(stop));
    tasks.run_until_stopped().await?;
    tracing::info!("diagbot has stopped");
    Ok(ExitCode::SUCCESS)
}

/// The webhooks' listener, the watches and what goes with them, where triggers are configured.
async fn start_triggers(
    config: &TriggersConfig,
    service: &RunService,
    metrics: &Metrics,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    if config.sources.is_empty() {
        return Ok(());
    }
    let stop = tasks.stop_signal();
    let alert_counter = AlertCounter::default();
    let front = TriggerFront::new(config, service.clone(), alert_counter.clone(), metrics.clone())?;
    let notes = Notes::new(config, service.clone())?;
    if let Some(address) = config.listen {
        let listener = TcpListener::bind(address).await.context("listen for webhooks")?;
        tasks.start("webhooks", http::webhooks::serve(listener, front.clone(), stop.clone()));
    }
    let watch = triggers::kubernetes::run(config.clone(), front, service.clone(), stop.clone());
    tasks.start("watch for sick pods", watch);
    tasks.start("counts of alerts", alert_counter.run(service.clone(), stop.clone()));
    tasks.start("notes on incidents", notes.run(stop));
    Ok(())
}

/// What must work for this replica to be of use.
fn readiness(slack: &SocketHealth, runs: &RunService, audit_log: &AuditLog) -> Vec<Check> {
    let (connected, detail) = slack.report();
    let watching = runs.ready();
    let words = if watching {
        "watching"
    } else {
        "the first list has not come"
    };
    vec![
        Check {
            name: "slack",
            ok: connected,
            detail,
        },
        Check {
            name: "runs",
            ok: watching,
            detail: words.to_owned(),
        },
        record(audit_log.sink_state()),
    ]
}

/// A store that is away makes no replica unready: it would neither start nor be replaced while it still does what is not
/// sensitive. Somebody who writes in the record's place does, until the entries are stored elsewhere.
fn record(sink_state: SinkState) -> Check {
    let detail = match sink_state {
        SinkState::Works(0) => "entries are stored".to_owned(),
        SinkState::Works(times) => {
            format!("entries are stored in a new chain: another's object stood in the record's place, times: {times}")
        }
        SinkState::Away => "the store takes no entries: sensitive diagnostics are refused".to_owned(),
        SinkState::Displaced => {
            "another's object stands in the record's place: sensitive diagnostics are refused until a new chain is stored"
                .to_owned()
        }
    };
    Check {
        name: "record",
        ok: sink_state != SinkState::Displaced,
        detail,
    }
}

/// A name for this start of this process: the pod's name, the process id and a random word.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let pid = std::process::id();
    format!("{}-{pid}-{:08x}", host.trim(), rand::random::<u32>())
}

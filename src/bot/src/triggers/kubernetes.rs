//! Kubernetes as a source: what the state of pods shows of trouble becomes alerts like any other's, with rules, windows and
//! counts as they have.
//!
//! Owns what a symptom is as an alert, and which signals are too old or concern nobody. Runs where this process leads.

use std::sync::Arc;

use diagbot_api::run::{DiagnosticRun, KeyKind};
use diagbot_base::retry;
use diagbot_cluster::pod_signals::{self, PodSignal, Signal};
use diagbot_runs::service::{RunFilter, RunService};
use futures::{StreamExt as _, stream, stream::BoxStream};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{
    alert::{Alert, cut},
    config::{From, KubernetesConfig, SourceConfig, TriggersConfig},
    front::TriggerFront,
};

/// What began longer ago starts nothing: a bot that was away does not dig up the past.
const FRESH: SignedDuration = SignedDuration::from_mins(5);
/// How often a process that leads, and has not heard from the runs yet, looks again.
const UNREADY: std::time::Duration = std::time::Duration::from_millis(500);

/// A symptom, with the source that watches for it and the cluster that shows it.
type SeenSignal = (Arc<SourceConfig>, String, PodSignal);

/// Watches for every source of this kind until `stop`, while this process leads.
pub async fn run(config: TriggersConfig, front: TriggerFront, service: RunService, stop: CancellationToken) {
    let sources: Vec<Arc<SourceConfig>> = config.sources.into_iter().map(Arc::new).collect();
    let mut leadership = service.leadership();
    loop {
        let leads = leadership.current().is_some();
        tokio::select! {
            () = stop.cancelled() => return,
            () = leadership.changed() => {}
            () = lead(&sources, &front, &service), if leads => {}
        }
    }
}

/// Watches; never ends where there is anything to watch.
async fn lead(sources: &[Arc<SourceConfig>], front: &TriggerFront, service: &RunService) {
    // What was captured before is not known yet.
    while !service.ready() {
        retry::pause(UNREADY).await;
    }
    let watches = sources.iter().flat_map(|source| watches(source, service));
    let mut seen = stream::select_all(watches);
    while let Some((source, cluster, pod_signal)) = seen.next().await {
        let From::Kubernetes(config) = &source.from else {
            continue;
        };
        let now = service.now();
        let concerns = is_fresh(&pod_signal, now)
            && (!is_departure(pod_signal.signal)
                || is_in_incident(&service.list(&RunFilter::default()), &cluster, &pod_signal, config, now));
        if concerns {
            front.observe(&source.name, &alert(&cluster, &pod_signal)).await;
        }
    }
    std::future::pending::<()>().await;
}

fn watches(source: &Arc<SourceConfig>, service: &RunService) -> Vec<BoxStream<'static, SeenSignal>> {
    let From::Kubernetes(config) = &source.from else {
        return Vec::new();
    };
    let places = source
        .clusters
        .iter()
        .filter_map(|(name, namespaces)| Some((service.clusters().get(name)?, namespaces)));
    places
        .flat_map(|(cluster, namespaces)| namespaces.iter().map(move |namespace| (cluster, namespace)))
        .map(|(cluster, namespace)| {
            let (source, name) = (Arc::clone(source), cluster.name.to_string());
            pod_signals::watch(cluster, namespace, &config.signals)
                .map(move |pod_signal| (Arc::clone(&source), name.clone(), pod_signal))
                .boxed()
        })
        .collect()
}

fn is_fresh(pod_signal: &PodSignal, now: Timestamp) -> bool {
    now.duration_since(pod_signal.at).abs() <= FRESH
}

/// Pods go all the time; that is trouble only where somebody looks at their workload.
const fn is_departure(sign: Signal) -> bool {
    matches!(sign, Signal::Terminating | Signal::Evicted)
}

/// Whether somebody, or an alert, asked about the symptom's workload lately. A schedule asks always.
pub(super) fn is_in_incident(
    runs: &[Arc<DiagnosticRun>],
    cluster: &str,
    pod_signal: &PodSignal,
    config: &KubernetesConfig,
    now: Timestamp,
) -> bool {
    let lately = SignedDuration::try_from(config.incident).unwrap_or(SignedDuration::MAX);
    let (kind, name) = &pod_signal.workload;
    let workload = Some(format!("{kind}/{name}"));
    runs.iter()
        .filter(|run| run.spec.key.kind != KeyKind::Schedule)
        .filter(|run| now.duration_since(run.spec.received_at.0) <= lately)
        .flat_map(|run| run.status.iter().flat_map(|status| &status.captures))
        .filter(|capture| capture.target.cluster == cluster && capture.target.namespace == pod_signal.namespace)
        .any(|capture| capture.target.pod_uid == pod_signal.pod_uid || capture.workload == workload)
}

/// The symptom as an alert. Equal ones are those of one workload; the event is the very end of the very container, so that a
/// state that is shown again, to any process, is the same event.
pub(super) fn alert(cluster: &str, pod_signal: &PodSignal) -> Alert {
    let (kind, workload) = (pod_signal.workload.0.to_string(), pod_signal.workload.1.clone());
    let sign = pod_signal.signal.as_str();
    let labels = [
        ("cluster", cluster),
        ("namespace", &pod_signal.namespace),
        ("pod", &pod_signal.pod),
        ("container", &pod_signal.container),
        ("kind", &kind),
        ("workload", &workload),
        ("signal", sign),
    ];
    let container = match pod_signal.container.as_str() {
        "" => String::new(),
        name => format!(" (container {name})"),
    };
    Alert {
        fingerprint: format!("{cluster}/{}/{kind}/{workload}", pod_signal.namespace),
        event: Some(format!(
            "{}/{}/{}/{sign}",
            pod_signal.pod_uid, pod_signal.container, pod_signal.restarts
        )),
        labels: labels
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        service: workload,
        title: cut(&format!("{sign}: {}{container}: {}", pod_signal.pod, pod_signal.words)),
        raised_at: Some(pod_signal.at),
        one_of_its_workload: true,
        ..Alert::default()
    }
}

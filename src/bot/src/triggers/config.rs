//! Settings of triggers: sources, whom they trust, and rules. Owns every check that needs no cluster, so that `check` and
//! `serve` find a faulty rule before an alert does.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use diagbot_api::{requester::is_trigger_name, run::OFFER};
use diagbot_catalog::{Catalog, Entry, Impact};
use diagbot_cluster::pod_signals::Signal;
use serde::Deserialize;
use url::Url;

use super::rule::{Pattern, Template};

/// Which alerts start what (`triggers:` in the configuration file).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TriggersConfig {
    /// Address of the webhooks' listener, for an ingress that ends TLS; none: no webhooks.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Where alerts come from.
    #[serde(default)]
    pub sources: Vec<SourceConfig>,
}

/// One sender of alerts.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceConfig {
    /// Name: its path is `/webhooks/<name>`, its principal `trigger:<name>`.
    pub name: String,
    /// What it is, and how it proves itself.
    pub from: From,
    /// The clusters that it may name, each with the namespaces in it.
    pub clusters: BTreeMap<String, Vec<String>>,
    /// The most that a diagnostic may do to a target. Default: `none`.
    #[serde(default = "no_impact")]
    pub most_impact: Impact,
    /// One capture for each fingerprint and target in this time; the rest is counted. Default: 15 minutes.
    #[serde(default = "default_window", with = "humantime_serde")]
    pub window: Duration,
    /// Channel (`C…`) where its captures are told, unless a rule says another.
    pub channel: String,
    /// What its alerts mean; the first that fits counts.
    pub rules: Vec<RuleConfig>,
}

/// What a source is.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum From {
    /// PagerDuty, webhooks v3.
    Pagerduty(PagerDutyConfig),
    /// Prometheus' Alertmanager.
    Alertmanager(AlertmanagerConfig),
    /// The pods of its clusters and namespaces themselves. Its alerts have the labels `cluster`, `namespace`, `pod`,
    /// `container`, `kind` and `workload`, and `signal`, which is one of [`KubernetesConfig::signals`].
    Kubernetes(KubernetesConfig),
}

/// Pods as a source.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubernetesConfig {
    /// What counts: `oom-killed`, `crash-looping`, `liveness-failed`, and of workloads in an incident `terminating` and
    /// `evicted`. Default: all of them.
    #[serde(default = "all_signs")]
    pub signals: Vec<Signal>,
    /// A workload is in an incident for so long after a person or an alert asked about it. Default: 1 hour.
    #[serde(default = "default_incident", with = "humantime_serde")]
    pub incident: Duration,
}

/// PagerDuty, webhooks v3.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PagerDutyConfig {
    /// Files with the live secrets of the webhook subscription.
    pub secret_files: Vec<PathBuf>,
    /// How old an event may be. Default: 10 minutes: later nobody waits for the evidence.
    #[serde(default = "default_replay", with = "humantime_serde")]
    pub replay_window: Duration,
    /// Notes on incidents; none: none are written.
    #[serde(default)]
    pub notes: Option<NotesConfig>,
}

/// How notes reach an incident.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NotesConfig {
    /// Base of the REST API. Default: `https://api.pagerduty.com` (Europe: `https://api.eu.pagerduty.com`).
    #[serde(default = "default_api")]
    pub api_url: Url,
    /// File with a REST API key.
    pub token_file: PathBuf,
    /// E-mail address of the PagerDuty user in whose name notes are written.
    pub from: String,
}

/// Alertmanager.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AlertmanagerConfig {
    /// Files with the live bearer tokens.
    pub token_files: Vec<PathBuf>,
}

/// What an alert means. Every text of `when` must fit: as it stands, or as a regular expression behind `~`. Elsewhere
/// `${labels.x}`, `${details.x}`, `${service}` and `${title}` stand for what the alert says.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleConfig {
    /// Name, for messages.
    pub name: String,
    /// What must fit; nothing: every alert.
    #[serde(default)]
    pub when: When,
    /// Cluster. Default: the alert's label `cluster`, as Prometheus and pods as a source set it; the home cluster without one.
    #[serde(default)]
    pub cluster: Option<Template>,
    /// Namespace.
    pub namespace: Template,
    /// Target as people type it without cluster and namespace: `deploy/checkout`.
    pub target: Template,
    /// Pod: where the alert names one, it is meant instead of the target.
    #[serde(default)]
    pub pod: Option<Template>,
    /// Container.
    #[serde(default)]
    pub container: Option<Template>,
    /// What makes two alerts the same. Default: the source's own fingerprint.
    #[serde(default)]
    pub fingerprint: Option<Template>,
    /// Diagnostic or runbook by its name.
    pub diagnostic: String,
    /// Parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Channel (`C…`).
    #[serde(default)]
    pub channel: Option<String>,
}

/// What must fit.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct When {
    /// Labels by name.
    #[serde(default)]
    pub labels: BTreeMap<String, Pattern>,
    /// Details by name.
    #[serde(default)]
    pub details: BTreeMap<String, Pattern>,
    /// The service.
    #[serde(default)]
    pub service: Option<Pattern>,
    /// The title.
    #[serde(default)]
    pub title: Option<Pattern>,
}

const fn no_impact() -> Impact {
    Impact::None
}

const fn default_window() -> Duration {
    Duration::from_mins(15)
}

fn all_signs() -> Vec<Signal> {
    Signal::ALL.to_vec()
}

const fn default_incident() -> Duration {
    Duration::from_hours(1)
}

const fn default_replay() -> Duration {
    Duration::from_mins(10)
}

fn default_api() -> Url {
    Url::parse("https://api.pagerduty.com").expect("a constant URL is valid")
}

impl TriggersConfig {
    /// Every broken rule, as `key: rule`. `clusters` are the configured ones.
    pub fn faults(&self, clusters: &[String]) -> Vec<String> {
        let mut faults = Vec::new();
        for (index, source) in self.sources.iter().enumerate() {
            let key = format!("triggers.sources[{index}]");
            if !is_trigger_name(&source.name) {
                faults.push(format!("{key}.name: lower-case letters, digits and dashes, at most 40"));
            }
            if self.sources[..index].iter().any(|other| other.name == source.name) {
                faults.push(format!("{key}.name: `{}` is used twice", source.name));
            }
            faults.extend(source.faults(&key, clusters));
        }
        let delivers = |source: &SourceConfig| !matches!(source.from, From::Kubernetes(_));
        if self.listen.is_none() && self.sources.iter().any(delivers) {
            faults.push("triggers.listen: webhooks need an address".to_owned());
        }
        faults
    }

    /// Rules that the allowlist does not bear out, as `key: rule`.
    pub fn faults_against(&self, catalog: &Catalog) -> Vec<String> {
        let mut faults = Vec::new();
        for (index, source) in self.sources.iter().enumerate() {
            for (number, rule) in source.rules.iter().enumerate() {
                let key = format!("triggers.sources[{index}].rules[{number}]");
                if rule.diagnostic == OFFER {
                    let given = rule.parameters.keys().next();
                    faults.extend(given.map(|name| format!("{key}.parameters.{name}: an offer takes none")));
                    continue;
                }
                let Some(entry) = catalog.entry(&rule.diagnostic) else {
                    faults.push(format!(
                        "{key}.diagnostic: there is no diagnostic or runbook `{}`",
                        rule.diagnostic
                    ));
                    continue;
                };
                if weight(impact(entry, catalog)) > weight(source.most_impact) {
                    faults.push(format!(
                        "{key}.diagnostic: `{}` does more to its target than mostImpact allows",
                        rule.diagnostic
                    ));
                }
                match entry {
                    Entry::Diagnostic(diagnostic) => {
                        let wrong = diagnostic.check_parameters(&rule.parameters).err().unwrap_or_default();
                        faults.extend(wrong.iter().map(|fault| format!("{key}.parameters: {fault}")));
                    }
                    Entry::Runbook(_) if !rule.parameters.is_empty() => {
                        faults.push(format!("{key}.parameters: a runbook takes none"));
                    }
                    Entry::Runbook(_) => {}
                }
            }
        }
        faults
    }
}

/// The most that it does to a target.
pub(super) fn impact(entry: Entry<'_>, catalog: &Catalog) -> Impact {
    match entry {
        Entry::Diagnostic(diagnostic) => diagnostic.impact,
        Entry::Runbook(runbook) => runbook.impact(catalog),
    }
}

/// Impacts in order.
pub(super) const fn weight(impact: Impact) -> u8 {
    match impact {
        Impact::None => 0,
        Impact::Pause => 1,
        Impact::Heavy => 2,
    }
}

impl SourceConfig {
    fn faults(&self, key: &str, clusters: &[String]) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |text: String| faults.push(format!("{key}.{text}"));
        for (cluster, namespaces) in &self.clusters {
            if !clusters.contains(cluster) {
                fault(format!("clusters: `{cluster}` is not a configured cluster"));
            }
            if namespaces.is_empty() {
                fault(format!("clusters.{cluster}: at least one namespace"));
            }
        }
        if self.clusters.is_empty() {
            fault("clusters: at least one".to_owned());
        }
        if self.window < Duration::from_secs(1) {
            fault("window: at least 1s".to_owned());
        }
        if self.rules.is_empty() {
            fault("rules: at least one".to_owned());
        }
        let secrets = match &self.from {
            From::Pagerduty(config) => {
                if config.notes.as_ref().is_some_and(|notes| !notes.from.contains('@')) {
                    fault("from.pagerduty.notes.from: an e-mail address".to_owned());
                }
                &config.secret_files
            }
            From::Alertmanager(config) => &config.token_files,
            From::Kubernetes(config) => {
                if config.signals.is_empty() {
                    fault("from.kubernetes.signals: at least one".to_owned());
                }
                return faults;
            }
        };
        if secrets.is_empty() {
            fault("from: at least one secret".to_owned());
        }
        faults
    }
}

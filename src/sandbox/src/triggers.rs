//! The sandbox's sources of alerts: an Alertmanager and a PagerDuty that may name the namespace `shop`.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::pagerduty::TOKEN;

/// Alertmanager's token.
pub const ALERTMANAGER_TOKEN: &str = "sandbox-alertmanager-token";
/// PagerDuty's live secrets.
pub const PAGERDUTY_SECRETS: [&str; 2] = ["sandbox-pagerduty-secret-1", "sandbox-pagerduty-secret-2"];
/// Where alerts are told: `#incidents`.
const CHANNEL: &str = "C0INCIDENT";

/// Writes the secrets' files and gives the bot's `triggers:`.
pub(crate) fn configure(folder: &Path, listen: SocketAddr, pagerduty: &str) -> anyhow::Result<Value> {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {name}"))?;
        anyhow::Ok(path)
    };
    let token = file("alertmanager-token", ALERTMANAGER_TOKEN)?;
    let secrets = [
        file("pagerduty-secret-1", PAGERDUTY_SECRETS[0])?,
        file("pagerduty-secret-2", PAGERDUTY_SECRETS[1])?,
    ];
    let rest = file("pagerduty-token", TOKEN)?;
    Ok(json!({
        "listen": listen,
        "sources": [{
            "name": "alertmanager",
            "from": { "alertmanager": { "tokenFiles": [token] } },
            "clusters": { "sandbox": ["shop"] },
            "channel": CHANNEL,
            "rules": [{
                "name": "crashing",
                "when": { "labels": { "alertname": "~KubePod(CrashLooping|NotReady)" } },
                "namespace": "${labels.namespace}",
                "target": "deploy/${labels.deployment}",
                "pod": "${labels.pod}",
                "diagnostic": "crashloop",
            }, {
                "name": "slow",
                "when": { "labels": { "severity": "~critical|warning" } },
                "namespace": "${labels.namespace}",
                "target": "deploy/${labels.service}",
                "diagnostic": "process",
            }],
        }, {
            "name": "pagerduty",
            "from": { "pagerduty": {
                "secretFiles": secrets,
                "notes": { "apiUrl": pagerduty, "tokenFile": rest, "from": "diagbot@example.com" },
            } },
            "clusters": { "sandbox": ["shop"] },
            "channel": CHANNEL,
            "rules": [{
                "name": "ledger",
                "when": { "service": "Ledger" },
                "namespace": "shop",
                "target": "deploy/ledger",
                "diagnostic": "process",
            }, {
                "name": "billing",
                "when": { "service": "Billing" },
                "namespace": "shop",
                "target": "deploy/billing",
                "diagnostic": "pod-report",
            }],
        }],
    }))
}

/// A source of alerts that watches the pods of a namespace: each that is sick gives a report.
pub fn pods_as_a_source(cluster: &str, namespace: &str) -> Value {
    json!({
        "name": "kubernetes",
        "from": { "kubernetes": {} },
        "clusters": { cluster: [namespace] },
        "channel": CHANNEL,
        "rules": [{
            "name": "sick",
            "namespace": "${labels.namespace}",
            "target": "${labels.kind}/${labels.workload}",
            "pod": "${labels.pod}",
            "diagnostic": "pod-report",
        }],
    })
}

//! Alertmanager's webhooks: the bearer token, and the alerts of a group. Pure.
//!
//! Source: <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>, version 4 of the payload.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    alert::{Alert, cut, texts},
    secrets::Live,
};

#[derive(Deserialize)]
struct Group {
    version: String,
    alerts: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    status: String,
    fingerprint: String,
    labels: Map<String, Value>,
    #[serde(default)]
    annotations: Map<String, Value>,
}

/// Whether the header carries a live token: `Authorization: Bearer …`.
pub fn is_known(header: Option<&str>, tokens: &Live) -> bool {
    let token = header.and_then(|header| header.strip_prefix("Bearer "));
    token.is_some_and(|token| tokens.holds(token.trim()))
}

/// The firing alerts, and how many are resolved.
pub fn read(body: &[u8]) -> Result<(Vec<Alert>, usize), serde_json::Error> {
    let group: Group = serde_json::from_slice(body)?;
    if group.version != "4" {
        return Err(serde::de::Error::custom("only version 4 of the payload is known"));
    }
    let all = group.alerts.len();
    let firing: Vec<Alert> = group
        .alerts
        .iter()
        .filter(|alert| alert.status == "firing")
        .map(alert)
        .collect();
    let resolved = all - firing.len();
    Ok((firing, resolved))
}

fn alert(item: &Item) -> Alert {
    let labels = texts(item.labels.iter());
    let details = texts(item.annotations.iter());
    let first = |names: [(&BTreeMap<String, String>, &str); 2]| {
        let mut found = names.into_iter().filter_map(|(texts, name)| texts.get(name).cloned());
        found.next().unwrap_or_default()
    };
    Alert {
        fingerprint: cut(&item.fingerprint),
        service: first([(&labels, "service"), (&labels, "job")]),
        title: first([(&details, "summary"), (&labels, "alertname")]),
        labels,
        details,
        ..Alert::default()
    }
}

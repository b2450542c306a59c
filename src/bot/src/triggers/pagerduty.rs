//! PagerDuty's webhooks v3: the signature over the body, and what an event means. Pure.
//!
//! Source: <https://developer.pagerduty.com/docs/webhooks-overview> and <https://developer.pagerduty.com/docs/verifying-signatures>:
//! `X-PagerDuty-Signature: v1=<hex>[,v1=<hex>…]`, each the HMAC-SHA-256 of the raw body; one signature for each live secret of
//! the subscription.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    alert::{Alert, cut, texts},
    secrets::Live,
};

/// Header with the signatures.
pub const SIGNATURE: &str = "x-pagerduty-signature";
/// Most signatures that are looked at.
const MOST_SIGNATURES: usize = 10;
/// Events that raise an alert.
const RAISING: [&str; 3] = ["incident.triggered", "incident.reopened", "incident.escalated"];

/// What an event means to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// An alert.
    Alert(Box<Alert>),
    /// An event that starts nothing, by its type.
    Nothing(String),
    /// Too old (or from the future) to be believed new.
    Stale(SignedDuration),
}

#[derive(Deserialize)]
struct Envelope {
    event: Event,
}

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "event_type")]
    kind: String,
    occurred_at: Timestamp,
    #[serde(default)]
    data: Map<String, Value>,
}

/// Whether any signature in the header is one of the body's under any live secret.
pub fn is_signed(header: Option<&str>, body: &[u8], secrets: &Live) -> bool {
    let signatures = header.unwrap_or_default().split(',').take(MOST_SIGNATURES);
    signatures
        .filter_map(|signature| hex::decode(signature.trim().strip_prefix("v1=")?).ok())
        .any(|signature| secrets.signed(body, &signature))
}

/// Reads a body whose signature was checked.
pub fn read(body: &[u8], now: Timestamp, replay_window: SignedDuration) -> Result<Meaning, serde_json::Error> {
    let Envelope { event } = serde_json::from_slice(body)?;
    if !RAISING.contains(&event.kind.as_str()) {
        return Ok(Meaning::Nothing(cut(&event.kind)));
    }
    let age = now.duration_since(event.occurred_at);
    if age.abs() > replay_window {
        return Ok(Meaning::Stale(age));
    }
    let text = |name: &str| event.data.get(name).and_then(Value::as_str).unwrap_or_default();
    let incident = text("id").to_owned();
    if !is_incident(&incident) {
        return Err(serde::de::Error::custom("the incident has no id"));
    }
    Ok(Meaning::Alert(Box::new(Alert {
        fingerprint: incident.clone(),
        event: Some(cut(&event.id)),
        details: details(&event.data),
        service: cut(event.data.get("service").map_or("", |service| {
            service.get("summary").and_then(Value::as_str).unwrap_or_default()
        })),
        title: cut(text("title")),
        incident: Some(incident),
        raised_at: Some(event.occurred_at),
        ..Alert::default()
    })))
}

/// Ids of incidents become part of an address.
pub(super) fn is_incident(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// What rules may ask about beside service and title: texts of the incident itself, its custom fields, and the details that the
/// integration sent along.
fn details(data: &Map<String, Value>) -> BTreeMap<String, String> {
    let mut all = texts(data.iter());
    if let Some(priority) = data
        .get("priority")
        .and_then(|p| p.get("summary"))
        .and_then(Value::as_str)
    {
        all.insert("priority".to_owned(), cut(priority));
    }
    for field in data
        .get("custom_fields")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if let (Some(name), Some(value)) = (field["name"].as_str(), field["value"].as_str()) {
            all.insert(cut(name), cut(value));
        }
    }
    for details in ["/details", "/custom_details", "/cef_details/details"] {
        if let Some(Value::Object(details)) = data.get("body").and_then(|body| body.pointer(details)) {
            all.extend(texts(details.iter()));
        }
    }
    all
}

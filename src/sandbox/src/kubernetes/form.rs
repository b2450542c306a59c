//! The forms in which objects are answered: whole, metadata only, or as a table for kubectl; and the two views of events.
//!
//! Pure: stored objects in, answers out. Never filters or orders.

use std::sync::Arc;

use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::{kind::Kind, store::text};

/// What the client's `Accept` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Whole,
    Metadata,
    Table,
}

impl Form {
    /// The first of the accepted types that the sandbox can give.
    pub(super) fn of_accept(headers: &HeaderMap) -> Self {
        let accept = headers.get("accept").and_then(|v| v.to_str().ok()).unwrap_or_default();
        accept
            .split(',')
            .find_map(|offer| {
                let has = |word: &str| offer.split(';').any(|p| p.trim() == word);
                if has("as=Table") {
                    Some(Self::Table)
                } else if has("as=PartialObjectMetadata") || has("as=PartialObjectMetadataList") {
                    Some(Self::Metadata)
                } else if offer.trim().starts_with("application/json") {
                    Some(Self::Whole)
                } else {
                    None
                }
            })
            .unwrap_or(Self::Whole)
    }

    /// One object.
    pub(super) fn object(self, kind: &'static Kind, stored: &Value) -> Value {
        match self {
            Self::Whole => from_stored(kind, stored),
            Self::Metadata => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": stored["metadata"],
            }),
            Self::Table => {
                let metadata = json!({ "resourceVersion": stored["metadata"]["resourceVersion"] });
                table(kind, &metadata, std::iter::once(stored))
            }
        }
    }

    /// A list.
    pub(super) fn list(self, kind: &'static Kind, metadata: &Value, stored: &[Arc<Value>]) -> Value {
        let (list_kind, api_version) = match self {
            Self::Table => return table(kind, metadata, stored.iter().map(|o| &**o)),
            Self::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
            Self::Whole => (format!("{}List", kind.kind), kind.api_version()),
        };
        let items: Vec<Value> = stored.iter().map(|o| self.object(kind, o)).collect();
        json!({ "kind": list_kind, "apiVersion": api_version, "metadata": metadata, "items": items })
    }
}

struct Column {
    name: &'static str,
    cell: fn(&Value) -> Value,
}

fn columns(kind: &Kind) -> Vec<Column> {
    let own: Vec<Column> = match kind.plural {
        "pods" => vec![
            Column {
                name: "Ready",
                cell: pod_ready,
            },
            Column {
                name: "Status",
                cell: pod_status,
            },
            Column {
                name: "Restarts",
                cell: |o| json!(pod_restarts(o)),
            },
        ],
        "namespaces" => vec![Column {
            name: "Status",
            cell: |o| o["status"]["phase"].clone(),
        }],
        "deployments" | "replicasets" => vec![Column {
            name: "Desired",
            cell: |o| o["spec"]["replicas"].clone(),
        }],
        "events" => vec![
            Column {
                name: "Type",
                cell: |o| o["type"].clone(),
            },
            Column {
                name: "Reason",
                cell: |o| o["reason"].clone(),
            },
            Column {
                name: "Object",
                cell: |o| o["involvedObject"]["name"].clone(),
            },
            Column {
                name: "Message",
                cell: |o| o["message"].clone(),
            },
        ],
        "diagnosticruns" => vec![
            Column {
                name: "Diagnostic",
                cell: |o| o["spec"]["diagnostic"].clone(),
            },
            Column {
                name: "Target",
                cell: |o| o["spec"]["target"]["name"].clone(),
            },
            Column {
                name: "Phase",
                cell: |o| o["status"]["phase"].clone(),
            },
        ],
        "diagnosticcaptures" => vec![
            Column {
                name: "Run",
                cell: |o| o["spec"]["run"].clone(),
            },
            Column {
                name: "Pod",
                cell: |o| o["spec"]["target"]["pod"].clone(),
            },
            Column {
                name: "Phase",
                cell: |o| o["status"]["phase"].clone(),
            },
        ],
        _ => Vec::new(),
    };
    let name = Column {
        name: "Name",
        cell: |o| o["metadata"]["name"].clone(),
    };
    let age = Column { name: "Age", cell: age };
    std::iter::once(name).chain(own).chain(std::iter::once(age)).collect()
}

fn table<'a>(kind: &Kind, metadata: &Value, objects: impl Iterator<Item = &'a Value>) -> Value {
    let columns = columns(kind);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|c| {
            let format = if c.name == "Name" { "name" } else { "" };
            json!({ "name": c.name, "type": "string", "format": format, "description": "", "priority": 0 })
        })
        .collect();
    let rows: Vec<Value> = objects
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|c| (c.cell)(object)).collect();
            let partial =
                json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] });
            json!({ "cells": cells, "object": partial })
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

fn age(object: &Value) -> Value {
    let created: Option<jiff::Timestamp> = text(&object["metadata"]["creationTimestamp"]).parse().ok();
    let Some(created) = created else {
        return json!("<unknown>");
    };
    let seconds = jiff::Timestamp::now().duration_since(created).as_secs();
    json!(match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    })
}

fn statuses(pod: &Value) -> &[Value] {
    pod["status"]["containerStatuses"].as_array().map_or(&[], Vec::as_slice)
}

fn pod_ready(pod: &Value) -> Value {
    let ready = statuses(pod).iter().filter(|s| s["ready"] == true).count();
    let all = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    json!(format!("{ready}/{all}"))
}

fn pod_restarts(pod: &Value) -> i64 {
    statuses(pod).iter().filter_map(|s| s["restartCount"].as_i64()).sum()
}

fn pod_status(pod: &Value) -> Value {
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return json!("Terminating");
    }
    let waiting = statuses(pod)
        .iter()
        .find_map(|s| s["state"]["waiting"]["reason"].as_str());
    let reason = pod["status"]["reason"].as_str();
    json!(waiting.or(reason).unwrap_or(text(&pod["status"]["phase"])))
}

/// An object as this kind shows it. Both groups of events are views of what is stored as the core group's; items of lists
/// carry their type, which clients ignore where the real server leaves it out.
fn from_stored(kind: &'static Kind, stored: &Value) -> Value {
    if kind.stored() == kind && kind.group != "events.k8s.io" {
        return stored.clone();
    }
    let mut event = Map::new();
    event.insert("apiVersion".to_owned(), json!("events.k8s.io/v1"));
    event.insert("kind".to_owned(), json!("Event"));
    for (field, value) in stored.as_object().into_iter().flatten() {
        let name = match field.as_str() {
            "apiVersion" | "kind" => continue,
            "involvedObject" => "regarding",
            "message" => "note",
            "reportingComponent" => "reportingController",
            "source" => "deprecatedSource",
            "firstTimestamp" => "deprecatedFirstTimestamp",
            "lastTimestamp" => "deprecatedLastTimestamp",
            "count" => "deprecatedCount",
            other => other,
        };
        event.insert(name.to_owned(), value.clone());
    }
    event.entry("eventTime").or_insert(Value::Null);
    Value::Object(event)
}

/// The reverse of [`Form::object`] for objects that clients send.
pub(super) fn into_stored(kind: &'static Kind, sent: Value) -> Value {
    if kind.group != "events.k8s.io" {
        return sent;
    }
    let Value::Object(fields) = sent else { return sent };
    fields
        .into_iter()
        .map(|(field, value)| {
            let name = match field.as_str() {
                "regarding" => "involvedObject",
                "note" => "message",
                "reportingController" => "reportingComponent",
                "deprecatedSource" => "source",
                "deprecatedFirstTimestamp" => "firstTimestamp",
                "deprecatedLastTimestamp" => "lastTimestamp",
                "deprecatedCount" => "count",
                other => other,
            };
            (name.to_owned(), value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::json;

    use super::{Form, into_stored};
    use crate::kubernetes::kind::Kind;

    #[test]
    fn kubectl_gets_a_table_and_others_get_objects() {
        let form = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("accept", http::HeaderValue::from_static(accept));
            Form::of_accept(&headers)
        };
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form(kubectl), Form::Table);
        assert_eq!(form("application/json"), Form::Whole);
        assert_eq!(
            form("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            Form::Metadata
        );
    }

    #[test]
    fn an_event_of_the_new_group_is_the_same_event_in_the_old_one() {
        let kind = Kind::of_path("events.k8s.io", "v1", "events").expect("a kind");
        let sent = json!({ "regarding": { "name": "p" }, "note": "n", "reason": "r" });
        let stored = into_stored(kind, sent);
        assert_eq!(
            stored,
            json!({ "involvedObject": { "name": "p" }, "message": "n", "reason": "r" })
        );
        let shown = Form::Whole.object(kind, &stored);
        assert_eq!(
            (&shown["regarding"]["name"], &shown["note"]),
            (&json!("p"), &json!("n"))
        );
    }
}

//! The report's sections as text. Pure.

use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, Node, Pod};

/// What the report is about.
pub(super) fn head(cluster: &str, pod: &Pod, now: Timestamp) -> String {
    let metadata = &pod.metadata;
    let status = pod.status.clone().unwrap_or_default();
    let mut out = String::new();
    let name = metadata.name.as_deref().unwrap_or_default();
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    line(
        &mut out,
        &format!("Pod report of {namespace}/{name} in cluster {cluster}, {now:.0}"),
    );
    out.push('\n');
    field(&mut out, "UID", metadata.uid.as_deref());
    field(&mut out, "Phase", status.phase.as_deref());
    field(&mut out, "Reason", status.reason.as_deref());
    field(&mut out, "Message", status.message.as_deref());
    field(&mut out, "Node", pod.spec.as_ref().and_then(|s| s.node_name.as_deref()));
    field(&mut out, "Pod IP", status.pod_ip.as_deref());
    field(&mut out, "QoS class", status.qos_class.as_deref());
    let time = |t: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| t.map(|t| t.0.to_string());
    field(
        &mut out,
        "Created",
        time(metadata.creation_timestamp.as_ref()).as_deref(),
    );
    field(
        &mut out,
        "Being deleted since",
        time(metadata.deletion_timestamp.as_ref()).as_deref(),
    );
    for owner in metadata.owner_references.iter().flatten() {
        field(
            &mut out,
            "Owner",
            Some(&format!("{} {} ({})", owner.kind, owner.name, owner.uid)),
        );
    }
    for condition in status.conditions.iter().flatten() {
        let why = [condition.reason.as_deref(), condition.message.as_deref()];
        let why: Vec<&str> = why.into_iter().flatten().collect();
        let text = format!("{}={} {}", condition.type_, condition.status, why.join(": "));
        field(&mut out, "Condition", Some(text.trim_end()));
    }
    out
}

/// Every container's state and the one before.
pub(super) fn containers(pod: &Pod) -> String {
    let mut out = title("Containers");
    let status = pod.status.clone().unwrap_or_default();
    let kinds = [
        ("init", status.init_container_statuses),
        ("container", status.container_statuses),
        ("ephemeral", status.ephemeral_container_statuses),
    ];
    for (kind, list) in kinds {
        for status in list.into_iter().flatten() {
            container(&mut out, kind, &status);
        }
    }
    out
}

fn container(out: &mut String, kind: &str, status: &ContainerStatus) {
    line(out, &format!("{kind} {}", status.name));
    field(out, "  Image", Some(&status.image));
    field(out, "  Image ID", Some(&status.image_id));
    field(out, "  Container ID", status.container_id.as_deref());
    field(out, "  Restarts", Some(&status.restart_count.to_string()));
    field(out, "  Ready", Some(&status.ready.to_string()));
    field(out, "  State", status.state.as_ref().map(state).as_deref());
    let last = status.last_state.as_ref().map(state).filter(|s| !s.is_empty());
    field(out, "  Before", last.as_deref());
}

fn state(state: &ContainerState) -> String {
    if let Some(end) = &state.terminated {
        let mut text = format!("terminated with exit code {}", end.exit_code);
        for part in [&end.reason, &end.message].into_iter().flatten() {
            let _infallible = write!(text, ", {part}");
        }
        for (word, time) in [("from", &end.started_at), ("to", &end.finished_at)] {
            if let Some(time) = time {
                let _infallible = write!(text, " {word} {}", time.0);
            }
        }
        return text;
    }
    if let Some(waiting) = &state.waiting {
        let parts: Vec<&str> = [&waiting.reason, &waiting.message]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        return format!("waiting: {}", parts.join(": "));
    }
    state.running.as_ref().map_or_else(String::new, |running| {
        running
            .started_at
            .as_ref()
            .map_or_else(|| "running".to_owned(), |t| format!("running since {}", t.0))
    })
}

/// Events, oldest first.
pub(super) fn events(events: &[Event]) -> String {
    let mut out = title("Events");
    let time = |e: &Event| {
        let last = e.last_timestamp.as_ref().map(|t| t.0);
        last.or(e.event_time.as_ref().map(|t| t.0))
    };
    let mut sorted: Vec<&Event> = events.iter().collect();
    sorted.sort_by_key(|e| time(e));
    if sorted.is_empty() {
        line(&mut out, "(none: events are kept for about an hour)");
    }
    for event in sorted {
        let when = time(event).map_or_else(|| "-".to_owned(), |t| t.to_string());
        let text = [
            event.type_.as_deref(),
            event.reason.as_deref(),
            event.message.as_deref(),
        ];
        let text: Vec<&str> = text.into_iter().flatten().collect();
        line(
            &mut out,
            &format!("{when} {} (x{})", text.join(" "), event.count.unwrap_or(1)),
        );
    }
    out
}

/// The node's conditions.
pub(super) fn node(node: &Node) -> String {
    let mut out = title("Node");
    field(&mut out, "Name", node.metadata.name.as_deref());
    let status = node.status.clone().unwrap_or_default();
    if let Some(info) = &status.node_info {
        let text = format!(
            "{}, {}, kubelet {}",
            info.os_image, info.container_runtime_version, info.kubelet_version
        );
        field(&mut out, "Software", Some(&text));
    }
    for condition in status.conditions.iter().flatten() {
        let text = format!(
            "{}={} {}",
            condition.type_,
            condition.status,
            condition.message.as_deref().unwrap_or_default()
        );
        field(&mut out, "Condition", Some(text.trim_end()));
    }
    out
}

/// The manifest, already without secrets.
pub(super) fn manifest(json: &str) -> String {
    format!("{}{json}\n", title("Manifest (values that look secret are removed)"))
}

/// A section that could not be read.
pub(super) fn absent(name: &str, why: &str) -> String {
    format!("{}(not available: {why})\n", title(name))
}

/// The title of a log.
pub(super) fn log_title(container: &str, previous: bool) -> String {
    if previous {
        title(&format!("Log of {container} before its last restart"))
    } else {
        title(&format!("Log of {container}"))
    }
}

fn title(text: &str) -> String {
    format!("\n== {text} ==\n")
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn field(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value.filter(|v| !v.is_empty()) {
        line(out, &format!("{name}: {value}"));
    }
}

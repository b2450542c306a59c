//! What the API server does to pods: defaults, and the validation of ephemeral containers with its real texts.
//!
//! Pure: objects in, objects or causes out. The texts were measured on Kubernetes 1.36.

use serde_json::{Value, json};

use super::{
    answer::{ApiError, Cause},
    kind,
    store::text,
};

const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
/// Fields that containers have and ephemeral containers must not.
const FORBIDDEN_FIELDS: [&str; 7] = [
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "restartPolicy",
];

/// Admits a new pod: checks it, and fills in what the server fills in.
pub(super) fn admit(pod: &mut Value) -> Result<(), ApiError> {
    let name = text(&pod["metadata"]["name"]).to_owned();
    let mut causes = Vec::new();
    if !list(&pod["spec"]["ephemeralContainers"]).is_empty() {
        causes.push(Cause::forbidden("spec.ephemeralContainers", "cannot be set on create"));
    }
    if list(&pod["spec"]["containers"]).is_empty() {
        causes.push(Cause::required("spec.containers", ""));
    }
    for (index, container) in list(&pod["spec"]["containers"]).iter().enumerate() {
        causes.extend(common_faults(
            container,
            &format!("spec.containers[{index}]"),
            &pod["spec"],
        ));
    }
    if !causes.is_empty() {
        return Err(ApiError::invalid(&kind::POD, &name, &causes));
    }
    default_pod(pod);
    Ok(())
}

fn default_pod(pod: &mut Value) {
    let spec = &mut pod["spec"];
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("serviceAccountName", json!("default")),
        ("securityContext", json!({})),
        ("schedulerName", json!("default-scheduler")),
        ("enableServiceLinks", json!(true)),
    ] {
        default_field(spec, field, value);
    }
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        default_container(container);
        default_field(container, "resources", json!({}));
    }
    pod["status"] = json!({ "phase": "Pending", "qosClass": "BestEffort" });
}

fn default_container(container: &mut Value) {
    let image = text(&container["image"]);
    let tag = image
        .rsplit('/')
        .next()
        .and_then(|last| last.split_once(':'))
        .map(|(_, tag)| tag);
    let latest = !image.contains('@') && tag.is_none_or(|t| t == "latest");
    let policy = if latest { "Always" } else { "IfNotPresent" };
    default_field(container, "imagePullPolicy", json!(policy));
    default_field(container, "terminationMessagePath", json!("/dev/termination-log"));
    default_field(container, "terminationMessagePolicy", json!("File"));
}

fn default_field(object: &mut Value, field: &str, value: Value) {
    if object.get(field).is_none_or(Value::is_null) {
        object[field] = value;
    }
}

/// The pod after a write to its `ephemeralcontainers` subresource: only that list is taken from `wanted`.
pub(super) fn with_ephemeral_containers(current: &Value, wanted: &Value) -> Result<Value, ApiError> {
    let name = text(&current["metadata"]["name"]).to_owned();
    let mut next = current.clone();
    let mut containers: Vec<Value> = list(&wanted["spec"]["ephemeralContainers"]).to_vec();
    for container in &mut containers {
        default_container(container);
        // A typed server knows `resources: {}` always, and false flags never.
        default_field(container, "resources", json!({}));
        drop_zero_values(container);
    }
    if containers.is_empty() {
        if let Some(spec) = next["spec"].as_object_mut() {
            spec.remove("ephemeralContainers");
        }
    } else {
        next["spec"]["ephemeralContainers"] = Value::Array(containers);
    }
    let mut causes = ephemeral_faults(&next["spec"]);
    causes.extend(changes_of_existing(&current["spec"], &next["spec"]));
    if causes.is_empty() {
        Ok(next)
    } else {
        Err(ApiError::invalid(&kind::POD, &name, &causes))
    }
}

fn drop_zero_values(container: &mut Value) {
    if let Some(fields) = container.as_object_mut() {
        fields.retain(|field, value| {
            let zero = value == false || value == "" || value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            !zero || matches!(field.as_str(), "name" | "image")
        });
    }
}

fn ephemeral_faults(spec: &Value) -> Vec<Cause> {
    let others: Vec<&str> = list(&spec["initContainers"])
        .iter()
        .chain(list(&spec["containers"]))
        .map(|c| text(&c["name"]))
        .collect();
    let mut names = others.clone();
    let mut causes = Vec::new();
    for (index, container) in list(&spec["ephemeralContainers"]).iter().enumerate() {
        let path = format!("spec.ephemeralContainers[{index}]");
        causes.extend(common_faults(container, &path, spec));
        let name = text(&container["name"]);
        if names.contains(&name) {
            causes.push(Cause::duplicate(format!("{path}.name"), name));
        } else {
            names.push(name);
        }
        let target = text(&container["targetContainerName"]);
        if !target.is_empty() && !others.contains(&target) {
            causes.push(Cause::not_found(format!("{path}.targetContainerName"), target));
        }
        for field in FORBIDDEN_FIELDS {
            let set = match &container[field] {
                Value::Null => false,
                Value::Object(fields) => !fields.is_empty() || field != "resources",
                Value::Array(elements) => !elements.is_empty(),
                _ => true,
            };
            if set {
                causes.push(Cause::forbidden(
                    format!("{path}.{field}"),
                    "cannot be set for an Ephemeral Container",
                ));
            }
        }
        for (mount, entry) in list(&container["volumeMounts"]).iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !text(&entry[field]).is_empty() {
                    let field = format!("{path}.volumeMounts[{mount}].{field}");
                    causes.push(Cause::forbidden(field, "cannot be set for an Ephemeral Container"));
                }
            }
        }
    }
    causes
}

/// Faults that any container can have.
fn common_faults(container: &Value, path: &str, spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = text(&container["name"]);
    if name.is_empty() {
        causes.push(Cause::required(format!("{path}.name"), ""));
    } else if !is_dns_label(name) {
        let text = if name.len() > 63 {
            "must be no more than 63 characters"
        } else {
            LABEL_RULE
        };
        causes.push(Cause::invalid(format!("{path}.name"), name, text));
    }
    if text(&container["image"]).is_empty() {
        causes.push(Cause::required(format!("{path}.image"), ""));
    }
    for (index, mount) in list(&container["volumeMounts"]).iter().enumerate() {
        let volume = text(&mount["name"]);
        if !list(&spec["volumes"]).iter().any(|v| v["name"] == volume) {
            causes.push(Cause::not_found(format!("{path}.volumeMounts[{index}].name"), volume));
        }
    }
    causes
}

fn changes_of_existing(old: &Value, new: &Value) -> Vec<Cause> {
    let field = "spec.ephemeralContainers";
    list(&old["ephemeralContainers"])
        .iter()
        .filter_map(|before| {
            let name = text(&before["name"]);
            match list(&new["ephemeralContainers"]).iter().rfind(|c| c["name"] == name) {
                None => Some(Cause::forbidden(
                    field,
                    &format!("existing ephemeral containers {name:?} may not be removed\n"),
                )),
                Some(after) if after != before => {
                    let text = format!(
                        "existing ephemeral containers {name:?} may not be changed\n{}",
                        difference(before, after)
                    );
                    Some(Cause::forbidden(field, &text))
                }
                Some(_) => None,
            }
        })
        .collect()
}

fn difference(before: &Value, after: &Value) -> String {
    let fields = before
        .as_object()
        .into_iter()
        .chain(after.as_object())
        .flat_map(|f| f.keys());
    let mut changed: Vec<&String> = fields.filter(|f| before[f.as_str()] != after[f.as_str()]).collect();
    changed.sort();
    changed.dedup();
    let lines: Vec<String> = changed
        .iter()
        .map(|f| format!("- {f}: {}\n+ {f}: {}\n", before[f.as_str()], after[f.as_str()]))
        .collect();
    lines.concat()
}

/// Refuses changes of a pod's spec through the pod itself.
pub(super) fn check_update(current: &Value, next: &Value) -> Result<(), ApiError> {
    let mut comparable = next["spec"].clone();
    for (index, container) in list(&current["spec"]["containers"]).iter().enumerate() {
        if !comparable["containers"][index].is_null() {
            comparable["containers"][index]["image"] = container["image"].clone();
        }
    }
    if comparable == current["spec"] {
        return Ok(());
    }
    let text = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
         `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n";
    let text = format!("{text}{}", difference(&current["spec"], &next["spec"]));
    let name = super::store::text(&current["metadata"]["name"]);
    Err(ApiError::invalid(&kind::POD, name, &[Cause::forbidden("spec", &text)]))
}

/// The container that a log, exec or attach means: the named one, or the only or default one.
pub(super) fn choose_container(pod: &Value, asked: &str) -> Result<String, ApiError> {
    let name = text(&pod["metadata"]["name"]);
    let containers = list(&pod["spec"]["containers"]);
    if asked.is_empty() {
        return match containers {
            [only] => Ok(text(&only["name"]).to_owned()),
            [] => Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {name}"
            ))),
            several => {
                let names: Vec<&str> = several.iter().map(|c| text(&c["name"])).collect();
                Err(ApiError::bad_request(format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    names.join(" ")
                )))
            }
        };
    }
    let all = containers
        .iter()
        .chain(list(&pod["spec"]["initContainers"]))
        .chain(list(&pod["spec"]["ephemeralContainers"]));
    if all.into_iter().any(|c| c["name"] == asked) {
        return Ok(asked.to_owned());
    }
    Err(ApiError::bad_request(format!(
        "container {asked} is not valid for pod {name}"
    )))
}

/// The elements of a JSON list; none for anything else.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn is_dns_label(name: &str) -> bool {
    name.len() <= 63 && is_dns_label_of_any_length(name)
}

/// Lower-case letters, digits and inner dashes.
pub(super) fn is_dns_label_of_any_length(name: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(name.bytes().next())
        && edge(name.bytes().last())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests;

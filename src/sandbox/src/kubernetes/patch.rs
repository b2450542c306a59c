//! Patches: JSON patch, merge patch, strategic merge patch and server-side apply.
//!
//! Pure: a document and a patch give a document. Never validates the result.
//!
//! # Design notes
//! Server-side apply is a merge patch without field ownership: nobody else manages the fields that diagbot applies.

use serde_json::{Map, Value};

use super::answer::ApiError;

/// The kinds of patch, by content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchType {
    /// The type that a content type names.
    pub(super) fn of_content_type(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        }
    }
}

/// The document after the patch.
pub(super) fn apply(kind: PatchType, current: &Value, patch: &Value) -> Result<Value, ApiError> {
    let mut patched = current.clone();
    match kind {
        PatchType::Json => {
            let operations: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
            json_patch::patch(&mut patched, &operations).map_err(|e| {
                ApiError::bad_request(format!(
                    "the server rejected our request due to an error in our request: {e}"
                ))
            })?;
        }
        PatchType::Merge | PatchType::Apply => json_patch::merge(&mut patched, patch),
        PatchType::Strategic => strategic_object(&mut patched, patch),
    }
    Ok(patched)
}

/// Key by which the elements of a list are merged, as the `patchMergeKey` tags of the core types say; none where a list is
/// replaced as a whole.
fn merge_key(field: &str) -> Option<&'static str> {
    match field {
        "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "env" | "imagePullSecrets" => {
            Some("name")
        }
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
        "ports" => Some("containerPort"),
        "conditions" => Some("type"),
        "ownerReferences" => Some("uid"),
        "hostAliases" => Some("ip"),
        _ => None,
    }
}

fn strategic_object(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if patch.get("$patch").is_some_and(|p| p == "replace") {
        *target = Value::Object(
            patch
                .iter()
                .filter(|(k, _)| *k != "$patch")
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        );
        return;
    }
    for (field, value) in patch.iter().filter(|(k, _)| !k.starts_with('$')) {
        let slot = &mut target[field.as_str()];
        match value {
            Value::Null => {
                if let Some(fields) = target.as_object_mut() {
                    fields.remove(field);
                }
            }
            Value::Object(_) => strategic_object(slot, value),
            Value::Array(elements) => match merge_key(field) {
                Some(key) => {
                    let order = patch
                        .get(&format!("$setElementOrder/{field}"))
                        .and_then(Value::as_array);
                    strategic_list(slot, elements, key, order);
                }
                None if field == "finalizers" => union(slot, elements),
                None => *slot = value.clone(),
            },
            scalar => *slot = scalar.clone(),
        }
    }
}

/// Merges by key. A new element is put first unless the patch carries an order: measured on a real server.
fn strategic_list(target: &mut Value, patch: &[Value], key: &str, order: Option<&Vec<Value>>) {
    let mut merged: Vec<Value> = target.as_array().cloned().unwrap_or_default();
    if patch.iter().any(|e| e["$patch"] == "replace" && e.get(key).is_none()) {
        merged.clear();
    }
    let mut added = Vec::new();
    for element in patch.iter().filter(|e| e.get(key).is_some()) {
        let place = merged.iter().position(|m| m[key] == element[key]);
        match (place, element["$patch"] == "delete") {
            (Some(index), true) => {
                merged.remove(index);
            }
            (Some(index), false) => strategic_object(&mut merged[index], element),
            (None, true) => {}
            (None, false) => added.push(element.clone()),
        }
    }
    added.append(&mut merged);
    if let Some(order) = order {
        added.sort_by_key(|e| order.iter().position(|o| o[key] == e[key]).unwrap_or(usize::MAX));
    }
    *target = Value::Array(added);
}

fn union(target: &mut Value, elements: &[Value]) {
    let mut all = target.as_array().cloned().unwrap_or_default();
    for element in elements {
        if !all.contains(element) {
            all.push(element.clone());
        }
    }
    *target = Value::Array(all);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{PatchType, apply};

    #[test]
    fn a_new_element_of_a_strategic_patch_comes_first_unless_an_order_is_given() {
        let pod = json!({ "spec": { "ephemeralContainers": [{ "name": "e1", "image": "a" }] } });
        let added = |extra: serde_json::Value| {
            let mut patch = json!({ "spec": { "ephemeralContainers": [{ "name": "e2", "image": "b" }] } });
            patch["spec"]
                .as_object_mut()
                .expect("an object")
                .extend(extra.as_object().expect("an object").clone());
            let patched = apply(PatchType::Strategic, &pod, &patch).expect("the patch applies");
            let list = patched["spec"]["ephemeralContainers"]
                .as_array()
                .expect("a list")
                .clone();
            list.iter()
                .map(|c| c["name"].as_str().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(added(json!({})), ["e2", "e1"]);
        let order = json!({ "$setElementOrder/ephemeralContainers": [{ "name": "e1" }, { "name": "e2" }] });
        assert_eq!(added(order), ["e1", "e2"]);
    }

    #[test]
    fn strategic_deletes_and_merges_by_key() {
        let pod = json!({ "spec": { "containers": [{ "name": "a", "image": "1" }, { "name": "b", "image": "1" }] } });
        let patch =
            json!({ "spec": { "containers": [{ "name": "a", "$patch": "delete" }, { "name": "b", "image": "2" }] } });
        let patched = apply(PatchType::Strategic, &pod, &patch).expect("the patch applies");
        assert_eq!(
            patched,
            json!({ "spec": { "containers": [{ "name": "b", "image": "2" }] } })
        );
    }
}

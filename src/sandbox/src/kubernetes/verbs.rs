//! get, list, create, update, patch and delete.
//!
//! Owns what each verb does to an object and in which form it is answered. Never decides who may.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    answer::{self, ApiError, Cause},
    cluster::Cluster,
    fence::{self, Fence},
    form::Form,
    http::{Body, Call, json as reply},
    kind::{self, Kind},
    patch::{self, PatchType},
    pod,
    selector::Selector,
    store::{Key, Removal, Store, text},
    target::Verb,
};

/// Answers one call that is no watch, log or stream.
pub(super) fn answer(cluster: &Arc<Cluster>, call: &Call) -> Result<Response<Body>, ApiError> {
    let form = Form::of_accept(&call.headers);
    let kind = call.target.kind;
    let key = key_of(call);
    match call.verb {
        Verb::Get => Ok(reply(StatusCode::OK, &form.object(kind, &*cluster.store.get(&key)?))),
        Verb::List | Verb::Watch => list(cluster, call, form),
        Verb::Create => {
            let created = create(cluster, call)?;
            Ok(reply(StatusCode::CREATED, &form.object(kind, &created)))
        }
        Verb::Update => {
            let sent = body(call)?;
            let updated = write(cluster, call, &key, |_| Ok(sent))?;
            Ok(reply(StatusCode::OK, &form.object(kind, &updated)))
        }
        Verb::Patch => {
            let (code, patched) = apply_patch(cluster, call, &key)?;
            Ok(reply(code, &form.object(kind, &patched)))
        }
        Verb::Delete => {
            let (removal, _) = delete(cluster, call, &key)?;
            Ok(reply(StatusCode::OK, &removal))
        }
        Verb::DeleteCollection => {
            let selector = selector(call)?;
            let (_, objects) = cluster.store.list(kind.stored(), namespace(call));
            for object in objects.iter().filter(|o| selector.matches(o)) {
                let name = text(&object["metadata"]["name"]);
                delete(
                    cluster,
                    call,
                    &Key::new(kind.stored(), text(&object["metadata"]["namespace"]), name),
                )?;
            }
            list(cluster, call, form)
        }
    }
}

fn key_of(call: &Call) -> Key {
    Key::new(call.target.kind.stored(), &call.target.namespace, &call.target.name)
}

/// The namespace a collection request is narrowed to.
pub(super) fn namespace(call: &Call) -> Option<&str> {
    Some(call.target.namespace.as_str()).filter(|n| !n.is_empty())
}

/// The selector of a collection request; a name in the path counts as one.
pub(super) fn selector(call: &Call) -> Result<Selector, ApiError> {
    let mut fields = call.query.get("fieldSelector").to_owned();
    if !call.target.name.is_empty() {
        fields = format!("metadata.name={}", call.target.name);
    }
    Selector::parse(call.query.get("labelSelector"), &fields)
}

fn body(call: &Call) -> Result<Value, ApiError> {
    let content_type = call
        .headers
        .get("content-type")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if content_type.contains("protobuf") {
        return Err(ApiError::not_in_sandbox(
            "protobuf bodies; `kubectl create -f` and kube-rs send JSON",
        ));
    }
    serde_json::from_slice(&call.body).or_else(|error| {
        let yaml = std::str::from_utf8(&call.body)
            .ok()
            .and_then(|t| serde_saphyr::from_str(t).ok());
        yaml.ok_or_else(|| {
            ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): {error}",
                call.target.kind.kind
            ))
        })
    })
}

fn list(cluster: &Cluster, call: &Call, form: Form) -> Result<Response<Body>, ApiError> {
    let selector = selector(call)?;
    let (revision, objects) = cluster.store.list(call.target.kind.stored(), namespace(call));
    let place = |o: &Value| format!("{}/{}", text(&o["metadata"]["namespace"]), text(&o["metadata"]["name"]));
    let after = continued_after(call.query.get("continue"))?;
    let mut selected: Vec<_> = objects
        .into_iter()
        .filter(|o| after.as_ref().is_none_or(|a| place(o) > *a) && selector.matches(o))
        .collect();
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    let limit = call.query.number("limit").unwrap_or(0) as usize;
    if limit > 0 && selected.len() > limit {
        let rest = selected.split_off(limit);
        let token = selected
            .last()
            .map(|o| BASE64_URL_SAFE_NO_PAD.encode(place(o)))
            .unwrap_or_default();
        metadata["continue"] = json!(token);
        metadata["remainingItemCount"] = json!(rest.len());
    }
    Ok(reply(
        StatusCode::OK,
        &form.list(call.target.kind, &metadata, &selected),
    ))
}

fn continued_after(token: &str) -> Result<Option<String>, ApiError> {
    if token.is_empty() {
        return Ok(None);
    }
    BASE64_URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(Some)
        .ok_or_else(|| ApiError::bad_request("continue key is not valid"))
}

fn create(cluster: &Arc<Cluster>, call: &Call) -> Result<Arc<Value>, ApiError> {
    let target = &call.target;
    if !target.subresource.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    let mut object = body(call)?;
    check_type(target.kind, &object)?;
    object = super::form::into_stored(target.kind, object);
    object["apiVersion"] = json!(target.kind.stored().api_version());
    object["kind"] = json!(target.kind.kind);
    if target.kind.namespaced {
        let sent = object["metadata"]["namespace"]
            .as_str()
            .unwrap_or(&target.namespace)
            .to_owned();
        if sent != target.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        object["metadata"]["namespace"] = json!(sent);
        cluster.store.get(&Key::new(&kind::NAMESPACE, "", &sent))?;
    }
    name_object(target.kind, &mut object)?;
    if !object["metadata"]["resourceVersion"].is_null() {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    if target.kind.is_custom()
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    if *target.kind == kind::POD {
        pod::admit(&mut object)?;
    }
    fence::fill_in(target.kind, &mut object);
    if target.kind.is_custom() {
        object = cluster.schemas.admit(target.kind, object)?;
    }
    if call.query.get("dryRun") == "All" {
        return Ok(Arc::new(object));
    }
    cluster.store.create(target.kind.stored(), object)
}

fn check_type(kind: &Kind, object: &Value) -> Result<(), ApiError> {
    let sent = (text(&object["apiVersion"]), text(&object["kind"]));
    // Typed clients may leave both out.
    if sent == ("", "") || (sent.0 == kind.api_version() && sent.1 == kind.kind) {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the API version in the data ({}) does not match the expected API version ({})",
        sent.0,
        kind.api_version()
    )))
}

fn name_object(kind: &Kind, object: &mut Value) -> Result<(), ApiError> {
    let metadata = &mut object["metadata"];
    if text(&metadata["name"]).is_empty()
        && let Some(prefix) = metadata["generateName"].as_str()
    {
        metadata["name"] = json!(format!("{prefix}{}", name_suffix()));
    }
    let name = text(&metadata["name"]);
    if name.is_empty() {
        let cause = Cause::required("metadata.name", "name or generateName is required");
        return Err(ApiError::invalid(kind, "", &[cause]));
    }
    // RBAC names are path segments, not DNS names.
    if kind.group != "rbac.authorization.k8s.io" && !is_dns_subdomain(name) {
        let cause = Cause::invalid("metadata.name", name, SUBDOMAIN_RULE);
        return Err(ApiError::invalid(kind, name, &[cause]));
    }
    Ok(())
}

/// Five letters and digits, as the API server makes them for `generateName`.
pub(super) fn name_suffix() -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5)
        .map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]))
        .collect()
}

const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
     and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(pod::is_dns_label_of_any_length)
}

/// Replaces an object, or the part of it that the subresource covers, by what `make` makes of the current one.
fn write(
    cluster: &Arc<Cluster>,
    call: &Call,
    key: &Key,
    make: impl FnOnce(&Value) -> Result<Value, ApiError>,
) -> Result<Arc<Value>, ApiError> {
    let dry_run = call.query.get("dryRun") == "All";
    let fence = Fence::around(&cluster.store, &call.user);
    let mut dry = None;
    let updated = cluster.store.update(key, |current| {
        let wanted = make(current)?;
        check_revision(key, call, current, &wanted)?;
        let mut next = merge_scope(key, &call.target.subresource, current, wanted)?;
        if call.target.subresource == "ephemeralcontainers" {
            fence.admit(current, &next)?;
        }
        if key.kind.is_custom() {
            next = cluster.schemas.admit(key.kind, next)?;
        }
        if dry_run {
            dry = Some(next);
            return Ok(current.clone());
        }
        Ok(next)
    })?;
    Ok(dry.map_or(updated, Arc::new))
}

fn check_revision(key: &Key, call: &Call, current: &Value, wanted: &Value) -> Result<(), ApiError> {
    let sent = text(&wanted["metadata"]["resourceVersion"]);
    if sent.is_empty() && key.kind.needs_revision && call.verb == Verb::Update {
        let cause = Cause {
            field: "metadata.resourceVersion".to_owned(),
            message: "Invalid value: 0: must be specified for an update".to_owned(),
            reason: "FieldValueInvalid",
        };
        return Err(ApiError::invalid(key.kind, &key.name, &[cause]));
    }
    if !sent.is_empty() && sent != text(&current["metadata"]["resourceVersion"]) {
        return Err(ApiError::modified(key.kind, &key.name));
    }
    let uid = text(&wanted["metadata"]["uid"]);
    if !uid.is_empty() && uid != text(&current["metadata"]["uid"]) {
        let found = text(&current["metadata"]["uid"]);
        let text = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
        return Err(ApiError::conflict(key.kind, &key.name, &text));
    }
    Ok(())
}

/// What a write through this path may touch: the status alone, the ephemeral containers alone, or all but those.
fn merge_scope(key: &Key, subresource: &str, current: &Value, wanted: Value) -> Result<Value, ApiError> {
    let has_status = key.kind.subresources.contains(&"status");
    match subresource {
        "status" => {
            let mut next = current.clone();
            next["status"] = wanted["status"].clone();
            Ok(next)
        }
        "ephemeralcontainers" => pod::with_ephemeral_containers(current, &wanted),
        _ => {
            let mut next = wanted;
            next["apiVersion"] = current["apiVersion"].clone();
            next["kind"] = current["kind"].clone();
            next["metadata"]["name"] = current["metadata"]["name"].clone();
            if !current["metadata"]["namespace"].is_null() {
                next["metadata"]["namespace"] = current["metadata"]["namespace"].clone();
            }
            if has_status {
                match current.get("status") {
                    Some(status) => next["status"] = status.clone(),
                    None => {
                        if let Some(fields) = next.as_object_mut() {
                            fields.remove("status");
                        }
                    }
                }
            }
            if *key.kind == kind::POD {
                pod::check_update(current, &next)?;
            }
            Ok(next)
        }
    }
}

fn apply_patch(cluster: &Arc<Cluster>, call: &Call, key: &Key) -> Result<(StatusCode, Arc<Value>), ApiError> {
    let content_type = call
        .headers
        .get("content-type")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let accepted = if key.kind.is_custom() {
        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    } else {
        "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
    };
    let patch_type = PatchType::of_content_type(content_type)
        .filter(|t| *t != PatchType::Strategic || !key.kind.is_custom())
        .ok_or_else(|| ApiError::unsupported_patch(accepted))?;
    let sent = body(call)?;
    if patch_type == PatchType::Apply && cluster.store.get(key).is_err() && call.target.subresource.is_empty() {
        return Ok((StatusCode::CREATED, create(cluster, call)?));
    }
    let patched = write(cluster, call, key, |current| patch::apply(patch_type, current, &sent))?;
    Ok((StatusCode::OK, patched))
}

/// Deletes one object and, unless they are to be orphaned, what it owns.
fn delete(cluster: &Arc<Cluster>, call: &Call, key: &Key) -> Result<(Value, bool), ApiError> {
    if *key.kind == kind::NAMESPACE {
        return Err(ApiError::not_in_sandbox("the deletion of namespaces"));
    }
    let options: Value = if call.body.is_empty() { Value::Null } else { body(call)? };
    let asked = options["gracePeriodSeconds"]
        .as_i64()
        .or_else(|| call.query.get("gracePeriodSeconds").parse().ok());
    let removal = remove(&cluster.store, key, asked, &options)?;
    let orphan = options["propagationPolicy"] == "Orphan" || call.query.get("propagationPolicy") == "Orphan";
    Ok(match removal {
        Removal::Marked(object) => (Value::clone(&object), false),
        Removal::Gone(object) => {
            if !orphan {
                collect_dependents(&cluster.store, text(&object["metadata"]["uid"]));
            }
            (
                answer::deleted(key.kind, &key.name, text(&object["metadata"]["uid"])),
                true,
            )
        }
    })
}

fn remove(store: &Store, key: &Key, asked_grace_s: Option<i64>, options: &Value) -> Result<Removal, ApiError> {
    let grace = if *key.kind == kind::POD {
        let pod = store.get(key)?;
        let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
        // A pod that no node runs, or that is deleted by force, goes at once.
        Some(asked_grace_s.unwrap_or(own)).filter(|g| *g > 0 && !text(&pod["spec"]["nodeName"]).is_empty())
    } else {
        None
    };
    store.delete(key, grace, |current| {
        for (field, word) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
            let wanted = text(&options["preconditions"][field]);
            let found = text(&current["metadata"][field]);
            if !wanted.is_empty() && wanted != found {
                let text =
                    format!("Precondition failed: {word} in precondition: {wanted}, {word} in object meta: {found}");
                return Err(ApiError::conflict(key.kind, &key.name, &text));
            }
        }
        Ok(())
    })
}

/// The garbage collector: dependents of an owner that is gone go too.
pub(super) fn collect_dependents(store: &Store, uid: &str) {
    for key in store.dependents(uid) {
        match remove(store, &key, None, &Value::Null) {
            Ok(Removal::Gone(object)) => collect_dependents(store, text(&object["metadata"]["uid"])),
            Ok(Removal::Marked(_)) => {}
            Err(error) => tracing::debug!(%error, "a dependent was gone already"),
        }
    }
}

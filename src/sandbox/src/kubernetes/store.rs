//! The objects, and the log of their changes.
//!
//! Owns resourceVersion (one counter for everything, as etcd), uid, creationTimestamp, generation, finalizers and the
//! bounded log that watches read from. Never checks who asks or whether a kind's fields are sound.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::{answer::ApiError, kind::Kind};

/// Changes kept for watches that resume; older ones are answered with 410.
const LOG_CAPACITY: usize = 20_000;

/// Place of an object: group, plural, namespace, name.
type Place = (&'static str, &'static str, String, String);

/// Object identity for look-ups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) kind: &'static Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(kind: &'static Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn place(&self) -> Place {
        (
            self.kind.group,
            self.kind.plural,
            self.namespace.clone(),
            self.name.clone(),
        )
    }
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Added,
    Modified,
    Deleted,
}

/// One entry of the log.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) revision: u64,
    pub(super) kind: &'static Kind,
    pub(super) change: Change,
    pub(super) object: Arc<Value>,
    /// The object before a modification, so that a selector can tell what entered or left its set.
    pub(super) previous: Option<Arc<Value>>,
}

/// What a delete did.
pub(super) enum Removal {
    /// It is gone.
    Gone(Arc<Value>),
    /// It is marked with deletionTimestamp and waits for finalizers or for the node.
    Marked(Arc<Value>),
}

/// All objects of the cluster.
#[derive(Debug)]
pub(super) struct Store {
    state: Mutex<State>,
    revision: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    revision: u64,
    objects: BTreeMap<Place, Arc<Value>>,
    log: VecDeque<Entry>,
    /// Highest revision that has been dropped from the log.
    compacted: u64,
}

impl Store {
    pub(super) fn new() -> Self {
        // A fresh cluster has had a life before: clients must not mistake small revisions for "from the beginning".
        let state = State {
            revision: 1000,
            compacted: 1000,
            ..State::default()
        };
        let revision = watch::Sender::new(state.revision);
        Self {
            state: Mutex::new(state),
            revision,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, state: MutexGuard<'_, State>) {
        let revision = state.revision;
        drop(state);
        self.revision.send_replace(revision);
    }

    /// Wakes at every change.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// The current revision.
    pub(super) fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// Forgets the log up to now: every watch that resumes from before gets 410.
    pub(super) fn compact(&self) {
        let mut state = self.lock();
        state.compacted = state.revision;
        state.log.clear();
        self.publish(state);
    }

    /// One object.
    pub(super) fn get(&self, key: &Key) -> Result<Arc<Value>, ApiError> {
        self.lock()
            .objects
            .get(&key.place())
            .cloned()
            .ok_or_else(|| ApiError::not_found(key.kind, &key.name))
    }

    /// All objects of a kind, in one namespace or in all, with the revision they were read at.
    pub(super) fn list(&self, kind: &'static Kind, namespace: Option<&str>) -> (u64, Vec<Arc<Value>>) {
        let state = self.lock();
        let from: Place = (
            kind.group,
            kind.plural,
            namespace.unwrap_or_default().to_owned(),
            String::new(),
        );
        let objects = state
            .objects
            .range(from..)
            .take_while(|(place, _)| {
                place.0 == kind.group && place.1 == kind.plural && namespace.is_none_or(|n| place.2 == n)
            })
            .map(|(_, object)| Arc::clone(object))
            .collect();
        (state.revision, objects)
    }

    /// Changes of a kind after `revision`, oldest first; 410 where the log does not reach back that far.
    pub(super) fn changes_since(
        &self,
        kind: &'static Kind,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<(u64, Vec<Entry>), ApiError> {
        let state = self.lock();
        if revision < state.compacted {
            return Err(ApiError::expired(revision, state.compacted));
        }
        let start = state.log.partition_point(|e| e.revision <= revision);
        let entries = state
            .log
            .range(start..)
            .filter(|e| e.kind == kind && namespace.is_none_or(|n| e.object["metadata"]["namespace"] == n))
            .cloned()
            .collect();
        Ok((state.revision, entries))
    }

    /// Adds an object whose metadata names it; 409 where the name is taken.
    pub(super) fn create(&self, kind: &'static Kind, mut object: Value) -> Result<Arc<Value>, ApiError> {
        let key = Key::new(
            kind,
            text(&object["metadata"]["namespace"]),
            text(&object["metadata"]["name"]),
        );
        let mut state = self.lock();
        if state.objects.contains_key(&key.place()) {
            return Err(ApiError::already_exists(kind, &key.name));
        }
        let revision = state.next_revision();
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(new_uid());
        metadata["creationTimestamp"] = json!(now());
        metadata["resourceVersion"] = json!(revision.to_string());
        if has_generation(kind) {
            metadata["generation"] = json!(1);
        }
        let object = state.record(&key, revision, Change::Added, object, None);
        self.publish(state);
        Ok(object)
    }

    /// Reads, changes and writes one object in one step. An unchanged object keeps its revision, as on the real server. An
    /// object whose last finalizer went while it was being deleted is removed.
    pub(super) fn update(
        &self,
        key: &Key,
        change: impl FnOnce(&Value) -> Result<Value, ApiError>,
    ) -> Result<Arc<Value>, ApiError> {
        let mut state = self.lock();
        let place = key.place();
        let current = state
            .objects
            .get(&place)
            .cloned()
            .ok_or_else(|| ApiError::not_found(key.kind, &key.name))?;
        let mut object = change(&current)?;
        for field in [
            "uid",
            "creationTimestamp",
            "resourceVersion",
            "generation",
            "deletionTimestamp",
        ] {
            restore(&mut object, &current, field);
        }
        if object == *current {
            return Ok(current);
        }
        let revision = state.next_revision();
        if has_generation(key.kind) && object["spec"] != current["spec"] {
            let generation = current["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
            object["metadata"]["generation"] = json!(generation);
        }
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let change = if deletable(&object) {
            Change::Deleted
        } else {
            Change::Modified
        };
        let object = state.record(key, revision, change, object, Some(current));
        self.publish(state);
        Ok(object)
    }

    /// Deletes an object, or marks it where finalizers or `grace_s` seconds of grace stand before the end.
    pub(super) fn delete(
        &self,
        key: &Key,
        grace_s: Option<i64>,
        check: impl FnOnce(&Value) -> Result<(), ApiError>,
    ) -> Result<Removal, ApiError> {
        let mut state = self.lock();
        let current = state
            .objects
            .get(&key.place())
            .cloned()
            .ok_or_else(|| ApiError::not_found(key.kind, &key.name))?;
        check(&current)?;
        let has_finalizers = current["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|f| !f.is_empty());
        if grace_s.is_none() && !has_finalizers {
            let revision = state.next_revision();
            let mut object = Value::clone(&current);
            object["metadata"]["resourceVersion"] = json!(revision.to_string());
            let object = state.record(key, revision, Change::Deleted, object, Some(current));
            self.publish(state);
            return Ok(Removal::Gone(object));
        }
        if !current["metadata"]["deletionTimestamp"].is_null() {
            return Ok(Removal::Marked(current));
        }
        let revision = state.next_revision();
        let mut object = Value::clone(&current);
        object["metadata"]["deletionTimestamp"] = json!(now());
        object["metadata"]["deletionGracePeriodSeconds"] = json!(grace_s.unwrap_or(0));
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let object = state.record(key, revision, Change::Modified, object, Some(current));
        self.publish(state);
        Ok(Removal::Marked(object))
    }

    /// Objects of any kind in the namespace whose owner is `uid`.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Key> {
        let state = self.lock();
        state
            .objects
            .iter()
            .filter(|(_, object)| {
                object["metadata"]["ownerReferences"]
                    .as_array()
                    .is_some_and(|owners| owners.iter().any(|o| o["uid"] == uid))
            })
            .filter_map(|(place, _)| {
                let kind = super::kind::all().find(|k| k.group == place.0 && k.plural == place.1)?;
                Some(Key::new(kind, &place.2, &place.3))
            })
            .collect()
    }
}

impl State {
    fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    fn record(
        &mut self,
        key: &Key,
        revision: u64,
        change: Change,
        object: Value,
        previous: Option<Arc<Value>>,
    ) -> Arc<Value> {
        let object = Arc::new(object);
        if change == Change::Deleted {
            self.objects.remove(&key.place());
        } else {
            self.objects.insert(key.place(), Arc::clone(&object));
        }
        self.log.push_back(Entry {
            revision,
            kind: key.kind,
            change,
            object: Arc::clone(&object),
            previous,
        });
        if self.log.len() > LOG_CAPACITY
            && let Some(dropped) = self.log.pop_front()
        {
            self.compacted = dropped.revision;
        }
        object
    }
}

fn restore(object: &mut Value, current: &Value, field: &str) {
    match current["metadata"].get(field) {
        Some(value) => object["metadata"][field] = value.clone(),
        None => {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove(field);
            }
        }
    }
}

fn deletable(object: &Value) -> bool {
    let metadata = &object["metadata"];
    !metadata["deletionTimestamp"].is_null()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && metadata["finalizers"].as_array().is_none_or(Vec::is_empty)
}

fn has_generation(kind: &Kind) -> bool {
    kind.is_custom() || kind.group == "apps" || kind.plural == "pods"
}

/// The text of a JSON string; empty for anything else.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Now, in whole seconds, as `metav1.Time`.
pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A random (version 4) UUID.
pub(super) fn new_uid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex::encode(bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

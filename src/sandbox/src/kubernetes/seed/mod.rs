//! What a fresh sandbox cluster holds: namespaces, the node, access rules, and the sample workloads with their owners.
//!
//! Owns the manifests; never starts anything: the node runs the pods that it finds.

use serde_json::{Value, json};

use super::{
    answer::ApiError,
    fence,
    kind::{self, Kind},
    pod,
    store::{Store, text},
};

/// The node's name.
pub(super) const NODE: &str = "sandbox";
/// Namespaces and the node.
const BASE: &str = include_str!("base.yaml");
/// The bot's rights, exactly as an installation gives them, and the examples of people's rights.
const RIGHTS: [&str; 5] = [
    include_str!("../../../../../deploy/base/rbac-home.yaml"),
    include_str!("../../../../../deploy/base/rbac-targets.yaml"),
    include_str!("../../../../../deploy/components/all-namespaces/binding.yaml"),
    include_str!("../../../../../deploy/examples/people.yaml"),
    include_str!("../../../../../deploy/examples/triggers.yaml"),
];
/// The bot's namespace, which kustomize would put into its manifests.
const HOME: &str = "diagbot";

/// Why a manifest can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// Not YAML.
    #[error("a manifest of the sandbox's cluster is no YAML")]
    Yaml(#[from] serde_saphyr::Error),
    /// A kind that the sandbox lacks.
    #[error("the sandbox has no kind `{kind}` of `{api_version}`")]
    Kind {
        /// `apiVersion` of the manifest.
        api_version: String,
        /// `kind` of the manifest.
        kind: String,
    },
    /// The store refuses it.
    #[error("a manifest of the sandbox's cluster is refused")]
    Refused(#[from] ApiError),
}

/// A workload of one pod: names that never change, so that stories can be told with them.
struct Workload {
    name: &'static str,
    replica_set: &'static str,
    pod: &'static str,
}

const WORKLOADS: [Workload; 3] = [
    Workload {
        name: "checkout",
        replica_set: "checkout-7d9f8b6c5",
        pod: "checkout-7d9f8b6c5-x2x4z",
    },
    Workload {
        name: "ledger",
        replica_set: "ledger-6c7d5b9f4",
        pod: "ledger-6c7d5b9f4-q8w2k",
    },
    Workload {
        name: "billing",
        replica_set: "billing-5f6b8c7d9",
        pod: "billing-5f6b8c7d9-m4n7p",
    },
];

/// Loads the base and, if asked, the workloads.
pub(super) fn load(store: &Store, workloads: bool, manifests: &[String]) -> Result<(), SeedError> {
    let manifests = manifests.iter().map(String::as_str);
    for manifest in std::iter::once(BASE).chain(RIGHTS).chain(manifests) {
        for object in serde_saphyr::from_multiple::<Value>(manifest)? {
            apply(store, object)?;
        }
    }
    if workloads {
        for workload in &WORKLOADS {
            add(store, workload)?;
        }
    }
    Ok(())
}

/// Adds one object whose `apiVersion` and `kind` say what it is; without a namespace it belongs to the bot's. An object that is there already stays as it is: a manifest
/// of `deploy/` may name a namespace that the base has.
pub(super) fn apply(store: &Store, mut object: Value) -> Result<(), SeedError> {
    if object.is_null() {
        return Ok(());
    }
    let (api_version, word) = (text(&object["apiVersion"]).to_owned(), text(&object["kind"]).to_owned());
    let kind = Kind::of_object(&api_version, &word).ok_or(SeedError::Kind {
        api_version,
        kind: word,
    })?;
    if kind.namespaced && text(&object["metadata"]["namespace"]).is_empty() {
        object["metadata"]["namespace"] = json!(HOME);
    }
    if *kind == kind::POD {
        pod::admit(&mut object)?;
    }
    fence::fill_in(kind, &mut object);
    match store.create(kind, object) {
        Err(error) if error.reason == "AlreadyExists" => Ok(()),
        other => Ok(other.map(|_| ())?),
    }
}

fn add(store: &Store, workload: &Workload) -> Result<(), SeedError> {
    let labels = json!({ "app": workload.name });
    let template = json!({
        "metadata": { "labels": labels },
        "spec": pod_spec(workload.name),
    });
    let owner = |kind: &str, name: &str, owner: &Value| {
        json!([{
            "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": owner["metadata"]["uid"],
            "controller": true, "blockOwnerDeletion": true,
        }])
    };
    let deployments = Kind::of_path("apps", "v1", "deployments").expect("deployments are in the table of kinds");
    let status = json!({ "replicas": 1, "observedGeneration": 1 });
    let spec = json!({ "replicas": 1, "selector": { "matchLabels": labels }, "template": template });
    let deployment = store.create(
        deployments,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": workload.name, "namespace": "shop", "labels": labels },
            "spec": spec, "status": status,
        }),
    )?;
    // As the Deployment controller does: the template's hash is in the name and in the labels.
    let hash = workload
        .replica_set
        .trim_start_matches(workload.name)
        .trim_start_matches('-');
    let labels = json!({ "app": workload.name, "pod-template-hash": hash });
    let spec = json!({
        "replicas": 1,
        "selector": { "matchLabels": labels },
        "template": { "metadata": { "labels": labels }, "spec": pod_spec(workload.name) },
    });
    let replica_set = store.create(
        &kind::REPLICA_SET,
        json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": workload.replica_set, "namespace": "shop", "labels": labels,
                "ownerReferences": owner("Deployment", workload.name, &deployment),
            },
            "spec": spec, "status": status,
        }),
    )?;
    apply(store, pod_of(&replica_set, workload.pod))
}

/// A pod of a replica set.
pub(super) fn pod_of(replica_set: &Value, name: &str) -> Value {
    let template = &replica_set["spec"]["template"];
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "generateName": format!("{}-", text(&replica_set["metadata"]["name"])),
            "namespace": replica_set["metadata"]["namespace"],
            "labels": template["metadata"]["labels"],
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet",
                "name": replica_set["metadata"]["name"], "uid": replica_set["metadata"]["uid"],
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": template["spec"],
    })
}

fn pod_spec(workload: &str) -> Value {
    let mut spec = json!({
        "terminationGracePeriodSeconds": 2,
        "securityContext": { "runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000 },
        "containers": [{ "name": workload, "image": format!("registry.sandbox/{workload}:1") }],
    });
    if workload == "ledger" {
        // A value that a report must never show.
        spec["containers"][0]["env"] = json!([{ "name": "LEDGER_PASSWORD", "value": "correct-horse-battery" }]);
    }
    spec
}

//! Discovery: which groups, versions and kinds there are, and the server's version.
//!
//! Pure over the table of kinds.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::kind::{self, Kind};

/// The Kubernetes version whose behaviour the sandbox copies.
const MINOR: &str = "36";
/// Reviews are verbs without objects, so they are not in the table of kinds.
const REVIEWS: [(&str, &str, bool); 4] = [
    ("SubjectAccessReview", "subjectaccessreviews", false),
    ("SelfSubjectAccessReview", "selfsubjectaccessreviews", false),
    ("SelfSubjectRulesReview", "selfsubjectrulesreviews", false),
    ("LocalSubjectAccessReview", "localsubjectaccessreviews", true),
];

/// The review of `authentication.k8s.io`.
const WHO_AM_I: [(&str, &str, bool); 1] = [("SelfSubjectReview", "selfsubjectreviews", false)];

/// The document at a discovery path.
pub(super) fn document(path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["version"] => Some(version()),
        ["api"] => Some(json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })),
        ["apis"] => Some(json!({
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": groups().into_iter().map(group).collect::<Vec<_>>(),
        })),
        ["apis", name] => groups().into_iter().find(|(g, _)| g == name).map(|found| {
            let mut document = group(found);
            document["kind"] = json!("APIGroup");
            document["apiVersion"] = json!("v1");
            document
        }),
        ["api", "v1"] => Some(resources("", "v1")),
        ["apis", name, version] => groups().contains(&(*name, *version)).then(|| resources(name, version)),
        _ => None,
    }
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": MINOR,
        "gitVersion": format!("v1.{MINOR}.0+diagbot-sandbox"),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

fn groups() -> BTreeSet<(&'static str, &'static str)> {
    kind::all()
        .filter(|k| !k.group.is_empty())
        .map(|k| (k.group, k.version))
        .chain([("authorization.k8s.io", "v1"), ("authentication.k8s.io", "v1")])
        .collect()
}

fn group((name, version): (&str, &str)) -> Value {
    let version = json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    json!({ "name": name, "versions": [version], "preferredVersion": version })
}

fn resources(group: &str, version: &str) -> Value {
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    let mut list: Vec<Value> = kind::all()
        .filter(|k| k.group == group && k.version == version)
        .flat_map(of_kind)
        .collect();
    let reviews: &[(&str, &str, bool)] = match group {
        "authorization.k8s.io" => &REVIEWS,
        "authentication.k8s.io" => &WHO_AM_I,
        _ => &[],
    };
    list.extend(reviews.iter().map(|(kind, plural, namespaced)| {
        json!({ "name": plural, "singularName": kind.to_lowercase(), "namespaced": namespaced, "kind": kind, "verbs": ["create"] })
    }));
    json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list })
}

fn of_kind(kind: &Kind) -> Vec<Value> {
    let verbs = [
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    ];
    let mut list = vec![json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": verbs,
        "shortNames": kind.short,
    })];
    list.extend(kind.subresources.iter().map(|sub| {
        let (of, verbs): (&str, &[&str]) = match *sub {
            "exec" => ("PodExecOptions", &["create", "get"]),
            "attach" => ("PodAttachOptions", &["create", "get"]),
            "log" => (kind.kind, &["get"]),
            _ => (kind.kind, &["get", "patch", "update"]),
        };
        json!({
            "name": format!("{}/{sub}", kind.plural),
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": of,
            "verbs": verbs,
        })
    }));
    list
}

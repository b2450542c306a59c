//! Role-based access control, evaluated over the Role and Binding objects in the store.
//!
//! Owns the rules' meaning as in Kubernetes (wildcards, subresources, resourceNames, aggregation excepted). Never writes.

use serde_json::{Value, json};

use super::{
    answer::ApiError,
    identity::User,
    kind::{self, Kind},
    store::{Key, Store, text},
};

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Access {
    pub(super) verb: String,
    pub(super) group: String,
    pub(super) resource: String,
    pub(super) subresource: String,
    pub(super) name: String,
    pub(super) namespace: String,
    /// Set instead of a resource for paths such as `/readyz`.
    pub(super) path: Option<String>,
}

impl Access {
    fn qualified_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// The refusal, in the real server's words.
    pub(super) fn refusal(&self, user: &User, kind: &Kind) -> ApiError {
        let place = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {:?}", self.namespace)
        };
        let text = format!(
            "User {:?} cannot {} resource {:?} in API group {:?} {place}",
            user.name,
            self.verb,
            self.qualified_resource(),
            self.group,
        );
        ApiError::forbidden(kind, &self.name, &text)
    }
}

/// Why access is given: the binding and role, for the answer to a review. None where nothing gives it.
pub(super) fn allowed(store: &Store, user: &User, access: &Access) -> Option<String> {
    if user.groups.iter().any(|g| g == "system:masters") {
        return Some(String::new());
    }
    if let Some(path) = &access.path {
        // What `system:discovery` and `system:public-info-viewer` give to everybody.
        let open = ["/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz"];
        return open.iter().any(|p| path.starts_with(p)).then(String::new);
    }
    grants(store, user, &access.namespace)
        .into_iter()
        .find(|grant| grant.rules.iter().any(|rule| covers(rule, access)))
        .map(|grant| grant.reason)
}

/// The rules that a user has in a namespace, for SelfSubjectRulesReview.
pub(super) fn rules_of(store: &Store, user: &User, namespace: &str) -> Vec<Value> {
    if user.groups.iter().any(|g| g == "system:masters") {
        return vec![json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] })];
    }
    grants(store, user, namespace)
        .into_iter()
        .flat_map(|g| g.rules)
        .collect()
}

struct Grant {
    rules: Vec<Value>,
    reason: String,
}

fn grants(store: &Store, user: &User, namespace: &str) -> Vec<Grant> {
    let cluster = store.list(&kind::CLUSTER_ROLE_BINDING, None).1;
    let local = if namespace.is_empty() {
        Vec::new()
    } else {
        store.list(&kind::ROLE_BINDING, Some(namespace)).1
    };
    cluster
        .iter()
        .chain(local.iter())
        .filter(|b| {
            b["subjects"]
                .as_array()
                .is_some_and(|s| s.iter().any(|s| is_subject(s, user, b)))
        })
        .map(|binding| {
            let role = &binding["roleRef"];
            let key = if role["kind"] == "Role" {
                Key::new(
                    &kind::ROLE,
                    text(&binding["metadata"]["namespace"]),
                    text(&role["name"]),
                )
            } else {
                Key::new(&kind::CLUSTER_ROLE, "", text(&role["name"]))
            };
            let rules = store
                .get(&key)
                .ok()
                .and_then(|r| r["rules"].as_array().cloned())
                .unwrap_or_default();
            Grant {
                rules,
                reason: reason(binding, user),
            }
        })
        .collect()
}

fn reason(binding: &Value, user: &User) -> String {
    let name = text(&binding["metadata"]["name"]);
    let role = format!(
        "{} {:?}",
        text(&binding["roleRef"]["kind"]),
        text(&binding["roleRef"]["name"])
    );
    match binding["metadata"]["namespace"].as_str() {
        Some(namespace) => {
            format!(
                "RBAC: allowed by RoleBinding \"{name}/{namespace}\" of {role} to User {:?}",
                user.name
            )
        }
        None => format!(
            "RBAC: allowed by ClusterRoleBinding {name:?} of {role} to User {:?}",
            user.name
        ),
    }
}

fn is_subject(subject: &Value, user: &User, binding: &Value) -> bool {
    let name = text(&subject["name"]);
    match text(&subject["kind"]) {
        "User" => user.name == name,
        "Group" => user.groups.iter().any(|g| g == name),
        "ServiceAccount" => {
            let namespace = subject["namespace"]
                .as_str()
                .unwrap_or(text(&binding["metadata"]["namespace"]));
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

fn covers(rule: &Value, access: &Access) -> bool {
    let has = |field: &str, wanted: &str| {
        rule[field]
            .as_array()
            .is_some_and(|list| list.iter().any(|v| v == "*" || v == wanted))
    };
    let resource = has("resources", &access.qualified_resource())
        || (!access.subresource.is_empty() && has_exactly(rule, &format!("*/{}", access.subresource)));
    let named = rule["resourceNames"]
        .as_array()
        .is_none_or(|names| names.is_empty() || names.iter().any(|n| *n == access.name));
    has("verbs", &access.verb) && has("apiGroups", &access.group) && resource && named
}

fn has_exactly(rule: &Value, resource: &str) -> bool {
    rule["resources"]
        .as_array()
        .is_some_and(|list| list.iter().any(|v| v == resource))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Access, User, allowed};
    use crate::kubernetes::{
        kind::{CLUSTER_ROLE, ROLE, ROLE_BINDING},
        store::Store,
    };

    #[test]
    fn rules_give_no_more_than_they_say() {
        let store = Store::new();
        let create = |kind, object| store.create(kind, object).expect("a free name");
        create(
            &ROLE,
            json!({ "metadata": { "name": "r", "namespace": "shop" }, "rules": [
                { "verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"] },
                { "verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["own"] },
            ] }),
        );
        create(
            &CLUSTER_ROLE,
            json!({ "metadata": { "name": "c" }, "rules": [
                { "verbs": ["*"], "apiGroups": ["diagbot.dev"], "resources": ["diagnostics"], "resourceNames": ["jstack"] },
            ] }),
        );
        for (name, role, kind) in [("b", "r", "Role"), ("d", "c", "ClusterRole")] {
            create(
                &ROLE_BINDING,
                json!({ "metadata": { "name": name, "namespace": "shop" },
                    "roleRef": { "kind": kind, "name": role },
                    "subjects": [{ "kind": "Group", "name": "slack:channel:C1" }] }),
            );
        }
        let user = User {
            name: "slack:T1:U1".to_owned(),
            groups: vec!["slack:channel:C1".to_owned()],
        };
        let may = |verb: &str, resource: &str, name: &str, namespace: &str| {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let group = if resource == "diagnostics" { "diagbot.dev" } else { "" };
            let access = Access {
                verb: verb.to_owned(),
                group: group.to_owned(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                name: name.to_owned(),
                namespace: namespace.to_owned(),
                path: None,
            };
            allowed(&store, &user, &access).is_some()
        };
        assert!(may("get", "pods", "x", "shop") && may("get", "pods/log", "x", "shop"));
        assert!(!may("get", "pods/exec", "x", "shop"));
        assert!(!may("delete", "pods", "x", "shop"));
        assert!(!may("get", "pods", "x", "kube-system") && !may("get", "pods", "x", ""));
        assert!(may("get", "secrets", "own", "shop") && !may("get", "secrets", "other", "shop"));
        assert!(may("run", "diagnostics", "jstack", "shop") && !may("run", "diagnostics", "heap-dump", "shop"));
    }
}

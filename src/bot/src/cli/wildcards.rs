//! Whom wildcards give the verbs `approve` or `break-glass`: rights that are meant to be given by name. Reads the cluster's
//! roles and bindings, with the rights of whoever runs `check`; the bot itself need not have them.

use std::collections::BTreeSet;

use diagbot_cluster::{CallError, Cluster, deadline};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::{Api, api::ListParams};

/// Longest wait for one answer of a cluster.
const CALL: std::time::Duration = std::time::Duration::from_secs(10);

/// The cluster's rules and who has them.
#[derive(Debug, Default)]
struct Rules {
    cluster_roles: Vec<ClusterRole>,
    roles: Vec<Role>,
    cluster_bindings: Vec<ClusterRoleBinding>,
    bindings: Vec<RoleBinding>,
}

/// Every subject whom a wildcard gives one of the verbs, as `Group system:masters by ClusterRoleBinding cluster-admin:
/// approve, break-glass`.
pub(super) async fn subjects(cluster: &Cluster) -> Result<Vec<String>, CallError> {
    let client = &cluster.client;
    let params = ListParams::default();
    let (cluster_roles, roles): (Api<ClusterRole>, Api<Role>) = (Api::all(client.clone()), Api::all(client.clone()));
    let cluster_bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let bindings: Api<RoleBinding> = Api::all(client.clone());
    let rules = Rules {
        cluster_roles: deadline(CALL, cluster_roles.list(&params)).await?.items,
        roles: deadline(CALL, roles.list(&params)).await?.items,
        cluster_bindings: deadline(CALL, cluster_bindings.list(&params)).await?.items,
        bindings: deadline(CALL, bindings.list(&params)).await?.items,
    };
    Ok(rules.by_wildcard())
}

impl Rules {
    fn by_wildcard(&self) -> Vec<String> {
        let mut found = BTreeSet::new();
        for binding in &self.cluster_bindings {
            let verbs = given(self.of_cluster(&binding.role_ref));
            let by = format!("ClusterRoleBinding {}", name(binding.metadata.name.as_ref()));
            found.extend(lines(binding.subjects.as_ref(), &verbs, &by));
        }
        for binding in &self.bindings {
            let namespace = name(binding.metadata.namespace.as_ref());
            let rules = match binding.role_ref.kind.as_str() {
                "Role" => self.of_namespace(&binding.role_ref, namespace),
                _ => self.of_cluster(&binding.role_ref),
            };
            let by = format!("RoleBinding {namespace}/{}", name(binding.metadata.name.as_ref()));
            found.extend(lines(binding.subjects.as_ref(), &given(rules), &by));
        }
        found.into_iter().collect()
    }

    fn of_cluster(&self, role: &RoleRef) -> &[PolicyRule] {
        let mut roles = self.cluster_roles.iter();
        let found = roles.find(|r| r.metadata.name.as_ref() == Some(&role.name));
        found.and_then(|r| r.rules.as_deref()).unwrap_or_default()
    }

    fn of_namespace(&self, role: &RoleRef, namespace: &str) -> &[PolicyRule] {
        let mut roles = self.roles.iter();
        let found = roles.find(|r| {
            r.metadata.name.as_ref() == Some(&role.name) && r.metadata.namespace.as_deref() == Some(namespace)
        });
        found.and_then(|r| r.rules.as_deref()).unwrap_or_default()
    }
}

/// The verbs that a wildcard in a verb, group or resource gives, or a rule for `break-glass` that names no diagnostic.
fn given(rules: &[PolicyRule]) -> BTreeSet<&'static str> {
    let mut verbs = BTreeSet::new();
    for rule in rules {
        let groups = rule.api_groups.as_deref().unwrap_or_default();
        let resources = rule.resources.as_deref().unwrap_or_default();
        let (any_group, any_resource) = (has(groups, "*"), has(resources, "*"));
        if !(any_group || has(groups, "diagbot.dev")) || !(any_resource || has(resources, "diagnostics")) {
            continue;
        }
        let any_verb = has(&rule.verbs, "*");
        let unnamed = rule.resource_names.as_ref().is_none_or(Vec::is_empty);
        for verb in ["approve", "break-glass"] {
            let wild = any_verb || any_group || any_resource || (verb == "break-glass" && unnamed);
            if wild && (any_verb || has(&rule.verbs, verb)) {
                verbs.insert(verb);
            }
        }
    }
    verbs
}

fn has(words: &[String], word: &str) -> bool {
    words.iter().any(|known| known == word)
}

fn name(name: Option<&String>) -> &str {
    name.map(String::as_str).unwrap_or_default()
}

fn lines(subjects: Option<&Vec<Subject>>, verbs: &BTreeSet<&str>, by: &str) -> Vec<String> {
    if verbs.is_empty() {
        return Vec::new();
    }
    let verbs = verbs.iter().copied().collect::<Vec<_>>().join(", ");
    let subjects = subjects.into_iter().flatten();
    // An account has a namespace, which need not be the binding's.
    let place = |subject: &Subject| {
        subject
            .namespace
            .as_ref()
            .map(|ns| format!("{ns}/"))
            .unwrap_or_default()
    };
    subjects
        .map(|subject| format!("{} {}{} by {by}: {verbs}", subject.kind, place(subject), subject.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wildcards_are_found_and_rights_by_name_are_not() {
        let role = |name: &str, rule: serde_json::Value| -> ClusterRole {
            serde_json::from_value(json!({ "metadata": { "name": name }, "rules": [rule] })).unwrap()
        };
        let binding = |role: &str| -> ClusterRoleBinding {
            serde_json::from_value(json!({
                "metadata": { "name": format!("b-{role}") },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
                "subjects": [{ "kind": "Group", "name": format!("people-of-{role}") }],
            }))
            .unwrap()
        };
        let rules = Rules {
            cluster_roles: vec![
                role(
                    "admin",
                    json!({ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }),
                ),
                role(
                    "approver",
                    json!({ "apiGroups": ["diagbot.dev"], "resources": ["diagnostics"], "verbs": ["approve"] }),
                ),
                role(
                    "glass",
                    json!({ "apiGroups": ["diagbot.dev"], "resources": ["diagnostics"], "verbs": ["break-glass"] }),
                ),
                role(
                    "named",
                    json!({ "apiGroups": ["diagbot.dev"], "resources": ["diagnostics"], "verbs": ["break-glass"],
                    "resourceNames": ["jstack"] }),
                ),
                role("pods", json!({ "apiGroups": [""], "resources": ["*"], "verbs": ["*"] })),
            ],
            cluster_bindings: ["admin", "approver", "glass", "named", "pods"].map(binding).into(),
            ..Rules::default()
        };
        assert_eq!(
            rules.by_wildcard(),
            [
                "Group people-of-admin by ClusterRoleBinding b-admin: approve, break-glass",
                "Group people-of-glass by ClusterRoleBinding b-glass: break-glass",
            ]
        );
    }
}

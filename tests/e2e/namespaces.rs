//! What stands in the cluster before a bot starts: definitions, roles, and a story's two namespaces.

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::{
    installation::{Variation, repository},
    kubectl::{apply, apply_file, kubectl},
};

/// Definitions and cluster roles, once for all stories.
pub(crate) async fn prepare_cluster() -> anyhow::Result<()> {
    static PREPARED: OnceCell<()> = OnceCell::const_new();
    PREPARED
        .get_or_try_init(async || {
            for file in ["deploy/base/crds.yaml", "deploy/examples/people.yaml"] {
                let text = std::fs::read_to_string(repository().join(file)).with_context(|| format!("read {file}"))?;
                // The example binds people in a namespace of its own; stories bind in theirs.
                let roles = text.split("\n---\n").filter(|d| !d.contains("kind: RoleBinding"));
                apply(&roles.collect::<Vec<_>>().join("\n---\n")).await?;
            }
            kubectl(
                &[
                    "wait",
                    "--for=condition=Established",
                    "crd/diagnosticruns.diagbot.dev",
                    "crd/diagnosticcaptures.diagbot.dev",
                    "crd/diagnosticpauses.diagbot.dev",
                ],
                None,
            )
            .await?;
            apply_file(&repository().join("deploy/base/rbac-targets.yaml")).await
        })
        .await?;
    Ok(())
}

/// The story's two namespaces with the bot's account and its rights.
pub(crate) async fn make_namespaces(home: &str, target: &str, variation: &Variation) -> anyhow::Result<()> {
    let mut labels = json!({ "diagbot.dev/enabled": "true", "diagbot.dev/e2e": "true" });
    for (key, value) in &variation.labels {
        labels[*key] = json!(value);
    }
    let namespaces = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": home, "labels": { "diagbot.dev/e2e": "true" } } },
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": target, "labels": labels } },
        binding("diagbot-target", target, "diagbot-target", &[json!({ "kind": "ServiceAccount", "name": "diagbot", "namespace": home })]),
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
          "metadata": { "name": format!("diagbot-cluster-{home}"), "labels": { "diagbot.dev/e2e": "true" } },
          "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "diagbot-cluster" },
          "subjects": [{ "kind": "ServiceAccount", "name": "diagbot", "namespace": home }] },
    ] });
    apply(&namespaces.to_string()).await?;
    let rights =
        std::fs::read_to_string(repository().join("deploy/base/rbac-home.yaml")).context("read the bot's rights")?;
    let rights = rights.replace("namespace: diagbot", &format!("namespace: {home}"));
    kubectl(&["-n", home, "apply", "-f", "-"], Some(&rights)).await?;
    Ok(())
}

/// Lets the person run everything in the target namespace.
pub(crate) async fn allow(target: &str, team: &str, user: &str) -> anyhow::Result<()> {
    let person =
        json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("slack:{team}:{user}") });
    apply(&binding("people", target, "diagbot-runner", &[person]).to_string()).await?;
    let trigger = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "trigger:kubernetes" });
    apply(&binding("triggers", target, "diagbot-runner", &[trigger]).to_string()).await?;
    // Everybody in the channel may see what is captured, and Grace agrees to what others ask for.
    let channel =
        json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "slack:channel:C0INCIDENT" });
    apply(&binding("channels", target, "diagbot-channel", &[channel]).to_string()).await?;
    let grace =
        json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("slack:{team}:U0GRACE001") });
    apply(&binding("approvers", target, "diagbot-approver", &[grace]).to_string()).await
}

fn binding(name: &str, namespace: &str, role: &str, subjects: &[Value]) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": { "name": name, "namespace": namespace },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": subjects,
    })
}

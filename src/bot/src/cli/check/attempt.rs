//! What the API server says to a container that is not in the catalog. Asks by dry run: nothing is ever added.

use std::collections::BTreeMap;

use diagbot_base::telemetry::Chain;
use diagbot_catalog::policy::{CONTAINERS, ENABLED_LABEL};
use diagbot_cluster::{CallError, Cluster, deadline};
use diagbot_runs::access::own::{self, Right};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::CALL;
use crate::config::Config;

/// Pods of one page.
const PAGE: u32 = 500;
/// Pods whose answers may say nothing about the fence before none is asked any more.
const MOST_UNCLEAR: usize = 5;

/// What came of it.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The fence refused it beside this pod.
    Refused(String),
    /// Nothing would keep it from running beside this pod.
    Accepted(String),
    /// No answer says anything about the fence.
    NotTried(String),
}

/// What one answer says.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Fenced,
    Open,
    Unclear(String),
}

/// Asks beside running pods of namespaces that take part, until an answer tells; `place`: in this namespace only.
pub(super) async fn on_some_pod(cluster: &Cluster, config: &Config, place: Option<&str>) -> Attempt {
    match search(cluster, config, place).await {
        Ok(attempt) => attempt,
        Err(error) if error.is_forbidden() => Attempt::NotTried(match place {
            Some(name) => format!("this account can't list the pods of `{name}`: bind the role diagbot-target there"),
            None => {
                "this account can't list the pods of all namespaces; name one that takes part with --fence-namespace"
                    .to_owned()
            }
        }),
        Err(error) => Attempt::NotTried(Chain(&error).to_string()),
    }
}

async fn search(cluster: &Cluster, config: &Config, place: Option<&str>) -> Result<Attempt, CallError> {
    let client = cluster.client.clone();
    let pods: Api<Pod> = place.map_or_else(
        || Api::all(client.clone()),
        |name| Api::namespaced(client.clone(), name),
    );
    let mut params = ListParams::default().fields("status.phase=Running").limit(PAGE);
    let mut seen: BTreeMap<String, bool> = BTreeMap::new();
    let mut unclear = Vec::new();
    loop {
        let page = deadline(CALL, pods.list_metadata(&params)).await?;
        for pod in page.items {
            let (Some(namespace), Some(name)) = (pod.metadata.namespace, pod.metadata.name) else {
                continue;
            };
            let known = seen.get(&namespace).copied();
            let takes_part = match known {
                Some(takes_part) => takes_part,
                None => takes_part(cluster, config, &namespace).await?,
            };
            seen.insert(namespace.clone(), takes_part);
            if !takes_part {
                continue;
            }
            match beside(cluster, config, &namespace, &name).await {
                Judgement::Fenced => return Ok(Attempt::Refused(format!("{namespace}/{name}"))),
                Judgement::Open => return Ok(Attempt::Accepted(format!("{namespace}/{name}"))),
                Judgement::Unclear(words) => unclear.push(words),
            }
            if unclear.len() >= MOST_UNCLEAR {
                break;
            }
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() || unclear.len() >= MOST_UNCLEAR {
            break;
        }
    }
    let none = || format!("no running pod in a namespace labelled {ENABLED_LABEL}=true where this account may add one");
    Ok(Attempt::NotTried(unclear.pop().unwrap_or_else(none)))
}

/// Captures are taken there, and this account may add containers.
async fn takes_part(cluster: &Cluster, config: &Config, name: &str) -> Result<bool, CallError> {
    if name == "kube-system" || name == config.namespace {
        return Ok(false);
    }
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let labels = match deadline(CALL, namespaces.get(name)).await {
        Ok(namespace) => namespace.metadata.labels.unwrap_or_default(),
        Err(error) if error.is_forbidden() || error.is_not_found() => return Ok(false),
        Err(error) => return Err(error),
    };
    if labels.get(ENABLED_LABEL).map(String::as_str) != Some("true") {
        return Ok(false);
    }
    own::may(
        cluster,
        Some(name),
        Right::on_pods("patch", "ephemeralcontainers"),
        None,
    )
    .await
}

/// What the API server says beside one pod.
async fn beside(cluster: &Cluster, config: &Config, namespace: &str, name: &str) -> Judgement {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let pod = match deadline(CALL, pods.get(name)).await {
        Ok(pod) => pod.spec.unwrap_or_default(),
        Err(error) => return verdict(Err(error)),
    };
    if pod.host_pid == Some(true) {
        return Judgement::Unclear(format!("{namespace}/{name} shares the processes of its node (hostPID)"));
    }
    let Some(target) = pod.containers.first() else {
        return Judgement::Unclear(format!("{namespace}/{name} has no container"));
    };
    let container = container(&config.agent.image, &target.name);
    let patch = Patch::Strategic(json!({ "spec": { "ephemeralContainers": [container] } }));
    let params = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let answer = deadline(CALL, pods.patch_ephemeral_containers(name, &params, &patch)).await;
    verdict(answer.map(|_| ()))
}

/// A container as the bot adds it, which nothing but the fence has a reason to refuse: its one step is in no catalog.
fn container(image: &str, target: &str) -> Value {
    json!({
        "name": "diag-0000000000000000-0-1",
        "image": image,
        "args": [
            "run",
            "--capture=d-0000000000000000-0",
            format!("--nonce={}", "0".repeat(64)),
            "--wait=1",
            "--deadline=1",
            "--step=in-no-catalog",
        ],
        "targetContainerName": target,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65_532,
            "runAsGroup": 65_532,
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    })
}

/// Another's refusal would hide that the fence lets it through.
fn verdict(answer: Result<(), CallError>) -> Judgement {
    let Err(error) = answer else {
        return Judgement::Open;
    };
    let fenced = format!("ValidatingAdmissionPolicy '{CONTAINERS}'");
    match error.status() {
        Some(status) if status.message.contains(&fenced) => Judgement::Fenced,
        _ => Judgement::Unclear(Chain(&error).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use diagbot_catalog::{
        Catalog,
        load::Allowances,
        policy::{self, Fence, installed},
    };
    use kube::core::Status;
    use regex::Regex;

    use super::*;

    fn refused(message: &str) -> Result<(), CallError> {
        let status = Status::failure(message, "Invalid").with_code(422);
        Err(CallError::Kube(Box::new(kube::Error::Api(status.boxed()))))
    }

    #[test]
    fn only_the_fence_s_own_refusal_proves_it() {
        let by = |policy: &str| {
            refused(&format!(
                "pods \"p\" is forbidden: ValidatingAdmissionPolicy '{policy}' denied"
            ))
        };
        assert_eq!(verdict(by(CONTAINERS)), Judgement::Fenced);
        assert_eq!(verdict(Ok(())), Judgement::Open);
        for other in [
            by("no-debugging"),
            refused("violates PodSecurity \"restricted:latest\""),
            Err(CallError::Deadline(CALL)),
        ] {
            assert!(matches!(verdict(other), Judgement::Unclear(_)));
        }
    }

    #[test]
    fn nothing_but_the_step_is_outside_the_catalog() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../commands");
        let catalog = Catalog::load(&folder, Allowances::default()).expect("the shipped catalog");
        let fence = Fence {
            namespace: "diagbot".to_owned(),
            users: vec!["bot".to_owned()],
            agent_image: "agent@sha256:0".to_owned(),
        };
        let rendered = policy::render(&catalog, &fence);
        let rules = rendered[0]["spec"]["validations"].as_array().expect("rules").iter();
        let pattern = rules.filter_map(|rule| {
            let rule = rule["expression"].as_str().expect("an expression");
            rule.contains("a.matches(").then(|| installed::literals(rule).remove(0))
        });
        let patterns: Vec<Regex> = pattern.map(|p| Regex::new(&p).expect("a pattern")).collect();
        let [pattern] = &patterns[..] else {
            panic!("one pattern")
        };
        let container = container(&fence.agent_image, "app");
        let arguments = container["args"].as_array().expect("arguments").iter();
        let outside: Vec<&str> = arguments
            .filter_map(Value::as_str)
            .filter(|argument| !pattern.is_match(argument))
            .collect();
        assert_eq!(outside, ["--step=in-no-catalog"]);
    }
}

//! The sandbox's Kubernetes as kube-rs meets it.

mod faults;
mod node;
mod objects;

use std::time::Duration;

use diagbot_sandbox::kubernetes::{KubernetesConfig, KubernetesServer};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::await_condition,
};
use serde_json::{Value, json};

const LEDGER: &str = "ledger-6c7d5b9f4-q8w2k";

/// A server whose containers are made from the sandbox's program.
async fn server() -> KubernetesServer {
    let program = Some(env!("CARGO_BIN_EXE_diagbot-sandbox").into());
    let config = KubernetesConfig {
        program,
        ..KubernetesConfig::default()
    };
    KubernetesServer::start(config).await.expect("a server")
}

/// A client for one of the server's users.
async fn client(server: &KubernetesServer, user: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig(user)).expect("a kubeconfig");
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a config");
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within 60 s"))
}

/// The code of an answer that is a refusal.
fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("no answer of the API: {other}"),
    }
}

/// Waits until the pod, as JSON, is as wanted.
async fn pod_when(pods: &Api<Pod>, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let json = |pod: &Pod| serde_json::to_value(pod).expect("a pod is JSON");
    let condition = |pod: Option<&Pod>| pod.is_some_and(|p| wanted(&json(p)));
    // A pod is a large value: kept off the stack of every test.
    Box::pin(async {
        let pod = Box::pin(within(what, await_condition(pods.clone(), name, condition)))
            .await
            .expect("a watch");
        json(&pod.expect("the pod is there"))
    })
    .await
}

/// Waits until a container of the pod is in a state, and gives its status.
async fn container_when(pods: &Api<Pod>, pod: &str, container: &str, state: &str) -> Value {
    let status = |pod: &Value| {
        ["containerStatuses", "ephemeralContainerStatuses"]
            .iter()
            .flat_map(|field| pod["status"][field].as_array().cloned().unwrap_or_default())
            .find(|s| s["name"] == container)
    };
    let what = format!("{container} is {state}");
    let found = pod_when(pods, pod, &what, |p| {
        status(p).is_some_and(|s| !s["state"][state].is_null())
    })
    .await;
    status(&found).expect("the status that was waited for")
}

/// Adds an ephemeral container as the bot does: one strategic patch.
async fn add_ephemeral(pods: &Api<Pod>, pod: &str, container: Value) -> Result<Pod, kube::Error> {
    let patch = json!({ "spec": { "ephemeralContainers": [container] } });
    pods.patch_ephemeral_containers(pod, &PatchParams::default(), &Patch::Strategic(patch))
        .await
}

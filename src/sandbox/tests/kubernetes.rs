//! The sandbox's Kubernetes as kube-rs meets it.

use std::time::Duration;

use diagbot_sandbox::kubernetes::{KubernetesConfig, KubernetesServer};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

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
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within 30 s"))
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("no answer of the API: {other}"),
    }
}

#[tokio::test]
async fn a_lease_is_replaced_by_whoever_read_it_last() {
    let server = KubernetesServer::start(KubernetesConfig::default())
        .await
        .expect("a server");
    let leases: Api<Lease> = Api::namespaced(client(&server, "bot").await, "diagbot");
    let lease: Lease =
        serde_json::from_value(json!({ "metadata": { "name": "leader" }, "spec": { "holderIdentity": "a" } }))
            .expect("a lease");
    let first = leases.create(&PostParams::default(), &lease).await.expect("created");
    let again = leases
        .create(&PostParams::default(), &lease)
        .await
        .expect_err("the name is taken");
    assert_eq!(code(&again), 409);
    let mut next = first.clone();
    next.spec.get_or_insert_default().holder_identity = Some("b".to_owned());
    leases
        .replace("leader", &PostParams::default(), &next)
        .await
        .expect("replaced");
    let stale = leases
        .replace("leader", &PostParams::default(), &first)
        .await
        .expect_err("a stale revision");
    assert_eq!(code(&stale), 409);
    assert!(stale.to_string().contains("the object has been modified"), "{stale}");
    let elsewhere: Api<Lease> = Api::namespaced(client(&server, "bot").await, "shop");
    assert_eq!(
        code(&elsewhere.get("leader").await.expect_err("not the bot's namespace")),
        403
    );
    server.stop().await;
}

#[tokio::test]
async fn a_watcher_sees_runs_come_change_and_go_and_survives_410() {
    let server = KubernetesServer::start(KubernetesConfig::default())
        .await
        .expect("a server");
    let client = client(&server, "bot").await;
    let kind = kube::core::GroupVersionKind::gvk("diagbot.dev", "v1alpha1", "DiagnosticRun");
    let runs: Api<kube::core::DynamicObject> =
        Api::namespaced_with(client, "diagbot", &kube::core::ApiResource::from_gvk(&kind));
    let config = watcher::Config::default();
    let mut seen = Box::pin(watcher(runs.clone(), config).touched_objects());
    let run: kube::core::DynamicObject = serde_json::from_value(json!({
        "apiVersion": "diagbot.dev/v1alpha1", "kind": "DiagnosticRun",
        "metadata": { "name": "d-1" }, "spec": { "diagnostic": "jstack" }, "status": { "phase": "Forged" },
    }))
    .expect("an object");
    let created = runs.create(&PostParams::default(), &run).await.expect("created");
    assert!(created.data.get("status").is_none(), "a create carries no status");
    let event = within("the created run", seen.try_next())
        .await
        .expect("a watch")
        .expect("an event");
    assert_eq!(event.metadata.name.as_deref(), Some("d-1"));
    let patch = json!({ "status": { "phase": "Accepted" }, "spec": { "diagnostic": "other" } });
    let patched = runs
        .patch_status("d-1", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .expect("patched");
    assert_eq!(
        patched.data["spec"]["diagnostic"], "jstack",
        "the status subresource leaves the spec alone"
    );
    let event = within("the changed run", seen.next())
        .await
        .expect("an event")
        .expect("a watch");
    assert_eq!(event.data["status"]["phase"], "Accepted");
    server.stop().await;
}

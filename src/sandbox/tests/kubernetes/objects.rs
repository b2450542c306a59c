//! Objects: revisions, watches, access.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{
    authorization::v1::SubjectAccessReview,
    coordination::v1::Lease,
    core::v1::{Pod, Secret},
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use crate::{client, code, server, within};

fn runs(client: kube::Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("diagbot.dev", "v1alpha1", "DiagnosticRun");
    Api::namespaced_with(client, "diagbot", &ApiResource::from_gvk(&kind))
}

fn run(name: &str) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "diagbot.dev/v1alpha1", "kind": "DiagnosticRun",
        "metadata": { "name": name }, "status": { "phase": "Forged" },
        "spec": {
            "key": { "kind": "Cli", "id": "1" }, "requester": { "user": "ada" }, "origin": {},
            "diagnostic": "jstack", "target": { "name": "checkout" }, "receivedAt": "2026-11-22T00:00:00.000000Z",
        },
    }))
    .expect("an object")
}

#[tokio::test]
async fn a_lease_is_replaced_by_whoever_read_it_last() {
    let server = server().await;
    let leases: Api<Lease> = Api::namespaced(client(&server, "bot").await, "diagbot");
    let lease = json!({ "metadata": { "name": "diagbot-leader" }, "spec": { "holderIdentity": "a" } });
    let lease: Lease = serde_json::from_value(lease).expect("a lease");
    let first = leases.create(&PostParams::default(), &lease).await.expect("created");
    let again = leases
        .create(&PostParams::default(), &lease)
        .await
        .expect_err("the name is taken");
    assert_eq!(code(&again), 409);
    let mut next = first.clone();
    next.spec.get_or_insert_default().holder_identity = Some("b".to_owned());
    leases
        .replace("diagbot-leader", &PostParams::default(), &next)
        .await
        .expect("replaced");
    let stale = leases
        .replace("diagbot-leader", &PostParams::default(), &first)
        .await
        .expect_err("a stale revision");
    assert_eq!(code(&stale), 409);
    assert!(stale.to_string().contains("the object has been modified"), "{stale}");
    let mut unconditional = next.clone();
    unconditional.metadata.resource_version = None;
    let refused = leases
        .replace("diagbot-leader", &PostParams::default(), &unconditional)
        .await;
    assert_eq!(code(&refused.expect_err("no revision")), 422);
    server.stop().await;
}

#[tokio::test]
async fn a_watcher_sees_runs_come_and_change_and_starts_anew_after_410() {
    let server = server().await;
    let runs = runs(client(&server, "admin").await);
    let mut seen = Box::pin(watcher(runs.clone(), watcher::Config::default()).touched_objects());
    let created = runs.create(&PostParams::default(), &run("d-1")).await.expect("created");
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

    let before = created.metadata.resource_version.expect("a revision");
    bare_post(&format!("{}/sandbox/compact", server.url())).await;
    let mut resumed = runs
        .watch(&WatchParams::default(), &before)
        .await
        .expect("a watch")
        .boxed();
    match within("the answer to an old revision", resumed.try_next()).await {
        Ok(Some(WatchEvent::Error(status))) => assert_eq!(status.code, 410),
        other => panic!("no 410: {other:?}"),
    }
    server.stop().await;
}

/// A bare POST, with no client that would know about Kubernetes.
async fn bare_post(url: &str) {
    use http_body_util::Empty;
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
    let request = http::Request::post(url).body(Empty::new()).expect("a request");
    let answer = client.request(request).await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.status());
}

#[tokio::test]
async fn the_bot_may_what_its_deployment_gives_and_nothing_else() {
    let server = server().await;
    let bot = client(&server, "bot").await;
    let secrets: Api<Secret> = Api::namespaced(bot.clone(), "shop");
    let refused = secrets
        .list(&ListParams::default())
        .await
        .expect_err("no rule gives it");
    assert_eq!(code(&refused), 403);
    let words = "User \"system:serviceaccount:diagbot:diagbot\" cannot list resource \"secrets\" in API group \"\" in the \
                 namespace \"shop\"";
    assert!(refused.to_string().contains(words), "{refused}");
    let reviews: Api<SubjectAccessReview> = Api::all(bot);
    let review = |user: &str| {
        serde_json::from_value::<SubjectAccessReview>(json!({ "spec": {
            "user": user, "groups": ["slack:email:ada@example.com"],
            "resourceAttributes": {
                "group": "diagbot.dev", "resource": "diagnostics", "name": "jstack", "namespace": "shop", "verb": "run",
            },
        } }))
        .expect("a review")
    };
    let answer = reviews
        .create(&PostParams::default(), &review("slack:T1:U1"))
        .await
        .expect("an answer");
    assert!(
        answer.status.is_some_and(|s| s.allowed),
        "the example gives jstack to this group"
    );
    let mut heap = review("slack:T1:U1");
    if let Some(attributes) = heap.spec.resource_attributes.as_mut() {
        attributes.name = Some("heap-dump".to_owned());
    }
    let answer = reviews.create(&PostParams::default(), &heap).await.expect("an answer");
    assert!(
        answer.status.is_some_and(|s| !s.allowed),
        "and keeps heap dumps from it"
    );
    server.stop().await;
}

#[tokio::test]
async fn five_hundred_pods_come_in_pages_and_as_metadata() {
    let server = server().await;
    server.add_idle_pods("shop", "idle", 500).expect("pods");
    let pods: Api<Pod> = Api::namespaced(client(&server, "bot").await, "shop");
    let mut names = Vec::new();
    let mut page = ListParams::default().labels("app=idle").limit(120);
    loop {
        let listed = pods.list_metadata(&page).await.expect("a page");
        names.extend(listed.items.iter().filter_map(|p| p.metadata.name.clone()));
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 500);
    server.stop().await;
}

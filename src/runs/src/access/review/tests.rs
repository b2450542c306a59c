//! Reviews against an API server of a few lines that counts what it is asked.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::*;
use crate::access::{ChannelFacts, PersonFacts};

struct People;

impl Directory for People {
    fn person<'a>(&'a self, team: &'a str, user: &'a str) -> BoxFuture<'a, Result<PersonFacts, DirectoryError>> {
        Box::pin(async move {
            if user == "UAWAY" {
                return Err(DirectoryError {
                    about: "the person",
                    source: "away".into(),
                });
            }
            Ok(PersonFacts {
                team: team.to_owned(),
                guest: user == "UGUEST",
                ..PersonFacts::default()
            })
        })
    }

    fn channel<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<ChannelFacts, DirectoryError>> {
        Box::pin(async move {
            Ok(ChannelFacts {
                private: channel.starts_with('G'),
                shared: channel == "GSHARED",
                members: None,
            })
        })
    }
}

/// Allows whoever comes with the group `slack:channel:G1`; answers 500 for the namespace `broken`.
fn cluster(asked: &Arc<AtomicUsize>) -> Cluster {
    let asked = Arc::clone(asked);
    let service = tower::service_fn(move |request: http::Request<Body>| {
        asked.fetch_add(1, Ordering::SeqCst);
        async move {
            let bytes = request
                .into_body()
                .collect()
                .await
                .expect("a body in memory")
                .to_bytes();
            let review: Value = serde_json::from_slice(&bytes).expect("a review is JSON");
            let spec = &review["spec"];
            assert_eq!(spec["resourceAttributes"]["group"], "diagbot.dev");
            assert_eq!(spec["resourceAttributes"]["resource"], "diagnostics");
            let groups = spec["groups"].as_array().cloned().unwrap_or_default();
            let allowed = groups.contains(&json!("slack:channel:G1"));
            // An authorizer that refuses for good, whatever another one says.
            let denied = spec["resourceAttributes"]["namespace"] == "denied";
            let broken = spec["resourceAttributes"]["namespace"] == "broken";
            let answer = if broken {
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500, "reason": "InternalError",
                    "message": "no"})
            } else {
                json!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": spec,
                    "status": {"allowed": allowed, "denied": denied, "reason": "a rule"}})
            };
            let response = http::Response::builder()
                .status(if broken { 500 } else { 201 })
                .body(Body::from(answer.to_string().into_bytes()));
            Ok::<_, Infallible>(response.expect("a plain response"))
        }
    });
    let client = Client::new(service, "default");
    Cluster {
        name: "local".to_owned().try_into().expect("a cluster name"),
        client: client.clone(),
        stream_client: client,
    }
}

fn person(user: &str) -> Requester {
    Requester {
        team: "T1".into(),
        user: user.into(),
    }
}

fn running<'a>(cluster: &'a Cluster, namespace: &'a str) -> Question<'a> {
    Question {
        cluster,
        namespace,
        verb: Verb::Run,
        diagnostic: "jstack",
    }
}

async fn ask(access: &Access, cluster: &Cluster, user: &str, channel: &str) -> Result<bool, AccessError> {
    let person = person(user);
    let decision = access.review(running(cluster, "shop"), &person, Some(channel));
    decision.await.map(|decision| decision.allowed)
}

#[tokio::test]
async fn answers_are_kept_for_a_moment_allowed_or_not_and_per_principal() {
    let asked = Arc::new(AtomicUsize::new(0));
    let cluster = cluster(&asked);
    let access = Access::new(Arc::new(People), AccessConfig::default(), Clock::System);
    for _ in 0..3 {
        assert!(ask(&access, &cluster, "U1", "G1").await.unwrap());
        assert!(!ask(&access, &cluster, "U1", "G2").await.unwrap());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert!(ask(&access, &cluster, "U2", "G1").await.unwrap());
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn what_an_authorizer_denies_is_denied() {
    let cluster = cluster(&Arc::default());
    let access = Access::new(Arc::new(People), AccessConfig::default(), Clock::System);
    let u1 = person("U1");
    for (namespace, wanted) in [("shop", true), ("denied", false)] {
        let decision = access.review(running(&cluster, namespace), &u1, Some("G1"));
        assert_eq!(decision.await.unwrap().allowed, wanted, "{namespace}");
    }
}

#[tokio::test]
async fn the_rights_of_consent_are_asked_for_each_time() {
    for (verb, questions) in [(Verb::Read, 1), (Verb::Approve, 3), (Verb::BreakGlass, 3)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let cluster = cluster(&asked);
        let access = Access::new(Arc::new(People), AccessConfig::default(), Clock::default());
        for _ in 0..3 {
            let question = Question {
                verb,
                ..running(&cluster, "shop")
            };
            let decision = access.review(question, &person("UADA"), Some("G1")).await;
            assert!(decision.is_ok_and(|decision| decision.allowed), "{verb}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), questions, "{verb}");
    }
}

#[tokio::test]
async fn only_a_private_channel_of_our_own_counts_unless_public_ones_are_enabled() {
    let cluster = cluster(&Arc::default());
    let groups = async |config: AccessConfig, channel: &str| {
        let access = Access::new(Arc::new(People), config, Clock::System);
        let person = person("U1");
        let decision = access.review(running(&cluster, "shop"), &person, Some(channel));
        decision.await.unwrap().groups
    };
    let public = AccessConfig { public_channels: true };
    assert_eq!(groups(AccessConfig::default(), "G1").await, ["slack:channel:G1"]);
    assert!(groups(AccessConfig::default(), "C1").await.is_empty());
    assert!(groups(AccessConfig::default(), "GSHARED").await.is_empty());
    assert_eq!(groups(public.clone(), "C1").await, ["slack:channel:C1"]);
    assert!(groups(public, "GSHARED").await.is_empty());
}

#[tokio::test]
async fn whoever_can_not_be_checked_gets_no_decision() {
    let asked = Arc::new(AtomicUsize::new(0));
    let cluster = cluster(&asked);
    let access = Access::new(Arc::new(People), AccessConfig::default(), Clock::System);
    let away = ask(&access, &cluster, "UAWAY", "G1").await;
    assert!(matches!(away, Err(AccessError::Directory(_))), "{away:?}");
    let guest = ask(&access, &cluster, "UGUEST", "G1").await;
    assert!(
        matches!(guest, Err(AccessError::Identity(IdentityError::Guest))),
        "{guest:?}"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    let broken = access
        .review(running(&cluster, "broken"), &person("U1"), Some("G1"))
        .await;
    assert!(matches!(broken, Err(AccessError::Review { .. })), "{broken:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 3, "asked again, within bounds");
}

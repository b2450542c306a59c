//! `authorization.k8s.io`: access reviews, and `authentication.k8s.io`: who one is oneself. Owns reading the question and
//! wording the answer; the rules are in `rbac`.

use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    answer::ApiError,
    cluster::Cluster,
    identity::User,
    rbac::{self, Access},
    store::text,
};

/// Where one asks who one is.
const WHO_AM_I: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
/// Below it one asks who may do what.
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/";
/// Reviews of somebody else.
const OF_OTHERS: [&str; 2] = ["subjectaccessreviews", "localsubjectaccessreviews"];

/// The kind of review that a path asks for; none where the path is something else.
pub(super) fn resource(path: &str) -> Option<&str> {
    if path == WHO_AM_I {
        return Some("selfsubjectreviews");
    }
    path.strip_prefix(REVIEWS)?.rsplit('/').next()
}

/// Whether the user may ask for such a review; everybody may ask about themselves.
pub(super) fn authorize(cluster: &Cluster, user: &User, resource: &str) -> Result<(), ApiError> {
    if OF_OTHERS.contains(&resource) {
        may_review(cluster, user, resource)?;
    }
    Ok(())
}

/// Answers a review.
pub(super) async fn answer(
    cluster: &Cluster,
    user: &User,
    path: &str,
    request: &mut Request<Incoming>,
) -> Result<Value, ApiError> {
    let resource = resource(path).unwrap_or_default();
    let own = match resource {
        "selfsubjectreviews" | "selfsubjectaccessreviews" | "selfsubjectrulesreviews" => true,
        other if OF_OTHERS.contains(&other) => false,
        _ => return Err(ApiError::not_in_sandbox(path)),
    };
    if request.method() != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    if path == WHO_AM_I {
        return Ok(json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "SelfSubjectReview",
            "metadata": {},
            "status": { "userInfo": { "username": user.name, "groups": user.groups } },
        }));
    }
    let bytes = request
        .body_mut()
        .collect()
        .await
        .map_err(|e| ApiError::bad_request(format!("the body can't be read: {e}")))?
        .to_bytes();
    let mut review: Value = serde_json::from_slice(&bytes)
        .map_err(|e| ApiError::bad_request(format!("the object provided is unrecognized: {e}")))?;
    let subject = if own { user.clone() } else { subject_of(&review["spec"]) };
    review["status"] = if resource == "selfsubjectrulesreviews" {
        let namespace = text(&review["spec"]["namespace"]);
        json!({
            "resourceRules": rbac::rules_of(&cluster.store, &subject, namespace),
            "nonResourceRules": [],
            "incomplete": false,
        })
    } else {
        decide(cluster, &subject, &review["spec"])?
    };
    Ok(review)
}

fn may_review(cluster: &Cluster, user: &User, resource: &str) -> Result<(), ApiError> {
    let access = Access {
        verb: "create".to_owned(),
        group: "authorization.k8s.io".to_owned(),
        resource: resource.to_owned(),
        ..Access::default()
    };
    if rbac::allowed(&cluster.store, user, &access).is_some() {
        return Ok(());
    }
    let message = format!(
        "{resource}.authorization.k8s.io is forbidden: User {:?} cannot create resource {resource:?} in API group \
         \"authorization.k8s.io\" at the cluster scope",
        user.name
    );
    Err(ApiError {
        code: http::StatusCode::FORBIDDEN,
        reason: "Forbidden",
        message,
        details: Value::Null,
    })
}

fn subject_of(spec: &Value) -> User {
    let groups = spec["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned);
    User {
        name: text(&spec["user"]).to_owned(),
        groups: groups.collect(),
    }
}

fn decide(cluster: &Cluster, subject: &User, spec: &Value) -> Result<Value, ApiError> {
    let resource = &spec["resourceAttributes"];
    let path = &spec["nonResourceAttributes"];
    if resource.is_null() == path.is_null() {
        return Err(ApiError::bad_request(
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ));
    }
    let word = |name: &str| text(&resource[name]).to_owned();
    let access = Access {
        verb: if path.is_null() {
            word("verb")
        } else {
            text(&path["verb"]).to_owned()
        },
        group: word("group"),
        resource: word("resource"),
        subresource: word("subresource"),
        name: word("name"),
        namespace: word("namespace"),
        path: path["path"].as_str().map(str::to_owned),
    };
    Ok(match rbac::allowed(&cluster.store, subject, &access) {
        Some(reason) => json!({ "allowed": true, "reason": reason }),
        None => json!({ "allowed": false }),
    })
}

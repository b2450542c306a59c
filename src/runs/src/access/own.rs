//! What the account behind a client may do itself, as the cluster says. For who runs a diagnostic with their own rights, and
//! for checking the bot's.

use std::{fmt, time::Duration};

use diagbot_cluster::{CallError, Cluster, deadline};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::{
    authentication::v1::SelfSubjectReview,
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
};
use kube::{Api, api::PostParams};

/// Longest wait for one answer.
const CALL: Duration = Duration::from_secs(5);
/// Questions at a time.
const PARALLEL: usize = 8;

/// One permission, as RBAC rules name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    /// Verb.
    pub verb: &'static str,
    /// API group; empty for the core's.
    pub group: &'static str,
    /// Resource.
    pub resource: &'static str,
    /// Subresource; empty for the resource itself.
    pub subresource: &'static str,
}

impl Right {
    /// A permission on pods or one of their subresources.
    pub const fn on_pods(verb: &'static str, subresource: &'static str) -> Self {
        Self {
            verb,
            group: "",
            resource: "pods",
            subresource,
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.subresource.is_empty() { "" } else { "/" };
        write!(f, "{} {}{slash}{}", self.verb, self.resource, self.subresource)
    }
}

/// The user name that the cluster knows us by.
pub async fn user(cluster: &Cluster) -> Result<String, CallError> {
    let api: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
    let review = SelfSubjectReview::default();
    let answer = deadline(CALL, api.create(&PostParams::default(), &review)).await?;
    let user = answer.status.and_then(|status| status.user_info);
    Ok(user.and_then(|user| user.username).unwrap_or_default())
}

/// Whether we may, in a namespace or, without one, in all of them. `name`: the one object that is meant.
pub async fn may(
    cluster: &Cluster,
    namespace: Option<&str>,
    right: Right,
    name: Option<&str>,
) -> Result<bool, CallError> {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let attributes = ResourceAttributes {
        verb: text(right.verb),
        group: Some(right.group.to_owned()),
        resource: text(right.resource),
        subresource: text(right.subresource),
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let answer = deadline(CALL, api.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Those of `rights` that we don't have in a namespace.
pub async fn missing(cluster: &Cluster, namespace: &str, rights: &[Right]) -> Result<Vec<Right>, CallError> {
    let asked = rights.iter().map(|right| async move {
        let allowed = may(cluster, Some(namespace), *right, None).await?;
        Ok((!allowed).then_some(*right))
    });
    let missing: Vec<Option<Right>> = stream::iter(asked).buffered(PARALLEL).try_collect().await?;
    Ok(missing.into_iter().flatten().collect())
}

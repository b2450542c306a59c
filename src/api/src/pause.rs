//! `DiagnosticPause`: the off-switch as an object. While one stands, nothing new starts where it says, and what runs there
//! is stopped. The other switch is a label on the bot's own namespace, which works without Slack and without this bot's help.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{requester::Requester, run::RunStatus};

/// Label on the bot's own namespace that pauses everything while it is `true`.
pub const LABEL_PAUSED: &str = "diagbot.dev/paused";

/// Where nothing may be captured, and who said so. Its name follows from the place: one switch a place.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "diagbot.dev",
    version = "v1alpha1",
    kind = "DiagnosticPause",
    plural = "diagnosticpauses",
    shortname = "dpause",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name":"Cluster","type":"string","jsonPath":".spec.place.cluster"}"#,
    printcolumn = r#"{"name":"Namespace","type":"string","jsonPath":".spec.place.namespace"}"#,
    printcolumn = r#"{"name":"By","type":"string","jsonPath":".spec.by.user"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PauseSpec {
    /// Where.
    pub place: Scope,
    /// Who.
    pub by: Requester,
    /// When.
    pub at: MicroTime,
}

/// A place: everywhere, one cluster, or one namespace of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scope {
    /// Cluster; none: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Namespace; none: all of the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A pause as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Where.
    pub place: Scope,
    /// Who, or the label's name.
    pub by: Requester,
    /// When, in seconds of Unix time; the label does not say.
    pub at: Option<jiff::Timestamp>,
}

impl Scope {
    /// Whether the place holds that namespace.
    pub fn holds(&self, cluster: &str, namespace: &str) -> bool {
        self.cluster.as_deref().is_none_or(|own| own == cluster)
            && self.namespace.as_deref().is_none_or(|own| own == namespace)
    }

    /// Name of the object that pauses this place. Cluster names and namespaces are labels, so that a dot can't be part of one.
    pub fn object_name(&self) -> String {
        match (&self.cluster, &self.namespace) {
            (None, _) => "everywhere".to_owned(),
            (Some(cluster), None) => format!("cluster.{cluster}"),
            (Some(cluster), Some(namespace)) => format!("namespace.{cluster}.{namespace}"),
        }
    }

    /// The place in words: `namespace shop of local`.
    pub fn words(&self) -> String {
        match (&self.cluster, &self.namespace) {
            (None, _) => "all clusters".to_owned(),
            (Some(cluster), None) => format!("the cluster `{cluster}`"),
            (Some(cluster), Some(namespace)) => format!("the namespace `{namespace}` of `{cluster}`"),
        }
    }
}

impl fmt::Display for Scope {
    /// As the record has it: `*`, a cluster, or a cluster and its namespace.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.cluster, &self.namespace) {
            (None, _) => f.write_str("*"),
            (Some(cluster), None) => f.write_str(cluster),
            (Some(cluster), Some(namespace)) => write!(f, "{cluster}/{namespace}"),
        }
    }
}

impl Pause {
    /// The pause that an object is.
    pub fn of(object: &DiagnosticPause) -> Self {
        Self {
            place: object.spec.place.clone(),
            by: object.spec.by.clone(),
            at: Some(object.spec.at.0),
        }
    }

    /// The pause that the label on the bot's namespace is.
    pub fn by_label() -> Self {
        Self {
            place: Scope::default(),
            by: Requester {
                team: String::new(),
                user: format!("label {LABEL_PAUSED}"),
            },
            at: None,
        }
    }

    /// Whether one of the run's targets is where nothing may be captured.
    pub fn stops(&self, status: &RunStatus) -> bool {
        let mut captures = status.captures.iter();
        captures.any(|capture| self.place.holds(&capture.target.cluster, &capture.target.namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_holds_what_is_in_it_and_has_a_name_of_its_own() {
        let place = |cluster: Option<&str>, namespace: Option<&str>| Scope {
            cluster: cluster.map(str::to_owned),
            namespace: namespace.map(str::to_owned),
        };
        let (all, cluster, namespace) = (
            place(None, None),
            place(Some("a"), None),
            place(Some("a"), Some("shop")),
        );
        assert!(all.holds("b", "x") && cluster.holds("a", "x") && namespace.holds("a", "shop"));
        assert!(!cluster.holds("b", "x") && !namespace.holds("a", "x") && !namespace.holds("b", "shop"));
        let names = [all, cluster, namespace].map(|place| place.object_name());
        assert_eq!(names, ["everywhere", "cluster.a", "namespace.a.shop"]);
    }
}

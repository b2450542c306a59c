//! A target as people type it: `[cluster:][namespace/][kind/]name`. Owns the text form and the closed list of kind words;
//! never looks anything up.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster_name::ClusterName;

/// A target as typed: `[cluster:][namespace/][kind/]name`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// Cluster; the home cluster unless given.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Namespace; the channel's default, or wherever the name is unique, unless given.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Kind; a pod, or a workload of that name, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<TargetKind>,
    /// Name or unique prefix; empty: the channel's or thread's default target, or whatever the selector fits.
    pub name: String,
    /// Labels that the pods must have, as kubectl's `-l` takes them: `app=checkout,tier!=web`. Then the name is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Container; the pod's default container unless given.
    #[serde(default)]
    pub container: Option<String>,
    /// Pins the very pod, for targets chosen by a button.
    #[serde(default)]
    pub pod_uid: Option<String>,
    /// Where several pods fit, the sickest is meant: for alerts, which can't be asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sickest: bool,
    /// Not this pod is meant, but a healthy replica of it: to compare.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub healthy_replica: bool,
}

/// Kinds that a target may name, as kubectl names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TargetKind {
    /// pod, pods, po
    Pod,
    /// deployment, deployments, deploy
    Deployment,
    /// statefulset, statefulsets, sts
    StatefulSet,
    /// daemonset, daemonsets, ds
    DaemonSet,
    /// replicaset, replicasets, rs
    ReplicaSet,
    /// job, jobs
    Job,
}

/// Why a text names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing, or nothing after the last `/` or `:`.
    #[error("a target needs a name")]
    Empty,
    /// More than namespace, kind and name.
    #[error("a target has at most three parts: namespace/kind/name")]
    TooManyParts,
    /// The middle of three parts is none of the kind words.
    #[error("`{0}` is not a kind of target: pod, deployment, statefulset, daemonset, replicaset or job")]
    UnknownKind(String),
    /// A part breaks the rule for names.
    #[error("{part} may hold lower-case letters, digits, `-` and `.` only, at most {longest} characters")]
    BadName {
        /// Which part: `the name`, say.
        part: &'static str,
        /// The longest that Kubernetes allows.
        longest: usize,
    },
}

/// Parses what a person typed. Upper case is folded, since phones capitalise and no such name has any.
pub fn parse(text: &str) -> Result<TargetRef, TargetError> {
    let text = text.trim().to_ascii_lowercase();
    let (cluster, rest) = match text.split_once(':') {
        Some((cluster, rest)) => (Some(cluster), rest),
        None => (None, text.as_str()),
    };
    let parts: Vec<&str> = rest.split('/').collect();
    let (namespace, kind, name) = match parts.as_slice() {
        [name] => (None, None, *name),
        [first, name] => match TargetKind::from_word(first) {
            Some(kind) => (None, Some(kind), *name),
            None => (Some(*first), None, *name),
        },
        [namespace, kind, name] => {
            let kind = TargetKind::from_word(kind).ok_or_else(|| TargetError::UnknownKind(shorten(kind)))?;
            (Some(*namespace), Some(kind), *name)
        }
        _ => return Err(TargetError::TooManyParts),
    };
    if name.is_empty() || namespace.is_some_and(str::is_empty) || cluster.is_some_and(str::is_empty) {
        return Err(TargetError::Empty);
    }
    if cluster.is_some_and(|c| ClusterName::try_from(c.to_owned()).is_err()) {
        return Err(bad_name("the cluster", 63));
    }
    if namespace.is_some_and(|n| !is_name(n, 63) || n.contains('.')) {
        return Err(bad_name("the namespace", 63));
    }
    if !is_name(name, 253) {
        return Err(bad_name("the name", 253));
    }
    Ok(TargetRef {
        cluster: cluster.map(str::to_owned),
        namespace: namespace.map(str::to_owned),
        kind,
        name: name.to_owned(),
        ..TargetRef::default()
    })
}

/// Whether `text` may be (the beginning of) a Kubernetes name of at most `longest` characters.
pub fn is_name(text: &str, longest: usize) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= longest
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'-' || b == b'.')
}

/// Whether `text` is a label selector of equalities, as kubectl's `-l` takes them: `key=value`, `key!=value` or `key`, joined
/// by commas. See <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>.
pub fn is_selector(text: &str) -> bool {
    let word = |text: &str, longest: usize| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        bytes.len() <= longest && bytes.iter().all(|b| inner(*b)) && end(bytes.first()) && end(bytes.last())
    };
    let key = |text: &str| match text.split_once('/') {
        Some((prefix, name)) => is_name(prefix, 253) && word(name, 63),
        None => word(text, 63),
    };
    let requirement = |text: &str| match text.split_once("!=").or_else(|| text.split_once('=')) {
        Some((left, right)) => key(left) && word(right.trim_start_matches('='), 63),
        None => key(text),
    };
    text.len() <= 512 && text.split(',').all(requirement)
}

fn bad_name(part: &'static str, longest: usize) -> TargetError {
    TargetError::BadName { part, longest }
}

/// A foreign word, short enough to be repeated to the person.
fn shorten(word: &str) -> String {
    diagbot_wire::text::word(word, 40)
}

impl TargetKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Pod,
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::ReplicaSet,
        Self::Job,
    ];

    /// The words for the kind, as kubectl takes them; the first is the one we show.
    pub const fn words(self) -> &'static [&'static str] {
        match self {
            Self::Pod => &["pod", "pods", "po"],
            Self::Deployment => &["deployment", "deployments", "deploy"],
            Self::StatefulSet => &["statefulset", "statefulsets", "sts"],
            Self::DaemonSet => &["daemonset", "daemonsets", "ds"],
            Self::ReplicaSet => &["replicaset", "replicasets", "rs"],
            Self::Job => &["job", "jobs"],
        }
    }

    /// The kind of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.words().contains(&word))
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words()[0])
    }
}

/// The form that [`parse`] reads; container and UID are not part of it. A selector is shown as its option.
impl fmt::Display for TargetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cluster) = &self.cluster {
            write!(f, "{cluster}:")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        if let Some(kind) = self.kind {
            write!(f, "{kind}/")?;
        }
        match &self.selector {
            Some(selector) => write!(f, "-l {selector}"),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(cluster: Option<&str>, namespace: Option<&str>, kind: Option<TargetKind>, name: &str) -> TargetRef {
        TargetRef {
            cluster: cluster.map(str::to_owned),
            namespace: namespace.map(str::to_owned),
            kind,
            name: name.to_owned(),
            ..TargetRef::default()
        }
    }

    #[test]
    fn every_form_of_a_target_is_read() {
        let cases = [
            ("checkout", target(None, None, None, "checkout")),
            ("shop/checkout", target(None, Some("shop"), None, "checkout")),
            ("sts/db-0", target(None, None, Some(TargetKind::StatefulSet), "db-0")),
            (
                "eu:shop/deploy/checkout",
                target(Some("eu"), Some("shop"), Some(TargetKind::Deployment), "checkout"),
            ),
            (" Shop/Checkout ", target(None, Some("shop"), None, "checkout")),
            // Three parts tell a namespace that is called like a kind.
            ("job/pod/x", target(None, Some("job"), Some(TargetKind::Pod), "x")),
        ];
        for (text, wanted) in cases {
            assert_eq!(parse(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused_with_the_rule() {
        assert_eq!(parse(""), Err(TargetError::Empty));
        assert_eq!(parse("shop/"), Err(TargetError::Empty));
        assert_eq!(parse("eu:"), Err(TargetError::Empty));
        assert_eq!(parse("a/b/c/d"), Err(TargetError::TooManyParts));
        assert_eq!(parse("shop/node/x"), Err(TargetError::UnknownKind("node".into())));
        for bad in ["$(reboot)", "a b", "../x", "x\u{202e}y", "-x", "a:b:c", "sh.op/x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&"x".repeat(254)).is_err());
    }

    #[test]
    fn label_selectors_are_told_from_other_text() {
        for good in ["app=x", "app==x", "app.kubernetes.io/name=check_Out", "a=b,c!=d,e"] {
            assert!(is_selector(good), "{good}");
        }
        for bad in [
            "",
            "=x",
            "app=",
            "app=x,",
            "a b=c",
            "app=x&watch=true",
            "app in (x)",
            "-a=b",
            "a=b-",
            "a/b/c=d",
        ] {
            assert!(!is_selector(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_reads_what_it_shows(text in "[a-z0-9:/.-]{0,40}") {
            if let Ok(target) = parse(&text) {
                prop_assert_eq!(parse(&target.to_string()), Ok(target));
            }
        }
    }
}

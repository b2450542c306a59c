//! What a request's path and method name: kind, namespace, name, subresource and verb.
//!
//! Pure parsing; never looks at objects.

use http::Method;

use super::{
    answer::ApiError,
    kind::{self, Kind},
};

/// The resource that a path names.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) kind: &'static Kind,
    /// Empty for cluster-wide requests and cluster-scoped kinds.
    pub(super) namespace: String,
    /// Empty for collections.
    pub(super) name: String,
    /// Empty for the object itself.
    pub(super) subresource: String,
}

/// The verbs of authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

impl Target {
    /// Reads `/api/v1/…` or `/apis/<group>/<version>/…`; none for a path that is no resource, 501 for a resource that the
    /// sandbox does not have.
    pub(super) fn parse(path: &str) -> Result<Option<Self>, ApiError> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return Ok(None),
        };
        let (namespace, rest) = match rest {
            // `namespaces/<name>` and its status are the namespace itself.
            ["namespaces", namespace, plural, rest @ ..] if !matches!(*plural, "status" | "finalize") => {
                (*namespace, [&[*plural], rest].concat())
            }
            rest => ("", rest.to_vec()),
        };
        let (plural, name, subresource) = match rest.as_slice() {
            [plural] => (*plural, "", ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, subresource] => (*plural, *name, *subresource),
            _ => return Err(ApiError::not_in_sandbox(path)),
        };
        let kind = Kind::of_path(group, version, plural).ok_or_else(|| unknown(group, version, plural))?;
        if !subresource.is_empty() && !kind.subresources.contains(&subresource) {
            return Err(ApiError::not_in_sandbox(&format!(
                "{}/{subresource}",
                kind.qualified_resource()
            )));
        }
        Ok(Some(Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        }))
    }

    /// The verb that authorization sees; none where the method fits no resource.
    pub(super) fn verb(&self, method: &Method, watch: bool) -> Option<Verb> {
        let collection = self.name.is_empty();
        match *method {
            Method::GET if watch => Some(Verb::Watch),
            Method::GET if collection => Some(Verb::List),
            Method::GET => Some(Verb::Get),
            Method::POST => Some(Verb::Create),
            Method::PUT if !collection => Some(Verb::Update),
            Method::PATCH if !collection => Some(Verb::Patch),
            Method::DELETE if collection => Some(Verb::DeleteCollection),
            Method::DELETE => Some(Verb::Delete),
            _ => None,
        }
    }
}

/// A real server answers 404 for groups it has never heard of; of the groups that a cluster has, the sandbox says that it
/// lacks them.
fn unknown(group: &str, version: &str, plural: &str) -> ApiError {
    let known = kind::all().any(|k| k.group == group);
    if known || group.ends_with(".k8s.io") || !group.contains('.') {
        let group = if group.is_empty() { "core" } else { group };
        ApiError::not_in_sandbox(&format!("{plural} of {group}/{version}"))
    } else {
        ApiError::no_such_path()
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::Target;

    #[test]
    fn paths_name_kinds_namespaces_and_subresources() {
        let parse = |path: &str| Target::parse(path).expect("served").expect("a resource");
        let pod = parse("/api/v1/namespaces/shop/pods/checkout/ephemeralcontainers");
        assert_eq!(
            (pod.kind.kind, &*pod.namespace, &*pod.name),
            ("Pod", "shop", "checkout")
        );
        assert_eq!(pod.subresource, "ephemeralcontainers");
        let namespace = parse("/api/v1/namespaces/shop");
        assert_eq!(
            (namespace.kind.kind, &*namespace.namespace, &*namespace.name),
            ("Namespace", "", "shop")
        );
        let runs = parse("/apis/diagbot.dev/v1alpha1/diagnosticruns");
        assert_eq!(runs.verb(&Method::GET, false).map(super::Verb::as_str), Some("list"));
        assert!(Target::parse("/version").expect("no refusal").is_none());
        let refused = Target::parse("/api/v1/namespaces/shop/services").expect_err("not served");
        assert_eq!(refused.code, StatusCode::NOT_IMPLEMENTED);
        assert!(refused.message.contains("sandbox"), "{refused}");
    }
}

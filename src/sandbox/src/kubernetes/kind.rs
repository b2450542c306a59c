//! The kinds that the sandbox's API knows.
//!
//! Owns the table of groups, versions, names and subresources; never holds an object. What is not in this table is answered
//! with 501 and says that this is the sandbox.

/// One kind of object.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "`kind` is what Kubernetes calls it")]
pub(super) struct Kind {
    /// API group; empty for the core group.
    pub(super) group: &'static str,
    /// Version.
    pub(super) version: &'static str,
    /// Kind, e.g. `Pod`.
    pub(super) kind: &'static str,
    /// Plural name in paths.
    pub(super) plural: &'static str,
    /// Singular name, for kubectl.
    pub(super) singular: &'static str,
    /// Short names, for kubectl.
    pub(super) short: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub(super) namespaced: bool,
    /// Subresources that the sandbox serves.
    pub(super) subresources: &'static [&'static str],
    /// Whether a PUT without resourceVersion is refused, as the real server's strategy for this kind does.
    pub(super) needs_revision: bool,
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.group == other.group && self.plural == other.plural
    }
}

impl Eq for Kind {}

impl Kind {
    /// `v1` or `group/version`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods` or `diagnosticruns.diagbot.dev`, as the real server's messages name a resource.
    pub(super) fn qualified_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `Pod` or `DiagnosticRun.diagbot.dev`, as the real server's validation messages name a kind.
    pub(super) fn qualified_kind(&self) -> String {
        if self.group.is_empty() {
            self.kind.to_owned()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }

    /// Whether the kind is a custom resource of diagbot.
    pub(super) fn is_custom(&self) -> bool {
        self.group == DIAGBOT_GROUP
    }

    /// The kind under which objects are kept: both groups of events are views of the same objects.
    pub(super) fn stored(&'static self) -> &'static Self {
        if self.group == "events.k8s.io" { &EVENT } else { self }
    }

    /// The kind of a path's group, version and plural.
    pub(super) fn of_path(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        all().find(|k| k.group == group && k.version == version && k.plural == plural)
    }

    /// The kind of an object's `apiVersion` and `kind`.
    pub(super) fn of_object(api_version: &str, kind: &str) -> Option<&'static Self> {
        all().find(|k| k.kind == kind && k.api_version() == api_version)
    }
}

/// diagbot's own API group.
pub(super) const DIAGBOT_GROUP: &str = "diagbot.dev";

const PLAIN: Kind = Kind {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short: &[],
    namespaced: true,
    subresources: &[],
    needs_revision: false,
};

/// Pods.
pub(super) static POD: Kind = Kind {
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short: &["po"],
    subresources: &["status", "log", "exec", "attach", "ephemeralcontainers"],
    ..PLAIN
};
/// Events of the core group.
pub(super) static EVENT: Kind = Kind {
    kind: "Event",
    plural: "events",
    singular: "event",
    short: &["ev"],
    ..PLAIN
};
/// Namespaces.
pub(super) static NAMESPACE: Kind = Kind {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short: &["ns"],
    namespaced: false,
    subresources: &["status"],
    ..PLAIN
};
/// Replica sets.
pub(super) static REPLICA_SET: Kind = Kind {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short: &["rs"],
    subresources: &["status"],
    ..PLAIN
};
/// Roles.
pub(super) static ROLE: Kind = Kind {
    group: RBAC_GROUP,
    kind: "Role",
    plural: "roles",
    singular: "role",
    ..PLAIN
};
/// Cluster roles.
pub(super) static CLUSTER_ROLE: Kind = Kind {
    group: RBAC_GROUP,
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    namespaced: false,
    ..PLAIN
};
/// Role bindings.
pub(super) static ROLE_BINDING: Kind = Kind {
    group: RBAC_GROUP,
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    ..PLAIN
};
/// Cluster role bindings.
pub(super) static CLUSTER_ROLE_BINDING: Kind = Kind {
    group: RBAC_GROUP,
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    namespaced: false,
    ..PLAIN
};

/// Validating admission policies.
pub(super) static POLICY: Kind = Kind {
    group: ADMISSION_GROUP,
    kind: "ValidatingAdmissionPolicy",
    plural: "validatingadmissionpolicies",
    singular: "validatingadmissionpolicy",
    namespaced: false,
    subresources: &["status"],
    ..PLAIN
};
/// Their bindings.
pub(super) static POLICY_BINDING: Kind = Kind {
    group: ADMISSION_GROUP,
    kind: "ValidatingAdmissionPolicyBinding",
    plural: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
    namespaced: false,
    ..PLAIN
};

const ADMISSION_GROUP: &str = "admissionregistration.k8s.io";
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

static OTHERS: [Kind; 13] = [
    Kind {
        group: "events.k8s.io",
        kind: "Event",
        plural: "events",
        singular: "event",
        short: &["ev"],
        ..PLAIN
    },
    Kind {
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        ..PLAIN
    },
    Kind {
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short: &["cm"],
        ..PLAIN
    },
    Kind {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short: &["sa"],
        ..PLAIN
    },
    Kind {
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short: &["no"],
        namespaced: false,
        subresources: &["status"],
        ..PLAIN
    },
    Kind {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        needs_revision: true,
        ..PLAIN
    },
    Kind {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short: &["deploy"],
        subresources: &["status"],
        ..PLAIN
    },
    Kind {
        group: "apps",
        kind: "StatefulSet",
        plural: "statefulsets",
        singular: "statefulset",
        short: &["sts"],
        subresources: &["status"],
        ..PLAIN
    },
    Kind {
        group: "apps",
        kind: "DaemonSet",
        plural: "daemonsets",
        singular: "daemonset",
        short: &["ds"],
        subresources: &["status"],
        ..PLAIN
    },
    Kind {
        group: DIAGBOT_GROUP,
        version: "v1alpha1",
        kind: "DiagnosticRun",
        plural: "diagnosticruns",
        singular: "diagnosticrun",
        short: &["drun"],
        subresources: &["status"],
        needs_revision: true,
        ..PLAIN
    },
    Kind {
        group: DIAGBOT_GROUP,
        version: "v1alpha1",
        kind: "DiagnosticPause",
        plural: "diagnosticpauses",
        singular: "diagnosticpause",
        short: &["dpause"],
        needs_revision: true,
        ..PLAIN
    },
    Kind {
        group: DIAGBOT_GROUP,
        version: "v1alpha1",
        kind: "DiagnosticCapture",
        plural: "diagnosticcaptures",
        singular: "diagnosticcapture",
        short: &["dcap"],
        subresources: &["status"],
        needs_revision: true,
        ..PLAIN
    },
    Kind {
        group: DIAGBOT_GROUP,
        version: "v1alpha1",
        kind: "DiagnosticSchedule",
        plural: "diagnosticschedules",
        singular: "diagnosticschedule",
        short: &["dsched"],
        subresources: &["status"],
        needs_revision: true,
        ..PLAIN
    },
];

/// Every kind, in the order of discovery.
pub(super) fn all() -> impl Iterator<Item = &'static Kind> {
    [
        &POD,
        &EVENT,
        &NAMESPACE,
        &REPLICA_SET,
        &ROLE,
        &CLUSTER_ROLE,
        &ROLE_BINDING,
        &CLUSTER_ROLE_BINDING,
        &POLICY,
        &POLICY_BINDING,
    ]
    .into_iter()
    .chain(OTHERS.iter())
}

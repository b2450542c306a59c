//! As whom a container of the bot may run beside its target: the texts of the rules, about a container `c` of the request.

/// The target's container in the pod's spec; a sidecar is an init container.
pub(super) const TARGET: &str = "(object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : []))\
                      .filter(t, has(c.targetContainerName) && t.name == c.targetContainerName)";

/// The container can neither be root nor become it.
pub(super) const NOT_ROOT: &str = "(has(c.securityContext.runAsUser) && c.securityContext.runAsUser > 0 && \
                        has(c.securityContext.allowPrivilegeEscalation) && \
                        !c.securityContext.allowPrivilegeEscalation && \
                        has(c.securityContext.capabilities) && has(c.securityContext.capabilities.drop) && \
                        'ALL' in c.securityContext.capabilities.drop)";

/// Nothing in the pod's spec keeps the target from being root.
pub(super) const TARGET_MAY_BE_ROOT: &str = "(object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : []))\
     .exists(t, has(c.targetContainerName) && t.name == c.targetContainerName && \
     !(has(t.securityContext) && has(t.securityContext.runAsNonRoot) && t.securityContext.runAsNonRoot) && \
     !(has(t.securityContext) && has(t.securityContext.runAsUser) && t.securityContext.runAsUser > 0) && \
     ((has(t.securityContext) && has(t.securityContext.runAsUser)) || \
     !(has(object.spec.securityContext) && ((has(object.spec.securityContext.runAsNonRoot) && \
     object.spec.securityContext.runAsNonRoot) || (has(object.spec.securityContext.runAsUser) && \
     object.spec.securityContext.runAsUser > 0)))))";

/// The kubelet reports no other than root for the target, `uid` or `gid`, which its image named: reported from Kubernetes
/// 1.31. A sidecar is reported among the init containers.
pub(super) fn not_seen_otherwise(id: &str) -> String {
    let other = |statuses: &str| {
        format!(
            "(has(object.status.{statuses}) && object.status.{statuses}.exists(s, has(c.targetContainerName) && \
             s.name == c.targetContainerName && has(s.user) && has(s.user.linux) && s.user.linux.{id} > 0))"
        )
    };
    format!(
        "!(has(object.status) && ({} || {}))",
        other("containerStatuses"),
        other("initContainerStatuses")
    )
}

/// What the target gave up, the container does, too.
pub(super) const GIVES_UP_WHAT_THE_TARGET_DOES: &str = "!has(t.securityContext) || (\
     (!has(t.securityContext.capabilities) || !has(t.securityContext.capabilities.drop) || \
     (has(c.securityContext.capabilities) && has(c.securityContext.capabilities.drop) && \
     t.securityContext.capabilities.drop.all(k, k in c.securityContext.capabilities.drop || \
     'ALL' in c.securityContext.capabilities.drop))) && \
     (!has(t.securityContext.allowPrivilegeEscalation) || t.securityContext.allowPrivilegeEscalation || \
     (has(c.securityContext.allowPrivilegeEscalation) && !c.securityContext.allowPrivilegeEscalation)))";

/// The container is root, or does not say who it is: the rules for root decide, about its group, too.
pub(super) const AS_ROOT: &str = "(!has(c.securityContext.runAsUser) || c.securityContext.runAsUser == 0)";

/// The group is another than 0, which it is where nobody names one: the agent's image does not.
pub(super) const GROUP_NOT_ROOT: &str = "(has(c.securityContext.runAsGroup) ? c.securityContext.runAsGroup > 0 : \
     (has(object.spec.securityContext) && has(object.spec.securityContext.runAsGroup) && \
     object.spec.securityContext.runAsGroup > 0))";

/// Nothing in the pod's spec names another group for the target.
pub(super) const TARGET_GROUP_MAY_BE_ROOT: &str = "(object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : []))\
     .exists(t, has(c.targetContainerName) && t.name == c.targetContainerName && \
     (has(t.securityContext) && has(t.securityContext.runAsGroup) ? t.securityContext.runAsGroup == 0 : \
     !(has(object.spec.securityContext) && has(object.spec.securityContext.runAsGroup) && \
     object.spec.securityContext.runAsGroup > 0)))";

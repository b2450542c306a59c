//! As whom the agent runs: as the target's own user, or as root with the target's own capabilities. Pure.
//!
//! # Design notes
//! The status tells uid and gid of a running container (stable in Kubernetes 1.35, and only with a runtime that reports
//! it), the spec only what somebody wrote there. Where both are silent, an image that was met before answers; where it was
//! not, the agent starts as a user without rights, names the uid of the process it sees in its `hello`, and a second
//! container starts as that. The first one never gets a ticket, so it never acts.

use std::collections::{BTreeMap, VecDeque};

use diagbot_api::capture::{AgentIdentity, IdentitySource};
use k8s_openapi::api::core::v1::{Capabilities, Container, ContainerStatus, Pod, SeccompProfile, SecurityContext};

/// The user of a first look: the "nonroot" user of distroless images, owner of nothing.
pub(super) const LOOK_UID: i64 = 65532;
/// Images whose user is remembered.
const LEARNT_IMAGES: usize = 256;

/// Users by image, as agents found them. Bounded: the oldest goes first. Losing it costs a second container.
#[derive(Debug, Clone, Default)]
pub(super) struct ImageUsers {
    by_image: BTreeMap<String, (i64, i64)>,
    order: VecDeque<String>,
}

impl ImageUsers {
    /// Remembers that processes of this image run as `uid:gid`.
    pub(super) fn learn(&mut self, image_id: &str, uid: i64, gid: i64) {
        if image_id.is_empty() {
            return;
        }
        if self.by_image.insert(image_id.to_owned(), (uid, gid)).is_none() {
            self.order.push_back(image_id.to_owned());
        }
        if self.order.len() > LEARNT_IMAGES
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_image.remove(&oldest);
        }
    }

    /// What is remembered.
    pub(super) fn get(&self, image_id: &str) -> Option<(i64, i64)> {
        self.by_image.get(image_id).copied()
    }
}

/// The status of the container called `name`.
pub(super) fn container_status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let regular = status.container_statuses.iter().flatten();
    let init = status.init_container_statuses.iter().flatten();
    regular.chain(init).find(|s| s.name == name)
}

/// The spec of the container called `name`, sidecars (restartable init containers) included.
pub(super) fn container_spec<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    let init = spec.init_containers.iter().flatten();
    spec.containers.iter().chain(init).find(|c| c.name == name)
}

/// The identity for a first container beside the target `container`.
pub(super) fn choose(pod: &Pod, container: &str, image_users: &ImageUsers) -> AgentIdentity {
    let status = container_status(pod, container);
    let reported = status
        .and_then(|s| s.user.as_ref())
        .and_then(|user| user.linux.as_ref())
        .map(|linux| AgentIdentity {
            uid: linux.uid,
            gid: Some(linux.gid),
            source: IdentitySource::Status,
        });
    reported
        .or_else(|| written(pod, container))
        .or_else(|| {
            let (uid, gid) = image_users.get(&status?.image_id)?;
            Some(AgentIdentity {
                uid,
                gid: Some(gid),
                source: IdentitySource::Learnt,
            })
        })
        .unwrap_or(AgentIdentity {
            uid: LOOK_UID,
            gid: Some(LOOK_UID),
            source: IdentitySource::Look,
        })
}

/// What the spec says. Without `runAsGroup` the group is the image's own, which nobody wrote down; then the agent's look
/// decides whether our container got the same one.
fn written(pod: &Pod, container: &str) -> Option<AgentIdentity> {
    let own = container_spec(pod, container).and_then(|c| c.security_context.as_ref());
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let uid = own
        .and_then(|c| c.run_as_user)
        .or_else(|| of_pod.and_then(|p| p.run_as_user))?;
    let gid = own
        .and_then(|c| c.run_as_group)
        .or_else(|| of_pod.and_then(|p| p.run_as_group));
    Some(AgentIdentity {
        uid,
        gid,
        source: IdentitySource::Spec,
    })
}

/// The security context of the agent's container.
pub(super) fn security_context(
    identity: &AgentIdentity,
    target: Option<&Container>,
    extra: &[String],
) -> SecurityContext {
    let runtime_default = SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        ..SeccompProfile::default()
    };
    let extra = (!extra.is_empty()).then(|| extra.to_vec());
    if identity.uid == 0 {
        let own = target.and_then(|c| c.security_context.as_ref());
        let capabilities = own.and_then(|c| c.capabilities.clone());
        let capabilities = match (capabilities, extra) {
            (None, None) => None,
            (capabilities, extra) => {
                let mut capabilities = capabilities.unwrap_or_default();
                capabilities
                    .add
                    .get_or_insert_default()
                    .extend(extra.into_iter().flatten());
                capabilities.add = capabilities.add.filter(|add| !add.is_empty());
                Some(capabilities)
            }
        };
        return SecurityContext {
            run_as_user: Some(0),
            run_as_group: identity.gid,
            capabilities,
            allow_privilege_escalation: own.and_then(|c| c.allow_privilege_escalation),
            seccomp_profile: Some(runtime_default),
            ..SecurityContext::default()
        };
    }
    SecurityContext {
        run_as_user: Some(identity.uid),
        run_as_group: identity.gid,
        run_as_non_root: Some(true),
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            add: extra,
            drop: Some(vec!["ALL".to_owned()]),
        }),
        seccomp_profile: Some(runtime_default),
        ..SecurityContext::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    fn bare(own: &serde_json::Value, of_pod: &serde_json::Value, user: &serde_json::Value) -> Pod {
        pod(json!({
            "metadata": {"name": "p"},
            "spec": {"securityContext": of_pod, "containers": [{"name": "app", "securityContext": own}]},
            "status": {"containerStatuses": [{
                "name": "app", "image": "i", "imageID": "sha256:1", "ready": true, "restartCount": 0, "user": user,
            }]},
        }))
    }

    #[test]
    fn the_status_is_believed_before_the_spec_and_the_spec_before_what_was_learnt() {
        let mut image_users = ImageUsers::default();
        image_users.learn("sha256:1", 7, 8);
        let user = json!({"linux": {"uid": 1000, "gid": 1001}});
        let cases = [
            (
                json!({"runAsUser": 5}),
                json!({}),
                user,
                (1000, Some(1001), IdentitySource::Status),
            ),
            (
                json!({"runAsUser": 5}),
                json!({"runAsGroup": 6}),
                json!(null),
                (5, Some(6), IdentitySource::Spec),
            ),
            (
                json!({}),
                json!({"runAsUser": 4}),
                json!(null),
                (4, None, IdentitySource::Spec),
            ),
            (json!({}), json!({}), json!(null), (7, Some(8), IdentitySource::Learnt)),
        ];
        for (own, of_pod, user, (uid, gid, source)) in cases {
            let found = choose(&bare(&own, &of_pod, &user), "app", &image_users);
            assert_eq!(found, AgentIdentity { uid, gid, source });
        }
        let unknown = choose(
            &bare(&json!({}), &json!({}), &json!(null)),
            "app",
            &ImageUsers::default(),
        );
        assert_eq!((unknown.uid, unknown.source), (LOOK_UID, IdentitySource::Look));
    }

    #[test]
    fn a_user_has_no_capability_and_root_has_the_targets() {
        let target: Container = serde_json::from_value(json!({
            "name": "app",
            "securityContext": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["CHOWN"]}, "privileged": true},
        }))
        .expect("a container");
        let identity = |uid| AgentIdentity {
            uid,
            gid: Some(uid),
            source: IdentitySource::Status,
        };
        let user = security_context(&identity(1000), Some(&target), &[]);
        assert_eq!(user.run_as_non_root, Some(true));
        assert_eq!(user.capabilities.expect("drop").drop, Some(vec!["ALL".to_owned()]));
        let root = security_context(&identity(0), Some(&target), &["SYS_PTRACE".to_owned()]);
        let capabilities = root.capabilities.expect("the target's");
        assert_eq!(
            capabilities.add,
            Some(vec!["NET_ADMIN".to_owned(), "SYS_PTRACE".to_owned()])
        );
        assert_eq!(capabilities.drop, Some(vec!["CHOWN".to_owned()]));
        assert_eq!(root.privileged, None);
    }

    #[test]
    fn the_memory_of_images_is_bounded() {
        let mut image_users = ImageUsers::default();
        for n in (0_i64..).take(LEARNT_IMAGES + 1) {
            image_users.learn(&format!("sha256:{n}"), n, n);
        }
        assert_eq!(image_users.get("sha256:0"), None);
        assert_eq!(image_users.get("sha256:1"), Some((1, 1)));
    }
}

//! Whom a container runs as. Reads specs only, never starts anything.

use serde_json::Value;

use super::{image::Image, launch::Identity};
use crate::kubernetes::{pod::list, store::text};

/// Capabilities that a container runtime gives to root.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "net_bind_service",
    "net_raw",
    "sys_chroot",
    "mknod",
    "audit_write",
    "setfcap",
];

/// Whom a container runs as: its own security context, then the pod's, then the image's user.
pub(super) fn identity_of(pod: &Value, spec: &Value, image: Image) -> Identity {
    let contexts = [&spec["securityContext"], &pod["spec"]["securityContext"]];
    let number = |field: &str| contexts.iter().find_map(|c| c[field].as_u64()).map(|n| n as u32);
    let (own_uid, own_gid) = image.user();
    let uid = number("runAsUser");
    // Every image of the sandbox knows a user 1000 with a group of its own, and root; others get group 0, as runtimes do.
    let gid = number("runAsGroup").unwrap_or(match uid {
        None => own_gid,
        Some(1000) => 1000,
        Some(_) => 0,
    });
    let capabilities = &spec["securityContext"]["capabilities"];
    let named = |field: &str| -> Vec<String> {
        list(&capabilities[field])
            .iter()
            .map(|c| text(c).trim_start_matches("CAP_").to_lowercase())
            .collect()
    };
    let (drop, add) = (named("drop"), named("add"));
    let dropped = |name: &str| drop.iter().any(|d| d == "all" || d == name);
    let mut kept: Vec<String> = DEFAULT_CAPABILITIES
        .iter()
        .filter(|c| !dropped(c))
        .map(|c| (*c).to_owned())
        .collect();
    if spec["securityContext"]["privileged"] == true {
        kept = vec!["all".to_owned()];
    }
    kept.extend(add);
    Identity {
        uid: uid.unwrap_or(own_uid),
        gid,
        capabilities: kept,
        no_new_privileges: spec["securityContext"]["allowPrivilegeEscalation"] == false,
    }
}

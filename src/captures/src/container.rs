//! The ephemeral container of an attempt: its name, its spec, and whether a container found under that name is ours. Pure.

use diagbot_api::capture::{AgentIdentity, DiagnosticCapture};
use diagbot_wire::{args::AgentArgs, control, digest::sha256_hex};
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod, SecurityContext};

use super::{
    config::{PullPolicy, SecretKey, TICKET_WAIT_S},
    identity,
};

/// Beyond its own deadline the capture has this long to bring bytes home; the container's hard deadline includes it.
const GRACE_S: i64 = 60;

/// The spec can't be built: the capture's own fields are not what the runs controller writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ContainerError {
    /// The object is not from the API server.
    #[error("the capture has no {0}")]
    Incomplete(&'static str),
    /// The recorded step is not canonical.
    #[error("the capture's steps are not canonical")]
    Step(#[source] diagbot_wire::args::ArgsError),
}

/// Name of the attempt's container: `diag-<16 characters of the run>-<n>-<attempt>`.
pub(super) fn container_name(capture: &str, attempt: u32) -> String {
    format!("diag-{}-{attempt}", capture.strip_prefix("d-").unwrap_or(capture))
}

/// The container that the attempt adds to the pod.
pub(super) fn build(
    capture: &DiagnosticCapture,
    pod: &Pod,
    attempt: u32,
    who: &AgentIdentity,
    pull: PullPolicy,
    secret: &SecretKey,
) -> Result<EphemeralContainer, ContainerError> {
    let name = capture
        .metadata
        .name
        .as_deref()
        .ok_or(ContainerError::Incomplete("name"))?;
    let target = &capture.spec.target.container;
    let mut extra: Vec<String> = capture.spec.steps.iter().flat_map(|s| s.capabilities.clone()).collect();
    extra.sort();
    extra.dedup();
    Ok(EphemeralContainer {
        name: container_name(name, attempt),
        image: Some(capture.spec.image.clone()),
        image_pull_policy: Some(pull.as_str().to_owned()),
        args: Some(arguments(capture, name, attempt, secret)?),
        stdin: Some(true),
        stdin_once: Some(false),
        tty: Some(false),
        target_container_name: Some(target.clone()),
        security_context: Some(identity::security_context(
            who,
            identity::container_spec(pod, target),
            &extra,
        )),
        ..EphemeralContainer::default()
    })
}

/// The arguments, in the one canonical form. They depend on the capture alone, so that every bot makes the same.
fn arguments(
    capture: &DiagnosticCapture,
    name: &str,
    attempt: u32,
    secret: &SecretKey,
) -> Result<Vec<String>, ContainerError> {
    let uid = capture
        .metadata
        .uid
        .as_deref()
        .ok_or(ContainerError::Incomplete("uid"))?;
    let created = capture
        .metadata
        .creation_timestamp
        .as_ref()
        .ok_or(ContainerError::Incomplete("creation time"))?;
    let seconds = capture.spec.deadline.0.as_second() - created.0.as_second() + GRACE_S;
    let mut args = AgentArgs {
        capture: name.to_owned(),
        nonce_sha256: sha256_hex(&control::nonce(secret.expose(), uid, attempt)),
        wait_s: TICKET_WAIT_S,
        deadline_s: u32::try_from(seconds.max(1)).unwrap_or(u32::MAX),
        steps: Vec::new(),
    }
    .render();
    args.extend(capture.spec.steps.iter().map(|s| format!("--step={}", s.step)));
    AgentArgs::parse(&args).map_err(ContainerError::Step)?;
    Ok(args)
}

/// The container called `name`, if the pod has it.
pub(super) fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a EphemeralContainer> {
    let spec = pod.spec.as_ref()?;
    spec.ephemeral_containers.iter().flatten().find(|c| c.name == name)
}

/// Whether `found` is what we asked for: equal in all that decides what runs and as whom. What the API server defaults
/// (paths, policies, empty lists) is left aside.
pub(super) fn is_ours(found: &EphemeralContainer, wanted: &EphemeralContainer) -> bool {
    found.image == wanted.image
        && found.args == wanted.args
        && found.target_container_name == wanted.target_container_name
        && same_rights(found.security_context.as_ref(), wanted.security_context.as_ref())
        && found.stdin == wanted.stdin
        && !found.stdin_once.unwrap_or_default()
        && !found.tty.unwrap_or_default()
        && found.command.as_ref().is_none_or(Vec::is_empty)
        && found.env.as_ref().is_none_or(Vec::is_empty)
        && found.env_from.as_ref().is_none_or(Vec::is_empty)
        && found.volume_mounts.as_ref().is_none_or(Vec::is_empty)
        && found.volume_devices.as_ref().is_none_or(Vec::is_empty)
}

/// Equal in user, group, capabilities and escalation; `procMount` and its like are defaulted by some API servers.
fn same_rights(found: Option<&SecurityContext>, wanted: Option<&SecurityContext>) -> bool {
    let (Some(found), Some(wanted)) = (found, wanted) else {
        return false;
    };
    let capabilities = |c: &SecurityContext| {
        let c = c.capabilities.clone().unwrap_or_default();
        (c.add.unwrap_or_default(), c.drop.unwrap_or_default())
    };
    found.run_as_user == wanted.run_as_user
        && found.run_as_group == wanted.run_as_group
        && found.run_as_non_root.unwrap_or_default() == wanted.run_as_non_root.unwrap_or_default()
        && found.allow_privilege_escalation == wanted.allow_privilege_escalation
        && found.privileged.unwrap_or_default() == wanted.privileged.unwrap_or_default()
        && capabilities(found) == capabilities(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn built() -> EphemeralContainer {
        samples::container(&samples::capture(), 1)
    }

    #[test]
    fn the_container_shows_what_runs_and_holds_no_secret() {
        let container = built();
        assert_eq!(container.name, "diag-0123456789abcdef-0-1");
        let args = AgentArgs::parse(container.args.as_deref().expect("arguments")).expect("canonical");
        assert_eq!(args.steps.len(), 1);
        assert_eq!(args.deadline_s, 360);
        let nonce = control::nonce(samples::secret().expose(), "uid-of-capture", 1);
        let shown = serde_json::to_string(&container).expect("JSON");
        assert!(!shown.contains(&hex::encode(nonce)));
        assert!(container.command.is_none() && container.env.is_none() && container.volume_mounts.is_none());
    }

    #[test]
    fn what_the_api_server_adds_does_not_make_it_foreign() {
        let mut found = built();
        found.termination_message_path = Some("/dev/termination-log".to_owned());
        found.termination_message_policy = Some("File".to_owned());
        found.resources = Some(k8s_openapi::api::core::v1::ResourceRequirements::default());
        found.stdin_once = None;
        assert!(is_ours(&found, &built()));
    }

    #[test]
    fn a_container_that_runs_something_else_or_as_someone_else_is_foreign() {
        let changes: [fn(&mut EphemeralContainer); 5] = [
            |c| c.image = Some("other@sha256:2".to_owned()),
            |c| c.args.get_or_insert_default().push("--step=x".to_owned()),
            |c| c.command = Some(vec!["sh".to_owned()]),
            |c| c.security_context.get_or_insert_default().run_as_user = Some(0),
            |c| c.target_container_name = Some("other".to_owned()),
        ];
        for change in changes {
            let mut found = built();
            change(&mut found);
            assert!(!is_ours(&found, &built()));
        }
    }

    #[test]
    fn each_attempt_has_its_own_name_and_nonce() {
        let capture = samples::capture();
        let (first, second) = (samples::container(&capture, 1), samples::container(&capture, 2));
        assert_ne!(first.name, second.name);
        assert_ne!(first.args, second.args);
    }

    #[test]
    fn a_step_that_is_not_canonical_is_refused() {
        let mut capture = samples::capture();
        capture.spec.steps[0].step.push(' ');
        let built = build(
            &capture,
            &samples::pod(),
            1,
            &samples::identity(),
            PullPolicy::IfNotPresent,
            &samples::secret(),
        );
        assert!(matches!(built, Err(ContainerError::Step(_))));
    }
}

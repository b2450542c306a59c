//! Every way in which a capture ends badly, in words: what happened and what to do. One closed table.
//!
//! Text from a cluster or a target goes through [`clean`] before it becomes part of a message.

use diagbot_api::capture::Explanation;
use diagbot_wire::{result::Failure, text};

/// Longest foreign text in a message, in characters.
const MAX_FOREIGN_CHARS: usize = 300;

/// Ways to fail that the cluster, the store or we ourselves are the cause of. (What the agent reports is a [`Failure`].)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantNames)]
pub(super) enum Refusal {
    /// The pod is gone.
    PodGone,
    /// Another pod has its name now.
    PodReplaced,
    /// The pod is being deleted.
    PodTerminating,
    /// The pod's phase is not `Running`.
    PodNotRunning,
    /// The container was restarted since it was chosen.
    TargetReplaced,
    /// The container does not run.
    TargetNotRunning,
    /// The agent's process list shows another container than the pinned one.
    WrongContainer,
    /// The pod's containers share their processes, and the agent can't tell whose the found one is.
    ContainerUnknown,
    /// The pod shares the processes of its node.
    HostProcesses,
    /// No cluster of that name is configured.
    UnknownCluster,
    /// Pod Security refused the container.
    PodSecurity,
    /// An admission policy or webhook refused the container.
    Admission,
    /// Our service account may not add it.
    Forbidden,
    /// The API server refused the container for another reason.
    NotAccepted,
    /// A foreign container has the name.
    ForeignContainer,
    /// The image can't be pulled.
    ImagePull,
    /// The image is not on the node and must not be pulled.
    ImageAbsent,
    /// The runtime can't create the container.
    NotCreated,
    /// It did not start in time.
    NotStarted,
    /// It runs and says nothing.
    AgentSilent,
    /// The agent's version is not ours.
    AgentVersion,
    /// No control line reaches it.
    AgentDeaf,
    /// All that it said was made with another key.
    AgentUnproven,
    /// It ended without a result.
    AgentEnded,
    /// It was killed for memory.
    AgentOutOfMemory,
    /// No identity fits after three attempts.
    NoIdentity,
    /// The store refuses or can't be reached.
    Store,
    /// A file of this machine can't be written.
    Folder,
    /// What the store holds is not what the agent sent.
    NotVerified,
    /// The relay broke.
    Relay,
    /// Stopping could not be proven.
    CancelUnproven,
    /// The deadline passed.
    Deadline,
    /// The API server can't be used.
    Cluster,
    /// Something kept failing until it was too late.
    Trouble,
    /// The capture's object is not what we write.
    Invalid,
}

/// The explanation of a refusal; `detail` is foreign text or a name.
pub(super) fn refusal(refusal: Refusal, detail: &str) -> Explanation {
    let detail = clean(detail);
    let (message, remedy) = words(refusal);
    let message = if detail.is_empty() {
        message.to_owned()
    } else {
        format!("{message}: {detail}")
    };
    Explanation {
        code: <&str>::from(refusal).to_owned(),
        message,
        remedy: remedy.to_owned(),
    }
}

fn words(refusal: Refusal) -> (&'static str, &'static str) {
    match refusal {
        Refusal::PodGone => (
            "The pod is gone",
            "Ask again with the workload's name, or try pod-report on its successor.",
        ),
        Refusal::PodReplaced => (
            "Another pod has this name now",
            "Ask again: the new pod will be looked at.",
        ),
        Refusal::PodTerminating => (
            "The pod is being deleted, and nothing can be added to it",
            "Ask again for its successor; pod-report still works while the pod is listed.",
        ),
        Refusal::PodNotRunning => (
            "The pod does not run; its phase is",
            "Use pod-report: it works without a running container.",
        ),
        Refusal::TargetReplaced => (
            "The container was restarted since the request, so that the process you meant no longer exists",
            "Ask again to look at the new one, or use pod-report for the logs of the one before.",
        ),
        Refusal::TargetNotRunning => (
            "The container does not run",
            "Use pod-report for its state and its last logs.",
        ),
        Refusal::WrongContainer => (
            "The process found belongs to another container than the chosen one",
            "Name the container with -c, or report this if it shares no processes.",
        ),
        Refusal::ContainerUnknown => (
            "The pod's containers share their processes, and the node does not tell which container the found one belongs to",
            "Ask the pod's owners to do without shareProcessNamespace; pod-report needs no process.",
        ),
        Refusal::HostProcesses => (
            "The pod shares the processes of its node (hostPID), so that those of other pods would be in reach",
            "Captures are never taken there; pod-report needs no container.",
        ),
        Refusal::UnknownCluster => (
            "No such cluster is configured",
            "Ask the bot's owners which clusters it serves.",
        ),
        Refusal::PodSecurity => (
            "The namespace's Pod Security level does not let the agent run as the target's user",
            "The namespace's owners decide this; pod-report needs no container.",
        ),
        Refusal::Admission => (
            "A policy of the cluster refused the container",
            "The cluster's owners decide this; pod-report needs no container.",
        ),
        Refusal::Forbidden => (
            "The bot's service account may not add a container here",
            "The cluster's owners can grant patch on pods/ephemeralcontainers; pod-report needs only read access.",
        ),
        Refusal::NotAccepted => ("The API server refused the container", "Show this to the bot's owners."),
        Refusal::ForeignContainer => (
            "A container of our name exists that is not ours",
            "Ask again; if it stays, show this to the cluster's owners.",
        ),
        Refusal::ImagePull => (
            "The node could not pull the agent's image",
            "Check the image's name and the node's way to its registry, then ask again.",
        ),
        Refusal::ImageAbsent => (
            "The agent's image is not on the node and must not be pulled",
            "The bot's owners can put it there or change the pull policy.",
        ),
        Refusal::NotCreated => (
            "The runtime could not create the container",
            "Show this to the cluster's owners.",
        ),
        Refusal::NotStarted => (
            "The container did not start in time",
            "Check that the node is healthy, then ask again; a late start ends by itself without acting.",
        ),
        Refusal::AgentSilent => (
            "The agent's container runs but its log can't be read or says nothing",
            "Check that the bot may get pods/log and that the node answers, then ask again.",
        ),
        Refusal::AgentVersion => (
            "The agent's image does not fit this bot",
            "The bot's owners should update the agent's image.",
        ),
        Refusal::AgentDeaf => (
            "The agent waits, but attaching to it does not work",
            "Check that the bot may get and create pods/attach and that the node answers, then ask again.",
        ),
        Refusal::AgentUnproven => (
            "The agent's log is not proven to be the agent's: its lines were made with another key",
            "If the bot's Secret was exchanged while this ran, ask again; if it was not, tell the bot's owners: something else writes there.",
        ),
        Refusal::AgentEnded => (
            "The agent ended without a result",
            "Ask again; if it happens twice, show this to the bot's owners.",
        ),
        Refusal::AgentOutOfMemory => (
            "The agent was killed since the pod is at its memory limit",
            "Use a diagnostic that needs less memory, or pod-report.",
        ),
        Refusal::NoIdentity => (
            "The target's user could not be found in three attempts",
            "Set runAsUser and runAsGroup in the pod's spec, then ask again.",
        ),
        Refusal::Store => (
            "The store did not take the artifact",
            "Ask the bot's owners to run `diagbot check`, then ask again.",
        ),
        Refusal::Folder => (
            "The artifact could not be written to its folder",
            "Make room there, or name another folder, then ask again; nothing of it was left.",
        ),
        Refusal::NotVerified => (
            "What the store holds is not what was captured, so no link is given",
            "Ask again; if it happens twice, show this to the store's owners.",
        ),
        Refusal::Relay => (
            "The artifact could not be fetched from the pod, which can't reach the store itself",
            "Ask again, or let the pod's network reach the store.",
        ),
        Refusal::CancelUnproven => (
            "The agent was asked to stop, but that it did is not proven",
            "It ends by itself at its own deadline, unless a process of the target holds it up; look at the pod before you rely on it.",
        ),
        Refusal::Deadline => (
            "The capture's time was over before it was complete",
            "Ask again, or use a diagnostic that needs less time.",
        ),
        Refusal::Cluster => (
            "The cluster's API server did not do what was needed",
            "Check the API server and the bot's permissions (`diagbot check`), then ask again.",
        ),
        Refusal::Trouble => (
            "What the agent waited for did not work in time",
            "Ask the bot's owners to run `diagbot check`, then ask again.",
        ),
        Refusal::Invalid => (
            "The capture's record can't be carried out",
            "Show this to the bot's owners.",
        ),
    }
}

/// The explanation of what the agent reported; `detail` is the target's or tool's text.
pub(super) fn failure(failure: Failure, diagnostic: &str, detail: &str) -> Explanation {
    let (message, remedy) = match failure {
        Failure::NoSuchProcess => (
            "no process of the target fits",
            "Choose a diagnostic that fits the target, or name another container with -c.",
        ),
        Failure::TargetReplaced => (
            "the process ended before it could be looked at",
            "Ask again to look at the new one.",
        ),
        Failure::AttachRefused => (
            "the JVM does not answer its attach mechanism",
            "Try process or sockets, which need no answer from the JVM.",
        ),
        Failure::ReadOnlyFileSystem => (
            "the target has no writable temporary directory",
            "Mount an emptyDir at the target's /tmp; process and sockets work without.",
        ),
        Failure::PermissionDenied => (
            "the agent's user may not do this to the target",
            "Try process or pod-report; the cluster's owners decide what more is allowed.",
        ),
        Failure::NoSpace => (
            "there is too little room in the pod for what would be written",
            "Free space or raise the ephemeral-storage limit; heap-histogram writes nothing.",
        ),
        Failure::NoPrivatePlace => (
            "the agent's container has no private place for this much output",
            "The bot's owners should use an agent image that has a /tmp (deploy/images/agent.Dockerfile), without a policy that \
             makes its root file system read-only or mounts a volume there.",
        ),
        Failure::ToolFailed => (
            "the tool ended with an error",
            "Read its words; ask again or try another diagnostic.",
        ),
        Failure::ToolMissing => (
            "the tool is not in the agent's image",
            "The bot's owners should give the diagnostic an image that has it.",
        ),
        Failure::TimedOut => (
            "the tool did not end in time",
            "Ask again when the target is less busy, or try process.",
        ),
        Failure::UploadFailed => (
            "the artifact could not be brought to the store",
            "Ask the bot's owners to run `diagbot check`, then ask again.",
        ),
        Failure::NotReached => (
            "not begun, because a step before it failed",
            "Look at that step's reason first; ask for this diagnostic alone if you need it.",
        ),
        Failure::Internal => (
            "the agent failed",
            "Ask again; if it happens twice, show this to the bot's owners.",
        ),
    };
    let detail = clean(detail);
    Explanation {
        code: <&str>::from(failure).to_owned(),
        message: if detail.is_empty() {
            format!("{diagnostic}: {message}")
        } else {
            format!("{diagnostic}: {message}: {detail}")
        },
        remedy: remedy.to_owned(),
    }
}

/// The API server's answer to the added container.
pub(super) fn launch_refusal(status: &kube::core::Status) -> Explanation {
    let text = status.message.as_str();
    let kind = if text.contains("violates PodSecurity") {
        Refusal::PodSecurity
    } else if text.contains("ValidatingAdmissionPolicy")
        || text.contains("admission webhook")
        || text.contains("denied request")
    {
        Refusal::Admission
    } else {
        match status.code {
            401 | 403 => Refusal::Forbidden,
            404 => Refusal::PodGone,
            422 if text.contains("may not be changed") => Refusal::ForeignContainer,
            _ => Refusal::NotAccepted,
        }
    };
    refusal(kind, text)
}

/// Foreign text made fit to be shown: one line, no control or bidirectional characters, bounded.
pub(super) fn clean(text: &str) -> String {
    text::line(text, MAX_FOREIGN_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_one_bounded_line_without_hidden_characters() {
        assert_eq!(clean("a\nb\u{202e}c\u{0}"), "a bc");
        assert_eq!(clean(&"x".repeat(9_000)).chars().count(), MAX_FOREIGN_CHARS + 1);
    }

    #[test]
    fn codes_never_change() {
        let refusals = "PodGone PodReplaced PodTerminating PodNotRunning TargetReplaced TargetNotRunning WrongContainer \
            ContainerUnknown HostProcesses UnknownCluster PodSecurity Admission Forbidden NotAccepted ForeignContainer \
            ImagePull ImageAbsent NotCreated NotStarted AgentSilent AgentVersion AgentDeaf AgentUnproven AgentEnded \
            AgentOutOfMemory NoIdentity Store Folder NotVerified Relay CancelUnproven Deadline Cluster Trouble Invalid";
        let failures = "NoSuchProcess TargetReplaced AttachRefused ReadOnlyFileSystem PermissionDenied NoSpace \
            NoPrivatePlace ToolFailed ToolMissing TimedOut UploadFailed NotReached Internal";
        assert_eq!(<Refusal as strum::VariantNames>::VARIANTS.join(" "), refusals);
        assert_eq!(<Failure as strum::VariantNames>::VARIANTS.join(" "), failures);
    }

    #[test]
    fn the_servers_refusals_are_told_apart() {
        let cases = [
            (
                403,
                "pods \"jvm\" is forbidden: violates PodSecurity \"restricted:latest\": runAsUser=0",
                "PodSecurity",
            ),
            (
                422,
                "denied request: ValidatingAdmissionPolicy 'diagbot' with binding",
                "Admission",
            ),
            (
                403,
                "User \"x\" cannot patch resource \"pods/ephemeralcontainers\"",
                "Forbidden",
            ),
            (404, "pods \"nope\" not found", "PodGone"),
            (
                422,
                "existing ephemeral containers \"e1\" may not be changed",
                "ForeignContainer",
            ),
            (422, "image: Required value", "NotAccepted"),
        ];
        for (code, text, expected) in cases {
            let status = kube::core::Status {
                code,
                message: text.to_owned(),
                ..kube::core::Status::default()
            };
            assert_eq!(launch_refusal(&status).code, expected, "{text}");
        }
    }
}

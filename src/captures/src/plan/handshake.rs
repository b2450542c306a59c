//! Is the agent's introduction what we wait for, and which of the processes that it names are the target's?

use diagbot_api::capture::Explanation;
use diagbot_wire::journal::{ChosenProcess, Hello};

use super::{Facts, PodFact};
use crate::explain::{self, Refusal};

/// What the agent's introduction says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Meeting {
    /// It may have its ticket.
    Fits,
    /// The target's process runs as somebody else than the agent.
    OtherUser {
        /// The process's uid.
        uid: u32,
        /// The process's gid.
        gid: u32,
    },
    /// It must not go on.
    Unfit(Explanation),
}

pub(super) fn handshake(f: &Facts, hello: &Hello) -> Meeting {
    if hello.version > diagbot_wire::VERSION || Some(&hello.capture) != f.capture.metadata.name.as_ref() {
        return Meeting::Unfit(explain::refusal(
            Refusal::AgentVersion,
            &format!("version {} of {}", hello.version, hello.capture),
        ));
    }
    let steps = f.spec().steps.len();
    if hello
        .processes
        .iter()
        .any(|p| usize::from(p.pinned.step) >= steps || p.pinned.pid < 1)
    {
        return Meeting::Unfit(explain::refusal(
            Refusal::AgentVersion,
            "it names a process that can't be",
        ));
    }
    for process in chosen(f, hello) {
        match owner(f, process) {
            Owner::Target => {}
            Owner::Unknown => return Meeting::Unfit(explain::refusal(Refusal::ContainerUnknown, &process.comm)),
            Owner::Other => return Meeting::Unfit(explain::refusal(Refusal::WrongContainer, &process.comm)),
        }
        if (process.uid, process.gid) != (hello.uid, hello.gid) {
            return Meeting::OtherUser {
                uid: process.uid,
                gid: process.gid,
            };
        }
    }
    Meeting::Fits
}

/// The process of each step: the target container's own; else, for [`handshake`] to refuse, one whose container can't be told,
/// or another container's.
pub(crate) fn chosen<'a>(f: &Facts, hello: &'a Hello) -> Vec<&'a ChosenProcess> {
    let of = |step| hello.processes.iter().filter(move |p| p.pinned.step == step);
    // One that carries the target's id is its own more surely than one that carries none.
    let strangeness = |process: &&ChosenProcess| (owner(f, process), process.container_id.is_empty());
    f.steps().filter_map(|step| of(step).min_by_key(strangeness)).collect()
}

/// Whose a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    /// The target container's.
    Target,
    /// It can't be told.
    Unknown,
    /// Another container's.
    Other,
}

/// The id of a process's container is what its cgroup is called, which not every runtime shows inside a container: one in a
/// sandbox of its own (gVisor, Kata) shows none, and none is told of a process of the node. Without an id the process is the
/// target's only where the agent sees no others: it joins the target's PID namespace, which holds the target's processes
/// alone unless the pod shares one among its containers or with the node.
fn owner(f: &Facts, process: &ChosenProcess) -> Owner {
    let id = process.container_id.as_str();
    let wanted = f.spec().target.container_id.as_str();
    // `containerd://<id>`
    let wanted = wanted.rsplit_once("://").map_or(wanted, |(_, id)| id);
    match id {
        "" if sees_the_target_alone(f) => Owner::Target,
        "" => Owner::Unknown,
        _ if id == wanted => Owner::Target,
        _ => Owner::Other,
    }
}

/// Whether the PID namespace of the target is its own.
fn sees_the_target_alone(f: &Facts) -> bool {
    let PodFact::Seen(pod) = &f.pod else { return false };
    pod.spec
        .as_ref()
        .is_some_and(|spec| spec.host_pid != Some(true) && spec.share_process_namespace != Some(true))
}

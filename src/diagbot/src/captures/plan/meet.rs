//! Is the agent's introduction what we wait for, and which of the processes that it names are the target's?

use diagbot_wire::journal::{ChosenProcess, Hello};

use super::Facts;
use crate::captures::{
    explain::{self, Refusal},
    resource::Explanation,
};

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

pub(super) fn meet(f: &Facts, hello: &Hello) -> Meeting {
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
        if !process.container_id.is_empty() && !is_targets(f, process) {
            return Meeting::Unfit(explain::refusal(Refusal::WrongContainer, &process.comm));
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

/// The process of each step: the target container's own; else one whose container can't be told; else, for [`meet`] to
/// refuse, another container's.
pub(in crate::captures) fn chosen<'a>(f: &Facts, hello: &'a Hello) -> Vec<&'a ChosenProcess> {
    let strangeness = |process: &&ChosenProcess| match process.container_id.as_str() {
        "" => 1,
        _ if is_targets(f, process) => 0,
        _ => 2,
    };
    let of = |step| hello.processes.iter().filter(move |p| p.pinned.step == step);
    f.steps().filter_map(|step| of(step).min_by_key(strangeness)).collect()
}

fn is_targets(f: &Facts, process: &ChosenProcess) -> bool {
    f.spec().target.container_id.ends_with(&process.container_id)
}

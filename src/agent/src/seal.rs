//! Keeps neighbours of the same uid out of this process, its memory out of core files, and the target out of
//! the kernel's way when memory runs out.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Makes the process non-dumpable: neighbours can't open its memory, descriptors or root through `/proc`. With the program
/// file at mode 0111 the kernel does so from the first instruction (measured); this holds where the file is readable.
pub(crate) fn seal() {
    // First, since afterwards the files of /proc/self belong to root.
    be_killed_first();
    // The call exists since Linux 2.3; where it fails all the same, the file's mode still protects us.
    let _sealed = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // A core file would hold the ticket, and a tool's the target's data. Tools inherit the limit.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _limited = setrlimit(Resource::Core, none);
}

/// Makes the kernel end this process and its tools, which inherit that, before the target when memory runs out.
pub(crate) fn be_killed_first() {
    // Refused where the program's file is execute-only and the user is not root: then only the tools are marked, when they start.
    let _scored = std::fs::write("/proc/self/oom_score_adj", "1000");
}

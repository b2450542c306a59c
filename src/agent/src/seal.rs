//! Keeps neighbours of the same uid out of this process.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Makes the process non-dumpable: neighbours can't open its memory, descriptors or root through `/proc`. With the program
/// file at mode 0111 the kernel does so from the first instruction (measured); this holds where the file is readable.
pub(crate) fn seal() {
    // The call exists since Linux 2.3; where it fails all the same, the file's mode still protects us.
    let _sealed = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

//! Keeps what the process holds (tokens, keys, evidence on its way) out of core files and away from its neighbours.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core file of this process, and none of its memory, descriptors or environment through `/proc` for others of its uid.
pub(super) fn seal() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Both are always allowed to whoever asks less for itself; there is nothing else to do where they fail all the same.
    let _limited = setrlimit(Resource::Core, none);
    let _sealed = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

#[cfg(test)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn a_sealed_process_leaves_no_core_and_shows_no_memory() {
        seal();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}

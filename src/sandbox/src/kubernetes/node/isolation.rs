//! What the operating system allows for keeping containers apart.
//!
//! Owns the probe; the choice holds for one server's life.

use std::{
    fmt,
    process::{Command, Stdio},
};

/// How containers are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kubernetes) enum Isolation {
    /// We are root: PID and mount namespaces, a root directory and a uid for each container.
    Namespaces,
    /// We are not root, but may make user namespaces: the same, with our own uid as every container's root.
    UserNamespaces,
    /// Neither: containers are plain processes of ours, side by side with everything else.
    Shared,
}

impl Isolation {
    /// The strongest that works here: tried, not guessed.
    pub(super) fn probe() -> Self {
        let works = |arguments: &[&str]| {
            Command::new("unshare")
                .args(arguments)
                .args([
                    "--pid",
                    "--fork",
                    "--mount",
                    "--propagation",
                    "private",
                    "--mount-proc",
                    "true",
                ])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        if rustix::process::geteuid().is_root() && works(&[]) {
            Self::Namespaces
        } else if works(&["--user", "--map-root-user"]) {
            Self::UserNamespaces
        } else {
            Self::Shared
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "containers have their own PID and mount namespaces, root directories and uids",
            Self::UserNamespaces => {
                "containers have their own PID and mount namespaces and root directories; every uid in them is yours"
            }
            Self::Shared => {
                "this machine allows no namespaces: containers are plain processes that see all of your processes, so a \
                 diagnostic may choose a process that is not the workload's"
            }
        })
    }
}

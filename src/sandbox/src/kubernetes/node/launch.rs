//! How a container's process is started: the command line around it, and the small program inside that makes its root.
//!
//! Owns [`Launch`], what a container's first program ([`super::init`]) is told; and the thread that starts processes.
//!
//! # Design notes
//! * The tools are util-linux (`unshare`, `nsenter`, `setpriv`, `mount`): the same system calls without unsafe code.
//! * Every process asks to be killed when the thread that started it ends. So all are started by one thread of the node
//!   that lives as long as the node: nothing outlives a sandbox that was killed.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};

use serde::{Deserialize, Serialize};
use tokio::{
    process::{Child, Command},
    sync::oneshot,
};

use super::isolation::Isolation;

/// Search path in containers, and for the tools of the node.
pub(super) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The mount namespace of this process.
pub(super) fn mount_namespace() -> io::Result<String> {
    Ok(std::fs::read_link("/proc/self/ns/mnt")?.to_string_lossy().into_owned())
}

/// Whom a container's process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::kubernetes) struct Identity {
    pub(in crate::kubernetes) uid: u32,
    pub(in crate::kubernetes) gid: u32,
    /// Capabilities of the bounding set, in lower case without `cap_`.
    pub(super) capabilities: Vec<String>,
    pub(super) no_new_privileges: bool,
}

/// What a container's first program makes before it becomes the container's process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Launch {
    /// Directory that becomes the root; none where containers are plain processes.
    pub(super) root: Option<PathBuf>,
    /// The node's own mount namespace, in which no root may be made.
    pub(super) node_mounts: String,
    /// The multi-call program, and its path in the container.
    pub(super) program: (PathBuf, String),
    /// Directories of the node shown in the container: (there, here).
    pub(super) binds: Vec<(PathBuf, String)>,
    pub(super) read_only_root: bool,
    pub(super) identity: Identity,
    /// Whether the identity can be taken: not in a user namespace with one uid.
    pub(super) take_identity: bool,
    pub(super) working_dir: String,
    pub(super) argv: Vec<String>,
}

/// Where a process goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// A PID namespace of its own.
    New,
    /// The PID namespace of this process, with a root of its own.
    Beside(i32),
    /// All namespaces and the root of this process.
    Inside(i32),
}

/// Wraps `inner` so that it runs in its place.
pub(super) fn command(isolation: Isolation, place: Place, inner: &[String], env: &BTreeMap<String, String>) -> Command {
    let mut words: Vec<String> = Vec::new();
    let mut push = |more: &[&str]| words.extend(more.iter().map(|w| (*w).to_owned()));
    let user = isolation == Isolation::UserNamespaces;
    let enter_user: &[&str] = if user {
        &["--user", "--preserve-credentials"]
    } else {
        &[]
    };
    push(&["setpriv", "--pdeathsig", "KILL", "--"]);
    match (isolation, place) {
        (Isolation::Shared, _) => {}
        (_, Place::New) => {
            push(&["unshare"]);
            if user {
                push(&["--user", "--map-root-user"]);
            }
            // Without --fork: container-init is the parent itself, since unshare 2.38 loses the signal that ended its child.
            push(&["--pid", "--mount", "--propagation", "private", "--"]);
        }
        (_, Place::Beside(pid)) => {
            push(&["nsenter", "--target", &pid.to_string(), "--pid"]);
            push(enter_user);
            push(&[
                "--",
                "setpriv",
                "--pdeathsig",
                "KILL",
                "--",
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "--",
            ]);
        }
        (_, Place::Inside(pid)) => {
            push(&[
                "nsenter",
                "--target",
                &pid.to_string(),
                "--pid",
                "--mount",
                "--root",
                "--wd",
            ]);
            push(enter_user);
            push(&["--"]);
        }
    }
    words.extend(inner.iter().cloned());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env_clear().envs(env).kill_on_drop(true);
    command
}

/// The words that take an identity and then become `argv`.
pub(super) fn as_identity(identity: &Identity, take: bool, argv: &[String]) -> Vec<String> {
    let mut words = vec!["setpriv".to_owned(), "--pdeathsig".to_owned(), "KILL".to_owned()];
    if take {
        let bounding: String = std::iter::once("-all".to_owned())
            .chain(identity.capabilities.iter().map(|c| format!(",+{c}")))
            .collect();
        words.extend([
            format!("--reuid={}", identity.uid),
            format!("--regid={}", identity.gid),
            "--clear-groups".to_owned(),
            format!("--bounding-set={bounding}"),
            "--inh-caps=-all".to_owned(),
            "--ambient-caps=-all".to_owned(),
        ]);
        if identity.no_new_privileges {
            words.push("--no-new-privs".to_owned());
        }
    }
    words.push("--".to_owned());
    words.extend(argv.iter().cloned());
    words
}

/// Whether a container with this root has the program.
pub(super) fn has_program(root: &Path, program: &str) -> bool {
    let below = |path: &str| root.join(path.trim_start_matches('/')).is_file();
    if program.contains('/') {
        below(program)
    } else {
        SEARCH_PATH.split(':').any(|dir| below(&format!("{dir}/{program}")))
    }
}

/// The runtime's words for a program that is not there.
pub(super) fn why_not_found(program: &str) -> String {
    if program.contains('/') {
        format!("stat {program}: no such file or directory")
    } else {
        "executable file not found in $PATH".to_owned()
    }
}

/// A pipe whose both ends belong to the container's user, as a runtime makes it.
pub(super) fn pipe(owner: Option<(u32, u32)>) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
    if let Some((uid, gid)) = owner {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::fchown(&reader, Some(uid), Some(gid))?;
    }
    Ok((reader, writer))
}

/// Nothing to read.
pub(super) fn nothing() -> io::Result<Stdio> {
    Ok(Stdio::from(File::open(Path::new("/dev/null"))?))
}

/// The thread that starts processes.
#[derive(Debug)]
pub(super) struct Spawner {
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Order {
    command: Command,
    runtime: tokio::runtime::Handle,
    answer: oneshot::Sender<io::Result<Child>>,
}

impl Spawner {
    pub(super) fn new() -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel::<Order>();
        let thread = std::thread::Builder::new()
            .name("sandbox-node".to_owned())
            .spawn(move || {
                for mut order in inbox {
                    let _entered = order.runtime.enter();
                    // Whoever asked may have gone; then the child is dropped here, and killed by that.
                    let _unwanted = order.answer.send(order.command.spawn());
                }
            })?;
        Ok(Self {
            orders: Mutex::new(Some(orders)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Starts a process on the node's thread.
    pub(super) async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (answer, started) = oneshot::channel();
        let order = Order {
            command,
            runtime: tokio::runtime::Handle::current(),
            answer,
        };
        let gone = || io::Error::other("the node has stopped");
        self.orders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .ok_or_else(gone)?
            .send(order)
            .map_err(|_| gone())?;
        started.await.map_err(|_| gone())?
    }

    /// Ends the thread.
    pub(super) fn close(&self) {
        drop(self.orders.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|t| t.join().is_err()) {
            tracing::warn!("the sandbox node's thread panicked");
        }
    }
}

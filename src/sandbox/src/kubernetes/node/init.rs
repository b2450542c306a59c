//! A container's first program: makes the container's root, says so, and becomes the container's process.
//!
//! Runs inside the new namespaces as `diagbot-sandbox container-init <Launch as JSON>`. Where the PID namespace is new, it
//! is not in it itself: its child is PID 1, and it stays behind to tell how that ended. Its first line on stdout is for the
//! node: `ready <pid on the node>` or `failed <why>`; all that follows is the container's own output.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    os::unix::{
        fs::{PermissionsExt, chroot, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};

use super::launch::{self, Launch, as_identity};

/// Directories of the machine that every container sees; the rest of its root is its own.
const SHARED_DIRECTORIES: [&str; 11] = [
    "bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt", "dev", "sys",
];

/// First argument of a `container-init` that starts PID 1 of a new namespace instead of becoming the process.
pub(super) const AS_PARENT: &str = "--as-parent";

/// Entry of `container-init`; as the container's process it returns only on failure.
pub fn container_init(args: &[OsString]) -> ExitCode {
    let failure = match args {
        [parent, launch] if parent == AS_PARENT => match stay_behind(launch) {
            Ok(code) => return code,
            Err(error) => format!("{error:#}"),
        },
        _ => match enter(args) {
            Ok(never) => match never {},
            Err(error) => format!("{error:#}"),
        },
    };
    // The node reads one line; without a reader there is nobody to tell.
    let _unread = writeln!(io::stdout(), "failed {}", failure.replace('\n', " "));
    ExitCode::from(128)
}

/// Starts PID 1 and ends as it ends, with 128 + signal for one that was killed.
fn stay_behind(launch: &OsString) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("find this program")?;
    let ended = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .arg("container-init")
        .arg(launch)
        .status()
        .context("start the container's first process")?;
    let code = super::exit_code(ended);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

fn enter(args: &[OsString]) -> anyhow::Result<std::convert::Infallible> {
    let [launch] = args else {
        bail!("container-init takes one argument: what to launch")
    };
    let launch: Launch = serde_json::from_slice(launch.as_encoded_bytes()).context("read what to launch")?;
    let pid = node_pid()?;
    if let Some(root) = &launch.root {
        make_root(root, &launch)?;
        chroot(root).context("enter the container's root")?;
    }
    let directory = if launch.working_dir.is_empty() {
        "/"
    } else {
        launch.working_dir.as_str()
    };
    if launch.root.is_some() {
        std::env::set_current_dir(directory).with_context(|| format!("chdir to {directory:?}"))?;
    }
    let mut argv = launch.argv.clone();
    if launch.root.is_none() && argv.first().is_some_and(|p| *p == launch.program.1) {
        argv[0] = launch.program.0.to_string_lossy().into_owned();
    }
    check_program(argv.first().map_or("", String::as_str))?;
    let words = as_identity(&launch.identity, launch.take_identity, &argv);
    let mut stdout = io::stdout();
    writeln!(stdout, "ready {pid}")
        .and_then(|()| stdout.flush())
        .context("tell the node")?;
    Err(Command::new(&words[0]).args(&words[1..]).exec()).context("become the container's process")
}

/// Our PID as the node sees it: `/proc` is still the node's.
fn node_pid() -> anyhow::Result<String> {
    let link = fs::read_link("/proc/self").context("read /proc/self")?;
    Ok(link.to_string_lossy().into_owned())
}

fn make_root(root: &Path, launch: &Launch) -> anyhow::Result<()> {
    // What is mounted below the root must be seen by nobody else: the node removes these directories when the pod is gone.
    if launch::mount_namespace().context("read our mount namespace")? == launch.node_mounts {
        bail!("this is the node's own mount namespace");
    }
    let mut mounts: Vec<(PathBuf, PathBuf, &[&str])> = Vec::new();
    for name in SHARED_DIRECTORIES {
        let (there, here) = (Path::new("/").join(name), root.join(name));
        match fs::symlink_metadata(&there) {
            Ok(found) if found.is_symlink() => symlink(fs::read_link(&there)?, &here)?,
            Ok(found) if found.is_dir() => {
                fs::create_dir_all(&here)?;
                mounts.push((there, here, &["--rbind"]));
            }
            _ => {}
        }
    }
    for name in ["proc", "run", "var", "home"] {
        fs::create_dir_all(root.join(name))?;
    }
    for name in ["tmp", "var/tmp"] {
        let directory = root.join(name);
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o1777))?;
    }
    let program = root.join(launch.program.1.trim_start_matches('/'));
    fs::write(&program, [])?;
    mounts.push((launch.program.0.clone(), program, &["--bind"]));
    for (there, here) in &launch.binds {
        let here = root.join(here.trim_start_matches('/'));
        fs::create_dir_all(&here)?;
        mounts.push((there.clone(), here, &["--bind"]));
    }
    if launch.read_only_root {
        mount(&["--bind".as_ref(), root.as_os_str(), root.as_os_str()])?;
        mount(&["-o".as_ref(), "remount,bind,ro".as_ref(), root.as_os_str()])?;
    }
    for (there, here, options) in &mounts {
        let mut words: Vec<&std::ffi::OsStr> = options.iter().map(AsRef::as_ref).collect();
        words.extend([there.as_os_str(), here.as_os_str()]);
        mount(&words)?;
    }
    mount(&[
        "-t".as_ref(),
        "proc".as_ref(),
        "proc".as_ref(),
        root.join("proc").as_os_str(),
    ])
}

fn mount(words: &[&std::ffi::OsStr]) -> anyhow::Result<()> {
    let ended = Command::new("mount").args(words).output().context("run mount")?;
    if !ended.status.success() {
        bail!("mount {words:?}: {}", String::from_utf8_lossy(&ended.stderr).trim());
    }
    Ok(())
}

/// The runtime's refusal of a program that is not there, before anything runs.
fn check_program(program: &str) -> anyhow::Result<()> {
    if launch::has_program(Path::new("/"), program) {
        return Ok(());
    }
    bail!(
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: \
         unable to start container process: exec: {program:?}: {}",
        launch::why_not_found(program)
    )
}

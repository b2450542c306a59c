//! The cgroup part of the process report, for cgroup v2 and v1: memory, processor time, throttling, pressure.

use std::{fmt::Write as _, path::Path};

use super::process::amount;
use crate::{
    process::{ProcFs, Process, printable},
    rooted::Rooted,
};

/// Where runtimes mount cgroups.
const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// Files of cgroup v2 that are shown whole, in order.
const V2: [&str; 9] = [
    "memory.events",
    "cpu.max",
    "cpu.stat",
    "cpu.pressure",
    "memory.pressure",
    "io.pressure",
    "pids.current",
    "pids.max",
    "memory.swap.current",
];
/// Files of cgroup v1 by controller.
const V1: [(&str, &str); 7] = [
    ("memory", "memory.failcnt"),
    ("memory", "memory.oom_control"),
    ("cpu", "cpu.cfs_quota_us"),
    ("cpu", "cpu.cfs_period_us"),
    ("cpu", "cpu.stat"),
    ("pids", "pids.current"),
    ("pids", "pids.max"),
];
/// A v1 limit at or above this means none: the kernel's largest page-aligned value.
const NO_LIMIT_BYTES: u64 = 1 << 62;

/// Most bytes that are read of one file.
const MAX_READ_BYTES: u64 = 64 * 1024;

/// A mount of cgroups, and where the process's own files are in it. The target's mount is the target's: it is opened as
/// everything of the target is.
struct Mount {
    folder: Rooted,
    membership: String,
}

/// The report; says so where nothing can be read.
pub(super) fn report(proc_fs: &ProcFs, process: &Process) -> String {
    let mut out = String::new();
    for mount in mounts(proc_fs, process) {
        mount.report(&mut out);
        if !out.is_empty() {
            break;
        }
    }
    if out.is_empty() {
        out.push_str("(neither cgroup v2 nor v1 can be read from here; the pod's spec has the limits)\n");
    }
    pressure(&mut out, proc_fs);
    out
}

/// Bytes of memory that the process's cgroup may still take, where it has a limit that can be read.
pub(crate) fn memory_headroom_bytes(proc_fs: &ProcFs, process: &Process) -> Option<u64> {
    mounts(proc_fs, process).find_map(|mount| mount.memory_headroom_bytes())
}

/// As the target sees it, then as we see it.
fn mounts<'a>(proc_fs: &'a ProcFs, process: &'a Process) -> impl Iterator<Item = Mount> + 'a {
    let membership = proc_fs.text(process.pid, "cgroup").unwrap_or_default();
    let theirs = Rooted::root_of(&proc_fs.folder(process.pid)).and_then(|root| root.folder(MOUNT_POINT));
    let ours = || Rooted::at(Path::new(MOUNT_POINT));
    [theirs, ours()].into_iter().flatten().map(move |folder| Mount {
        folder,
        membership: membership.clone(),
    })
}

impl Mount {
    fn text(&self, path: &str) -> Option<String> {
        self.folder.text(path, MAX_READ_BYTES)
    }

    /// A path below the mount, or the mount itself in a cgroup namespace: where there is a file of that name.
    fn folder_with(&self, mount: &str, path: &str, file: &str) -> Option<String> {
        [format!("{mount}/{}", path.trim_matches('/')), mount.to_owned()]
            .into_iter()
            .find(|folder| self.text(&format!("{folder}/{file}")).is_some())
    }

    fn v2_folder(&self) -> Option<String> {
        let path = self.membership.lines().find_map(|line| line.strip_prefix("0::"))?;
        self.folder_with(".", path, "memory.current")
    }

    fn v1_folder(&self, controller: &str, file: &str) -> Option<String> {
        let path = self.membership.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|c| c == controller).then_some(path)
        });
        self.folder_with(controller, path.unwrap_or("/"), file)
    }

    fn report(&self, out: &mut String) {
        if let Some(folder) = self.v2_folder() {
            for (key, file) in [
                ("memory in use", "memory.current"),
                ("memory limit", "memory.max"),
                ("memory peak", "memory.peak"),
            ] {
                self.quantity(out, key, &format!("{folder}/{file}"));
            }
            for file in V2 {
                self.whole(out, file, &format!("{folder}/{file}"));
            }
            return;
        }
        for (key, file) in [
            ("memory in use", "memory.usage_in_bytes"),
            ("memory limit", "memory.limit_in_bytes"),
            ("memory peak", "memory.max_usage_in_bytes"),
        ] {
            if let Some(folder) = self.v1_folder("memory", file) {
                self.quantity(out, key, &format!("{folder}/{file}"));
            }
        }
        for (controller, file) in V1 {
            if let Some(folder) = self.v1_folder(controller, file) {
                self.whole(out, file, &format!("{folder}/{file}"));
            }
        }
    }

    fn memory_headroom_bytes(&self) -> Option<u64> {
        let number = |folder: &str, file: &str| self.text(&format!("{folder}/{file}"))?.trim().parse::<u64>().ok();
        let (limit, used) = if let Some(folder) = self.v2_folder() {
            (number(&folder, "memory.max")?, number(&folder, "memory.current")?)
        } else {
            let folder = self.v1_folder("memory", "memory.limit_in_bytes")?;
            (
                number(&folder, "memory.limit_in_bytes")?,
                number(&folder, "memory.usage_in_bytes")?,
            )
        };
        (limit < NO_LIMIT_BYTES).then(|| limit.saturating_sub(used))
    }

    fn quantity(&self, out: &mut String, key: &str, file: &str) {
        let Some(text) = self.text(file) else { return };
        match text.trim().parse::<u64>() {
            Ok(bytes) if bytes < NO_LIMIT_BYTES => amount(out, key, bytes),
            _ => {
                let _infallible = writeln!(out, "{key:<24} none");
            }
        }
    }

    fn whole(&self, out: &mut String, name: &str, file: &str) {
        let Some(text) = self.text(file) else { return };
        for line in text.lines().filter(|line| !line.is_empty()) {
            let _infallible = writeln!(out, "{name:<24} {}", printable(line));
        }
    }
}

/// The node's pressure, where the kernel tells it.
fn pressure(out: &mut String, proc_fs: &ProcFs) {
    for what in ["cpu", "memory", "io"] {
        let Some(text) = proc_fs.root_text(&format!("pressure/{what}")) else {
            continue;
        };
        for line in text.lines() {
            let _infallible = writeln!(out, "{:<24} {line}", format!("node {what} pressure"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(files: &[(&str, &str)], membership: &str) -> (tempfile::TempDir, Mount) {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            std::fs::write(path, text).expect("write");
        }
        let mount = Mount {
            folder: Rooted::at(folder.path()).expect("it opens"),
            membership: membership.to_owned(),
        };
        (folder, mount)
    }

    #[test]
    fn version_2_is_read_from_the_host_s_view_and_from_a_namespace() {
        for (folder, membership) in [("pod/", "0::/pod\n"), ("", "0::/\n"), ("", "0::/../unseen\n")] {
            let files = [
                ("memory.current", "1048576\n"),
                ("memory.max", "max\n"),
                ("cpu.stat", "nr_throttled 7\n"),
            ]
            .map(|(name, text)| (format!("{folder}{name}"), text));
            let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
            let (_folder, mount) = mount(&files, membership);
            let mut out = String::new();
            mount.report(&mut out);
            for part in ["1048576 (1.0 MiB)", "memory limit             none", "nr_throttled 7"] {
                assert!(out.contains(part), "{part} in\n{out}");
            }
            assert_eq!(mount.memory_headroom_bytes(), None);
        }
    }

    #[test]
    fn version_1_is_read_by_controller() {
        let files = [
            ("memory/kube/x/memory.limit_in_bytes", "4096\n"),
            ("memory/kube/x/memory.usage_in_bytes", "1024\n"),
            ("cpu/cpu.stat", "nr_throttled 3\n"),
        ];
        let (_folder, mount) = mount(&files, "4:memory:/kube/x\n2:cpu,cpuacct:/kube/x\n");
        let mut out = String::new();
        mount.report(&mut out);
        assert!(
            out.contains("4096 (4.0 KiB)") && out.contains("nr_throttled 3"),
            "{out}"
        );
        assert_eq!(mount.memory_headroom_bytes(), Some(3072));
    }
}

//! The cgroup part of the process report, for cgroup v2 and v1: memory, processor time, throttling, pressure.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::process::amount;
use crate::process::{ProcFs, Process, read_text};

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

/// The report; says so where nothing can be read.
pub(super) fn report(proc_fs: &ProcFs, process: &Process) -> String {
    let mounts = proc_fs.folder(process.pid).join("root/sys/fs/cgroup");
    let membership = proc_fs.text(process.pid, "cgroup").unwrap_or_default();
    let mut out = String::new();
    for base in [mounts, PathBuf::from("/sys/fs/cgroup")] {
        if let Some(folder) = v2_folder(&base, &membership) {
            v2(&mut out, &folder);
        } else if base.join("memory").is_dir() {
            v1(&mut out, &base, &membership);
        }
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

/// Where the process's own files are: its path below the mount, or the mount itself in a cgroup namespace.
fn v2_folder(base: &Path, membership: &str) -> Option<PathBuf> {
    let path = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    let below = base.join(path.trim_start_matches('/'));
    [below, base.to_owned()]
        .into_iter()
        .find(|folder| folder.join("memory.current").is_file())
}

fn v2(out: &mut String, folder: &Path) {
    for (key, file) in [
        ("memory in use", "memory.current"),
        ("memory limit", "memory.max"),
        ("memory peak", "memory.peak"),
    ] {
        quantity(out, key, &folder.join(file));
    }
    for file in V2 {
        whole(out, file, &folder.join(file));
    }
}

fn v1(out: &mut String, base: &Path, membership: &str) {
    let folder = |controller: &str| {
        let path = membership.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            parts
                .next()?
                .split(',')
                .any(|c| c == controller)
                .then(|| parts.next())
                .flatten()
        });
        let mount = base.join(controller);
        let below = mount.join(path.unwrap_or("/").trim_start_matches('/'));
        if below.is_dir() { below } else { mount }
    };
    let memory = folder("memory");
    quantity(out, "memory in use", &memory.join("memory.usage_in_bytes"));
    quantity(out, "memory limit", &memory.join("memory.limit_in_bytes"));
    quantity(out, "memory peak", &memory.join("memory.max_usage_in_bytes"));
    for (controller, file) in V1 {
        whole(out, file, &folder(controller).join(file));
    }
}

fn quantity(out: &mut String, key: &str, file: &Path) {
    let Some(text) = read_text(file) else { return };
    match text.trim().parse::<u64>() {
        Ok(bytes) if bytes < NO_LIMIT_BYTES => amount(out, key, bytes),
        _ => {
            let _infallible = writeln!(out, "{key:<24} none");
        }
    }
}

fn whole(out: &mut String, name: &str, file: &Path) {
    let Some(text) = read_text(file) else { return };
    for line in text.lines().filter(|line| !line.is_empty()) {
        let _infallible = writeln!(out, "{name:<24} {line}");
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

    #[test]
    fn both_versions_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let v2_base = folder.path().join("v2");
        std::fs::create_dir_all(v2_base.join("pod")).expect("folders");
        std::fs::write(v2_base.join("pod/memory.current"), "1048576\n").expect("write");
        std::fs::write(v2_base.join("pod/memory.max"), "max\n").expect("write");
        std::fs::write(v2_base.join("pod/cpu.stat"), "nr_throttled 7\n").expect("write");
        let mut out = String::new();
        v2(&mut out, &v2_folder(&v2_base, "0::/pod\n").expect("the folder"));
        assert!(
            out.contains("1048576 (1.0 MiB)") && out.contains("none") && out.contains("nr_throttled 7"),
            "{out}"
        );

        let v1_base = folder.path().join("v1");
        std::fs::create_dir_all(v1_base.join("memory/kube/x")).expect("folders");
        std::fs::write(
            v1_base.join("memory/kube/x/memory.limit_in_bytes"),
            "9223372036854771712\n",
        )
        .expect("write");
        std::fs::write(v1_base.join("memory/kube/x/memory.usage_in_bytes"), "2048\n").expect("write");
        let mut out = String::new();
        v1(&mut out, &v1_base, "4:memory:/kube/x\n");
        assert!(out.contains("2048 (2.0 KiB)") && out.contains("none"), "{out}");
    }
}

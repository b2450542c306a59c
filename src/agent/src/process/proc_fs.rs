//! `/proc`, read defensively: its texts are the target's, and processes vanish while they are read.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use diagbot_wire::text::is_hidden;

/// Most bytes that are read of one file of `/proc`.
const MAX_READ_BYTES: u64 = 256 * 1024;

/// A `/proc`; tests have one of their own.
#[derive(Debug, Clone)]
pub(crate) struct ProcFs(PathBuf);

/// One process, as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// PID in our PID namespace.
    pub(crate) pid: i32,
    /// PID of its parent.
    pub(crate) ppid: i32,
    /// PID in its own, innermost PID namespace: the one it knows itself by.
    pub(crate) own_pid: i32,
    /// Clock ticks since boot; together with the PID this names one process for ever.
    pub(crate) start_time: u64,
    /// Effective uid.
    pub(crate) uid: u32,
    /// Effective gid.
    pub(crate) gid: u32,
    /// Name that the process can choose.
    pub(crate) comm: String,
    /// Arguments.
    pub(crate) cmdline: Vec<String>,
    /// File name of the program, where we may read it.
    pub(crate) exe: Option<String>,
    /// Signals for which it has a handler, bit n-1 for signal n.
    pub(crate) caught_signals: u64,
    /// ID of its container, where its cgroup names one; else empty.
    pub(crate) container_id: String,
}

impl ProcFs {
    /// The machine's.
    pub(crate) fn system() -> Self {
        Self(PathBuf::from("/proc"))
    }

    /// Another one.
    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// The folder of a process.
    pub(crate) fn folder(&self, pid: i32) -> PathBuf {
        self.0.join(pid.to_string())
    }

    /// Every process that can be read, in no order.
    pub(crate) fn all(&self) -> Vec<Process> {
        let entries = fs::read_dir(&self.0)
            .map(|entries| entries.flatten().collect::<Vec<_>>())
            .unwrap_or_default();
        entries
            .iter()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter_map(|pid| self.read(pid))
            .collect()
    }

    /// One process; none if it is not there (any more).
    pub(crate) fn read(&self, pid: i32) -> Option<Process> {
        let stat = self.text(pid, "stat")?;
        // The name stands in parentheses and may hold anything, also parentheses: the last one ends it.
        let (head, tail) = stat.rsplit_once(')')?;
        let comm = printable(head.split_once('(')?.1);
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let status = self.text(pid, "status")?;
        let numbers = |key: &str| -> Vec<&str> {
            status
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .map_or(Vec::new(), |l| l.split_whitespace().collect())
        };
        let effective = |key: &str| numbers(key).get(1).and_then(|word| word.parse().ok());
        Some(Process {
            pid,
            ppid: fields.get(1)?.parse().ok()?,
            own_pid: numbers("NSpid:")
                .last()
                .and_then(|word| word.parse().ok())
                .unwrap_or(pid),
            start_time: fields.get(19)?.parse().ok()?,
            uid: effective("Uid:")?,
            gid: effective("Gid:")?,
            comm,
            cmdline: self.cmdline(pid),
            exe: fs::read_link(self.folder(pid).join("exe"))
                .ok()
                .and_then(|path| file_name(&path)),
            caught_signals: numbers("SigCgt:")
                .first()
                .and_then(|w| u64::from_str_radix(w, 16).ok())
                .unwrap_or(0),
            container_id: self
                .text(pid, "cgroup")
                .map(|text| container_id(&text))
                .unwrap_or_default(),
        })
    }

    /// A file of a process's folder as text; none where it can't be read. Long files are cut.
    pub(crate) fn text(&self, pid: i32, name: &str) -> Option<String> {
        read_text(&self.folder(pid).join(name))
    }

    /// Whether the process has a library loaded whose file name starts so; none where we may not look. Read in pieces: the
    /// map of a large process is longer than what [`ProcFs::text`] gives.
    pub(crate) fn maps_library(&self, pid: i32, file_name: &str) -> Option<bool> {
        let maps = fs::File::open(self.folder(pid).join("maps")).ok()?;
        let wanted = format!("/{file_name}");
        let mut seen = false;
        for line in BufReader::new(maps).split(b'\n') {
            // A process that ends or drops its rights meanwhile has told us nothing.
            let line = line.ok()?;
            let line = String::from_utf8_lossy(&line);
            seen = seen || line.rfind('/').is_some_and(|at| line[at..].starts_with(&wanted));
        }
        Some(seen)
    }

    /// A file below the root of `/proc`, as text.
    pub(crate) fn root_text(&self, name: &str) -> Option<String> {
        read_text(&self.0.join(name))
    }

    /// Hands on the lines of a file below the root of `/proc`, however many there are; none where it can't be read.
    pub(crate) fn root_lines(&self, name: &str, mut take: impl FnMut(&str)) {
        let Ok(file) = fs::File::open(self.0.join(name)) else {
            return;
        };
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            take(&String::from_utf8_lossy(&line));
        }
    }

    fn cmdline(&self, pid: i32) -> Vec<String> {
        let text = self.text(pid, "cmdline").unwrap_or_default();
        text.trim_end_matches('\0')
            .split('\0')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

/// Text that a process chose, on one line: hidden characters, which could make a report say something else, are seen as such.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if is_hidden(c) { '\u{fffd}' } else { c })
        .collect()
}

/// A file as text, cut at [`MAX_READ_BYTES`]; bytes that are no UTF-8 are replaced.
pub(crate) fn read_text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .ok()?
        .take(MAX_READ_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn file_name(path: &Path) -> Option<String> {
    // A program that was replaced while it runs reads `java (deleted)`.
    path.file_name()
        .map(|name| name.to_string_lossy().trim_end_matches(" (deleted)").to_owned())
}

/// The last run of 64 hexadecimal digits: how container runtimes name cgroups.
fn container_id(cgroup: &str) -> String {
    cgroup
        .split(|c: char| !c.is_ascii_hexdigit())
        .rfind(|word| word.len() == 64)
        .map(str::to_owned)
        .unwrap_or_default()
}

impl Process {
    /// Whether it is this very process still: same PID, same start.
    pub(crate) fn is_still_there(&self, proc_fs: &ProcFs) -> bool {
        proc_fs
            .read(self.pid)
            .is_some_and(|now| now.start_time == self.start_time)
    }

    /// Whether it has a handler for the signal.
    pub(crate) fn catches(&self, signal: rustix::process::Signal) -> bool {
        self.caught_signals & (1 << (signal.as_raw() - 1)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_is_named_by_its_cgroup() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        assert_eq!(container_id(&format!("4:memory:/kubepods/besteffort/podx/{id}\n")), id);
        assert_eq!(container_id(&format!("0::/../cri-containerd-{id}.scope\n")), id);
        assert_eq!(container_id("0::/\n"), "");
    }

    #[test]
    fn a_name_can_not_start_a_line_of_its_own() {
        assert_eq!(
            printable("worker\n== Limits ==\u{202e}x"),
            "worker\u{fffd}== Limits ==\u{fffd}x"
        );
    }

    #[test]
    fn libraries_are_found_by_file_name() {
        let pid = i32::try_from(std::process::id()).expect("a PID");
        let proc_fs = ProcFs::system();
        assert_eq!(proc_fs.maps_library(pid, "libc."), Some(true));
        assert_eq!(proc_fs.maps_library(pid, "libjvm.so"), Some(false));
        assert_eq!(proc_fs.maps_library(-1, "libc."), None);
    }

    #[test]
    fn we_read_ourselves() {
        let pid = i32::try_from(std::process::id()).expect("a PID");
        let proc_fs = ProcFs::system();
        let own = proc_fs.read(pid).expect("ourselves");
        assert_eq!(own.pid, pid);
        assert!(own.is_still_there(&proc_fs));
        assert!(
            !Process {
                start_time: own.start_time + 1,
                ..own
            }
            .is_still_there(&proc_fs)
        );
    }
}

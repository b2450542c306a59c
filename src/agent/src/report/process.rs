//! The process report: what it is, its limits, threads, descriptors and cgroup.

use std::{collections::BTreeMap, fmt::Write as _, fs, time::Duration};

use super::{cgroup, human};
use crate::process::{ProcFs, Process, printable, read_text};

/// Most threads that are listed; the rest is counted.
const MAX_THREADS: usize = 2_000;
/// Most descriptors that are looked at.
const MAX_DESCRIPTORS: usize = 20_000;
/// Clock ticks a second in `/proc/<pid>/stat`: fixed for all that Linux shows to programs (`USER_HZ`, proc(5)).
const TICKS_PER_S: u64 = 100;
/// Lines of `/proc/<pid>/status` that are shown.
const STATUS: [&str; 16] = [
    "State",
    "PPid",
    "NSpid",
    "Uid",
    "Gid",
    "Groups",
    "VmPeak",
    "VmSize",
    "VmHWM",
    "VmRSS",
    "VmSwap",
    "Threads",
    "CapEff",
    "NoNewPrivs",
    "Seccomp",
    "voluntary_ctxt_switches",
];

/// The report. What we may not read is said, not left out.
pub(crate) fn process(proc_fs: &ProcFs, process: &Process) -> String {
    let mut out = String::new();
    let pid = process.pid;
    section(&mut out, "Process");
    line(&mut out, "PID", &pid.to_string());
    line(
        &mut out,
        "program",
        &process
            .exe
            .as_deref()
            .map_or("(not readable for our uid)".to_owned(), printable),
    );
    // Arguments can hold secrets, so only the program and their number are shown.
    let argv0 = process.cmdline.first().map_or("", String::as_str);
    line(&mut out, "argv[0]", &printable(argv0));
    line(
        &mut out,
        "arguments",
        &process.cmdline.len().saturating_sub(1).to_string(),
    );
    if let Some(age) = age(proc_fs, process) {
        line(&mut out, "running for", &format!("{} s", age.as_secs()));
    }
    let status = proc_fs.text(pid, "status").unwrap_or_default();
    for (key, value) in status
        .lines()
        .filter_map(|l| l.split_once(':'))
        .filter(|(key, _)| STATUS.contains(key))
    {
        line(&mut out, key, value.trim());
    }
    line(
        &mut out,
        "oom_score",
        proc_fs.text(pid, "oom_score").unwrap_or_default().trim(),
    );
    line(
        &mut out,
        "oom_score_adj",
        proc_fs.text(pid, "oom_score_adj").unwrap_or_default().trim(),
    );
    section(&mut out, "Limits");
    out.push_str(
        &proc_fs
            .text(pid, "limits")
            .unwrap_or_else(|| "(not readable)\n".to_owned()),
    );
    section(&mut out, "Cgroup");
    out.push_str(&cgroup::report(proc_fs, process));
    section(&mut out, "Descriptors");
    descriptors(&mut out, proc_fs, pid);
    section(&mut out, "Threads");
    threads(&mut out, proc_fs, pid);
    out
}

fn section(out: &mut String, name: &str) {
    let _infallible = writeln!(out, "{}== {name} ==", if out.is_empty() { "" } else { "\n" });
}

fn line(out: &mut String, key: &str, value: &str) {
    let _infallible = writeln!(out, "{key:<24} {value}");
}

fn age(proc_fs: &ProcFs, process: &Process) -> Option<Duration> {
    let uptime: f64 = proc_fs.root_text("uptime")?.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_secs(
        (uptime as u64).saturating_sub(process.start_time / TICKS_PER_S),
    ))
}

/// How many descriptors of each kind are open.
fn descriptors(out: &mut String, proc_fs: &ProcFs, pid: i32) {
    let Ok(entries) = fs::read_dir(proc_fs.folder(pid).join("fd")) else {
        out.push_str("(not readable for our uid)\n");
        return;
    };
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut total = 0;
    for entry in entries.flatten().take(MAX_DESCRIPTORS) {
        total += 1;
        let path = fs::read_link(entry.path())
            .map(|p| p.to_string_lossy().into_owned())
            .unwrap_or_default();
        *kinds.entry(kind_of(&path).to_owned()).or_default() += 1;
    }
    line(out, "open", &total.to_string());
    for (kind, count) in kinds {
        line(out, &format!("  {kind}"), &count.to_string());
    }
}

/// The kind of a descriptor, from where its link leads.
fn kind_of(link: &str) -> &str {
    match link.split_once(':') {
        Some(("socket" | "pipe", _)) => link.split(':').next().unwrap_or(link),
        Some(("anon_inode", kind)) => kind.trim_matches(['[', ']']),
        _ if link.starts_with("/dev/") => "device",
        _ if link.ends_with(" (deleted)") => "deleted file",
        _ if link.is_empty() => "unknown",
        _ => "file",
    }
}

/// Each thread with its state, processor time and where it waits in the kernel; busiest first.
fn threads(out: &mut String, proc_fs: &ProcFs, pid: i32) {
    let Ok(entries) = fs::read_dir(proc_fs.folder(pid).join("task")) else {
        out.push_str("(not readable)\n");
        return;
    };
    let mut rows: Vec<(u64, String)> = Vec::new();
    let mut states: BTreeMap<char, usize> = BTreeMap::new();
    for entry in entries.flatten() {
        let Some(stat) = read_text(&entry.path().join("stat")) else {
            continue;
        };
        let Some((head, tail)) = stat.rsplit_once(')') else {
            continue;
        };
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let number = |index: usize| {
            fields
                .get(index)
                .and_then(|w| w.parse::<u64>().ok())
                .unwrap_or_default()
        };
        let state = fields.first().and_then(|w| w.chars().next()).unwrap_or('?');
        *states.entry(state).or_default() += 1;
        let ticks = number(11) + number(12);
        let (tid, name) = head.split_once(" (").unwrap_or((head, ""));
        let name = printable(name);
        let wait = read_text(&entry.path().join("wchan")).unwrap_or_default();
        let seconds = ticks as f64 / TICKS_PER_S as f64;
        rows.push((
            ticks,
            format!("{tid:>8}  {state}  {seconds:>10.2} s  {name:<18} {wait}"),
        ));
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.0));
    let counted: Vec<_> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    line(out, "threads", &format!("{} ({})", rows.len(), counted.join(", ")));
    let _infallible = writeln!(out, "{:>8}  S  {:>12}  {:<18} kernel wait", "TID", "CPU time", "name");
    for (_, row) in rows.iter().take(MAX_THREADS) {
        out.push_str(row);
        out.push('\n');
    }
    if rows.len() > MAX_THREADS {
        let _infallible = writeln!(out, "… and {} more", rows.len() - MAX_THREADS);
    }
}

pub(super) fn amount(out: &mut String, key: &str, bytes: u64) {
    line(out, key, &format!("{bytes} ({})", human(bytes)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_told_apart_by_where_their_links_lead() {
        for (link, kind) in [
            ("socket:[1]", "socket"),
            ("pipe:[2]", "pipe"),
            ("anon_inode:[eventpoll]", "eventpoll"),
            ("/dev/null", "device"),
            ("/tmp/x (deleted)", "deleted file"),
            ("/var/log/app.log", "file"),
            ("", "unknown"),
        ] {
            assert_eq!(kind_of(link), kind);
        }
    }

    #[test]
    fn the_report_of_ourselves_has_every_part() {
        let proc_fs = ProcFs::system();
        let own = proc_fs
            .read(i32::try_from(std::process::id()).expect("a PID"))
            .expect("ourselves");
        let text = process(&proc_fs, &own);
        for part in [
            "== Process ==",
            "VmRSS",
            "Max open files",
            "== Cgroup ==",
            "open ",
            "threads ",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}

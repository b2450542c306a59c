//! Which process a step looks at. Pure: decides over a list of processes.

use std::collections::BTreeMap;

use diagbot_wire::args::ProcessSelector;

use super::{ProcFs, Process};

/// Programs that only start others.
const WRAPPERS: [&str; 14] = [
    "ash",
    "bash",
    "busybox",
    "catatonit",
    "dash",
    "docker-init",
    "dumb-init",
    "env",
    "gosu",
    "ksh",
    "sh",
    "su-exec",
    "tini",
    "zsh",
];

/// One minute in clock ticks, which are 100 a second wherever Linux shows them to programs.
const STAYED_TICKS: u64 = 60 * 100;

/// The process for a selector in each container that has one, the oldest first; one where the container is alone with its
/// processes or can't be told. `own_pid` is never chosen, nor is any other agent.
pub(crate) fn choose(processes: &[Process], selector: ProcessSelector, own_pid: i32, proc_fs: &ProcFs) -> Vec<Process> {
    let mut containers: BTreeMap<&str, Vec<&Process>> = BTreeMap::new();
    let candidates = processes
        .iter()
        .filter(|p| p.pid != own_pid && !p.cmdline.is_empty() && !is_agent(p) && !is_pause(p));
    for process in candidates {
        containers.entry(&process.container_id).or_default().push(process);
    }
    let now = processes.iter().find(|p| p.pid == own_pid).map(|own| own.start_time);
    let mut chosen: Vec<Process> = containers
        .into_values()
        .filter_map(|mut by_age| {
            by_age.sort_by_key(|p| (p.start_time, p.pid));
            match selector {
                ProcessSelector::None => None,
                ProcessSelector::Jvm => by_age.into_iter().find(|p| is_jvm(p, proc_fs)).cloned(),
                ProcessSelector::Main => main_process(&by_age, now).cloned(),
            }
        })
        .collect();
    chosen.sort_by_key(|p| (p.start_time, p.pid));
    chosen
}

/// The oldest process, or what a wrapper has started in the end. `now` is when we were started ourselves, in ticks.
fn main_process<'a>(by_age: &[&'a Process], now: Option<u64>) -> Option<&'a Process> {
    let mut chosen = *by_age.first()?;
    // Each step goes to a younger process, so the walk ends.
    while is_wrapper(chosen) {
        match by_age.iter().find(|p| {
            p.ppid == chosen.pid
                && (p.start_time, p.pid) > (chosen.start_time, chosen.pid)
                && has_stayed(p, chosen, now)
        }) {
            Some(child) => chosen = child,
            None => break,
        }
    }
    Some(chosen)
}

/// Whether a wrapper's child is what it was started for, and not one of the short-lived programs that a script calls: it
/// has lived for a minute, or for half of the wrapper's life.
fn has_stayed(child: &Process, wrapper: &Process, now: Option<u64>) -> bool {
    let Some(now) = now else { return true };
    let age = |process: &Process| now.saturating_sub(process.start_time);
    age(child) >= STAYED_TICKS || age(child).saturating_mul(2) >= age(wrapper)
}

fn program(process: &Process) -> &str {
    let argv0 = process.cmdline.first().map_or("", String::as_str);
    process
        .exe
        .as_deref()
        .unwrap_or_else(|| argv0.rsplit('/').next().unwrap_or(argv0))
}

fn is_wrapper(process: &Process) -> bool {
    WRAPPERS.contains(&program(process).trim_start_matches('-'))
}

/// The pod's sandbox process, which is PID 1 where the pod shares its PID namespace.
fn is_pause(process: &Process) -> bool {
    program(process) == "pause" || (process.pid == 1 && process.cmdline.iter().any(|word| word == "2147483647"))
}

/// An agent of another capture, also one that has not ended yet.
fn is_agent(process: &Process) -> bool {
    let has = |prefix: &str| process.cmdline.iter().any(|word| word.starts_with(prefix));
    (has("--capture=") && has("--nonce=")) || process.comm == "diagbot-agent"
}

fn is_jvm(process: &Process, proc_fs: &ProcFs) -> bool {
    // The program's name tells for most; a JVM inside another launcher is told by its library, where we may look.
    program(process) == "java" || proc_fs.maps_library(process.pid, "libjvm.so") == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, ppid: i32, cmdline: &[&str]) -> Process {
        Process {
            pid,
            ppid,
            own_pid: pid,
            start_time: 100 + u64::try_from(pid).expect("a PID"),
            uid: 1000,
            gid: 1000,
            comm: cmdline[0].rsplit('/').next().unwrap_or_default().to_owned(),
            cmdline: cmdline.iter().map(|w| (*w).to_owned()).collect(),
            exe: None,
            caught_signals: 0,
            container_id: String::new(),
        }
    }

    fn all_chosen(processes: &[Process], selector: ProcessSelector) -> Vec<i32> {
        let proc_fs = ProcFs::at(std::path::Path::new("/nonexistent"));
        let chosen = choose(processes, selector, 99, &proc_fs);
        chosen.iter().map(|p| p.pid).collect()
    }

    fn chosen(processes: &[Process], selector: ProcessSelector) -> Option<i32> {
        let all = all_chosen(processes, selector);
        assert!(all.len() <= 1, "one container, one process");
        all.first().copied()
    }

    #[test]
    fn containers_that_share_their_processes_are_told_apart() {
        let of = |container: &str, mut process: Process| {
            process.container_id = container.to_owned();
            process
        };
        let processes = [
            process(1, 0, &["/pause"]),
            of("b", process(20, 0, &["java", "-jar", "b"])),
            of("a", process(10, 0, &["/bin/sh", "-c", "java -jar a"])),
            of("a", process(12, 10, &["java", "-jar", "a"])),
            of("c", process(30, 0, &["/ledger"])),
        ];
        assert_eq!(all_chosen(&processes, ProcessSelector::Jvm), [12, 20]);
        assert_eq!(all_chosen(&processes, ProcessSelector::Main), [12, 20, 30]);
    }

    #[test]
    fn a_shell_in_front_is_passed_over() {
        let processes = [
            process(1, 0, &["/bin/sh", "-c", "java -jar x"]),
            process(7, 1, &["java", "-jar", "x"]),
        ];
        assert_eq!(chosen(&processes, ProcessSelector::Main), Some(7));
        assert_eq!(chosen(&processes, ProcessSelector::Jvm), Some(7));
        assert_eq!(chosen(&processes[..1], ProcessSelector::Main), Some(1));
        assert_eq!(chosen(&processes[..1], ProcessSelector::Jvm), None);
    }

    #[test]
    fn a_script_is_the_target_itself_and_not_what_it_calls_in_passing() {
        let started = |mut process: Process, at: u64| {
            process.start_time = at;
            process
        };
        let script = started(
            process(1, 0, &["/bin/sh", "-c", "while :; do work; sleep 1; done"]),
            100,
        );
        let agent = started(process(99, 0, &["/diagbot-agent", "run"]), 10_000);
        let called = started(process(50, 1, &["sleep", "1"]), 9_950);
        let stayed = started(process(51, 1, &["/server"]), 4_000);
        assert_eq!(
            chosen(&[script.clone(), called, agent.clone()], ProcessSelector::Main),
            Some(1)
        );
        assert_eq!(chosen(&[script, stayed, agent], ProcessSelector::Main), Some(51));
    }

    #[test]
    fn neither_pause_nor_any_agent_is_the_target() {
        let processes = [
            process(1, 0, &["/pause"]),
            process(5, 0, &["/diagbot-agent", "run", "--capture=d-x-0-1", "--nonce=00"]),
            process(9, 0, &["/ledger"]),
            process(99, 0, &["/diagbot-agent", "run"]),
        ];
        assert_eq!(chosen(&processes, ProcessSelector::Main), Some(9));
        assert_eq!(chosen(&processes[..2], ProcessSelector::Main), None);
        assert_eq!(chosen(&processes, ProcessSelector::None), None);
    }

    #[test]
    fn an_agent_is_known_by_its_name_or_by_its_arguments() {
        let by_arguments = process(5, 0, &["/renamed", "run", "--capture=d-x-0-1", "--nonce=00"]);
        // One that is about to end has no arguments any more that we could read in full.
        let by_name = process(6, 0, &["/diagbot-agent", "cat"]);
        for agent in [by_arguments, by_name] {
            assert_eq!(
                chosen(std::slice::from_ref(&agent), ProcessSelector::Main),
                None,
                "{agent:?}"
            );
        }
    }

    #[test]
    fn a_child_as_old_as_half_of_its_wrapper_is_the_target() {
        let started = |mut process: Process, at: u64| {
            process.start_time = at;
            process
        };
        let agent = started(process(99, 0, &["/diagbot-agent", "run"]), 2_000);
        let wrapper = started(process(1, 0, &["/bin/sh", "-c", "prepare; serve"]), 1_000);
        for (at, expected) in [(1_500, 51), (1_501, 1)] {
            let server = started(process(51, 1, &["/server"]), at);
            let all = [wrapper.clone(), server, agent.clone()];
            assert_eq!(chosen(&all, ProcessSelector::Main), Some(expected), "started at {at}");
        }
    }

    #[test]
    fn a_process_that_only_calls_itself_java_by_comm_is_no_jvm() {
        let mut liar = process(3, 0, &["/ledger"]);
        liar.comm = "java".to_owned();
        liar.exe = Some("ledger".to_owned());
        assert_eq!(chosen(&[liar], ProcessSelector::Jvm), None);
    }
}

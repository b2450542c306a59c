//! HotSpot thread dumps (`Thread.print`): states, deadlocks, the place where most blocked threads stand.

use std::collections::BTreeMap;

use crate::{Analyzer, counted};

/// Most different places that are counted; a dump with more is counted up to here.
const MAX_PLACES: usize = 4_096;
/// Most threads of deadlocks that are named.
const MAX_DEADLOCKED: usize = 6;

/// Reads one thread dump.
#[derive(Debug, Default)]
pub struct ThreadDump {
    states: BTreeMap<String, usize>,
    blocked_at: BTreeMap<String, usize>,
    /// State of the thread at hand, until its first frame is seen.
    state: Option<String>,
    deadlocks: usize,
    deadlocked: Vec<String>,
    section: Section,
}

#[derive(Debug, Default, PartialEq)]
enum Section {
    #[default]
    Threads,
    Deadlock,
    DeadlockStacks,
}

impl Analyzer for ThreadDump {
    fn line(&mut self, line: &str) {
        if line.starts_with("Found one Java-level deadlock") {
            self.deadlocks += 1;
            self.section = Section::Deadlock;
        } else if line.starts_with("Java stack information for the threads listed above") {
            self.section = Section::DeadlockStacks;
        } else if self.section == Section::Deadlock {
            if let Some(name) = line.strip_prefix('"').and_then(|rest| rest.strip_suffix("\":"))
                && self.deadlocked.len() < MAX_DEADLOCKED
            {
                self.deadlocked.push(name.to_owned());
            }
        } else if self.section == Section::Threads {
            self.thread_line(line.trim_start());
        }
    }

    fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        if self.deadlocks > 0 {
            let names: Vec<_> = self.deadlocked.iter().map(|name| format!("\"{name}\"")).collect();
            findings.push(format!(
                "{}: {} wait for each other",
                counted(self.deadlocks, "deadlock"),
                names.join(", ")
            ));
        }
        if let Some((place, count)) = self.blocked_at.iter().max_by_key(|(_, count)| **count) {
            findings.push(format!("{} BLOCKED at {place}", counted(*count, "thread")));
        }
        let total: usize = self.states.values().sum();
        if total > 0 {
            let states: Vec<_> = self
                .states
                .iter()
                .map(|(state, count)| format!("{count} {state}"))
                .collect();
            findings.push(format!("{total} Java threads: {}", states.join(", ")));
        }
        findings
    }
}

impl ThreadDump {
    fn thread_line(&mut self, line: &str) {
        if let Some(state) = line.strip_prefix("java.lang.Thread.State: ") {
            let word = state.split_whitespace().next().unwrap_or_default();
            if word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') && !word.is_empty() && word.len() < 20 {
                *self.states.entry(word.to_owned()).or_default() += 1;
                self.state = Some(word.to_owned());
            }
        } else if let Some(frame) = line.strip_prefix("at ")
            && self.state.take().as_deref() == Some("BLOCKED")
            && (self.blocked_at.len() < MAX_PLACES || self.blocked_at.contains_key(frame))
        {
            *self.blocked_at.entry(frame.to_owned()).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lines;

    const DUMP: &str = r#"
"transfer-1" #12 prio=5 os_prio=0 cpu=1.2ms elapsed=3.4s tid=0x1 nid=0x2 waiting for monitor entry
   java.lang.Thread.State: BLOCKED (on object monitor)
	at shop.Ledger.transfer(Ledger.java:42)
	- waiting to lock <0x1> (a java.lang.Object)
	at shop.Ledger.run(Ledger.java:7)

"transfer-2" #13 prio=5
   java.lang.Thread.State: BLOCKED (on object monitor)
	at shop.Ledger.transfer(Ledger.java:42)

"main" #1 prio=5
   java.lang.Thread.State: TIMED_WAITING (sleeping)
	at java.lang.Thread.sleep(java.base@17/Native Method)

Found one Java-level deadlock:
=============================
"transfer-1":
  waiting to lock monitor 0x1 (object 0x1, a java.lang.Object),
  which is held by "transfer-2"

"transfer-2":
  waiting to lock monitor 0x2 (object 0x2, a java.lang.Object),
  which is held by "transfer-1"

Java stack information for the threads listed above:
===================================================
"transfer-1":
	at shop.Ledger.transfer(Ledger.java:42)
"#;

    #[test]
    fn a_deadlock_comes_first_then_the_contended_place_then_the_states() {
        let mut lines = Lines::new(ThreadDump::default());
        for chunk in DUMP.as_bytes().chunks(7) {
            lines.push(chunk);
        }
        assert_eq!(
            lines.finish(),
            [
                "1 deadlock: \"transfer-1\", \"transfer-2\" wait for each other",
                "2 threads BLOCKED at shop.Ledger.transfer(Ledger.java:42)",
                "3 Java threads: 2 BLOCKED, 1 TIMED_WAITING",
            ]
        );
    }

    fn findings_of(dump: &str) -> Vec<String> {
        let mut lines = Lines::new(ThreadDump::default());
        lines.push(dump.as_bytes());
        lines.finish()
    }

    #[test]
    fn the_place_with_the_most_blocked_threads_is_named() {
        let blocked = |place: &str| format!("java.lang.Thread.State: BLOCKED (on object monitor)\n\tat {place}\n");
        let dump = [
            "shop.A.a(A.java:1)",
            "shop.M.m(M.java:2)",
            "shop.M.m(M.java:2)",
            "shop.M.m(M.java:2)",
            "shop.Z.z(Z.java:3)",
            "shop.Z.z(Z.java:3)",
        ]
        .map(blocked)
        .concat();
        assert_eq!(findings_of(&dump)[0], "3 threads BLOCKED at shop.M.m(M.java:2)");
    }

    #[test]
    fn a_deadlock_of_many_threads_names_six() {
        let names = [1, 2, 3, 4, 5, 6, 7, 8, 9]
            .map(|n| format!("\"t-{n}\":\n  waiting\n"))
            .concat();
        let dump = format!("Found one Java-level deadlock:\n====\n{names}");
        assert_eq!(
            findings_of(&dump),
            [r#"1 deadlock: "t-1", "t-2", "t-3", "t-4", "t-5", "t-6" wait for each other"#]
        );
    }

    #[test]
    fn text_that_is_no_thread_dump_gives_no_findings() {
        let mut lines = Lines::new(ThreadDump::default());
        lines.push(&vec![0xff; 100_000]);
        lines.push(b"\nhello\n");
        assert!(lines.finish().is_empty());
    }
}

//! The memory of processes, as the kernel counts it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::Context as _;
use tokio::task::JoinSet;

/// Time between two looks for agents; a capture takes longer.
const LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// The most that a process ever had resident, in MiB.
pub(crate) fn peak_mib(pid: u32) -> anyhow::Result<f64> {
    field_mib(pid, "VmHWM:")
}

/// What a process has resident, in MiB.
pub(crate) fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    field_mib(pid, "VmRSS:")
}

/// The part of it that is the process's own, without the pages of its program, in MiB.
pub(crate) fn own_mib(pid: u32) -> anyhow::Result<f64> {
    field_mib(pid, "RssAnon:")
}

fn field_mib(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read a process's status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with(field))
        .with_context(|| format!("the process has no {field}"))?;
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("{line} is no number"))?;
    Ok(kib / 1024.0)
}

/// Looks at every agent on this machine until it is dropped; remembers the highest peak.
pub(crate) struct AgentWatch {
    most_kib: Arc<AtomicU64>,
    // Aborted when it is dropped.
    _looking: JoinSet<()>,
}

impl AgentWatch {
    /// Begins to look.
    pub(crate) fn start() -> Self {
        let most_kib = Arc::new(AtomicU64::new(0));
        let most = Arc::clone(&most_kib);
        let mut looking = JoinSet::new();
        looking.spawn(async move {
            let mut ticks = tokio::time::interval(LOOK);
            loop {
                ticks.tick().await;
                for pid in agents() {
                    // One that has just ended has nothing to tell.
                    if let Ok(mib) = peak_mib(pid) {
                        most.fetch_max((mib * 1024.0) as u64, Ordering::Relaxed);
                    }
                }
            }
        });
        Self {
            most_kib,
            _looking: looking,
        }
    }

    /// The highest peak of any agent so far, in MiB; none was seen: not a number.
    pub(crate) fn peak_mib(&self) -> f64 {
        match self.most_kib.load(Ordering::Relaxed) {
            0 => f64::NAN,
            kib => kib as f64 / 1024.0,
        }
    }
}

/// Processes whose program is the agent's; a container's process is also one of its node.
fn agents() -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "diagbot-agent")
        })
        .collect()
}

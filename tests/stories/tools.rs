//! Diagnostics that misbehave, and where their processes are.

use std::{fs, time::Duration};

use diagbot_sandbox::{installation::Plan, wait};
use tokio::process::Command;

/// The local node's image of the agent, which finds the machine's own tools beside it.
pub(crate) const AGENT: &str =
    "registry.sandbox/diagbot-agent@sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// A plan with one more diagnostic, which runs these words.
pub(crate) fn with_tool(name: &str, argv: &[&str], deadline: &str, limit: &str) -> Plan {
    let mut plan = Plan {
        diagnostics: vec![tool(name, argv, deadline, limit)],
        ..Plan::default()
    };
    // Several runs in a row in one channel: Slack's own pace is another story's.
    plan.slack.rate_limited = false;
    plan
}

/// File name and content of a diagnostic that runs these words.
pub(crate) fn tool(name: &str, argv: &[&str], deadline: &str, limit: &str) -> (String, String) {
    let argv = serde_json::to_string(argv).unwrap();
    let text = format!(
        "name: {name}\nsummary: A tool that misbehaves\nmethod: ephemeral\nimage: {AGENT}\nargv: {argv}\nprocess: none\nidentity: target\n\
         deadline: {deadline}\nlimit: {limit}\nartifact: {{ name: {name}.txt, mediaType: text/plain, output: text }}\n\
         sensitivity: normal\nimpact: none\n"
    );
    (format!("{name}.yaml"), text)
}

/// Seconds for a `sleep` that no other process of the machine has, whoever else runs the same story.
pub(crate) fn seconds_of_our_own(seconds: &str) -> String {
    format!("{seconds}.{:07}", std::process::id())
}

/// Numbers of the processes whose command line ends so.
pub(crate) fn processes(ending: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&words).replace('\0', " ");
            line.trim_end().ends_with(ending)
        })
        .collect()
}

/// Waits until so many processes have a command line that ends so.
pub(crate) async fn until_processes(ending: &str, count: usize, limit: Duration) {
    wait::until(limit, &format!("{count} processes {ending:?}"), || async {
        Ok((processes(ending).len() == count).then_some(()))
    })
    .await
    .unwrap();
}

/// The agent that started the tool.
pub(crate) fn agent_of(tool: &str) -> u32 {
    let tools = processes(tool);
    let agent = tools
        .iter()
        .map(|pid| parent(*pid))
        .find(|parent| !tools.contains(parent));
    agent.unwrap()
}

fn parent(pid: u32) -> u32 {
    field(pid, "PPid:").trim().parse().unwrap_or_default()
}

fn is_stopped(pid: u32) -> bool {
    field(pid, "State:").trim().starts_with('T')
}

fn field(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().to_owned()
}

/// Sends a process a signal, by the name that `kill` takes.
pub(crate) async fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill")
        .args([name, &pid.to_string()])
        .status()
        .await
        .unwrap();
    assert!(sent.success());
}

/// Lets a process go on that was stopped, and what started it and stood still with it.
pub(crate) async fn go_on(pid: u32) {
    let mut standing = pid;
    while is_stopped(standing) {
        signal("-CONT", standing).await;
        standing = parent(standing);
    }
}

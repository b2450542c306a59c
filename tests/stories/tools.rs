//! Diagnostics that misbehave, and where their processes are.

use std::{fs, time::Duration};

use diagbot_sandbox::{installation::Plan, wait};

/// The local node's image of the agent, which finds the machine's own tools beside it.
const AGENT: &str =
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

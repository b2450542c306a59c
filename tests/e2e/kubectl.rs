//! `kubectl` as the stories' own hands: what an administrator or the cluster itself would do to a pod.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// Longest time of one call; `wait` and `delete` stay under it.
const DEADLINE: Duration = Duration::from_mins(2);

/// Runs `kubectl` with arguments and, if given, a text on its standard input; returns what it printed.
pub(crate) async fn kubectl(arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
    run("kubectl", arguments, input).await
}

/// Runs a program to its end; a failure carries what it said.
pub(crate) async fn run(program: &str, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {program}"))?;
    if let Some(text) = input {
        let mut stdin = child.stdin.take().context("standard input is piped")?;
        stdin.write_all(text.as_bytes()).await.context("write to kubectl")?;
    }
    let output = timeout(DEADLINE, child.wait_with_output())
        .await
        .with_context(|| format!("{program} {} took too long", arguments.join(" ")))??;
    if !output.status.success() {
        bail!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What `kubectl` prints to its standard output, however it ends.
pub(crate) async fn printed(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("kubectl")
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(DEADLINE, output).await.context("kubectl took too long")??;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Applies a manifest.
pub(crate) async fn apply(manifest: &str) -> anyhow::Result<()> {
    kubectl(
        &["apply", "--server-side", "--force-conflicts", "-f", "-"],
        Some(manifest),
    )
    .await?;
    Ok(())
}

/// Applies a file.
pub(crate) async fn apply_file(path: &Path) -> anyhow::Result<()> {
    let text = tokio::fs::read_to_string(path)
        .await
        .with_context(|| format!("read {}", path.display()))?;
    apply(&text).await
}

/// Waits until a pod is ready.
pub(crate) async fn ready(namespace: &str, pod: &str) -> anyhow::Result<()> {
    kubectl(
        &[
            "-n",
            namespace,
            "wait",
            "--for=condition=Ready",
            &format!("pod/{pod}"),
            "--timeout=90s",
        ],
        None,
    )
    .await?;
    Ok(())
}

/// The log of a container so far.
pub(crate) async fn log(namespace: &str, pod: &str, container: &str) -> anyhow::Result<String> {
    kubectl(&["-n", namespace, "logs", pod, "-c", container], None).await
}

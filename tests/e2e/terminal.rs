//! `diagbot run` against a real kubelet: no bot, no Slack, the administrator's own kubeconfig.

use std::{path::Path, time::Instant};

use anyhow::{Context as _, ensure};
use diagbot_wire::digest::sha256_hex;
use serde_json::{Value, json};

use crate::{
    installation::{Installation, Variation, agent_image, catalog, program, story},
    workload::Workload,
};

/// Runs a diagnostic; what was told, and the bytes of its file, which are what was told.
async fn run(
    installation: &Installation,
    folder: &Path,
    diagnostic: &str,
    target: &str,
) -> anyhow::Result<(Value, Vec<u8>)> {
    let started = Instant::now();
    let output = program()
        .args(["bot", "run", diagnostic, target, "-n", &installation.target])
        .args(["--output", "json", "--image", &agent_image()?])
        .arg("--out")
        .arg(folder)
        .arg("--catalog")
        .arg(catalog())
        .output()
        .await
        .context("run the program")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{diagnostic}: {} {said}", output.status);
    let told: Value = serde_json::from_slice(&output.stdout).context("one JSON object")?;
    let artifact = &told["artifacts"][0];
    let bytes = std::fs::read(artifact["file"].as_str().context("a file")?)?;
    ensure!(
        artifact["sha256"] == json!(sha256_hex(&bytes)),
        "the digest differs: {told}"
    );
    ensure!(
        artifact["sizeBytes"] == json!(bytes.len()),
        "the length differs: {told}"
    );
    let took = started.elapsed().as_secs_f64();
    eprintln!(
        "  {diagnostic} {target}: {} bytes after {took:.2} s, digest as told",
        bytes.len()
    );
    Ok((told, bytes))
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_person_with_a_kubeconfig_captures_into_a_folder() -> anyhow::Result<()> {
    story("terminal", Variation::default(), async |installation| {
        installation
            .start_pod(&Workload::checkout("checkout", 32).user(1000))
            .await?;
        let folder = tempfile::tempdir().context("make a folder")?;
        let (_, threads) = run(installation, folder.path(), "jstack", "checkout").await?;
        let threads = String::from_utf8(threads).context("text")?;
        ensure!(threads.contains("Found one Java-level deadlock"), "{threads}");
        let (told, _) = run(installation, folder.path(), "heap-dump", "checkout").await?;
        ensure!(told["artifacts"][0]["sensitive"] == json!(true), "{told}");
        let (_, report) = run(installation, folder.path(), "pod-report", "checkout").await?;
        let report = String::from_utf8(report).context("text")?;
        ensure!(report.contains(&installation.target), "{report}");
        let left = std::fs::read_dir(folder.path())?.count();
        ensure!(left == 3, "{left} files instead of 3");
        Ok(())
    })
    .await
}

//! One GiB: straight to the store beside curl, and through the bot beside `kubectl exec … cat`, on a real cluster.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use diagbot_api::run::Phase;

use crate::{
    by_hand,
    installation::{Installation, Variation, story},
    kubectl::run,
    memory::{AgentWatch, peak_mib},
    outcome::Outcome,
    table::Table,
    workload::Workload,
};

/// Bytes of the file.
const SIZE_BYTES: u64 = 1 << 30;
/// Longest wait for one transfer.
const DEADLINE: Duration = Duration::from_mins(5);
/// A diagnostic that does nothing but read the file in the target's file system.
const DIAGNOSTIC: &str = r#"name: bulk
summary: The file that the benchmark has put there
method: ephemeral
image: IMAGE
argv: ["/cat", "/proc/1/root/data/random"]
process: main
identity: target
deadline: 5m
limit: 2GiB
artifact: { name: random.bin, mediaType: application/octet-stream, output: binary }
sensitivity: normal
impact: none
"#;

/// Both ways, each beside its yardstick.
pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let image =
        std::env::var("DIAGBOT_BENCH_IMAGE").context("DIAGBOT_BENCH_IMAGE names an image with agent and cat")?;
    let catalog = tempfile::tempdir().context("make a catalog")?;
    std::fs::write(catalog.path().join("bulk.yaml"), DIAGNOSTIC.replace("IMAGE", &image))
        .context("write the catalog")?;
    let variation = Variation {
        agent_image: Some(image),
        catalog: Some(catalog.path().to_owned()),
        ..Variation::default()
    };
    story("bench-bulk", variation, async |installation| {
        let make = format!("head -c {SIZE_BYTES} /dev/urandom > /data/random; echo made; exec sleep 3600");
        installation
            .start_pod(&Workload::script("bulk", &make).user(1000).writable("/data"))
            .await?;
        installation.wait_for_log("bulk", "made").await?;
        installation.start_bot().await?;
        let agents = AgentWatch::start();
        direct(installation, table).await?;
        relayed(installation, table).await?;
        table.at_most(
            "bot, 1 GiB each way: VmHWM",
            peak_mib(installation.bot_pid()?)?,
            64.0,
            "MiB",
        );
        table.at_most("agent, 1 GiB each way: VmHWM", agents.peak_mib(), 24.0, "MiB");
        Ok(())
    })
    .await
}

async fn direct(installation: &Installation, table: &mut Table) -> anyhow::Result<()> {
    let ours = transfer(installation).await?;
    let store = by_hand::store(installation).await?;
    let file = installation.folder.path().join("random");
    // The same bytes from the same place: the container's file, seen from the node.
    let pid = installation.container_pid("bulk", "app").await?;
    std::fs::copy(Path::new(&format!("/proc/{pid}/root/data/random")), &file).context("copy the file")?;
    let theirs = by_hand::upload(&store, "random", &file.to_string_lossy())
        .await?
        .as_secs_f64();
    table.note("1 GiB direct", &format!("{ours:.1} s, curl -T {theirs:.1} s"));
    table.at_least("1 GiB direct, speed as part of curl -T", theirs / ours, 0.8, "");
    std::fs::remove_file(file).context("remove the copy")
}

async fn relayed(installation: &Installation, table: &mut Table) -> anyhow::Result<()> {
    let pid = installation.container_pid("bulk", "app").await?.to_string();
    let store = format!("{}/32", installation.store.ip());
    run(
        "nsenter",
        &["-t", &pid, "-n", "ip", "route", "add", "unreachable", &store],
        None,
    )
    .await
    .context("close the pod's way to the store")?;
    let ours = transfer(installation).await?;
    let thrown_away = cat(installation, "/dev/null").await?;
    let file = installation.folder.path().join("by-hand");
    let kept = cat(installation, &file.to_string_lossy()).await?;
    std::fs::remove_file(file).context("remove the copy")?;
    table.note(
        "1 GiB relayed",
        &format!("{ours:.1} s, kubectl exec … cat {kept:.1} s into a file, {thrown_away:.1} s into /dev/null"),
    );
    table.note(
        "… speed as part of cat into /dev/null",
        &format!("{:.2}", thrown_away / ours),
    );
    table.at_least(
        "1 GiB relayed and stored, speed as part of kubectl exec … cat into a file",
        kept / ours,
        0.8,
        "",
    );
    Ok(())
}

/// Fetches the file by kubectl; seconds. Only where they are kept do its bytes go as far as those of a relay, which ends when
/// the store has synced them.
async fn cat(installation: &Installation, to: &str) -> anyhow::Result<f64> {
    let started = Instant::now();
    let sync = if to == "/dev/null" {
        String::new()
    } else {
        format!("&& sync -d {to}")
    };
    let command = format!(
        "kubectl -n {} exec bulk -c app -- cat /data/random > {to} {sync}",
        installation.target
    );
    run("bash", &["-c", &command], None).await?;
    Ok(started.elapsed().as_secs_f64())
}

/// Captures the file; seconds from the tool's end, when all bytes are in our hands, to the proof of the stored object.
async fn transfer(installation: &Installation) -> anyhow::Result<f64> {
    let started = Instant::now();
    let name = installation
        .command(&format!("/diag bulk bulk -n {}", installation.target))
        .await?;
    let outcome = installation.outcome(&name, DEADLINE, started).await?;
    eprintln!(
        "  {:?} after {:.1} s; {}",
        outcome.phase(),
        outcome.took.as_secs_f64(),
        outcome.trace()
    );
    ensure!(
        outcome.phase() == Phase::Succeeded,
        "the capture failed: {}",
        outcome.text()
    );
    ensure!(
        outcome.artifact()?.size_bytes == SIZE_BYTES,
        "the artifact has another length"
    );
    between(&outcome, "toolEnded", "verified")
}

fn between(outcome: &Outcome, from: &str, to: &str) -> anyhow::Result<f64> {
    let trace = outcome
        .captures
        .first()
        .and_then(|c| c.status.as_ref())
        .map(|s| &s.trace)
        .context("a capture ran")?;
    let moment = |name: &str| trace.get(name).with_context(|| format!("the trace has no {name}"));
    Ok(moment(to)?.0.duration_since(moment(from)?.0).as_secs_f64())
}

//! `diagbot audit verify`: reads the record and its anchor, and says up to when it is whole.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use diagbot_artifacts::{Store, StoreError};
use diagbot_audit::{
    self, Entry, FOLDER, Head, Line,
    verify::{ChainReport, Report},
};
use diagbot_base::clock::Clock;
use diagbot_cluster::Clusters;
use kube::Api;

use super::say;
use crate::config::Config;

/// Largest object of a record that is read, in bytes.
const MOST_BYTES: usize = 16 << 20;

/// What is verified.
#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// The configuration file: says where the record and its anchor are.
    #[arg(long, env = "DIAGBOT_CONFIG", default_value = "/etc/diagbot/diagbot.yaml")]
    config: PathBuf,
    /// Files with the record's lines, such as a log collector's copy of standard output, instead of the store. Other lines
    /// in them are passed over.
    #[arg(long)]
    lines: Vec<PathBuf>,
    /// File with the anchored heads (JSON, as in the Lease's annotation) instead of the cluster.
    #[arg(long)]
    heads: Option<PathBuf>,
}

/// Prints one line a chain, what is not proven of it, and its faults. The exit code is 0 without faults; entries after the
/// last anchor are no fault, since every running bot has some for a moment.
pub(super) async fn verify(arguments: &VerifyArguments) -> anyhow::Result<ExitCode> {
    let chains = if arguments.lines.is_empty() {
        stored(&Config::load(&arguments.config)?).await?
    } else {
        in_files(&arguments.lines)?
    };
    let heads = match &arguments.heads {
        Some(path) => in_file(path)?,
        None => anchored(&Config::load(&arguments.config)?).await?,
    };
    let report = diagbot_audit::verify::verify(&chains, &heads);
    Ok(tell(&report))
}

/// The lines in the store, by writer.
async fn stored(config: &Config) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let store = Store::connect(&config.store, Clock::default()).await?;
    let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in store.keys(&[FOLDER]).await? {
        let Some(writer) = key.as_str().rsplit('/').nth(1) else {
            continue;
        };
        let bytes = match store.read_small(&key, MOST_BYTES).await {
            Ok(found) => found.unwrap_or_default(),
            // Larger than any that a bot writes. It must not keep the others from being verified.
            Err(StoreError::TooLong { .. }) => Bytes::from_static(b"an object that is too large\n"),
            Err(error) => return Err(error.into()),
        };
        let text = String::from_utf8_lossy(&bytes);
        chains
            .entry(writer.to_owned())
            .or_default()
            .extend(text.lines().map(str::to_owned));
    }
    Ok(chains)
}

/// Lines in files, by the writer that each names, in the order of the files.
fn in_files(files: &[PathBuf]) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        for line in text.lines() {
            let Some(read) = Line::parse(line) else { continue };
            let writer =
                serde_json::from_str::<Entry>(&read.entry).map_or_else(|_| String::new(), |entry| entry.writer);
            chains.entry(writer).or_default().push(line.to_owned());
        }
    }
    Ok(chains)
}

async fn anchored(config: &Config) -> anyhow::Result<BTreeMap<String, Head>> {
    let clusters = Clusters::connect(&config.cluster, &config.clusters, &config.namespace).await?;
    let leases = Api::namespaced(clusters.home().client.clone(), &config.namespace);
    Ok(diagbot_audit::heads(&leases).await?)
}

fn in_file(path: &Path) -> anyhow::Result<BTreeMap<String, Head>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} holds no heads", path.display()))
}

fn tell(report: &Report) -> ExitCode {
    for (writer, chain) in report {
        say(&line(writer, chain));
        if let Some(words) = unproven(chain) {
            say(&format!("  NOT PROVEN  {words}"));
        }
        for fault in &chain.faults {
            say(&format!("  FAULT  {fault}"));
        }
    }
    let bad = report.values().filter(|chain| !chain.faults.is_empty()).count();
    let open: u64 = report.values().map(|chain| chain.unproven).sum();
    let loose = report.values().filter(|chain| chain.anchored.is_none()).count();
    say(&format!(
        "{} chains, {bad} with faults; entries not proven: {open}; chains not anchored: {loose}",
        report.len()
    ));
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn line(writer: &str, chain: &ChainReport) -> String {
    let whole = match chain.whole_up_to {
        Some((seq, at)) => format!("whole up to entry {seq} ({at})"),
        None => "not known to be whole anywhere".to_owned(),
    };
    let anchored = match chain.anchored {
        Some(seq) => format!("anchored up to {seq}"),
        None => "not anchored".to_owned(),
    };
    let end = if chain.stopped { "stopped in order" } else { "open" };
    let writer = if writer.is_empty() { "(no writer)" } else { writer };
    format!("{writer}: {} entries, {whole}; {anchored}; {end}", chain.entries)
}

/// What is said of the entries that no anchor vouches for, if there are any.
fn unproven(chain: &ChainReport) -> Option<String> {
    // A bot that was killed before it anchored them has written these, or somebody who knows the format.
    let anyone = "anybody who can write the record could have appended";
    let entries = match chain.unproven {
        0 => return None,
        some if chain.anchored.is_none() => {
            format!("not anchored: anybody who can write the record could have invented this chain, entries: {some}")
        }
        1 => format!("1 entry after the last anchor: {anyone} it"),
        some => format!("{some} entries after the last anchor: {anyone} them"),
    };
    Some(entries)
}

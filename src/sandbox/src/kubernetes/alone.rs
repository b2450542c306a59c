//! The sandbox's Kubernetes by itself, for contract tests and for trying kubectl on it.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use serde_json::json;

use super::{KubernetesConfig, KubernetesServer};

/// Starts the local Kubernetes API and its node, prints one line of JSON with their addresses, and runs until interrupted.
#[derive(Debug, Parser)]
#[command(name = "diagbot-sandbox kubernetes")]
struct Args {
    /// Where the kubeconfig files go; a temporary directory unless given.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Further manifests (YAML) to load at the start.
    #[arg(long)]
    manifest: Vec<PathBuf>,
    /// Leave the sample workloads out.
    #[arg(long)]
    empty: bool,
}

/// Entry of `kubernetes …`; `args` come without the program's name.
pub fn serve_alone(args: &[OsString]) -> ExitCode {
    let words = std::iter::once(OsString::from("diagbot-sandbox kubernetes")).chain(args.iter().cloned());
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    let served = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")
        .and_then(|runtime| runtime.block_on(serve(args)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a standard error there is nobody to tell.
            let _untold = writeln!(io::stderr(), "diagbot-sandbox kubernetes: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let mut manifests = Vec::new();
    for path in &args.manifest {
        manifests.push(std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?);
    }
    let config = KubernetesConfig {
        without_workloads: args.empty,
        manifests,
        ..KubernetesConfig::default()
    };
    let server = KubernetesServer::start(config).await?;
    let temporary = tempfile::tempdir().context("make a directory for kubeconfig files")?;
    let directory = args.directory.as_deref().unwrap_or_else(|| temporary.path());
    std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let mut paths = Vec::new();
    for user in ["admin", "bot"] {
        let path = directory.join(format!("{user}.kubeconfig"));
        std::fs::write(&path, server.kubeconfig(user)).with_context(|| format!("write {}", path.display()))?;
        paths.push(path);
    }
    let line = json!({
        "kubeconfig": paths[0],
        "botKubeconfig": paths[1],
        "url": server.url(),
        "isolation": server.isolation(),
    });
    writeln!(io::stdout(), "{line}").context("print the addresses")?;
    interrupted().await?;
    server.stop().await;
    Ok(())
}

async fn interrupted() -> io::Result<()> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminated.recv() => Ok(()),
    }
}

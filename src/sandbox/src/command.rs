//! The sandbox's command line.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser;
use tokio_util::sync::CancellationToken;

use crate::{
    installation::{Installation, Plan},
    once,
};

/// Starts a local Slack, Kubernetes, store and diagbot on loopback, and prints the address of a page to try them.
#[derive(Debug, Parser)]
#[command(name = "diagbot-sandbox", version)]
struct Arguments {
    /// Runs one command as the engineer `ada` in #incidents, prints the thread, checks every artifact, and exits.
    #[arg(long, value_name = "COMMAND", requires = "out")]
    once: Option<String>,
    /// Where `--once` puts the artifacts.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replicas of the bot.
    #[arg(long, default_value_t = 1)]
    replicas: usize,
    /// Prints the addresses as one JSON line on standard output, for scripts and tests.
    #[arg(long)]
    json: bool,
    /// Shows the bot's log.
    #[arg(long)]
    verbose: bool,
}

/// Runs the program with `args` (without the program's name).
pub fn run(mut args: Vec<OsString>) -> ExitCode {
    let part = args.first().and_then(|a| a.to_str()).map(str::to_owned);
    match part.as_deref() {
        Some("bot") => diagbot::cli::run(args.split_off(1)),
        Some("slack") => crate::slack::serve_alone(args.split_off(1)),
        Some("kubernetes") => crate::kubernetes::serve_alone(&args[1..]),
        Some("container-init") => crate::kubernetes::container_init(&args[1..]),
        Some("workload") => crate::kubernetes::workload(&args[1..]),
        Some("agent") => diagbot_agent::run(
            &args[1..]
                .iter()
                .map(|a| a.to_string_lossy().into_owned())
                .collect::<Vec<_>>(),
        ),
        _ => report(sandbox(&args)),
    }
}

fn sandbox(args: &[OsString]) -> anyhow::Result<ExitCode> {
    let words = std::iter::once(OsStr::new("diagbot-sandbox")).chain(args.iter().map(OsString::as_os_str));
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            error.print().context("print the usage")?;
            return Ok(if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            });
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let plan = Plan {
        replicas: arguments.replicas,
        verbose: arguments.verbose,
        ..Plan::default()
    };
    let installation = Installation::start(&plan).await?;
    let outcome = match (&arguments.once, &arguments.out) {
        (Some(command), Some(out)) => once::run(&installation, command, out).await,
        _ => until_interrupted(&installation, arguments.json).await,
    };
    installation.stop().await?;
    outcome
}

async fn until_interrupted(installation: &Installation, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        say(&serde_json::to_string(&installation.addresses())?);
    } else {
        let addresses = installation.addresses();
        say(&format!("Open {} and type: /diag jstack checkout", addresses.page));
        say(&format!(
            "kubectl --kubeconfig {} get pods -A",
            addresses.kubeconfig.display()
        ));
        say("Ctrl-C ends it.");
    }
    let stop = CancellationToken::new();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("wait for Ctrl-C")?,
        _ = terminate.recv() => {}
        () = stop.cancelled() => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn report(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        complain(&format!("diagbot-sandbox: {error:#}"));
        ExitCode::FAILURE
    })
}

/// Prints a line for the person who started us.
#[expect(clippy::print_stdout, reason = "this is a command line's output")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "this is a command line's error output")]
fn complain(line: &str) {
    eprintln!("{line}");
}

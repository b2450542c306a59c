//! The local Slack by itself, for clients that are not ours: prints where it is and runs until it is told to end.

use std::{ffi::OsString, io::Write as _, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{SlackConfig, SlackServer};

/// Runs a local Slack and prints `{api_url, people_url, app_token, bot_token}` on one line.
#[derive(Debug, Parser)]
#[command(name = "diagbot-sandbox slack", no_binary_name = true)]
struct AloneArgs {
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Granted bot scopes, separated by commas, instead of all that are served.
    #[arg(long, value_delimiter = ',')]
    scopes: Vec<String>,
    /// Milliseconds within which an envelope must be acknowledged.
    #[arg(long, default_value_t = 3000)]
    ack_limit_ms: u64,
    /// Do not enforce rate limits.
    #[arg(long)]
    no_rate_limits: bool,
}

/// Serves until SIGINT or SIGTERM. `args` without the program's name and the subcommand.
pub fn serve_alone(args: Vec<OsString>) -> ExitCode {
    let args = match AloneArgs::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Nowhere to report that the terminal is gone.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match tokio::runtime::Runtime::new()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run(args)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "diagbot-sandbox slack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: AloneArgs) -> anyhow::Result<()> {
    let mut config = SlackConfig {
        ack_limit: Duration::from_millis(args.ack_limit_ms),
        rate_limited: !args.no_rate_limits,
        ..SlackConfig::default()
    };
    config.listen.set_port(args.port);
    if !args.scopes.is_empty() {
        config.scopes = args.scopes;
    }
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let server = SlackServer::start(config)
        .await
        .context("cannot start the local Slack")?;
    let whereabouts = json!({
        "api_url": server.api_url(), "people_url": server.people_url(), "app_token": server.app_token(),
        "bot_token": server.bot_token(),
    });
    writeln!(std::io::stdout(), "{whereabouts}").context("cannot print the address")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    server.stop().await;
    Ok(())
}

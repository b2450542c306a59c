//! The command line: parses, wires, prints the error chain once, returns the exit code. The only place that uses `anyhow`.

mod audit;
mod check;
pub mod crd;
#[cfg(feature = "failpoints")]
mod failpoints;
mod policy;
mod run;
mod seal;
mod serve;
mod signals;
pub mod store;
mod wildcards;

use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use diagbot_base::telemetry::{self, LogFormat};
#[cfg(feature = "failpoints")]
pub use failpoints::failpoints;

/// Evidence from sick pods, for people who may not exec into production.
#[derive(Debug, Parser)]
#[command(name = "diagbot", version)]
struct Cli {
    /// How log lines look.
    #[arg(long, global = true, env = "DIAGBOT_LOG_FORMAT", default_value = "json", value_enum)]
    log_format: LogFormat,
    /// What is logged: a level, or a filter such as `info,diagbot_slack=debug`. Default: `info`, and nothing for `run`.
    #[arg(long, global = true, env = "DIAGBOT_LOG")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the bot.
    Serve(ConfigFile),
    /// Runs one diagnostic with your own kubeconfig and rights, and fetches what it captured.
    Run(Box<run::RunArguments>),
    /// Checks configuration, catalog, Slack, clusters, the fence and store; prints a table.
    Check(check::CheckArguments),
    /// Runs a store of artifacts: the S3 protocol over a folder, for where there is none.
    Store(ConfigFile),
    /// Looks after the record.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Prints the custom resource definitions.
    Crd,
    /// Prints what is rendered from the catalog.
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(long, env = "DIAGBOT_CONFIG", default_value = "/etc/diagbot/diagbot.yaml")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Verifies that no entry was removed, changed, moved or cut off; fails where one was.
    Verify(audit::VerifyArguments),
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Prints the admission policies that hold the bot to the catalog.
    Render(policy::RenderArguments),
}

/// Runs the program with `args` (without the program's name).
pub fn run(args: Vec<OsString>) -> ExitCode {
    // Before any secret is read, and for every command: all but two of them read one.
    seal::seal();
    let words = std::iter::once(OsStr::new("diagbot").to_owned()).chain(args);
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            // Usage goes where clap sends it; a closed stream is nobody's concern.
            let _printed = error.print();
            return if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let quiet = matches!(cli.command, Command::Run(_));
    match (&cli.log, quiet) {
        (Some(level), _) => telemetry::start(cli.log_format, level, !quiet),
        (None, false) => telemetry::start(cli.log_format, "info", true),
        // Standard output and error are the caller's.
        (None, true) => {}
    }
    // Two providers in the graph would make rustls refuse to choose; there is one, and it is named here.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    dispatch(cli.command).unwrap_or_else(|error| {
        complain(&format!("diagbot: {}", telemetry::Chain(error.as_ref())));
        ExitCode::FAILURE
    })
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(file) => runtime()?.block_on(serve::run(&file.config)),
        Command::Run(arguments) => runtime()?.block_on(run::run(*arguments)),
        Command::Store(file) => runtime()?.block_on(store::run(&file.config)),
        Command::Audit {
            command: AuditCommand::Verify(arguments),
        } => runtime()?.block_on(audit::verify(&arguments)),
        Command::Crd => {
            say(crd::render().trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(arguments) => runtime()?.block_on(check::run(&arguments)),
        Command::Policy {
            command: PolicyCommand::Render(arguments),
        } => policy::render(&arguments),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")
}

/// Prints a line for the person who started us. One who reads no further (`diagbot check | head`) changes nothing for us: the
/// exit code still tells the result.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

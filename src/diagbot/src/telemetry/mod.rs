//! Logs and metrics. Owns how they look; never what they say: no token, no presigned URL, no `response_url` and no
//! captured output is ever given to it.

mod chain;
pub mod health;
pub mod metrics;

pub use chain::Chain;
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::filter_fn, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// Libraries that print payloads, tokens or URLs below this level; the filter can't be turned lower for them.
const CAPPED: [&str; 12] = [
    "slack_morphism=info",
    "tungstenite=info",
    "tokio_tungstenite=info",
    "hyper=info",
    "hyper_util=info",
    "aws_config=info",
    "aws_runtime=info",
    "aws_sigv4=info",
    "aws_smithy_runtime=info",
    "aws_sdk_s3=info",
    "kube_client=info",
    // Logs whole requests, and each client's mistake as an error of ours.
    "s3s=off",
];

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For eyes.
    Text,
}

/// Log target of the record's entries: they go to standard output, everything else to standard error.
const RECORD: &str = "record";

/// Starts logging to standard error, and with `record` the record to standard output. `level` is one of tracing's level words or a filter such as `diagbot::slack=debug`.
pub fn start(format: LogFormat, level: &str, record: bool) {
    let mut filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    for directive in CAPPED {
        filter = filter.add_directive(directive.parse().expect("a constant directive parses"));
    }
    // The record is no matter of levels.
    filter = filter.add_directive("record=info".parse().expect("a constant directive parses"));
    let entries = fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_writer(std::io::stdout)
        .with_filter(filter_fn(move |metadata| record && metadata.target() == RECORD));
    let others = || filter_fn(|metadata| metadata.target() != RECORD);
    let registry = tracing_subscriber::registry().with(filter).with(entries);
    let started = match format {
        LogFormat::Json => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(true)
                    .with_writer(std::io::stderr)
                    .with_filter(others()),
            )
            .try_init(),
        LogFormat::Text => registry
            .with(fmt::layer().with_writer(std::io::stderr).with_filter(others()))
            .try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging had been started before");
    }
}

//! Logs and metrics. Owns how they look; never what they say: no token, no presigned URL, no `response_url` and no
//! captured output is ever given to it.

mod chain;
pub mod health;
pub mod metrics;

pub use chain::Chain;
use tracing::{Metadata, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// Libraries that print payloads, tokens, signatures or URLs below this level, by how their targets begin. No directive turns
/// the filter lower for them, however long its target is.
const CAPPED: [(&str, LevelFilter); 7] = [
    ("slack_morphism", LevelFilter::INFO),
    ("tungstenite", LevelFilter::INFO),
    ("tokio_tungstenite", LevelFilter::INFO),
    // And `hyper_util`.
    ("hyper", LevelFilter::INFO),
    // The SDK's parts.
    ("aws_", LevelFilter::INFO),
    ("kube_client", LevelFilter::INFO),
    // Logs whole requests, and each client's mistake as an error of ours.
    ("s3s", LevelFilter::OFF),
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

/// Starts logging to standard error, and with `record` the record to standard output. `level` is one of tracing's level words or a filter such as `diagbot_slack=debug`.
pub fn start(format: LogFormat, level: &str, record: bool) {
    let entries = fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_writer(std::io::stdout)
        .with_filter(filter_fn(move |metadata| record && metadata.target() == RECORD));
    let others = || filter_fn(|metadata| metadata.target() != RECORD);
    let registry = tracing_subscriber::registry().with(levels(level)).with(entries);
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

/// What is logged at all: what the directives say, and of secret-bearing libraries never more than their caps.
fn levels<S: Subscriber>(directives: &str) -> impl Layer<S> {
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("info"));
    // The record is no matter of levels.
    let filter = filter.add_directive("record=info".parse().expect("a constant directive parses"));
    filter.and_then(filter_fn(within_caps))
}

fn within_caps(metadata: &Metadata<'_>) -> bool {
    CAPPED
        .iter()
        .filter(|(library, _)| metadata.target().starts_with(library))
        .all(|(_, cap)| metadata.level() <= cap)
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged under these directives when libraries print secrets and we print words.
    fn logged(directives: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry()
            .with(levels(directives))
            .with(fmt::layer().with_writer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "s3s::ops::signature", "secret-s3s");
            tracing::error!(target: "s3s::ops", "secret-s3s-error");
            tracing::trace!(target: "hyper::proto::h1::io", "secret-hyper");
            tracing::debug!(target: "hyper_util::client::legacy", "secret-hyper-util");
            tracing::debug!(target: "aws_sigv4::http_request::sign", "secret-sigv4");
            tracing::debug!(target: "aws_smithy_runtime_api::client::orchestrator", "secret-smithy");
            tracing::trace!(target: "tungstenite::protocol", "secret-tungstenite");
            tracing::debug!(target: "tokio_tungstenite::compat", "secret-tokio");
            tracing::debug!(target: "slack_morphism::client", "secret-slack");
            tracing::debug!(target: "kube_client::client::builder", "secret-kube");
            tracing::debug_span!(target: "aws_sdk_s3::operation", "op", secret = "secret-span")
                .in_scope(|| tracing::info!(target: "diagbot::test", "plain-info"));
            tracing::debug!(target: "diagbot::test", "plain-debug");
            tracing::info!(target: "record", "plain-record");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_directive_lifts_the_caps_on_libraries_with_secrets() {
        let longer = [
            "s3s::ops::signature",
            "s3s::ops",
            "hyper::proto::h1::io",
            "hyper_util::client::legacy",
            "aws_sigv4::http_request::sign",
            "aws_smithy_runtime_api::client",
            "aws_sdk_s3::operation",
            "tungstenite::protocol",
            "tokio_tungstenite::compat",
            "slack_morphism::client",
            "kube_client::client::builder",
        ]
        .map(|target| format!("{target}=trace"))
        .join(",");
        for directives in [
            "trace",
            "info,s3s::ops::signature=debug",
            "info,[op{secret}]=trace",
            &longer,
        ] {
            let text = logged(directives);
            assert!(!text.contains("secret"), "{directives}: {text}");
            assert!(text.contains("plain-record"), "{directives}: {text}");
        }
        let text = logged("info,diagbot::test=debug");
        assert!(text.contains("plain-info") && text.contains("plain-debug"), "{text}");
        assert!(!logged("info").contains("plain-debug"));
        assert!(logged("off").contains("plain-record"), "it is no matter of levels");
    }
}

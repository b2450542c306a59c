//! `diagbot store`: serves a folder as a store until it is told to stop.

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;
use diagbot_store_server::{StoreServer, StoreServerConfig, StoreServerError};
use tokio_util::sync::CancellationToken;

use super::signals;

/// Serves until the stop signal. An error says why it can't start, or that it ended by itself.
pub async fn serve_store(config: StoreServerConfig, stop: CancellationToken) -> Result<(), StoreServerError> {
    let bucket = config.bucket.clone();
    let mut server = StoreServer::start(config).await?;
    tracing::info!(url = server.url(), bucket, "the store is open");
    tokio::select! {
        () = stop.cancelled() => {
            server.stop().await;
            Ok(())
        }
        () = server.ended() => Err(StoreServerError::Ended),
    }
}

/// Reads the store's configuration file and serves until the process is told to end.
pub(super) async fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let text = tokio::fs::read_to_string(path)
        .await
        .with_context(|| format!("read {}", path.display()))?;
    let config: StoreServerConfig =
        serde_saphyr::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    let stop = CancellationToken::new();
    let (served, ()) = tokio::join!(
        async {
            let served = serve_store(config, stop.clone()).await;
            stop.cancel();
            served
        },
        signals::stop_on_signal(stop.clone())
    );
    served?;
    Ok(ExitCode::SUCCESS)
}

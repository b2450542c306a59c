//! `diagbot store`: serves a folder as a store until it is told to stop.

use tokio_util::sync::CancellationToken;

use crate::artifacts::store::{StoreServer, StoreServerConfig, StoreServerError};

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

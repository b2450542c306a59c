//! Opening an artifact's link as a person would: streamed, hashed, its beginning kept.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use sha2::{Digest as _, Sha256};

/// How much of an artifact a story looks at.
const KEPT_BYTES: usize = 4 << 20;

/// What came through a link.
#[derive(Debug)]
pub(crate) struct Downloaded {
    /// Whole length.
    pub(crate) size_bytes: u64,
    /// SHA-256 of everything, hexadecimal.
    pub(crate) sha256: String,
    /// The first 4 MiB.
    pub(crate) head: Vec<u8>,
}

impl Downloaded {
    /// The beginning as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }
}

/// Downloads through a link.
pub(crate) async fn open(url: &str) -> anyhow::Result<Downloaded> {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client
        .get(url.parse().context("read the link")?)
        .await
        .context("open the link")?;
    let status = response.status();
    let mut body = response.into_body();
    let (mut hash, mut head, mut size_bytes) = (Sha256::new(), Vec::new(), 0_u64);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.context("read the artifact")?.into_data() else {
            continue;
        };
        hash.update(&data);
        size_bytes += data.len() as u64;
        head.extend_from_slice(&data[..data.len().min(KEPT_BYTES.saturating_sub(head.len()))]);
    }
    ensure!(
        status == StatusCode::OK,
        "the link answered {status}: {}",
        String::from_utf8_lossy(&head)
    );
    Ok(Downloaded {
        size_bytes,
        sha256: hex::encode(hash.finalize()),
        head,
    })
}

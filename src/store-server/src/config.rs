//! Settings of the store server.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::limits::StoreLimits;

/// Settings of `diagbot store`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoreServerConfig {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Folder that holds everything. One process a folder.
    pub folder: PathBuf,
    /// The one bucket; made if it is not there.
    pub bucket: String,
    /// The region that signatures must name.
    #[serde(default = "default_region")]
    pub region: String,
    /// YAML list of `{accessKey, secretKey}`. Read again when it changes, so that keys can be rotated.
    pub credentials_file: PathBuf,
    /// Serves HTTPS; HTTP unless given.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// Longest object or part that one request may bring, in bytes; S3's own limit of 5 GiB unless given.
    #[serde(default = "default_max_body_bytes")]
    pub max_body_bytes: u64,
    /// Unfinished uploads older than this are removed.
    #[serde(default = "default_unfinished_uploads_after", with = "humantime_serde")]
    pub unfinished_uploads_after: Duration,
    /// Objects older than this are removed; kept for ever unless given.
    #[serde(default, with = "humantime_serde")]
    pub objects_after: Option<Duration>,
    /// Most connections at once; further ones wait.
    #[serde(default = "default_max_connections")]
    pub max_connections: usize,
    /// How much of the server one client may hold, and for how long.
    #[serde(default)]
    pub limits: StoreLimits,
    /// `false` makes the server ignore whole-object checksums, as some stores do. For tests of clients.
    #[serde(default = "default_full_object_checksums")]
    pub full_object_checksums: bool,
}

/// Certificate and key.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain (PEM), the server's own first.
    pub cert_file: PathBuf,
    /// Private key (PEM).
    pub key_file: PathBuf,
}

impl StoreServerConfig {
    /// Settings with every default.
    pub fn new(listen: SocketAddr, folder: PathBuf, bucket: impl Into<String>, credentials_file: PathBuf) -> Self {
        Self {
            listen,
            folder,
            bucket: bucket.into(),
            region: default_region(),
            credentials_file,
            tls: None,
            max_body_bytes: default_max_body_bytes(),
            unfinished_uploads_after: default_unfinished_uploads_after(),
            objects_after: None,
            max_connections: default_max_connections(),
            limits: StoreLimits::default(),
            full_object_checksums: default_full_object_checksums(),
        }
    }
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

const fn default_max_body_bytes() -> u64 {
    5 * 1024 * 1024 * 1024
}

const fn default_unfinished_uploads_after() -> Duration {
    Duration::from_hours(24)
}

const fn default_max_connections() -> usize {
    256
}

const fn default_full_object_checksums() -> bool {
    true
}

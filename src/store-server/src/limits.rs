//! How much of the server anybody may hold, and for how long. Every limit has a default that suits a cluster's store.

use std::time::Duration;

use serde::Deserialize;

/// Connections kept for requests that the account's key signed in a header: those of the bot.
const RESERVED_CONNECTIONS: usize = 32;
/// Connections of one address that wait, and as many of its requests by URL under way. An ingress is one address.
const PEER_CONNECTIONS: usize = 64;
/// Bodies that are received at once; each holds two batches of 512 KiB and further ones wait unread: 32 MiB in all.
const BODIES: usize = 32;
/// Bodies kept for requests that the account's key signed in a header.
const RESERVED_BODIES: usize = 8;
/// Bodies that one address sends at once by URLs.
const PEER_BODIES: usize = 8;
/// Bodies of one upload at once by URLs: an agent sends four, and the server may not have seen yet that one broke off.
const UPLOAD_BODIES: usize = 6;
/// Longest wait of a body for its turn.
const TURN_DEADLINE: Duration = Duration::from_secs(15);
/// Longest time for a client to send its headers, or its next request, or to finish the TLS handshake.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// The time over which a client's rate is measured. Only time that the server spends waiting for the client counts.
const RATE_WINDOW: Duration = Duration::from_secs(30);
/// Slowest rate of a client, in either direction.
const LEAST_BYTES_PER_S: u64 = 16 * 1024;
/// How long a body may go on after the URL that brought it has ended.
const AFTER_EXPIRY: Duration = Duration::from_mins(2);
/// Versions of one object that URLs may write: a repeated request makes a further one.
const URL_VERSIONS: usize = 8;
/// Room on the disk that URLs and large objects can't use. It is left to the records of the bot.
const FREE_RESERVE_BYTES: u64 = 1 << 30;

/// Limits of what one client, or all of them, may hold.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StoreLimits {
    /// Connections kept for requests that the account's key signed in a header.
    pub reserved_connections: usize,
    /// Connections of one address that wait, and as many of its requests by URL under way.
    pub peer_connections: usize,
    /// Bodies received at once.
    pub bodies: usize,
    /// Bodies kept for requests that the account's key signed in a header.
    pub reserved_bodies: usize,
    /// Bodies that one address sends at once by URLs.
    pub peer_bodies: usize,
    /// Bodies of one upload at once by URLs.
    pub upload_bodies: usize,
    /// Longest wait of a body for its turn.
    #[serde(with = "humantime_serde")]
    pub turn_deadline: Duration,
    /// Longest time for headers, the next request, the TLS handshake.
    #[serde(with = "humantime_serde")]
    pub header_deadline: Duration,
    /// The time over which a client's rate is measured.
    #[serde(with = "humantime_serde")]
    pub rate_window: Duration,
    /// Slowest rate of a client, in either direction.
    pub least_bytes_per_s: u64,
    /// How long a body may go on after its URL has ended.
    #[serde(with = "humantime_serde")]
    pub after_expiry: Duration,
    /// Versions of one object that URLs may write.
    pub url_versions: usize,
    /// Room on the disk that is left to small objects of the bot.
    pub free_reserve_bytes: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            reserved_connections: RESERVED_CONNECTIONS,
            peer_connections: PEER_CONNECTIONS,
            bodies: BODIES,
            reserved_bodies: RESERVED_BODIES,
            peer_bodies: PEER_BODIES,
            upload_bodies: UPLOAD_BODIES,
            turn_deadline: TURN_DEADLINE,
            header_deadline: HEADER_DEADLINE,
            rate_window: RATE_WINDOW,
            least_bytes_per_s: LEAST_BYTES_PER_S,
            after_expiry: AFTER_EXPIRY,
            url_versions: URL_VERSIONS,
            free_reserve_bytes: FREE_RESERVE_BYTES,
        }
    }
}

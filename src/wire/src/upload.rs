//! Part arithmetic and the grants (presigned URLs) that the bot hands to the agent.

use serde::{Deserialize, Serialize};

/// A query parameter of a URL that writes: the longest body that it is for. S3 ignores, but signs, parameters that begin with
/// `x-` (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/LogFormat.html>); `diagbot store` refuses what is longer.
pub const MOST_BYTES_PARAMETER: &str = "x-diagbot-most-bytes";

/// Smallest part we use, in bytes. S3 refuses parts under 5 MiB (but the last one).
pub const MIN_PART_BYTES: u64 = 8 * 1024 * 1024;
/// We plan for at most this many parts; S3 allows 10,000.
pub const PLANNED_PARTS: u64 = 1_000;
/// Most URLs in one control line: at about 1.8 kB for a URL signed with a session token, 64 stay under 120 kB.
pub const MAX_URLS_PER_LINE: usize = 64;

/// The part size for an artifact of at most `limit_bytes`: `max(8 MiB, limit / 1,000)`.
pub fn part_size_bytes(limit_bytes: u64) -> u64 {
    MIN_PART_BYTES.max(limit_bytes.div_ceil(PLANNED_PARTS))
}

/// The number of parts of an artifact; an empty artifact is one empty part, since S3 completes no upload without parts.
pub fn part_count(size_bytes: u64, part_size_bytes: u64) -> u32 {
    u32::try_from(size_bytes.div_ceil(part_size_bytes).max(1)).unwrap_or(u32::MAX)
}

/// Presigned URLs for consecutive parts of one step's artifact.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Index of the step in the container's arguments.
    pub step: u16,
    /// Bytes of every part but the last.
    pub part_size_bytes: u64,
    /// Part number (from 1) of the first URL.
    pub first_part: u32,
    /// One URL a part, at most [`MAX_URLS_PER_LINE`]. Bearer secrets: never logged.
    pub urls: Vec<String>,
    /// When the URLs die, in milliseconds since the epoch.
    pub expires_at_ms: u64,
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant")
            .field("step", &self.step)
            .field("first_part", &self.first_part)
            .field("urls", &format_args!("[{} redacted]", self.urls.len()))
            .finish_non_exhaustive()
    }
}

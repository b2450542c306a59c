//! The records beside the content: what an object, an upload and a part are, as JSON.

use std::collections::BTreeMap;

use jiff::Timestamp;
use s3s::dto::Checksum;
use serde::{Deserialize, Serialize};

/// A version of an object.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectRecord {
    pub(super) size_bytes: u64,
    /// Without quotes.
    pub(super) etag: String,
    pub(super) crc64nvme: Option<String>,
    #[serde(default)]
    pub(super) checksums: Checksums,
    pub(super) shown: ShownHeaders,
    pub(super) tags: Vec<(String, String)>,
    pub(super) stored_at: Timestamp,
    pub(super) files: Vec<ContentFile>,
}

/// A file that holds the next bytes of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContentFile {
    pub(super) name: String,
    pub(super) size_bytes: u64,
}

/// Headers that the client set and everybody is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ShownHeaders {
    pub(super) content_type: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Checksums besides CRC-64/NVME.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Checksums {
    pub(super) crc32: Option<String>,
    pub(super) crc32c: Option<String>,
    pub(super) sha1: Option<String>,
    pub(super) sha256: Option<String>,
}

impl From<Checksum> for Checksums {
    fn from(checksum: Checksum) -> Self {
        Self {
            crc32: checksum.checksum_crc32,
            crc32c: checksum.checksum_crc32c,
            sha1: checksum.checksum_sha1,
            sha256: checksum.checksum_sha256,
        }
    }
}

/// An unfinished upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UploadRecord {
    pub(super) key: String,
    pub(super) opened_at: Timestamp,
    pub(super) checksum_algorithm: Option<String>,
    pub(super) shown: ShownHeaders,
    pub(super) tags: Vec<(String, String)>,
}

/// A part of an unfinished upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PartRecord {
    pub(super) number: i32,
    pub(super) file: ContentFile,
    /// MD5, hexadecimal.
    pub(super) md5: String,
    pub(super) crc64nvme: String,
    pub(super) checksums: Checksums,
    pub(super) stored_at: Timestamp,
}

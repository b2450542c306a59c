//! Length and digests of an artifact, computed while its bytes pass.

mod lanes;

use base64::Engine as _;
use hmac::{Hmac, Mac as _};
pub use lanes::{LANES, Md5Lanes};
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Length and digests of a whole artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Digests {
    /// Length in bytes.
    pub size_bytes: u64,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
    /// CRC-64/NVME, base64 of the big-endian value: the form of `x-amz-checksum-crc64nvme`.
    pub crc64nvme: String,
}

/// Computes [`Digests`] over a stream.
#[derive(Debug)]
pub struct Hasher {
    size_bytes: u64,
    sha256: Sha256,
    crc64nvme: crc_fast::Digest,
}

impl Default for Hasher {
    fn default() -> Self {
        Self {
            size_bytes: 0,
            sha256: Sha256::new(),
            crc64nvme: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme),
        }
    }
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size_bytes += bytes.len() as u64;
        self.sha256.update(bytes);
        self.crc64nvme.update(bytes);
    }

    /// The digests of everything that was taken.
    pub fn finish(self) -> Digests {
        Digests {
            size_bytes: self.size_bytes,
            sha256: hex::encode(self.sha256.finalize()),
            crc64nvme: base64::engine::general_purpose::STANDARD.encode(self.crc64nvme.finalize().to_be_bytes()),
        }
    }
}

/// The SHA-256 of `bytes`, lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// HMAC-SHA256 of `message` under `key`.
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Whether `tag` (hexadecimal) is the HMAC-SHA256 of `message` under `key`, compared in constant time.
pub fn hmac_matches(key: &[u8], message: &[u8], tag: &str) -> bool {
    let Ok(tag) = hex::decode(tag) else { return false };
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.verify_slice(&tag).is_ok()
}

/// The raw MD5 of one part, as `Content-MD5` carries it (base64) and as part ETags show it (hexadecimal).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartMd5([u8; 16]);

impl PartMd5 {
    /// The MD5 of the bytes of one part.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Md5::digest(bytes).into())
    }

    /// For a part that is read in pieces.
    pub fn from_hasher(hasher: Md5) -> Self {
        Self(hasher.finalize().into())
    }

    /// The value of a `Content-MD5` header.
    pub fn content_md5(self) -> String {
        base64::engine::general_purpose::STANDARD.encode(self.0)
    }

    /// The ETag that a store without KMS shows for this part, without quotes.
    pub fn etag(self) -> String {
        hex::encode(self.0)
    }
}

/// Computes the MD5 and the CRC-64/NVME of one part while it passes.
#[derive(Debug)]
pub struct PartHasher {
    md5: Md5,
    crc64nvme: crc_fast::Digest,
}

impl Default for PartHasher {
    fn default() -> Self {
        Self {
            md5: Md5::new(),
            crc64nvme: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme),
        }
    }
}

impl PartHasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.crc64nvme.update(bytes);
    }

    /// The part's MD5 and the value of its CRC-64/NVME.
    pub fn finish(self) -> (PartMd5, u64) {
        (PartMd5::from_hasher(self.md5), self.crc64nvme.finalize())
    }
}

/// The ETag that S3 shows for a multipart object whose part ETags are MD5s: MD5 over the parts' MD5s, `-`, part count.
#[derive(Debug, Default)]
pub struct MultipartEtag {
    md5: Md5,
    parts: u32,
}

impl MultipartEtag {
    /// Takes the next part's MD5.
    pub fn push(&mut self, part: PartMd5) {
        self.md5.update(part.0);
        self.parts += 1;
    }

    /// The ETag, without quotes.
    pub fn finish(self) -> String {
        format!("{}-{}", hex::encode(self.md5.finalize()), self.parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_the_check_string() {
        let mut hasher = Hasher::default();
        hasher.update(b"1234");
        hasher.update(b"56789");
        let mut part = PartHasher::default();
        part.update(b"123456789");
        assert_eq!(part.finish(), (PartMd5::of(b"123456789"), 0xae8b_1486_0a79_9888));
        let digests = hasher.finish();
        assert_eq!(digests.size_bytes, 9);
        assert_eq!(
            digests.sha256,
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
        );
        // CRC-64/NVME check value 0xae8b14860a799888
        assert_eq!(digests.crc64nvme, "rosUhgp5mIg=");
    }
}

//! Names in the store: object keys and upload ids. Owns which characters a key of ours can have.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest segment of a key that we make, in bytes.
const LONGEST_SEGMENT: usize = 128;
/// Longest key that S3 takes, in bytes: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>.
const LONGEST_KEY: usize = 1024;

/// Key of an object, the store's prefix included: segments of `[A-Za-z0-9._-]`, none of them `.` or `..`, joined by `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtifactKey(String);

/// Not a key of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an object key is words of [A-Za-z0-9._-], joined by `/`, at most {LONGEST_KEY} bytes")]
pub struct InvalidKey;

impl ArtifactKey {
    /// Builds a key. Total: what a segment may not hold becomes `_`, so no name from a cluster can lead out of the prefix.
    pub(super) fn build(prefix: &str, segments: &[&str]) -> Self {
        let cleaned = segments.iter().map(|segment| clean(segment));
        Self(
            std::iter::once(prefix.to_owned())
                .chain(cleaned)
                .collect::<Vec<_>>()
                .join("/"),
        )
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ArtifactKey {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, InvalidKey> {
        if text.len() <= LONGEST_KEY && text.split('/').all(is_clean_segment) {
            Ok(Self(text))
        } else {
            Err(InvalidKey)
        }
    }
}

impl From<ArtifactKey> for String {
    fn from(key: ArtifactKey) -> Self {
        key.0
    }
}

impl fmt::Display for ArtifactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The store's name of an unfinished multipart upload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UploadId(pub String);

impl UploadId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

pub(super) fn is_clean_segment(segment: &str) -> bool {
    (1..=LONGEST_SEGMENT).contains(&segment.len()) && segment.bytes().all(is_key_byte) && !matches!(segment, "." | "..")
}

fn clean(segment: &str) -> String {
    let text: String = segment
        .chars()
        .map(|c| if u8::try_from(c).is_ok_and(is_key_byte) { c } else { '_' })
        .take(LONGEST_SEGMENT)
        .collect();
    if is_clean_segment(&text) { text } else { "_".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_segments_stay_inside_the_prefix() {
        let key = ArtifactKey::build("diagbot", &["..", "a/../b", "", "é\n", "ok.txt"]);
        assert_eq!(key.as_str(), "diagbot/_/a_.._b/_/__/ok.txt");
        assert_eq!(ArtifactKey::try_from(key.as_str().to_owned()), Ok(key));
    }

    #[test]
    fn foreign_keys_are_refused() {
        for bad in [
            "",
            "/a",
            "a//b",
            "a/../b",
            "a/.",
            "a b",
            "a\u{202e}b",
            &"a/".repeat(600),
        ] {
            assert!(ArtifactKey::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}

//! Object keys as paths. Owns which keys the server takes and that none of them leads out of the bucket's folder.
//!
//! # Design notes
//! A key's segments become folders, so that an operator finds an artifact by its key. Every byte outside `[A-Za-z0-9._-]`
//! is written `%XX`; the last segment carries the suffix `,v`, which no segment can hold otherwise: the object `a` and the
//! object `a/b` do not meet.

use std::path::{Path, PathBuf};

/// Longest key in bytes, S3's limit.
const LONGEST_KEY: usize = 1024;
/// Longest file name that a segment may become; file systems end at 255 bytes.
const LONGEST_NAME: usize = 240;
const OBJECT_SUFFIX: &str = ",v";

/// A key that was checked, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectName(PathBuf);

/// Why a key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyFault {
    TooLong,
    /// Empty segments, `.`, `..` and control characters.
    Unsafe,
}

impl ObjectName {
    pub(super) fn parse(key: &str) -> Result<Self, KeyFault> {
        if key.len() > LONGEST_KEY {
            return Err(KeyFault::TooLong);
        }
        if key.chars().any(char::is_control) {
            return Err(KeyFault::Unsafe);
        }
        let mut names = Vec::new();
        for segment in key.split('/') {
            if matches!(segment, "" | "." | "..") {
                return Err(KeyFault::Unsafe);
            }
            let name = encode(segment);
            if name.len() > LONGEST_NAME {
                return Err(KeyFault::TooLong);
            }
            names.push(name);
        }
        let last = names.pop().ok_or(KeyFault::Unsafe)?;
        let mut place: PathBuf = names.iter().collect();
        place.push(format!("{last}{OBJECT_SUFFIX}"));
        Ok(Self(place))
    }

    /// The folder of the object's versions, relative to the folder of all objects.
    pub(super) fn place(&self) -> &Path {
        &self.0
    }
}

/// The key of a versions' folder; `None` for a folder between.
pub(super) fn key_of(place: &Path) -> Option<String> {
    let mut segments = Vec::new();
    for component in place.components() {
        segments.push(component.as_os_str().to_str()?);
    }
    let last = segments.pop()?.strip_suffix(OBJECT_SUFFIX)?;
    segments.push(last);
    let decoded: Option<Vec<String>> = segments.into_iter().map(decode).collect();
    Some(decoded?.join("/"))
}

fn encode(segment: &str) -> String {
    use std::fmt::Write as _;
    let mut name = String::new();
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            name.push(char::from(byte));
        } else {
            write!(name, "%{byte:02X}").expect("a String takes everything");
        }
    }
    name
}

fn decode(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            bytes.extend(hex::decode(tail.get(..2)?).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_that_lead_elsewhere_are_refused() {
        for bad in ["..", "a/../b", "./a", "/a", "a//b", "a/", "", "a\0b", "a\nb", "\u{7f}"] {
            assert!(ObjectName::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(ObjectName::parse(&"ü".repeat(100)), Err(KeyFault::TooLong));
    }

    #[test]
    fn an_object_may_have_the_name_of_another_ones_folder() {
        let inner = ObjectName::parse("a/b").unwrap();
        let outer = ObjectName::parse("a").unwrap();
        let sly = ObjectName::parse("a,v/b").unwrap();
        assert!(!inner.place().starts_with(outer.place()));
        assert!(!sly.place().starts_with(outer.place()));
    }

    proptest! {
        #[test]
        fn every_key_is_refused_or_stays_inside_and_comes_back(key in "\\PC{0,40}|[./%,a]{0,12}") {
            if let Ok(name) = ObjectName::parse(&key) {
                prop_assert!(name.place().components().all(|c| matches!(c, std::path::Component::Normal(_))));
                prop_assert_eq!(key_of(name.place()), Some(key));
            }
        }
    }
}

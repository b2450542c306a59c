//! Tags of objects: read from a header or a document, within S3's limits.

use s3s::{
    S3ErrorCode, S3Result,
    dto::{Tag, Tagging},
};

/// S3's limits: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>.
const MOST_TAGS: usize = 10;
const LONGEST_KEY: usize = 128;
const LONGEST_VALUE: usize = 256;

/// `x-amz-tagging`: `key=value&…`, form-encoded.
pub(super) fn from_header(header: Option<&str>) -> S3Result<Vec<(String, String)>> {
    let pairs = url::form_urlencoded::parse(header.unwrap_or_default().as_bytes()).into_owned();
    checked(pairs.collect())
}

pub(super) fn from_document(tagging: Tagging) -> S3Result<Vec<(String, String)>> {
    let pairs = tagging
        .tag_set
        .into_iter()
        .map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()));
    checked(pairs.collect())
}

pub(super) fn to_document(tags: Vec<(String, String)>) -> Vec<Tag> {
    tags.into_iter()
        .map(|(key, value)| Tag {
            key: Some(key),
            value: Some(value),
        })
        .collect()
}

fn checked(mut tags: Vec<(String, String)>) -> S3Result<Vec<(String, String)>> {
    let fits = tags.len() <= MOST_TAGS
        && tags.iter().all(|(key, value)| {
            (1..=LONGEST_KEY).contains(&key.chars().count()) && value.chars().count() <= LONGEST_VALUE
        });
    let count = tags.len();
    tags.sort_unstable();
    tags.dedup_by(|a, b| a.0 == b.0);
    if fits && tags.len() == count {
        Ok(tags)
    } else {
        Err(S3ErrorCode::InvalidTag.into())
    }
}

//! What requests for objects and for uploads have in common: names, conditions, bodies, and what is refused.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use s3s::{
    S3Error, S3ErrorCode, S3Result,
    dto::{ETagCondition, StreamingBlob, Timestamp as WireTime},
};

use super::{
    names::{KeyFault, ObjectName},
    refuse,
};

/// Longest user metadata, S3's limit.
const LONGEST_METADATA: usize = 2048;

pub(super) fn name(key: &str) -> S3Result<ObjectName> {
    ObjectName::parse(key).map_err(|fault| match fault {
        KeyFault::TooLong => S3ErrorCode::KeyTooLongError.into(),
        KeyFault::Unsafe => S3Error::with_message(
            S3ErrorCode::InvalidArgument,
            "keys have no empty segments, no `.` or `..`, no control characters",
        ),
    })
}

/// True where the condition is `If-None-Match: *`; other conditions on writing are refused.
pub(super) fn must_be_new(condition: Option<&ETagCondition>) -> S3Result<bool> {
    match condition {
        None => Ok(false),
        Some(ETagCondition::Any) => Ok(true),
        Some(ETagCondition::ETag(_)) => Err(refuse("If-None-Match with an ETag")),
    }
}

/// What a client may wish of what it writes and this server does not do.
#[derive(Clone, Copy)]
pub(super) struct Wishes {
    pub(super) encryption: bool,
    pub(super) locks: bool,
    pub(super) grants: bool,
}

/// What would be ignored is refused: silence would be taken for a promise.
pub(super) fn refuse_wishes(wishes: Wishes) -> S3Result<()> {
    match wishes {
        Wishes { encryption: true, .. } => Err(refuse("server-side encryption")),
        Wishes { locks: true, .. } => Err(refuse("object lock")),
        Wishes { grants: true, .. } => Err(refuse("access control lists")),
        _ => Ok(()),
    }
}

/// The length of a body: it must be known and within the limit.
pub(super) fn body_length(content_length: Option<i64>, max_body_bytes: u64) -> S3Result<u64> {
    let length = content_length
        .and_then(|n| u64::try_from(n).ok())
        .ok_or(S3ErrorCode::MissingContentLength)?;
    if length > max_body_bytes {
        return Err(S3ErrorCode::EntityTooLarge.into());
    }
    Ok(length)
}

pub(super) fn checked_metadata(metadata: Option<HashMap<String, String>>) -> S3Result<BTreeMap<String, String>> {
    let metadata: BTreeMap<_, _> = metadata.unwrap_or_default().into_iter().collect();
    if metadata.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > LONGEST_METADATA {
        return Err(S3ErrorCode::MetadataTooLarge.into());
    }
    Ok(metadata)
}

pub(super) fn empty() -> StreamingBlob {
    StreamingBlob::from(s3s::Body::empty())
}

pub(super) fn wire_time(time: Timestamp) -> WireTime {
    std::time::SystemTime::from(time).into()
}

//! Objects: written whole, read, listed, tagged, removed. Speaks the protocol layer's types.

use std::{path::PathBuf, sync::Arc};

use diagbot_base::clock::Clock;
use s3s::{
    S3ErrorCode, S3Request, S3Response, S3Result,
    dto::{
        Checksum, ChecksumMode, ChecksumType, DeleteObjectInput, DeleteObjectOutput, ETag, ETagCondition,
        GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, PutObjectInput, PutObjectOutput,
        StreamingBlob,
    },
};

use super::{
    bodies::Terms,
    connections::busy,
    disk::{Disk, content_name, storage_fault},
    reader::ObjectReader,
    receive::{Claims, blocking, receive, trailer_names},
    records::{ContentFile, ObjectRecord, ShownHeaders},
    refuse, tags,
    terms::{Wishes, checked_metadata, empty, must_be_new, name, refuse_wishes, wire_time},
};

/// A version of an object, found.
pub(super) struct Found {
    pub(super) version: String,
    pub(super) folder: PathBuf,
    pub(super) record: ObjectRecord,
}

pub(super) async fn find(disk: &Arc<Disk>, key: &str, version: Option<String>) -> S3Result<Found> {
    let name = name(key)?;
    let disk = Arc::clone(disk);
    let asked_version = version.is_some();
    let found = blocking(move || disk.find(&name, version.as_deref())).await?;
    match found {
        Some((version, folder, record)) => Ok(Found {
            version,
            folder,
            record,
        }),
        None if asked_version => Err(S3ErrorCode::NoSuchVersion.into()),
        None => Err(S3ErrorCode::NoSuchKey.into()),
    }
}

pub(super) async fn put(
    disk: &Arc<Disk>,
    length: u64,
    terms: &Terms,
    request: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let trailers = trailer_names(&request.headers);
    let input = request.input;
    refuse_unsupported(&input)?;
    let name = name(&input.key)?;
    let must_be_new = must_be_new(input.if_none_match.as_ref())?;
    let tags = tags::from_header(input.tagging.as_deref())?;
    let shown = ShownHeaders {
        content_type: input.content_type,
        content_disposition: input.content_disposition,
        content_encoding: input.content_encoding,
        cache_control: input.cache_control,
        metadata: checked_metadata(input.metadata)?,
    };
    let claims = Claims {
        content_md5: input.content_md5,
        checksum: Checksum {
            checksum_crc32: input.checksum_crc32,
            checksum_crc32c: input.checksum_crc32c,
            checksum_crc64nvme: input.checksum_crc64nvme,
            checksum_sha1: input.checksum_sha1,
            checksum_sha256: input.checksum_sha256,
            checksum_type: None,
        },
        trailer: request.trailing_headers,
    };
    let incoming = disk.incoming_path();
    std::fs::create_dir(incoming.path()).map_err(|error| storage_fault(&error))?;
    let content = content_name(1);
    let body = input.body.unwrap_or_else(empty);
    let received = receive(body, length, terms, &claims, &trailers, &incoming.path().join(&content)).await?;
    let record = ObjectRecord {
        size_bytes: received.size_bytes,
        etag: received.md5,
        crc64nvme: Some(received.crc64nvme),
        checksums: received.checksum.clone().into(),
        shown,
        tags,
        stored_at: Clock::System.now(),
        files: vec![ContentFile {
            name: content,
            size_bytes: received.size_bytes,
        }],
    };
    let mut output = PutObjectOutput {
        e_tag: Some(ETag::Strong(record.etag.clone())),
        checksum_crc32: received.checksum.checksum_crc32,
        checksum_crc32c: received.checksum.checksum_crc32c,
        checksum_sha1: received.checksum.checksum_sha1,
        checksum_sha256: received.checksum.checksum_sha256,
        checksum_crc64nvme: record.crc64nvme.clone(),
        checksum_type: Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
        ..PutObjectOutput::default()
    };
    let disk = Arc::clone(disk);
    let most_versions = terms.most_versions;
    let committed = blocking(move || {
        let mut lock = disk.commit_lock();
        if must_be_new && disk.find(&name, None)?.is_some() {
            return Ok(Err(S3ErrorCode::PreconditionFailed.into()));
        }
        if let Some(most) = most_versions
            && disk.version_count(&name)? >= most
        {
            return Ok(Err(busy("URLs have written this object too often")));
        }
        disk.commit(&mut lock, &name, incoming.path(), &record).map(Ok)
    })
    .await?;
    output.version_id = Some(committed?);
    Ok(S3Response::new(output))
}

fn refuse_unsupported(input: &PutObjectInput) -> S3Result<()> {
    refuse_wishes(Wishes {
        encryption: input.server_side_encryption.is_some()
            || input.ssekms_key_id.is_some()
            || input.sse_customer_algorithm.is_some(),
        locks: input.object_lock_mode.is_some()
            || input.object_lock_legal_hold_status.is_some()
            || input.object_lock_retain_until_date.is_some(),
        grants: input.acl.is_some() || input.grant_read.is_some() || input.grant_full_control.is_some(),
    })?;
    if input.write_offset_bytes.is_some() || input.if_match.is_some() || input.website_redirect_location.is_some() {
        return Err(refuse("appending, If-Match on writing, redirects"));
    }
    Ok(())
}

pub(super) async fn get(disk: &Arc<Disk>, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
    let input = request.input;
    if input.part_number.is_some() || input.sse_customer_algorithm.is_some() {
        return Err(refuse("reading by part number or with a customer's key"));
    }
    let Found {
        version,
        folder,
        record,
    } = find(disk, &input.key, input.version_id).await?;
    check_conditions(&record, input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let whole = 0..record.size_bytes;
    let (range, content_range) = match input.range {
        None => (whole, None),
        Some(range) => {
            let range = range.check(record.size_bytes)?;
            let shown = format!("bytes {}-{}/{}", range.start, range.end - 1, record.size_bytes);
            (range, Some(shown))
        }
    };
    // A checksum of the whole object says nothing about a range.
    let checksums = content_range.is_none() && wants_checksums(input.checksum_mode.as_ref());
    let length = range.end - range.start;
    let reader = ObjectReader::new(&folder, &record.files, range);
    let mut output = GetObjectOutput {
        body: Some(StreamingBlob::new(reader)),
        content_length: Some(length.cast_signed()),
        content_range,
        accept_ranges: Some("bytes".to_owned()),
        e_tag: Some(ETag::Strong(record.etag)),
        last_modified: Some(wire_time(record.stored_at)),
        content_type: record.shown.content_type,
        content_disposition: record.shown.content_disposition,
        content_encoding: record.shown.content_encoding,
        cache_control: record.shown.cache_control,
        metadata: Some(record.shown.metadata.into_iter().collect()),
        tag_count: i32::try_from(record.tags.len()).ok().filter(|count| *count > 0),
        version_id: Some(version),
        ..GetObjectOutput::default()
    };
    if checksums {
        output.checksum_type = Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT));
        output.checksum_crc64nvme = record.crc64nvme;
        output.checksum_crc32 = record.checksums.crc32;
        output.checksum_crc32c = record.checksums.crc32c;
        output.checksum_sha1 = record.checksums.sha1;
        output.checksum_sha256 = record.checksums.sha256;
    }
    Ok(S3Response::new(output))
}

pub(super) async fn head(
    disk: &Arc<Disk>,
    request: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    let input = request.input;
    let Found { version, record, .. } = find(disk, &input.key, input.version_id).await?;
    check_conditions(&record, input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let mut output = HeadObjectOutput {
        content_length: Some(record.size_bytes.cast_signed()),
        accept_ranges: Some("bytes".to_owned()),
        e_tag: Some(ETag::Strong(record.etag)),
        last_modified: Some(wire_time(record.stored_at)),
        content_type: record.shown.content_type,
        content_disposition: record.shown.content_disposition,
        content_encoding: record.shown.content_encoding,
        cache_control: record.shown.cache_control,
        metadata: Some(record.shown.metadata.into_iter().collect()),
        version_id: Some(version),
        ..HeadObjectOutput::default()
    };
    if wants_checksums(input.checksum_mode.as_ref()) {
        output.checksum_type = Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT));
        output.checksum_crc64nvme = record.crc64nvme;
        output.checksum_crc32 = record.checksums.crc32;
        output.checksum_crc32c = record.checksums.crc32c;
        output.checksum_sha1 = record.checksums.sha1;
        output.checksum_sha256 = record.checksums.sha256;
    }
    Ok(S3Response::new(output))
}

fn wants_checksums(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

fn check_conditions(
    record: &ObjectRecord,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<()> {
    let matches = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => etag.value() == record.etag,
    };
    if if_match.is_some_and(|condition| !matches(condition)) {
        return Err(S3ErrorCode::PreconditionFailed.into());
    }
    if if_none_match.is_some_and(matches) {
        return Err(S3ErrorCode::NotModified.into());
    }
    Ok(())
}

pub(super) async fn delete(
    disk: &Arc<Disk>,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let name = name(&request.input.key)?;
    let version = request.input.version_id;
    let disk = Arc::clone(disk);
    let shown = version.clone();
    blocking(move || {
        let _lock = disk.commit_lock();
        disk.remove(&name, version.as_deref())
    })
    .await?;
    Ok(S3Response::with_status(
        DeleteObjectOutput {
            version_id: shown,
            ..DeleteObjectOutput::default()
        },
        http::StatusCode::NO_CONTENT,
    ))
}

//! Multipart uploads: opened, filled, listed, completed, aborted. Speaks the protocol layer's types.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};

use diagbot_base::clock::Clock;
use s3s::{
    S3Error, S3ErrorCode, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, Checksum, ChecksumAlgorithm, ChecksumType,
        CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CreateMultipartUploadInput,
        CreateMultipartUploadOutput, ETag, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListPartsInput,
        ListPartsOutput, MultipartUpload, Part, UploadPartInput, UploadPartOutput,
    },
};

use super::{
    assemble::{assemble, choose, compare_whole},
    bodies::Terms,
    disk::{self, Disk, storage_fault},
    receive::{Claims, blocking, receive, trailer_names},
    records::{ContentFile, PartRecord, ShownHeaders, UploadRecord},
    refuse, tags,
    terms::{Wishes, checked_metadata, empty, must_be_new, name, refuse_wishes, wire_time},
};

/// S3's limits: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
const PART_NUMBERS: std::ops::RangeInclusive<i32> = 1..=10_000;
const PAGE: usize = 1000;

pub(super) async fn create(
    disk: &Arc<Disk>,
    full_object_checksums: bool,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let input = request.input;
    refuse_unsupported(&input, full_object_checksums)?;
    name(&input.key)?;
    let record = UploadRecord {
        key: input.key.clone(),
        opened_at: Clock::System.now(),
        checksum_algorithm: input.checksum_algorithm.as_ref().map(|a| a.as_str().to_owned()),
        shown: ShownHeaders {
            content_type: input.content_type,
            content_disposition: input.content_disposition,
            content_encoding: input.content_encoding,
            cache_control: input.cache_control,
            metadata: checked_metadata(input.metadata)?,
        },
        tags: tags::from_header(input.tagging.as_deref())?,
    };
    let disk = Arc::clone(disk);
    let id = blocking(move || disk.open_upload(&record)).await?;
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(id),
        checksum_algorithm: input.checksum_algorithm,
        checksum_type: input.checksum_type,
        ..CreateMultipartUploadOutput::default()
    }))
}

fn refuse_unsupported(input: &CreateMultipartUploadInput, full_object_checksums: bool) -> S3Result<()> {
    refuse_wishes(Wishes {
        encryption: input.server_side_encryption.is_some()
            || input.ssekms_key_id.is_some()
            || input.sse_customer_algorithm.is_some(),
        locks: input.object_lock_mode.is_some()
            || input.object_lock_legal_hold_status.is_some()
            || input.object_lock_retain_until_date.is_some(),
        grants: input.acl.is_some() || input.grant_read.is_some() || input.grant_full_control.is_some(),
    })?;
    let is_crc64 = input
        .checksum_algorithm
        .as_ref()
        .is_some_and(|a| a.as_str() == ChecksumAlgorithm::CRC64NVME);
    let of_whole = input
        .checksum_type
        .as_ref()
        .is_some_and(|t| t.as_str() == ChecksumType::FULL_OBJECT);
    if full_object_checksums && of_whole && !is_crc64 {
        return Err(refuse("a whole-object checksum other than CRC64NVME"));
    }
    Ok(())
}

pub(super) async fn upload_part(
    disk: &Arc<Disk>,
    length: u64,
    terms: &Terms,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let trailers = trailer_names(&request.headers);
    let input = request.input;
    if !PART_NUMBERS.contains(&input.part_number) {
        return Err(S3Error::with_message(
            S3ErrorCode::InvalidArgument,
            "part numbers are 1 to 10000",
        ));
    }
    let (folder, _) = find(disk, &input.key, &input.upload_id).await?;
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
    let body = input.body.unwrap_or_else(empty);
    let received = receive(body, length, terms, &claims, &trailers, incoming.path()).await?;
    let part = PartRecord {
        number: input.part_number,
        file: ContentFile {
            name: disk::content_name(input.part_number),
            size_bytes: received.size_bytes,
        },
        md5: received.md5.clone(),
        crc64nvme: received.crc64nvme.clone(),
        checksums: received.checksum.clone().into(),
        stored_at: Clock::System.now(),
    };
    let disk = Arc::clone(disk);
    unless_gone(tokio::task::spawn_blocking(move || disk.add_part(&folder, incoming.path(), &part)).await)?;
    Ok(S3Response::new(UploadPartOutput {
        e_tag: Some(ETag::Strong(received.md5)),
        checksum_crc64nvme: claims.checksum.checksum_crc64nvme.and(Some(received.crc64nvme)),
        checksum_crc32: received.checksum.checksum_crc32,
        checksum_crc32c: received.checksum.checksum_crc32c,
        checksum_sha1: received.checksum.checksum_sha1,
        checksum_sha256: received.checksum.checksum_sha256,
        ..UploadPartOutput::default()
    }))
}

/// A folder that vanished under an operation: its upload was completed or aborted meanwhile.
fn unless_gone<T>(outcome: Result<io::Result<T>, tokio::task::JoinError>) -> S3Result<T> {
    match outcome.map_err(S3Error::internal_error)? {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(S3ErrorCode::NoSuchUpload.into()),
        outcome => outcome.map_err(|error| storage_fault(&error)),
    }
}

/// The folder and record of an upload of that key.
async fn find(disk: &Arc<Disk>, key: &str, id: &str) -> S3Result<(PathBuf, UploadRecord)> {
    let folder = disk.upload_folder(id).ok_or(S3ErrorCode::NoSuchUpload)?;
    let at = folder.clone();
    let record = blocking(move || disk::upload_record(&at)).await?;
    match record {
        Some(record) if record.key == key => Ok((folder, record)),
        _ => Err(S3ErrorCode::NoSuchUpload.into()),
    }
}

pub(super) async fn list_parts(
    disk: &Arc<Disk>,
    request: S3Request<ListPartsInput>,
) -> S3Result<S3Response<ListPartsOutput>> {
    let input = request.input;
    let (folder, record) = find(disk, &input.key, &input.upload_id).await?;
    let after = input.part_number_marker.unwrap_or_default();
    let limit = page_limit(input.max_parts);
    let mut parts = blocking(move || disk::parts(&folder)).await?;
    parts.retain(|part| part.number > after);
    let is_truncated = parts.len() > limit;
    parts.truncate(limit);
    let next = parts.last().map(|part| part.number);
    let shown = parts.into_iter().map(|part| Part {
        part_number: Some(part.number),
        size: Some(part.file.size_bytes.cast_signed()),
        e_tag: Some(ETag::Strong(part.md5)),
        last_modified: Some(wire_time(part.stored_at)),
        checksum_crc32: part.checksums.crc32,
        checksum_crc32c: part.checksums.crc32c,
        checksum_sha1: part.checksums.sha1,
        checksum_sha256: part.checksums.sha256,
        ..Part::default()
    });
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        parts: Some(shown.collect()),
        is_truncated: Some(is_truncated),
        max_parts: i32::try_from(limit).ok(),
        part_number_marker: input.part_number_marker,
        next_part_number_marker: next.filter(|_| is_truncated),
        checksum_algorithm: record.checksum_algorithm.map(ChecksumAlgorithm::from),
        ..ListPartsOutput::default()
    }))
}

fn page_limit(asked: Option<i32>) -> usize {
    asked
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n > 0)
        .unwrap_or(PAGE)
        .min(PAGE)
}

pub(super) async fn complete(
    disk: &Arc<Disk>,
    full_object_checksums: bool,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let input = request.input;
    let name = name(&input.key)?;
    let must_be_new = must_be_new(input.if_none_match.as_ref())?;
    let (folder, upload) = find(disk, &input.key, &input.upload_id).await?;
    let at = folder.clone();
    let stored = blocking(move || disk::parts(&at)).await?;
    let asked = input
        .multipart_upload
        .and_then(|upload| upload.parts)
        .unwrap_or_default();
    let chosen = choose(stored, &asked)?;
    let mut record = assemble(upload, &chosen)?;
    if full_object_checksums {
        let claimed = Checksum {
            checksum_crc32: input.checksum_crc32,
            checksum_crc32c: input.checksum_crc32c,
            checksum_crc64nvme: input.checksum_crc64nvme,
            checksum_sha1: input.checksum_sha1,
            checksum_sha256: input.checksum_sha256,
            checksum_type: input.checksum_type,
        };
        compare_whole(&record, &claimed)?;
    } else {
        record.crc64nvme = None;
    }
    if input
        .mpu_object_size
        .is_some_and(|size| size != record.size_bytes.cast_signed())
    {
        return Err(S3Error::with_message(
            S3ErrorCode::InvalidRequest,
            "the object is not as long as x-amz-mp-object-size says",
        ));
    }
    let mut output = CompleteMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        e_tag: Some(ETag::Strong(record.etag.clone())),
        checksum_crc64nvme: record.crc64nvme.clone(),
        checksum_type: record
            .crc64nvme
            .as_ref()
            .map(|_| ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
        ..CompleteMultipartUploadOutput::default()
    };
    let disk = Arc::clone(disk);
    let committed = tokio::task::spawn_blocking(move || {
        let mut lock = disk.commit_lock();
        if must_be_new && disk.find(&name, None)?.is_some() {
            return Ok(Err(S3ErrorCode::PreconditionFailed));
        }
        let parts_lock = disk.parts_lock();
        if folder.exists() && !disk::holds(&folder, &record) {
            // A part was replaced since the parts were chosen: it is no more what the client named.
            return Ok(Err(S3ErrorCode::InvalidPart));
        }
        let version = disk.commit(&mut lock, &name, &folder, &record)?;
        drop(parts_lock);
        if let Some((_, folder, record)) = disk.find(&name, Some(&version))?
            && let Err(error) = disk::tidy(&folder, &record)
        {
            tracing::warn!(%error, "parts that are not used could not be removed");
        }
        Ok(Ok(version))
    })
    .await;
    output.version_id = Some(unless_gone(committed)??);
    Ok(S3Response::new(output))
}

pub(super) async fn abort(
    disk: &Arc<Disk>,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = request.input;
    let (folder, _) = find(disk, &input.key, &input.upload_id).await?;
    let disk = Arc::clone(disk);
    blocking(move || discard(&disk, &folder)).await?;
    Ok(S3Response::with_status(
        AbortMultipartUploadOutput::default(),
        http::StatusCode::NO_CONTENT,
    ))
}

fn discard(disk: &Disk, folder: &Path) -> io::Result<()> {
    let _lock = disk.commit_lock();
    disk.discard(folder)
}

pub(super) async fn list(
    disk: &Arc<Disk>,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = request.input;
    if input.delimiter.is_some() {
        return Err(refuse("a delimiter in the list of uploads"));
    }
    let limit = page_limit(input.max_uploads);
    let prefix = input.prefix.clone().unwrap_or_default();
    let after = (
        input.key_marker.clone().unwrap_or_default(),
        input.upload_id_marker.clone().unwrap_or_default(),
    );
    let disk = Arc::clone(disk);
    let mut uploads = blocking(move || disk.open_uploads()).await?;
    uploads.retain(|(id, upload)| {
        upload.key.starts_with(&prefix)
            && if after.1.is_empty() {
                upload.key > after.0
            } else {
                (&upload.key, id) > (&after.0, &after.1)
            }
    });
    uploads.sort_unstable_by(|(a_id, a), (b_id, b)| (&a.key, a_id).cmp(&(&b.key, b_id)));
    let is_truncated = uploads.len() > limit;
    uploads.truncate(limit);
    let last = uploads.last().filter(|_| is_truncated).cloned();
    let shown = uploads.into_iter().map(|(id, upload)| MultipartUpload {
        key: Some(upload.key),
        upload_id: Some(id),
        initiated: Some(wire_time(upload.opened_at)),
        ..MultipartUpload::default()
    });
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        prefix: input.prefix,
        key_marker: input.key_marker,
        upload_id_marker: input.upload_id_marker,
        max_uploads: i32::try_from(limit).ok(),
        is_truncated: Some(is_truncated),
        uploads: Some(shown.collect()),
        next_key_marker: last.as_ref().map(|(_, upload)| upload.key.clone()),
        next_upload_id_marker: last.map(|(id, _)| id),
        ..ListMultipartUploadsOutput::default()
    }))
}

//! A request's body to a file: hashed while it passes, compared with what the client claimed. Nothing is visible under an
//! object's name before that; memory is two batches, whatever the size.

use std::{fs::File, io::Write as _, mem, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use diagbot_wire::digest::{PartHasher, PartMd5};
use futures::StreamExt as _;
use http::HeaderMap;
use s3s::{
    S3Error, S3ErrorCode, S3Result, TrailingHeaders,
    checksum::ChecksumHasher,
    crypto::Checksum as _,
    dto::{Checksum, StreamingBlob},
};
use tokio::time::{Instant, timeout};

use super::{
    bodies::Terms,
    disk::storage_fault,
    pace::{Pace, TooSlow},
};

/// Bytes that are hashed and written at once, off the async threads.
const BATCH_BYTES: usize = 512 * 1024;
/// What the client claimed about the body.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) content_md5: Option<String>,
    pub(super) checksum: Checksum,
    /// Where the checksum follows the body.
    pub(super) trailer: Option<TrailingHeaders>,
}

/// What came.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) size_bytes: u64,
    /// MD5, hexadecimal.
    pub(super) md5: String,
    /// CRC-64/NVME, base64 of the big-endian value.
    pub(super) crc64nvme: String,
    /// The checksum that the client claimed, where it did; CRC-64/NVME aside.
    pub(super) checksum: Checksum,
}

struct Sink {
    file: File,
    digests: PartHasher,
    /// Checksums besides CRC-64/NVME, where the client claims one.
    others: ChecksumHasher,
}

impl Sink {
    fn write(mut self, batch: Vec<Bytes>) -> std::io::Result<Self> {
        for bytes in batch {
            self.digests.update(&bytes);
            self.others.update(&bytes);
            self.file.write_all(&bytes)?;
        }
        Ok(self)
    }
}

/// Writes a body of exactly `length` bytes to a new file, on the disk when this returns.
pub(super) async fn receive(
    body: StreamingBlob,
    length: u64,
    terms: &Terms,
    claims: &Claims,
    trailer_names: &[String],
    path: &Path,
) -> S3Result<Received> {
    let file = File::create_new(path).map_err(|error| storage_fault(&error))?;
    let sink = Sink {
        file,
        digests: PartHasher::default(),
        others: hasher(&claims.checksum, trailer_names),
    };
    let (sink, size_bytes) = drain(body, length, terms, sink).await?;
    let sink = blocking(move || sink.file.sync_data().map(|()| sink)).await?;
    let (md5, crc) = sink.digests.finish();
    let crc64nvme = STANDARD.encode(crc.to_be_bytes());
    let mut found = sink.others.finalize();
    compare_md5(md5, claims.content_md5.as_deref())?;
    found.checksum_crc64nvme = Some(crc64nvme.clone());
    compare(&found, &claimed(claims, trailer_names)?)?;
    found.checksum_crc64nvme = None;
    Ok(Received {
        size_bytes,
        md5: md5.etag(),
        crc64nvme,
        checksum: found,
    })
}

async fn drain(mut body: StreamingBlob, length: u64, terms: &Terms, sink: Sink) -> S3Result<(Sink, u64)> {
    let mut pace = Pace::new(terms.rate);
    let mut writing = tokio::task::spawn_blocking(move || Ok(sink));
    let mut batch = Vec::new();
    let mut held = 0;
    let mut size_bytes = 0_u64;
    loop {
        let bytes = match next(&mut body, terms, &mut pace).await? {
            None => break,
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => return Err(stream_fault(&error.to_string())),
        };
        size_bytes += bytes.len() as u64;
        if size_bytes > length {
            return Err(S3ErrorCode::IncompleteBody.into());
        }
        held += bytes.len();
        batch.push(bytes);
        if held >= BATCH_BYTES {
            let sink = joined(writing.await)?;
            let full = mem::take(&mut batch);
            held = 0;
            writing = tokio::task::spawn_blocking(move || sink.write(full));
        }
    }
    let sink = joined(writing.await)?;
    if size_bytes != length {
        return Err(S3ErrorCode::IncompleteBody.into());
    }
    let sink = blocking(move || sink.write(batch)).await?;
    Ok((sink, size_bytes))
}

/// The next bytes of a client that keeps to its terms.
async fn next(
    body: &mut StreamingBlob,
    terms: &Terms,
    pace: &mut Pace,
) -> S3Result<Option<Result<Bytes, s3s::StdError>>> {
    loop {
        let life = terms.ends.map(|ends| ends.saturating_duration_since(Instant::now()));
        if life.is_some_and(|life| life.is_zero()) {
            return Err(timed_out("the URL has ended before the body has"));
        }
        let started = Instant::now();
        let next = timeout(pace.left().min(life.unwrap_or(Duration::MAX)), body.next()).await;
        let bytes = match &next {
            Ok(Some(Ok(bytes))) => bytes.len() as u64,
            _ => 0,
        };
        let kept = pace.moved(bytes, started.elapsed());
        match next {
            // The end of a body is never too late.
            Ok(next @ (None | Some(Err(_)))) => return Ok(next),
            _ if kept == Err(TooSlow) => return Err(timed_out("the body comes too slowly")),
            Ok(next) => return Ok(next),
            Err(_) => {}
        }
    }
}

fn timed_out(message: &'static str) -> S3Error {
    S3Error::with_message(S3ErrorCode::RequestTimeout, message)
}

/// Runs file work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> S3Result<T> {
    joined(tokio::task::spawn_blocking(work).await)
}

fn joined<T>(outcome: Result<std::io::Result<T>, tokio::task::JoinError>) -> S3Result<T> {
    outcome
        .map_err(S3Error::internal_error)?
        .map_err(|error| storage_fault(&error))
}

/// The protocol layer's own stream errors have no public type; one of them is told by its name.
fn stream_fault(text: &str) -> S3Error {
    if text.contains("Sha256Mismatch") {
        let mut error = S3Error::new(S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()));
        error.set_message("the body is not what x-amz-content-sha256 says");
        error.set_status_code(http::StatusCode::BAD_REQUEST);
        return error;
    }
    if text.contains("SignatureMismatch") {
        return S3ErrorCode::SignatureDoesNotMatch.into();
    }
    S3ErrorCode::IncompleteBody.into()
}

/// Names in `x-amz-trailer`.
pub(super) fn trailer_names(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all("x-amz-trailer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect()
}

fn hasher(claimed: &Checksum, trailer_names: &[String]) -> ChecksumHasher {
    let wanted = |header: bool, name: &str| header || trailer_names.iter().any(|n| n == name);
    ChecksumHasher {
        crc32: wanted(claimed.checksum_crc32.is_some(), "x-amz-checksum-crc32").then(s3s::crypto::Crc32::new),
        crc32c: wanted(claimed.checksum_crc32c.is_some(), "x-amz-checksum-crc32c").then(s3s::crypto::Crc32c::new),
        sha1: wanted(claimed.checksum_sha1.is_some(), "x-amz-checksum-sha1").then(s3s::crypto::Sha1::new),
        sha256: wanted(claimed.checksum_sha256.is_some(), "x-amz-checksum-sha256").then(s3s::crypto::Sha256::new),
        crc64nvme: None,
    }
}

/// The claims, those that followed the body included.
fn claimed(claims: &Claims, trailer_names: &[String]) -> S3Result<Checksum> {
    let mut all = claims.checksum.clone();
    let announced: Vec<_> = trailer_names
        .iter()
        .filter(|n| n.starts_with("x-amz-checksum-"))
        .collect();
    if announced.is_empty() {
        return Ok(all);
    }
    let trailers = claims
        .trailer
        .as_ref()
        .and_then(TrailingHeaders::take)
        .unwrap_or_default();
    for name in announced {
        let value = trailers.get(name.as_str()).and_then(|v| v.to_str().ok());
        let Some(value) = value.map(|v| v.trim().to_owned()) else {
            return Err(S3Error::with_message(
                S3ErrorCode::InvalidRequest,
                "the announced checksum did not follow",
            ));
        };
        match name.as_str() {
            "x-amz-checksum-crc32" => all.checksum_crc32 = Some(value),
            "x-amz-checksum-crc32c" => all.checksum_crc32c = Some(value),
            "x-amz-checksum-crc64nvme" => all.checksum_crc64nvme = Some(value),
            "x-amz-checksum-sha1" => all.checksum_sha1 = Some(value),
            "x-amz-checksum-sha256" => all.checksum_sha256 = Some(value),
            _ => return Err(S3ErrorCode::InvalidRequest.into()),
        }
    }
    Ok(all)
}

fn compare_md5(found: PartMd5, claimed: Option<&str>) -> S3Result<()> {
    let Some(claimed) = claimed else { return Ok(()) };
    if !STANDARD.decode(claimed).is_ok_and(|digest| digest.len() == 16) {
        return Err(S3ErrorCode::InvalidDigest.into());
    }
    if found.content_md5() == claimed {
        Ok(())
    } else {
        Err(S3ErrorCode::BadDigest.into())
    }
}

/// Compares every checksum that was claimed.
pub(super) fn compare(found: &Checksum, claimed: &Checksum) -> S3Result<()> {
    let agree = |found: &Option<String>, claimed: &Option<String>| claimed.is_none() || found == claimed;
    let all = agree(&found.checksum_crc32, &claimed.checksum_crc32)
        && agree(&found.checksum_crc32c, &claimed.checksum_crc32c)
        && agree(&found.checksum_crc64nvme, &claimed.checksum_crc64nvme)
        && agree(&found.checksum_sha1, &claimed.checksum_sha1)
        && agree(&found.checksum_sha256, &claimed.checksum_sha256);
    if all {
        Ok(())
    } else {
        Err(S3ErrorCode::BadDigest.into())
    }
}

//! Multipart uploads: opened, completed with proof, aborted, found again. Never hands out a URL.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_sdk_s3::{
    config::timeout::TimeoutConfig,
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart},
};
use bytes::Bytes;
use diagbot_base::retry::{Backoff, retry};
use diagbot_wire::result::ArtifactReport;
use hyper::body::Body;
use jiff::Timestamp;

use super::{
    ArtifactKey, Proof, Store, StoreError, UploadId,
    s3::{CALL_DEADLINE, PART_DEADLINE, call, content_md5, encryption, tagging},
    verify::{ListedPart, compare_parts},
};

/// Attempts at completing an upload; each finds out first whether an earlier one succeeded.
const ATTEMPTS: u32 = 4;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(3));
/// Slowest rate at which a streamed part may come, in bytes a second.
const SLOWEST_BYTES_PER_S: u64 = 64 * 1024;
/// Most open uploads that one look returns; a further look finds the others.
const MOST_OPEN_UPLOADS: usize = 10_000;

/// An artifact that is in the store and proven whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Version of the object, where the store has versions.
    pub version: Option<String>,
    /// How it was proven.
    pub proof: Proof,
}

/// An object that came out of an upload, not proven yet.
pub(super) struct Completed {
    pub(super) version: Option<String>,
    pub(super) crc64nvme: Option<String>,
    size_bytes: Option<u64>,
    /// An earlier call had completed it: it may have been linked since, and is not ours to remove.
    found_before: bool,
}

impl Store {
    /// Opens an upload. Encryption, tags and checksum are fixed here; the parts' URLs carry none of them.
    pub async fn open_upload(
        &self,
        key: &ArtifactKey,
        media_type: &str,
        tags: &[(String, String)],
    ) -> Result<UploadId, StoreError> {
        let checked = self.capabilities().await?.full_object_crc;
        self.create_upload(key, media_type, tags, checked).await
    }

    pub(super) async fn create_upload(
        &self,
        key: &ArtifactKey,
        media_type: &str,
        tags: &[(String, String)],
        full_object_crc: bool,
    ) -> Result<UploadId, StoreError> {
        let what = "open the upload";
        let config = &self.0.config;
        let (encryption, kms_key) = encryption(&config.encryption);
        let mut request = self
            .0
            .bot
            .create_multipart_upload()
            .bucket(&config.bucket)
            .key(key.as_str())
            .content_type(media_type)
            .set_tagging(tagging(config, tags))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key);
        if full_object_crc {
            request = request
                .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
                .checksum_type(ChecksumType::FullObject);
        }
        // Not repeated below us: an upload whose opening was not answered stays open, and only who asked can look for it.
        let once = aws_sdk_s3::Config::builder().retry_config(RetryConfig::disabled());
        let request = request.customize().config_override(once);
        let answer = call(what, CALL_DEADLINE, request.send()).await?;
        answer.upload_id.map(UploadId).ok_or(StoreError::Other {
            call: what,
            code: "no upload id".to_owned(),
            status: 200,
        })
    }

    /// Uploads one part ourselves.
    pub async fn upload_part(
        &self,
        key: &ArtifactKey,
        upload: &UploadId,
        number: u32,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        let md5 = content_md5(&bytes);
        let sent = self.send_part(key, upload, number, bytes, md5).await;
        sent.map(|_| ()).map_err(StoreError::while_sending)
    }

    /// Uploads one part as its bytes come (relay). Not repeated here, since they are not kept. What arrived is compared when the
    /// upload is completed.
    pub async fn stream_part<B, E>(
        &self,
        key: &ArtifactKey,
        upload: &UploadId,
        number: u32,
        length_bytes: u64,
        body: B,
    ) -> Result<(), StoreError>
    where
        B: Body<Data = Bytes, Error = E> + Send + Sync + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let limit = PART_DEADLINE + Duration::from_secs(length_bytes / SLOWEST_BYTES_PER_S);
        let timeouts = TimeoutConfig::builder().operation_timeout(limit).build();
        let request = self
            .0
            .bot
            .upload_part()
            .bucket(&self.0.config.bucket)
            .key(key.as_str())
            .upload_id(upload.as_str())
            .part_number(wire_number(number))
            .content_length(i64::try_from(length_bytes).unwrap_or(i64::MAX))
            .body(ByteStream::from_body_1_x(body))
            .customize()
            .config_override(aws_sdk_s3::Config::builder().timeout_config(timeouts))
            .disable_payload_signing();
        let sent = call("upload a part", limit, request.send()).await;
        sent.map(|_| ()).map_err(StoreError::while_sending)
    }

    /// Uploads one part with that `Content-MD5`; returns its ETag.
    pub(super) async fn send_part(
        &self,
        key: &ArtifactKey,
        upload: &UploadId,
        number: u32,
        bytes: Bytes,
        content_md5: String,
    ) -> Result<Option<String>, StoreError> {
        let request = self
            .0
            .bot
            .upload_part()
            .bucket(&self.0.config.bucket)
            .key(key.as_str())
            .upload_id(upload.as_str())
            .part_number(wire_number(number))
            .content_md5(content_md5)
            .body(bytes.into())
            // `Content-MD5` guards the bytes; a signature over them would cost a further pass.
            .customize()
            .disable_payload_signing();
        let answer = call("upload a part", PART_DEADLINE, request.send()).await?;
        Ok(answer.e_tag)
    }

    /// Completes an upload and proves that the object is what `report` says. Repeatable: an upload that was completed
    /// before is proven again. Where it is not what was captured, the upload, or the object that came of it in this call, is
    /// removed.
    pub async fn complete(
        &self,
        key: &ArtifactKey,
        upload: &UploadId,
        report: &ArtifactReport,
        part_size_bytes: u64,
    ) -> Result<Stored, StoreError> {
        let finished = retry(ATTEMPTS, BACKOFF, || self.finish(key, upload, report, part_size_bytes)).await;
        let completed = match finished {
            Ok(completed) => completed,
            Err(error) => {
                if matches!(error, StoreError::Mismatch { .. }) {
                    tell_leftover(self.abort(key, upload).await);
                }
                return Err(error);
            }
        };
        let version = completed.version.clone();
        let proven = retry(ATTEMPTS, BACKOFF, || self.prove(key, &completed, report)).await;
        if matches!(proven, Err(StoreError::Mismatch { .. })) && !completed.found_before {
            tell_leftover(self.delete(key, version.as_deref()).await);
        }
        proven.map(|proof| Stored { version, proof })
    }

    /// Completes, or finds the object of an earlier attempt whose answer was lost.
    async fn finish(
        &self,
        key: &ArtifactKey,
        upload: &UploadId,
        report: &ArtifactReport,
        part_size_bytes: u64,
    ) -> Result<Completed, StoreError> {
        let listed = match self.check_parts(key, upload, report, part_size_bytes).await {
            Err(gone @ StoreError::NotFound { .. }) => return self.completed_before(key, gone).await,
            listed => listed?,
        };
        let capabilities = self.capabilities().await?;
        let crc = capabilities.full_object_crc.then(|| report.digests.crc64nvme.clone());
        match self.send_complete(key, upload, &listed, crc).await {
            Err(gone @ StoreError::NotFound { .. }) => self.completed_before(key, gone).await,
            answer => answer,
        }
    }

    /// The upload's parts, if they are those of the report, as far as the store's list can tell.
    async fn check_parts(
        &self,
        key: &ArtifactKey,
        upload: &UploadId,
        report: &ArtifactReport,
        part_size_bytes: u64,
    ) -> Result<Vec<ListedPart>, StoreError> {
        let listed = self.list_parts(key, upload).await?;
        compare_parts(
            &listed,
            report,
            part_size_bytes,
            self.capabilities().await?.etags_are_md5,
        )
        .map_err(|detail| StoreError::mismatch("compare the parts", detail))?;
        Ok(listed)
    }

    /// Whether the upload's parts are those of the report, as far as the store's list can tell. Nothing is removed.
    pub async fn compare_upload(
        &self,
        key: &ArtifactKey,
        upload: &UploadId,
        report: &ArtifactReport,
        part_size_bytes: u64,
    ) -> Result<(), StoreError> {
        self.check_parts(key, upload, report, part_size_bytes).await.map(|_| ())
    }

    pub(super) async fn send_complete(
        &self,
        key: &ArtifactKey,
        upload: &UploadId,
        listed: &[ListedPart],
        crc64nvme: Option<String>,
    ) -> Result<Completed, StoreError> {
        let parts = listed
            .iter()
            .map(|part| {
                CompletedPart::builder()
                    .part_number(wire_number(part.number))
                    .e_tag(&part.etag)
                    .build()
            })
            .collect();
        let request = self
            .0
            .bot
            .complete_multipart_upload()
            .bucket(&self.0.config.bucket)
            .key(key.as_str())
            .upload_id(upload.as_str())
            .set_checksum_type(crc64nvme.as_ref().map(|_| ChecksumType::FullObject))
            .set_checksum_crc64_nvme(crc64nvme)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build());
        // A store may copy the parts together before it answers.
        let answer = call("complete the upload", PART_DEADLINE, request.send()).await?;
        Ok(Completed {
            version: answer.version_id,
            crc64nvme: answer.checksum_crc64_nvme,
            size_bytes: None,
            found_before: false,
        })
    }

    /// The object of an upload that is no more; `gone` where there is none.
    async fn completed_before(&self, key: &ArtifactKey, gone: StoreError) -> Result<Completed, StoreError> {
        match self.head(key, None).await {
            Err(StoreError::NotFound { .. }) => Err(gone),
            found => found,
        }
    }

    pub(super) async fn head(&self, key: &ArtifactKey, version: Option<&str>) -> Result<Completed, StoreError> {
        let request = self
            .0
            .bot
            .head_object()
            .bucket(&self.0.config.bucket)
            .key(key.as_str())
            .set_version_id(version.map(str::to_owned))
            .checksum_mode(ChecksumMode::Enabled);
        let answer = call("look at the artifact", CALL_DEADLINE, request.send()).await?;
        Ok(Completed {
            version: answer.version_id,
            crc64nvme: answer.checksum_crc64_nvme,
            size_bytes: answer.content_length.and_then(|n| u64::try_from(n).ok()),
            found_before: true,
        })
    }

    /// Proves a completed object. The store's own word counts only where the probe saw it refuse a wrong checksum.
    async fn prove(
        &self,
        key: &ArtifactKey,
        completed: &Completed,
        report: &ArtifactReport,
    ) -> Result<Proof, StoreError> {
        let what = "compare the artifact";
        let version = completed.version.as_deref();
        if self.capabilities().await?.full_object_crc {
            // The answer to the completion shows the checksum that the store has just compared, and the parts' lengths
            // were compared before it. Otherwise the object itself is asked for.
            let asked;
            let found = if completed.crc64nvme.is_some() {
                completed
            } else {
                asked = self.head(key, version).await?;
                &asked
            };
            if found.size_bytes.is_some_and(|size| size != report.digests.size_bytes) {
                return Err(StoreError::mismatch(what, "its length differs"));
            }
            match &found.crc64nvme {
                Some(crc) if *crc == report.digests.crc64nvme => return Ok(Proof::StoreChecked),
                Some(_) => return Err(StoreError::mismatch(what, "its CRC-64/NVME differs")),
                None => {}
            }
        }
        self.read_back(key, version, report).await?;
        Ok(Proof::ReadBack)
    }

    pub(super) async fn list_parts(&self, key: &ArtifactKey, upload: &UploadId) -> Result<Vec<ListedPart>, StoreError> {
        let mut listed = Vec::new();
        let mut marker = None;
        loop {
            let request = self
                .0
                .bot
                .list_parts()
                .bucket(&self.0.config.bucket)
                .key(key.as_str())
                .upload_id(upload.as_str())
                .set_part_number_marker(marker);
            let page = call("list the parts", CALL_DEADLINE, request.send()).await?;
            listed.extend(page.parts().iter().map(|part| ListedPart {
                number: part.part_number.and_then(|n| u32::try_from(n).ok()).unwrap_or_default(),
                size_bytes: part.size.and_then(|n| u64::try_from(n).ok()).unwrap_or_default(),
                etag: part.e_tag().unwrap_or_default().trim_matches('"').to_owned(),
            }));
            marker = page.next_part_number_marker().map(str::to_owned);
            if page.is_truncated != Some(true) || marker.is_none() {
                return Ok(listed);
            }
        }
    }

    /// Aborts an upload. That it is gone is no error.
    pub async fn abort(&self, key: &ArtifactKey, upload: &UploadId) -> Result<(), StoreError> {
        let request = self
            .0
            .bot
            .abort_multipart_upload()
            .bucket(&self.0.config.bucket)
            .key(key.as_str())
            .upload_id(upload.as_str());
        match call("abort the upload", CALL_DEADLINE, request.send()).await {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Uploads beneath our prefix that were opened and neither completed nor aborted, with when they were opened.
    /// Keys that are not of our form are left out: they are not ours to abort.
    pub async fn open_uploads(&self) -> Result<Vec<(ArtifactKey, UploadId, Timestamp)>, StoreError> {
        let mut found = Vec::new();
        let mut markers = (None, None);
        loop {
            let request = self
                .0
                .bot
                .list_multipart_uploads()
                .bucket(&self.0.config.bucket)
                .prefix(format!("{}/", self.0.config.prefix))
                .set_key_marker(markers.0)
                .set_upload_id_marker(markers.1);
            let page = call("list the open uploads", CALL_DEADLINE, request.send()).await?;
            for upload in page.uploads() {
                let key = upload.key.clone().and_then(|key| ArtifactKey::try_from(key).ok());
                let opened = upload.initiated.and_then(|at| Timestamp::from_second(at.secs()).ok());
                if let (Some(key), Some(id), Some(opened)) = (key, upload.upload_id.clone(), opened) {
                    found.push((key, UploadId(id), opened));
                }
            }
            if page.is_truncated != Some(true) || found.len() >= MOST_OPEN_UPLOADS {
                return Ok(found);
            }
            markers = (page.next_key_marker, page.next_upload_id_marker);
        }
    }
}

/// A clean-up that failed is told once; the store's own rules for unfinished uploads come after us.
fn tell_leftover(outcome: Result<(), StoreError>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "a rejected upload could not be removed from the store");
    }
}

/// Part numbers are at most 10,000.
pub(super) fn wire_number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

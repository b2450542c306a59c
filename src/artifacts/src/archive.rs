//! Several objects of the store as one more: an archive that is read from the store and written to it part by part, with a
//! proof like any artifact's. Knows no runs and no people: callers bring paths, keys and digests.
//!
//! # Design notes
//! What is read is compared with the digest that it was stored with, so that an archive holds what was captured or does not
//! come about. Its length is known before, and one part of it is in memory at a time. An upload of ours that a crash leaves
//! open is found and aborted like any other ([`Store::open_uploads`]), which is why an archive must be whole before that.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use diagbot_base::retry::{Backoff, retry};
use diagbot_wire::{
    digest::{Hasher, MultipartEtag, PartMd5},
    result::{ArtifactReport, Via},
    upload::part_size_bytes,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{ArtifactKey, Proof, Store, StoreError, UploadId, tar};

/// Attempts at one part.
const ATTEMPTS: u32 = 4;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(3));
/// Longest time of one archive; uploads that are older than ten minutes and nobody's are aborted.
const LONGEST: Duration = Duration::from_mins(9);
/// Longest description beside an archive.
const MAX_DESCRIPTION: usize = 16 * 1024;
/// Media type of an archive. None is registered; this is what browsers and servers use.
const MEDIA_TYPE: &str = "application/x-tar";

/// A file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveFile {
    /// Folder within it.
    pub folder: String,
    /// Name.
    pub name: String,
    /// Where its content comes from.
    pub content: Content,
}

/// What a file of an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Bytes),
    /// An artifact of the store.
    Object {
        /// Its key.
        key: ArtifactKey,
        /// Its version, where the store has versions.
        version: Option<String>,
        /// Its length.
        size_bytes: u64,
        /// Its SHA-256, hexadecimal.
        sha256: String,
    },
}

impl Content {
    fn size_bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Object { size_bytes, .. } => *size_bytes,
        }
    }
}

/// An archive that is in the store and proven whole. The same stands beside it, as `….json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// Key of the object.
    pub object: ArtifactKey,
    /// Version of the object, where the store has versions.
    pub version: Option<String>,
    /// Length.
    pub size_bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// CRC-64/NVME as the store has it.
    pub crc64nvme: String,
    /// How it was proven whole.
    pub proof: Proof,
}

impl Store {
    /// The length of an archive of these files, in bytes.
    pub fn archive_length(files: &[ArchiveFile]) -> u64 {
        let of_files: u64 = files.iter().map(|file| tar::length(file.content.size_bytes())).sum();
        of_files + tar::END.len() as u64
    }

    /// Writes an archive of these files, in order, or finds the one that was written there before. The key is to follow from
    /// what is in it.
    pub async fn archive(
        &self,
        key: &ArtifactKey,
        files: &[ArchiveFile],
        at: Timestamp,
        tags: &[(String, String)],
    ) -> Result<Archive, StoreError> {
        let written = async {
            match self.archived(key).await? {
                Some(found) => Ok(found),
                None => self.write_archive(key, files, at, tags).await,
            }
        };
        match tokio::time::timeout(LONGEST, Box::pin(written)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StoreError::late("write the archive", LONGEST)),
        }
    }

    /// The archive of that key, as it was described when it was written, if it is still there.
    async fn archived(&self, key: &ArtifactKey) -> Result<Option<Archive>, StoreError> {
        let Some(text) = self.read_small(&description(key)?, MAX_DESCRIPTION).await? else {
            return Ok(None);
        };
        let described: Option<Archive> = serde_json::from_slice(&text).ok();
        let Some(archive) = described.filter(|archive| archive.object == *key) else {
            return Ok(None);
        };
        match self.head(key, archive.version.as_deref()).await {
            Ok(found) if found.crc64nvme.as_ref().is_none_or(|crc| *crc == archive.crc64nvme) => Ok(Some(archive)),
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn write_archive(
        &self,
        key: &ArtifactKey,
        files: &[ArchiveFile],
        at: Timestamp,
        tags: &[(String, String)],
    ) -> Result<Archive, StoreError> {
        let length = Self::archive_length(files);
        let upload = self.open_upload(key, MEDIA_TYPE, tags).await?;
        let mut parts = Parts::new(self, key, &upload, length);
        let report = match parts.fill(files, at).await {
            Ok(()) => parts.finish().await,
            Err(error) => Err(error),
        };
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                // What went wrong is told, not that cleaning up after it did too: old uploads are looked for.
                let _aborted = self.abort(key, &upload).await;
                return Err(error);
            }
        };
        let stored = self.complete(key, &upload, &report, part_size_bytes(length)).await?;
        let archive = Archive {
            object: key.clone(),
            version: stored.version,
            size_bytes: report.digests.size_bytes,
            sha256: report.digests.sha256,
            crc64nvme: report.digests.crc64nvme,
            proof: stored.proof,
        };
        let described = serde_json::to_vec(&archive).unwrap_or_default();
        self.put(&description(key)?, described.into(), "application/json")
            .await?;
        Ok(archive)
    }
}

fn description(key: &ArtifactKey) -> Result<ArtifactKey, StoreError> {
    ArtifactKey::try_from(format!("{key}.json"))
        .map_err(|_| StoreError::mismatch("name the archive's description", "its key is too long"))
}

/// The archive's bytes on their way into an upload: one part is held.
struct Parts<'a> {
    store: &'a Store,
    key: &'a ArtifactKey,
    upload: &'a UploadId,
    part_size: usize,
    held: BytesMut,
    /// Bytes that are still to come.
    left: u64,
    number: u32,
    hasher: Hasher,
    etag: MultipartEtag,
}

impl<'a> Parts<'a> {
    fn new(store: &'a Store, key: &'a ArtifactKey, upload: &'a UploadId, length: u64) -> Self {
        Self {
            store,
            key,
            upload,
            part_size: usize::try_from(part_size_bytes(length)).unwrap_or(usize::MAX),
            held: BytesMut::new(),
            left: length,
            number: 0,
            hasher: Hasher::default(),
            etag: MultipartEtag::default(),
        }
    }

    async fn fill(&mut self, files: &[ArchiveFile], at: Timestamp) -> Result<(), StoreError> {
        for file in files {
            let size_bytes = file.content.size_bytes();
            let header = tar::header(&file.folder, &file.name, size_bytes, at);
            self.push(&header).await?;
            self.push_content(&file.content).await?;
            self.push(tar::padding(size_bytes)).await?;
        }
        self.push(&tar::END).await
    }

    async fn push_content(&mut self, content: &Content) -> Result<(), StoreError> {
        let (key, version, size_bytes, sha256) = match content {
            Content::Bytes(bytes) => return self.push(bytes).await,
            Content::Object {
                key,
                version,
                size_bytes,
                sha256,
            } => (key, version.as_deref(), *size_bytes, sha256),
        };
        let mut reading = self.store.reading(key, version, size_bytes);
        let mut found = Sha256::new();
        while let Some(bytes) = reading.next().await? {
            found.update(&bytes);
            self.push(&bytes).await?;
        }
        if hex::encode(found.finalize()) == *sha256 {
            Ok(())
        } else {
            Err(StoreError::mismatch("read the artifact", "the SHA-256 differs"))
        }
    }

    async fn push(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            if self.held.is_empty() {
                // Exactly one part, and not what a growing buffer would take.
                let left = usize::try_from(self.left).unwrap_or(usize::MAX);
                self.held.reserve(self.part_size.min(left));
            }
            let (fits, rest) = bytes.split_at(bytes.len().min(self.part_size - self.held.len()));
            self.hasher.update(fits);
            self.held.extend_from_slice(fits);
            self.left = self.left.saturating_sub(fits.len() as u64);
            bytes = rest;
            if self.held.len() == self.part_size {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), StoreError> {
        let part = self.held.split().freeze();
        self.number += 1;
        let md5 = PartMd5::of(&part);
        self.etag.push(md5);
        let (store, key, upload, number) = (self.store, self.key, self.upload, self.number);
        let send = || async {
            let sent = store.send_part(key, upload, number, part.clone(), md5.content_md5());
            sent.await.map_err(StoreError::while_sending)
        };
        retry(ATTEMPTS, BACKOFF, send).await.map(|_| ())
    }

    async fn finish(mut self) -> Result<ArtifactReport, StoreError> {
        if !self.held.is_empty() {
            self.send().await?;
        }
        Ok(ArtifactReport {
            digests: self.hasher.finish(),
            parts: self.number,
            etag: self.etag.finish(),
            via: Via::Direct,
            suffix: String::new(),
            preview: String::new(),
            findings: Vec::new(),
            note: String::new(),
            redaction: None,
        })
    }
}

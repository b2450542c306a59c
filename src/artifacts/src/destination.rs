//! Where a capture's artifacts go: to the store, or into a folder of this machine. Owns no bytes: each kind of place is a
//! module of its own, and both give the same proof.

use bytes::Bytes;
use diagbot_wire::result::ArtifactReport;
use http_body_util::Full;
use hyper::body::Body;
use jiff::Timestamp;

use super::{ArtifactKey, Folder, Store, StoreError, Stored, Transfer, UploadId};

/// The first segment of keys that are no store's.
const FOLDER_PREFIX: &str = "folder";

/// Where artifacts go.
#[derive(Debug, Clone)]
pub enum Destination {
    /// The store.
    Store(Store),
    /// A folder of this machine. Pods can't reach it: everything is fetched from them.
    Folder(Folder),
}

/// A part of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// From 1.
    pub number: u32,
    /// Where in the artifact it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length_bytes: u64,
}

impl Destination {
    /// The store, where there is one.
    pub fn store(&self) -> Option<&Store> {
        match self {
            Self::Store(store) => Some(store),
            Self::Folder(_) => None,
        }
    }

    /// The store, where pods may write to it themselves.
    pub fn direct(&self) -> Option<&Store> {
        self.store().filter(|store| store.config().transfer == Transfer::Auto)
    }

    /// The key of an object.
    pub fn key(&self, segments: &[&str]) -> ArtifactKey {
        match self {
            Self::Store(store) => store.key(segments),
            Self::Folder(_) => ArtifactKey::build(FOLDER_PREFIX, segments),
        }
    }

    /// Opens an upload.
    pub async fn open_upload(
        &self,
        key: &ArtifactKey,
        media_type: &str,
        tags: &[(String, String)],
    ) -> Result<UploadId, StoreError> {
        match self {
            Self::Store(store) => store.open_upload(key, media_type, tags).await,
            Self::Folder(folder) => folder.open_upload(),
        }
    }

    /// Uploads that nobody has completed, also those of processes that are gone. A folder's end with their process.
    pub async fn open_uploads(&self) -> Result<Vec<(ArtifactKey, UploadId, Timestamp)>, StoreError> {
        match self {
            Self::Store(store) => store.open_uploads().await,
            Self::Folder(_) => Ok(Vec::new()),
        }
    }

    /// Writes one part.
    pub async fn upload_part(
        &self,
        key: &ArtifactKey,
        upload: &UploadId,
        part: Part,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        match self {
            Self::Store(store) => store.upload_part(key, upload, part.number, bytes).await,
            Self::Folder(folder) => {
                folder
                    .write_part(upload, part.number, part.offset, Full::new(bytes))
                    .await
            }
        }
    }

    /// Writes one part as its bytes come.
    pub async fn stream_part<B, E>(
        &self,
        key: &ArtifactKey,
        upload: &UploadId,
        part: Part,
        body: B,
    ) -> Result<(), StoreError>
    where
        B: Body<Data = Bytes, Error = E> + Send + Sync + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        match self {
            Self::Store(store) => {
                store
                    .stream_part(key, upload, part.number, part.length_bytes, body)
                    .await
            }
            Self::Folder(folder) => folder.write_part(upload, part.number, part.offset, body).await,
        }
    }

    /// Whether the parts are those of the report, as far as can be told before completion.
    pub async fn compare_upload(
        &self,
        key: &ArtifactKey,
        upload: &UploadId,
        report: &ArtifactReport,
        part_size_bytes: u64,
    ) -> Result<(), StoreError> {
        match self {
            Self::Store(store) => store.compare_upload(key, upload, report, part_size_bytes).await,
            Self::Folder(folder) => folder.compare(upload, report, part_size_bytes),
        }
    }

    /// Completes an upload and proves that it is what `report` says. Repeatable.
    pub async fn complete(
        &self,
        key: &ArtifactKey,
        upload: &UploadId,
        report: &ArtifactReport,
        part_size_bytes: u64,
    ) -> Result<Stored, StoreError> {
        match self {
            Self::Store(store) => store.complete(key, upload, report, part_size_bytes).await,
            Self::Folder(folder) => folder.complete(key, upload, report, part_size_bytes).await,
        }
    }

    /// Aborts an upload. That it is gone is no error.
    pub async fn abort(&self, key: &ArtifactKey, upload: &UploadId) -> Result<(), StoreError> {
        match self {
            Self::Store(store) => store.abort(key, upload).await,
            Self::Folder(folder) => folder.abort(upload),
        }
    }

    /// Puts what describes the artifacts beside them. In a folder nothing is put there: who made it is told all that.
    pub async fn describe(&self, key: &ArtifactKey, bytes: Bytes, media_type: &str) -> Result<(), StoreError> {
        match self {
            Self::Store(store) => store.put(key, bytes, media_type).await,
            Self::Folder(_) => Ok(()),
        }
    }

    /// Reads a small object; `None` where there is none. Nobody but us writes to a folder.
    pub async fn read_small(&self, key: &ArtifactKey, max_bytes: usize) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::Store(store) => store.read_small(key, max_bytes).await,
            Self::Folder(_) => Ok(None),
        }
    }
}

//! The client of the object store: uploads, links, verification. Begin to read at [`Store`].
//!
//! Owns every call to S3 and every presigned URL. Knows no runs, no captures and no Slack: callers bring a key, an upload
//! and what the agent reported, and get a proof or an error that says whether trying again can help.
//!
//! The caller's duty: record an [`UploadId`] before a URL of it is handed out, and [`Store::complete`] or [`Store::abort`]
//! it in the end. What a crash leaves behind is found by [`Store::open_uploads`]; the bucket should have a lifecycle rule
//! `AbortIncompleteMultipartUpload` besides.
//!
//! # Design notes
//! The bot, the pods and people may reach the store under different addresses, and a signature covers the host. So there
//! are three clients over one set of credentials, and each URL is signed by the client of those who will use it.

mod archive;
mod config;
mod credentials;
mod destination;
mod error;
mod fetch;
mod folder;
mod key;
mod link;
mod probe;
mod reading;
mod s3;
mod tar;
mod upload;
mod verify;

#[cfg(test)]
mod tests;

pub use self::{
    archive::{Archive, ArchiveFile, Content},
    config::{Encryption, LinkLifetimes, StoreConfig, Transfer},
    destination::{Destination, Part},
    error::StoreError,
    folder::{Folder, FolderError},
    key::{ArtifactKey, InvalidKey, UploadId},
    link::{Link, SignedParts, SignedPut, SignedUrl},
    probe::{Finding, Outcome, Probe},
    s3::{Created, Store},
    upload::Stored,
    verify::Proof,
};

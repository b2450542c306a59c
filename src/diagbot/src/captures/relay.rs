//! Fetches a staged artifact through exec into our own container and uploads it: the way of pods that can't reach the store.
//!
//! # Design notes
//! A stream that breaks, or ends before the length that the agent reported (also with status Success), is taken up at the
//! byte where it stopped. One part is read while the one before is uploaded, so that a relay holds two parts and no more,
//! whatever the artifact's length; [`RELAYS`] bounds how many run at once. The digests are compared before the upload is
//! completed.

mod stream;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use diagbot_wire::{
    digest::{Hasher, MultipartEtag, PartMd5},
    result::ArtifactReport,
    upload::{MIN_PART_BYTES, part_count},
};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use self::stream::CatStream;
use crate::{
    artifacts::{ArtifactKey, Store, StoreError, UploadId},
    cluster::CallError,
    retry::{self, Backoff},
};

/// Relays at once in the process: two parts of at least 8 MiB each.
pub(super) const RELAYS: usize = 1;
/// Most parts of one upload in S3.
const MAX_PARTS: u64 = 10_000;
/// Attempts in a row that bring no byte, after which the relay is given up.
const FRUITLESS: u32 = 6;
/// Attempts at one part's upload.
const PART_ATTEMPTS: u32 = 6;

/// Why an artifact could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    /// Exec does not work.
    #[error("read the staged artifact from the agent's container")]
    Exec(#[source] CallError),
    /// It ends early again and again.
    #[error("the staged artifact ends after {read} of {expected} bytes: {said}")]
    Short {
        /// Bytes that came.
        read: u64,
        /// Bytes that the agent reported.
        expected: u64,
        /// What exec said at last. Untrusted text.
        said: String,
    },
    /// The bytes are not those that the agent reported.
    #[error("the staged artifact is not what the agent reported")]
    Mismatch,
    /// The store did not take a part.
    #[error("upload a relayed part")]
    Store(#[source] StoreError),
}

/// What is fetched and where it goes.
pub(super) struct Relay<'a> {
    /// Pods, by a client without a read timeout.
    pub pods: Api<Pod>,
    /// The pod.
    pub pod: &'a str,
    /// Our container.
    pub container: &'a str,
    /// Step.
    pub step: u16,
    /// What the agent reported.
    pub report: &'a ArtifactReport,
    /// The store.
    pub store: &'a Store,
    /// Key of the artifact.
    pub key: &'a ArtifactKey,
    /// Its upload.
    pub upload: &'a UploadId,
    /// Told how many bytes have come.
    pub relayed_bytes: &'a AtomicU64,
}

/// What went into the upload.
#[derive(Debug)]
pub(super) struct Relayed {
    /// The agent's report, with the parts as they were uploaded here.
    pub report: ArtifactReport,
    /// Bytes of every part but the last.
    pub part_size_bytes: u64,
}

/// Bytes of a relayed part. Smaller than the agent's would be for a long artifact, since we hold two of them; never more
/// than S3's [`MAX_PARTS`].
fn part_size_bytes(size_bytes: u64) -> u64 {
    MIN_PART_BYTES.max(size_bytes.div_ceil(MAX_PARTS))
}

impl Relay<'_> {
    /// Fetches everything into the upload's parts and compares the digests. The upload is not completed.
    pub(super) async fn run(&self) -> Result<Relayed, RelayError> {
        self.relayed_bytes.store(0, Ordering::Relaxed);
        let mut source = Source {
            relay: self,
            stream: None,
            position: 0,
            hasher: Hasher::default(),
        };
        let size_bytes = self.report.digests.size_bytes;
        let part_size_bytes = part_size_bytes(size_bytes);
        let parts = part_count(size_bytes, part_size_bytes);
        let mut etag = MultipartEtag::default();
        let mut waiting: Option<(u32, Bytes)> = None;
        for number in 1..=parts {
            let (uploaded, read) = tokio::join!(self.upload(waiting.take()), source.part(part_size_bytes));
            uploaded?;
            let part = read?;
            etag.push(PartMd5::of(&part));
            waiting = Some((number, part));
        }
        // The last part leaves only when everything is known to be right.
        if source.hasher.finish() != self.report.digests {
            return Err(RelayError::Mismatch);
        }
        self.upload(waiting).await?;
        Ok(Relayed {
            report: ArtifactReport {
                parts,
                etag: etag.finish(),
                ..self.report.clone()
            },
            part_size_bytes,
        })
    }

    async fn upload(&self, part: Option<(u32, Bytes)>) -> Result<(), RelayError> {
        let Some((number, bytes)) = part else { return Ok(()) };
        let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        retry::retry(PART_ATTEMPTS, backoff, || {
            self.store.upload_part(self.key, self.upload, number, bytes.clone())
        })
        .await
        .map_err(RelayError::Store)
    }
}

/// The artifact's bytes, over as many streams as it takes.
struct Source<'a> {
    relay: &'a Relay<'a>,
    stream: Option<CatStream>,
    position: u64,
    hasher: Hasher,
}

impl Source<'_> {
    /// The next part, whole.
    async fn part(&mut self, part_size_bytes: u64) -> Result<Bytes, RelayError> {
        let expected = self.relay.report.digests.size_bytes;
        let wanted = (expected - self.position).min(part_size_bytes) as usize;
        let mut part = vec![0; wanted];
        let mut filled = 0;
        let mut fruitless = 0;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
        while filled < wanted {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                none => match self.relay.open(self.position).await {
                    Ok(opened) => none.insert(opened),
                    Err(error) if fruitless < FRUITLESS && error.is_transient() => {
                        fruitless += 1;
                        backoff.wait(None).await;
                        continue;
                    }
                    Err(error) => return Err(RelayError::Exec(error)),
                },
            };
            let read = stream.read(&mut part[filled..]).await;
            if read == 0 {
                let said = stream.last_words();
                self.stream = None;
                fruitless += 1;
                if fruitless > FRUITLESS {
                    return Err(RelayError::Short {
                        read: self.position,
                        expected,
                        said,
                    });
                }
                backoff.wait(None).await;
                continue;
            }
            fruitless = 0;
            backoff.reset();
            self.hasher.update(&part[filled..filled + read]);
            filled += read;
            self.position += read as u64;
            self.relay.relayed_bytes.store(self.position, Ordering::Relaxed);
        }
        Ok(part.into())
    }
}

impl Relay<'_> {
    async fn open(&self, from: u64) -> Result<CatStream, CallError> {
        CatStream::open(&self.pods, self.pod, self.container, self.step, from).await
    }
}

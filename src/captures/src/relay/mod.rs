//! Fetches a staged artifact through exec into our own container and uploads it: the way of pods that can't reach the store.
//!
//! # Design notes
//! A stream that breaks, or ends before the length that the agent reported (also with status Success), is taken up at the
//! byte where it stopped. Bytes go on to the store as they come, in the parts that the agent would have sent itself: a relay
//! holds a few frames, whatever the artifact's length, and a part that the store did not take is fetched again. Nothing is
//! hashed here: the store's MD5s of the parts are compared with the agent's before the upload is completed, and the whole is
//! proven as for an artifact that came directly.

mod body;
mod stream;

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use diagbot_artifacts::{ArtifactKey, Destination, Part, StoreError, UploadId};
use diagbot_base::retry::{Backoff, Permanence as _};
use diagbot_cluster::CallError;
use diagbot_wire::{result::ArtifactReport, upload::part_count};
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::sync::mpsc;

use self::{body::PartBody, stream::CatStream};

/// Relays at once in the process: they share the way to the API server.
pub(super) const RELAYS: usize = 4;
/// Attempts in a row that bring no byte, after which the relay is given up.
const FRUITLESS: u32 = 6;
/// Attempts at one part's upload.
const PART_ATTEMPTS: u32 = 6;
/// Attempts at the whole, where a part was damaged on the way; what the last one brought is judged with its completion.
const WHOLE_ATTEMPTS: u32 = 3;
/// Frames between exec and the store, of at most 32 KiB as a rule.
const FRAMES: usize = 8;
/// Parts whose last byte is sent and that the store has not confirmed yet.
const UNCONFIRMED: usize = 2;

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
    /// Bytes of every part but the last.
    pub part_size_bytes: u64,
    /// Where it goes.
    pub store: &'a Destination,
    /// Key of the artifact.
    pub key: &'a ArtifactKey,
    /// Its upload.
    pub upload: &'a UploadId,
    /// Told how many bytes have come.
    pub relayed_bytes: &'a AtomicU64,
}

impl Relay<'_> {
    /// Fetches everything into the upload's parts, again where the store's MD5s say that it was damaged on the way. The upload is
    /// not completed.
    pub(super) async fn run(&self) -> Result<(), RelayError> {
        for _ in 1..WHOLE_ATTEMPTS {
            self.pass_on().await?;
            let (report, part_size_bytes) = (self.report, self.part_size_bytes);
            match self
                .store
                .compare_upload(self.key, self.upload, report, part_size_bytes)
                .await
            {
                Err(error @ StoreError::Mismatch { .. }) => {
                    tracing::warn!(%error, "a relayed artifact was damaged on the way and is fetched again");
                }
                checked => return checked.map_err(RelayError::Store),
            }
        }
        self.pass_on().await
    }

    async fn pass_on(&self) -> Result<(), RelayError> {
        let mut source = Source::new(self);
        let parts = part_count(self.size_bytes(), self.part_size_bytes);
        let mut flight = Flight::default();
        let mut stuck = (0, 0);
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let mut number = 1;
        while number <= parts || !flight.numbers.is_empty() {
            let outcome = if number <= parts && flight.numbers.len() < UNCONFIRMED {
                let (frames, received) = mpsc::channel(FRAMES);
                flight.add(number, self.send(number, received));
                number += 1;
                self.fill(&mut source, frames, &mut flight).await?
            } else {
                flight.next().await
            };
            let Err(error) = outcome else { continue };
            // Parts are fetched in order: what the store has not confirmed yet goes again.
            let again = flight.numbers.first().copied().unwrap_or(number);
            stuck = if stuck.0 == again {
                (again, stuck.1 + 1)
            } else {
                (again, 1)
            };
            if error.is_permanent() || stuck.1 >= PART_ATTEMPTS {
                return Err(RelayError::Store(error));
            }
            flight = Flight::default();
            number = again;
            source.seek(u64::from(again - 1) * self.part_size_bytes);
            backoff.wait(error.retry_after()).await;
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.report.digests.size_bytes
    }

    fn send(&self, number: u32, frames: mpsc::Receiver<Bytes>) -> Sending<'_> {
        let offset = u64::from(number - 1) * self.part_size_bytes;
        let length_bytes = self.part_size_bytes.min(self.size_bytes() - offset);
        let part = Part {
            number,
            offset,
            length_bytes,
        };
        let body = PartBody::new(frames, length_bytes);
        Box::pin(async move {
            let sent = self.store.stream_part(self.key, self.upload, part, body);
            (number, sent.await)
        })
    }

    /// Passes the next part's bytes on while the parts under way proceed; an error where one of them has failed.
    async fn fill(
        &self,
        source: &mut Source<'_>,
        frames: mpsc::Sender<Bytes>,
        flight: &mut Flight<'_>,
    ) -> Result<Result<(), StoreError>, RelayError> {
        let end = source.end_of_part();
        let pass = async {
            while source.position < end {
                let bytes = source.next(end).await?;
                if frames.send(bytes).await.is_err() {
                    // Its part has failed; that part's answer tells why.
                    return std::future::pending().await;
                }
            }
            Ok(())
        };
        let mut pass = std::pin::pin!(pass);
        loop {
            tokio::select! {
                passed = &mut pass => return passed.map(Ok),
                confirmed = flight.next() => if confirmed.is_err() {
                    return Ok(confirmed);
                },
            }
        }
    }

    async fn open(&self, from: u64) -> Result<CatStream, CallError> {
        CatStream::open(&self.pods, self.pod, self.container, self.step, from).await
    }
}

/// A part on its way: its number, and how it went.
type Sending<'a> = BoxFuture<'a, (u32, Result<(), StoreError>)>;

/// Parts that the store has not confirmed.
#[derive(Default)]
struct Flight<'a> {
    parts: FuturesUnordered<Sending<'a>>,
    numbers: BTreeSet<u32>,
}

impl<'a> Flight<'a> {
    fn add(&mut self, number: u32, part: Sending<'a>) {
        self.numbers.insert(number);
        self.parts.push(part);
    }

    /// The next answer of the store; none ever where nothing is on its way.
    async fn next(&mut self) -> Result<(), StoreError> {
        let Some((number, outcome)) = self.parts.next().await else {
            return std::future::pending().await;
        };
        outcome?;
        self.numbers.remove(&number);
        Ok(())
    }
}

/// The artifact's bytes, over as many streams as it takes.
struct Source<'a> {
    relay: &'a Relay<'a>,
    stream: Option<CatStream>,
    /// What came with the last frame and belongs to the next part.
    rest: Bytes,
    position: u64,
    fruitless: u32,
    backoff: Backoff,
}

impl<'a> Source<'a> {
    fn new(relay: &'a Relay<'a>) -> Self {
        relay.relayed_bytes.store(0, Ordering::Relaxed);
        Self {
            relay,
            stream: None,
            rest: Bytes::new(),
            position: 0,
            fruitless: 0,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(3)),
        }
    }

    /// Goes on from another byte.
    fn seek(&mut self, position: u64) {
        self.stream = None;
        self.rest = Bytes::new();
        self.position = position;
    }

    fn end_of_part(&self) -> u64 {
        let size = self.relay.part_size_bytes;
        (self.position / size + 1)
            .saturating_mul(size)
            .min(self.relay.size_bytes())
    }

    /// The next bytes, at most up to `end`.
    async fn next(&mut self, end: u64) -> Result<Bytes, RelayError> {
        while self.rest.is_empty() {
            self.rest = self.read().await?;
        }
        let wanted = usize::try_from(end - self.position).unwrap_or(usize::MAX);
        let bytes = self.rest.split_to(self.rest.len().min(wanted));
        self.position += bytes.len() as u64;
        self.relay.relayed_bytes.store(self.position, Ordering::Relaxed);
        Ok(bytes)
    }

    /// The next frame; empty where a stream had to be given up.
    async fn read(&mut self) -> Result<Bytes, RelayError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => match self.relay.open(self.position).await {
                Ok(opened) => none.insert(opened),
                Err(error) if self.fruitless < FRUITLESS && error.is_transient() => {
                    self.fruitless += 1;
                    self.backoff.wait(None).await;
                    return Ok(Bytes::new());
                }
                Err(error) => return Err(RelayError::Exec(error)),
            },
        };
        if let Some(bytes) = stream.next().await {
            self.fruitless = 0;
            self.backoff.reset();
            return Ok(bytes);
        }
        let said = stream.last_words();
        self.stream = None;
        self.fruitless += 1;
        if self.fruitless > FRUITLESS {
            return Err(RelayError::Short {
                read: self.position,
                expected: self.relay.size_bytes(),
                said,
            });
        }
        self.backoff.wait(None).await;
        Ok(Bytes::new())
    }
}

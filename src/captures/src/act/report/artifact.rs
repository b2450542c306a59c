//! An artifact that the bot writes itself: hashed, cut into parts and uploaded while it grows. Holds one part.

use std::time::Duration;

use bytes::Bytes;
use diagbot_analysis::redact::{Redactor, Rules};
use diagbot_artifacts::{ArtifactKey, Destination, Part, StoreError, UploadId};
use diagbot_base::retry::{self, Backoff};
use diagbot_wire::{
    digest::{Hasher, MultipartEtag, PartMd5},
    redaction::{RedactionReport, original_digest},
    result::{ArtifactReport, Via},
};

/// Attempts at one part.
const ATTEMPTS: u32 = 5;
/// First bytes that are kept for a preview.
const PREVIEW_BYTES: usize = 1_500;
/// The limit leaves room for the line that says so.
const CUT: &str = "\n\n[cut here: the report reached its limit]\n";

/// Where an artifact goes.
#[derive(Clone, Copy)]
pub(super) struct Sink<'a> {
    /// Where it is.
    pub store: &'a Destination,
    /// The object.
    pub key: &'a ArtifactKey,
    /// Its upload.
    pub upload: &'a UploadId,
}

/// An artifact that grows.
pub(super) struct Artifact<'a> {
    sink: Sink<'a>,
    /// None: there are no rules.
    redaction: Option<(Redactor<'a>, Hasher)>,
    part_size: usize,
    room_bytes: u64,
    part: Vec<u8>,
    parts: u32,
    hasher: Hasher,
    etag: MultipartEtag,
    preview: Vec<u8>,
    cut: bool,
}

/// A finished artifact.
pub(super) struct Finished {
    /// Its report; the upload is not completed.
    pub artifact: ArtifactReport,
    /// It reached its limit.
    pub cut: bool,
}

impl<'a> Artifact<'a> {
    pub(super) fn new(sink: Sink<'a>, part_size_bytes: u64, limit_bytes: u64, rules: &'a Rules) -> Self {
        Self {
            sink,
            redaction: (!rules.is_empty()).then(|| (Redactor::new(rules), Hasher::default())),
            part_size: part_size_bytes as usize,
            room_bytes: limit_bytes.saturating_sub(CUT.len() as u64),
            part: Vec::new(),
            parts: 0,
            hasher: Hasher::default(),
            etag: MultipartEtag::default(),
            preview: Vec::new(),
            cut: false,
        }
    }

    /// Appends text without what the rules remove; what is beyond the limit is dropped, once with a line that says so.
    pub(super) async fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let Some((redactor, original)) = &mut self.redaction else {
            return self.keep(bytes).await;
        };
        original.update(bytes);
        let mut clean = Vec::with_capacity(bytes.len());
        redactor.push(bytes, &mut clean);
        self.keep(&clean).await
    }

    async fn keep(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.cut {
            return Ok(());
        }
        let fits = (bytes.len() as u64).min(self.room_bytes) as usize;
        self.room_bytes -= fits as u64;
        self.append(&bytes[..fits]).await?;
        if fits < bytes.len() {
            self.cut = true;
            self.append(CUT.as_bytes()).await?;
        }
        Ok(())
    }

    /// Whether more would be dropped.
    pub(super) fn is_full(&self) -> bool {
        self.cut
    }

    async fn append(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        let shown = PREVIEW_BYTES.saturating_sub(self.preview.len()).min(bytes.len());
        self.preview.extend_from_slice(&bytes[..shown]);
        while !bytes.is_empty() {
            let taken = (self.part_size - self.part.len()).min(bytes.len());
            self.part.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.part.len() == self.part_size {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), StoreError> {
        let bytes = Bytes::from(std::mem::take(&mut self.part));
        self.hasher.update(&bytes);
        self.etag.push(PartMd5::of(&bytes));
        let part = Part {
            number: self.parts + 1,
            offset: u64::from(self.parts) * self.part_size as u64,
            length_bytes: bytes.len() as u64,
        };
        self.parts += 1;
        let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        retry::retry(ATTEMPTS, backoff, || {
            self.sink
                .store
                .upload_part(self.sink.key, self.sink.upload, part, bytes.clone())
        })
        .await
    }

    /// Uploads the rest. `journal_key` keys the digest before redaction.
    pub(super) async fn finish(mut self, journal_key: &[u8]) -> Result<Finished, StoreError> {
        let mut redaction = None;
        if let Some((redactor, original)) = self.redaction.take() {
            let mut clean = Vec::new();
            let removed = redactor.finish(&mut clean);
            self.keep(&clean).await?;
            let original = original.finish();
            redaction = Some(RedactionReport {
                count: removed.count,
                by_rule: removed.by_rule,
                original_bytes: original.size_bytes,
                original_digest: original_digest(journal_key, &original.sha256),
            });
        }
        if !self.part.is_empty() || self.parts == 0 {
            self.send().await?;
        }
        let text = String::from_utf8_lossy(&self.preview).into_owned();
        let whole_lines = text.rfind('\n').map_or(text.as_str(), |end| &text[..end]);
        Ok(Finished {
            artifact: ArtifactReport {
                digests: self.hasher.finish(),
                parts: self.parts,
                etag: self.etag.finish(),
                via: Via::Direct,
                suffix: String::new(),
                preview: whole_lines.to_owned(),
                findings: Vec::new(),
                note: String::new(),
                redaction,
            },
            cut: self.cut,
        })
    }
}

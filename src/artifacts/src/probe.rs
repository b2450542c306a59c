//! What a store can do, found out by trying. Owns the capabilities that verification relies on, and the words for `check`.
//!
//! # Design notes
//! A store's word that an object's checksum is right counts only after it was seen to refuse a wrong one: some accept
//! checksum headers and ignore them. The probe costs six small calls, once a process, before the first upload.

use bytes::Bytes;
use diagbot_base::retry::Permanence as _;
use diagbot_wire::digest::{Hasher, PartMd5};
use jiff::SignedDuration;
use rand::Rng as _;

use super::{ArtifactKey, Proof, Store, StoreError, UploadId, fetch, verify::ListedPart};

const SAMPLE: &[u8] = b"diagbot probes what this store checks\n";
const OTHER: &[u8] = b"something else\n";
/// How long credentials should last at least: a sensitive link's default lifetime.
const LASTING: SignedDuration = SignedDuration::from_hours(1);

/// What the store was seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// Compares the whole object's CRC-64/NVME when an upload is completed.
    pub(super) full_object_crc: bool,
    /// Refuses a part whose `Content-MD5` is wrong.
    pub(super) part_md5: bool,
    /// Shows MD5s as the ETags of parts.
    pub(super) etags_are_md5: bool,
}

/// What `check` tells about the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// One finding a line of the table.
    pub findings: Vec<Finding>,
    /// How artifacts will be proven; `None` where the store can't be used.
    pub proof: Option<Proof>,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was tried.
    pub name: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// What that means.
    pub words: String,
}

/// How a trial went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Works,
    /// diagbot works, with less; the words say what.
    Degraded,
    /// diagbot can't work.
    Fails,
}

impl Probe {
    fn add(&mut self, name: &'static str, outcome: Outcome, words: impl Into<String>) {
        self.findings.push(Finding {
            name,
            outcome,
            words: words.into(),
        });
    }
}

impl Store {
    /// Finds out what the store can do, so that the first upload need not wait for that.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.capabilities().await.map(|_| ())
    }

    /// What the store can do; tried once, an error is not remembered.
    pub(super) async fn capabilities(&self) -> Result<Capabilities, StoreError> {
        self.0
            .capabilities
            .get_or_try_init(|| self.try_capabilities())
            .await
            .copied()
    }

    async fn try_capabilities(&self) -> Result<Capabilities, StoreError> {
        let key = self.probe_key();
        let (upload, announced) = match self.create_upload(&key, "text/plain", &[], true).await {
            Ok(upload) => (upload, true),
            // A store that does not know the checksum may refuse it, or the call.
            Err(StoreError::Other { .. }) => (self.create_upload(&key, "text/plain", &[], false).await?, false),
            Err(error) => return Err(error),
        };
        let found = self.try_upload(&key, &upload, announced).await;
        let cleaned = (self.abort(&key, &upload).await, self.delete(&key, None).await);
        if let (Err(error), _) | (_, Err(error)) = cleaned {
            tracing::warn!(%error, key = %key, "the probe could not be removed from the store");
        }
        if let Ok(found) = &found {
            tracing::info!(
                full_object_crc = found.full_object_crc,
                part_md5 = found.part_md5,
                "probed what the store checks"
            );
        }
        found
    }

    async fn try_upload(
        &self,
        key: &ArtifactKey,
        upload: &UploadId,
        announced: bool,
    ) -> Result<Capabilities, StoreError> {
        let wrong_md5 = PartMd5::of(OTHER).content_md5();
        let part_md5 = refused(
            self.send_part(key, upload, 1, Bytes::from_static(SAMPLE), wrong_md5)
                .await,
        )?;
        let md5 = PartMd5::of(SAMPLE);
        let etag = self
            .send_part(key, upload, 1, Bytes::from_static(SAMPLE), md5.content_md5())
            .await?
            .unwrap_or_default();
        let etag = etag.trim_matches('"').to_owned();
        let etags_are_md5 = etag == md5.etag();
        let part = ListedPart {
            number: 1,
            size_bytes: SAMPLE.len() as u64,
            etag,
        };
        let full_object_crc = announced && self.try_crc(key, upload, part).await?;
        Ok(Capabilities {
            full_object_crc,
            part_md5,
            etags_are_md5,
        })
    }

    /// Whether a wrong checksum is refused and the right one taken and shown.
    async fn try_crc(&self, key: &ArtifactKey, upload: &UploadId, part: ListedPart) -> Result<bool, StoreError> {
        let parts = [part];
        let wrong = self.send_complete(key, upload, &parts, Some(crc(OTHER))).await;
        if !refused(wrong)? {
            return Ok(false);
        }
        match self.send_complete(key, upload, &parts, Some(crc(SAMPLE))).await {
            Ok(completed) if completed.crc64nvme.is_some() => Ok(completed.crc64nvme == Some(crc(SAMPLE))),
            Ok(completed) => {
                let found = self.head(key, completed.version.as_deref()).await?;
                Ok(found.crc64nvme == Some(crc(SAMPLE)))
            }
            Err(error) if error.is_permanent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Tries everything that artifacts need. For `check`.
    pub async fn probe(&self) -> Probe {
        let mut probe = Probe {
            findings: Vec::new(),
            proof: None,
        };
        self.probe_credentials(&mut probe).await;
        match self.capabilities().await {
            Ok(found) => tell_capabilities(&mut probe, found),
            Err(error) => {
                probe.add("uploads", Outcome::Fails, error.to_string());
                return probe;
            }
        }
        match self.open_uploads().await {
            Ok(_) => probe.add("unfinished uploads", Outcome::Works, "can be found and aborted"),
            Err(error) => probe.add(
                "unfinished uploads",
                Outcome::Degraded,
                format!("{error}; give the bucket a lifecycle rule AbortIncompleteMultipartUpload"),
            ),
        }
        self.probe_links(&mut probe).await;
        probe
    }

    async fn probe_credentials(&self, probe: &mut Probe) {
        let name = "credentials";
        let from = self.0.signer.describe();
        let now = self.0.clock.now();
        match self.0.signer.good_until(LASTING).await {
            Err(_) => probe.add(name, Outcome::Fails, format!("there are none ({from})")),
            Ok(end) if end.duration_since(now) < LASTING => {
                let words = format!("{from}; links end with them at {end:.0}, then can be renewed");
                probe.add(name, Outcome::Degraded, words);
            }
            Ok(_) => probe.add(name, Outcome::Works, from),
        }
    }

    async fn probe_links(&self, probe: &mut Probe) {
        let key = self.probe_key();
        let outcome = self.try_links(probe, &key).await;
        if let Err(error) = outcome {
            probe.add("links", Outcome::Fails, error.to_string());
        }
        if let Err(error) = self.delete(&key, None).await {
            probe.add("clean-up", Outcome::Degraded, error.to_string());
        }
    }

    async fn try_links(&self, probe: &mut Probe, key: &ArtifactKey) -> Result<(), StoreError> {
        self.put(key, Bytes::from_static(SAMPLE), "text/plain").await?;
        let link = self.link(key, None, "probe.txt", false).await?;
        let upload = self.presign_put(key, SAMPLE.len() as u64).await?;
        let ca = self.ca_pem_for_pods();
        match fetch::status(fetch::Method::Get, link.expose(), &[], ca).await {
            Ok(200) => probe.add("links for people", Outcome::Works, "a link was followed from here"),
            Ok(status) => {
                let words = format!("a link was answered with status {status}; is `store.endpointForPeople` right?");
                probe.add("links for people", Outcome::Fails, words);
            }
            Err(_) => {
                let words = "the address in `store.endpointForPeople` can't be reached from here";
                probe.add("links for people", Outcome::Degraded, words);
            }
        }
        let mut headers: Vec<(&str, &str)> = upload.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        headers.push(("x-amz-meta-probe", "1"));
        match fetch::status(fetch::Method::Put, upload.url.expose(), &headers, ca).await {
            Ok(200) => {
                let words = "the store takes x-amz-* headers that were not signed: who steals an upload URL can copy \
                             other objects";
                probe.add("signatures", Outcome::Degraded, words);
            }
            Ok(_) => probe.add("signatures", Outcome::Works, "headers that were not signed are refused"),
            Err(_) => {
                let words = "the address in `store.endpointForPods` can't be reached from here";
                probe.add("uploads of pods", Outcome::Degraded, words);
            }
        }
        Ok(())
    }

    fn probe_key(&self) -> ArtifactKey {
        self.key(&["_probe", &format!("{:016x}", rand::rng().random::<u64>())])
    }
}

fn tell_capabilities(probe: &mut Probe, found: Capabilities) {
    probe.add("uploads", Outcome::Works, "written, completed, removed");
    if found.part_md5 {
        probe.add("damaged parts", Outcome::Works, "refused by the store");
    } else {
        let words = "the store takes a part whose MD5 is wrong: damage is noticed only in the end";
        probe.add("damaged parts", Outcome::Degraded, words);
    }
    if found.full_object_crc {
        probe.add("whole objects", Outcome::Works, "compared by the store (CRC-64/NVME)");
        probe.proof = Some(Proof::StoreChecked);
    } else {
        let words = "not compared by the store: every artifact is read back once (SHA-256)";
        probe.add("whole objects", Outcome::Degraded, words);
        probe.proof = Some(Proof::ReadBack);
    }
}

/// True where the store refused; an error where it did not answer at all.
fn refused<T>(answer: Result<T, StoreError>) -> Result<bool, StoreError> {
    match answer {
        Ok(_) => Ok(false),
        Err(StoreError::Mismatch { .. } | StoreError::Other { status: 400..500, .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

fn crc(bytes: &[u8]) -> String {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish().crc64nvme
}

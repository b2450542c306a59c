//! Is what the store holds what was captured? Compares values and reads back; decides nothing about retries.

use diagbot_wire::{
    digest::{Digests, Hasher},
    result::ArtifactReport,
    upload,
};
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};

use super::{
    ArtifactKey, Store, StoreError,
    s3::{CALL_DEADLINE, call, next_chunk},
};

/// How an artifact was proven whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// The store compared the whole object's CRC-64/NVME with the agent's, after it had compared every part's MD5.
    StoreChecked,
    /// We read the object back and compared its SHA-256 with the agent's.
    ReadBack,
}

/// A part as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedPart {
    pub(super) number: u32,
    pub(super) size_bytes: u64,
    /// Without quotes.
    pub(super) etag: String,
}

/// Compares the store's list with the agent's report; an error says what differs.
pub(super) fn compare_parts(
    listed: &[ListedPart],
    report: &ArtifactReport,
    part_size_bytes: u64,
    etags_are_md5: bool,
) -> Result<(), String> {
    let size_bytes = report.digests.size_bytes;
    let expected = upload::part_count(size_bytes, part_size_bytes);
    if report.parts != expected || listed.len() != expected as usize {
        return Err(format!(
            "{} parts listed, {} reported, {expected} expected",
            listed.len(),
            report.parts
        ));
    }
    for (number, part) in (1..).zip(listed) {
        let offset = u64::from(number - 1) * part_size_bytes;
        let wanted = part_size_bytes.min(size_bytes - offset);
        if part.number != number || part.size_bytes != wanted {
            return Err(format!(
                "part {number} should have {wanted} bytes, the store lists part {} with {}",
                part.number, part.size_bytes
            ));
        }
    }
    match multipart_etag(listed) {
        Some(etag) if etags_are_md5 && etag != report.etag => Err("the MD5s of the parts differ".to_owned()),
        _ => Ok(()),
    }
}

/// The ETag that follows from the parts' ETags, where they look like MD5s.
fn multipart_etag(listed: &[ListedPart]) -> Option<String> {
    let mut md5 = Md5::new();
    for part in listed {
        md5.update(hex::decode(&part.etag).ok().filter(|bytes| bytes.len() == 16)?);
    }
    Some(format!("{}-{}", hex::encode(md5.finalize()), listed.len()))
}

impl Store {
    /// Reads an object back and compares length and SHA-256.
    pub(super) async fn read_back(
        &self,
        key: &ArtifactKey,
        version: Option<&str>,
        report: &ArtifactReport,
    ) -> Result<(), StoreError> {
        let what = "read the artifact back";
        let request = self
            .0
            .bot
            .get_object()
            .bucket(&self.0.config.bucket)
            .key(key.as_str())
            .set_version_id(version.map(str::to_owned));
        let mut body = call(what, CALL_DEADLINE, request.send()).await?.body;
        let mut hasher = Hasher::default();
        while let Some(chunk) = next_chunk(what, &mut body).await? {
            hasher.update(&chunk);
        }
        let found = hasher.finish();
        compare(what, &found, &report.digests)
    }
}

/// Whether what was read back is what was told.
pub(super) fn compare(what: &'static str, found: &Digests, told: &Digests) -> Result<(), StoreError> {
    if found.size_bytes != told.size_bytes {
        let detail = format!("{} bytes instead of {}", found.size_bytes, told.size_bytes);
        return Err(StoreError::mismatch(what, detail));
    }
    if found.sha256 != told.sha256 {
        return Err(StoreError::mismatch(what, "the SHA-256 differs"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use diagbot_wire::{
        digest::{MultipartEtag, PartMd5},
        result::Via,
    };

    use super::*;

    const PART: u64 = 8;

    fn stored(parts: &[&[u8]]) -> (Vec<ListedPart>, ArtifactReport) {
        let mut hasher = Hasher::default();
        let mut etag = MultipartEtag::default();
        let listed = (1..)
            .zip(parts)
            .map(|(number, bytes)| {
                hasher.update(bytes);
                etag.push(PartMd5::of(bytes));
                ListedPart {
                    number,
                    size_bytes: bytes.len() as u64,
                    etag: PartMd5::of(bytes).etag(),
                }
            })
            .collect();
        let report = ArtifactReport {
            digests: hasher.finish(),
            parts: parts.len() as u32,
            etag: etag.finish(),
            via: Via::Direct,
            suffix: String::new(),
            preview: String::new(),
            findings: Vec::new(),
            note: String::new(),
            redaction: None,
        };
        (listed, report)
    }

    #[test]
    fn whole_lists_agree_and_an_empty_artifact_is_one_empty_part() {
        for parts in [&[&b"01234567"[..], b"012"][..], &[b"01234567", b"01234567"], &[b""]] {
            let (listed, report) = stored(parts);
            assert_eq!(compare_parts(&listed, &report, PART, true), Ok(()));
        }
    }

    #[test]
    fn a_missing_swapped_short_or_replaced_part_is_noticed() {
        let (whole, report) = stored(&[b"01234567", b"76543210", b"x"]);
        let differs = |change: fn(&mut Vec<ListedPart>)| {
            let mut listed = whole.clone();
            change(&mut listed);
            compare_parts(&listed, &report, PART, true).is_err()
        };
        assert!(differs(|l| {
            l.remove(1);
        }));
        assert!(differs(|l| l.swap(0, 1)));
        assert!(differs(|l| l[0].size_bytes = 7));
        assert!(differs(|l| l[1].etag = PartMd5::of(b"89012345").etag()));
        assert!(differs(|l| l.push(ListedPart {
            number: 4,
            ..l[2].clone()
        })));
    }

    #[test]
    fn etags_that_are_no_md5s_are_not_compared() {
        let (mut listed, report) = stored(&[b"01234567", b"x"]);
        listed[0].etag = "opaque".to_owned();
        assert_eq!(compare_parts(&listed, &report, PART, true), Ok(()));
        listed[0].etag = PartMd5::of(b"other").etag();
        assert_eq!(
            compare_parts(&listed, &report, PART, false),
            Ok(()),
            "encrypted by a key service"
        );
    }
}

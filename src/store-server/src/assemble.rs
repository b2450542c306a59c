//! An object out of its parts: which parts, whether they may be joined, and what follows from their digests. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use diagbot_base::clock::Clock;
use md5::{Digest as _, Md5};
use s3s::{
    S3Error, S3ErrorCode, S3Result,
    dto::{Checksum, CompletedPart},
};

use super::{
    receive,
    records::{Checksums, ObjectRecord, PartRecord, UploadRecord},
    refuse,
};

/// S3's limit: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
const SHORTEST_PART_BYTES: u64 = 5 * 1024 * 1024;

/// The parts that the client names, in its order, which must be ascending.
pub(super) fn choose(stored: Vec<PartRecord>, asked: &[CompletedPart]) -> S3Result<Vec<PartRecord>> {
    if asked.is_empty() {
        return Err(S3ErrorCode::MalformedXML.into());
    }
    let numbers: Vec<i32> = asked.iter().filter_map(|part| part.part_number).collect();
    if numbers.len() != asked.len() || !numbers.is_sorted_by(|a, b| a < b) {
        return Err(S3ErrorCode::InvalidPartOrder.into());
    }
    let mut stored = stored.into_iter().peekable();
    let mut chosen = Vec::new();
    for part in asked {
        while stored.next_if(|s| Some(s.number) < part.part_number).is_some() {}
        let found = stored
            .next_if(|s| Some(s.number) == part.part_number && agrees(s, part))
            .ok_or(S3ErrorCode::InvalidPart)?;
        chosen.push(found);
    }
    let short = chosen
        .iter()
        .rev()
        .skip(1)
        .any(|part| part.file.size_bytes < SHORTEST_PART_BYTES);
    if short {
        return Err(S3ErrorCode::EntityTooSmall.into());
    }
    Ok(chosen)
}

fn agrees(stored: &PartRecord, asked: &CompletedPart) -> bool {
    let same = |stored: &Option<String>, asked: &Option<String>| asked.is_none() || stored == asked;
    asked.e_tag.as_ref().is_some_and(|etag| etag.value() == stored.md5)
        && same(&stored.checksums.crc32, &asked.checksum_crc32)
        && same(&stored.checksums.crc32c, &asked.checksum_crc32c)
        && same(&stored.checksums.sha1, &asked.checksum_sha1)
        && same(&stored.checksums.sha256, &asked.checksum_sha256)
        && same(&Some(stored.crc64nvme.clone()), &asked.checksum_crc64nvme)
}

/// The object that the parts make.
pub(super) fn assemble(upload: UploadRecord, parts: &[PartRecord]) -> S3Result<ObjectRecord> {
    let mut md5s = Md5::new();
    let mut crc = 0;
    let mut size_bytes = 0;
    for part in parts {
        md5s.update(hex::decode(&part.md5).map_err(S3Error::internal_error)?);
        let next = crc_value(&part.crc64nvme).ok_or(S3ErrorCode::InternalError)?;
        crc = crc_fast::checksum_combine(crc_fast::CrcAlgorithm::Crc64Nvme, crc, next, part.file.size_bytes);
        size_bytes += part.file.size_bytes;
    }
    Ok(ObjectRecord {
        size_bytes,
        etag: format!("{}-{}", hex::encode(md5s.finalize()), parts.len()),
        crc64nvme: Some(STANDARD.encode(crc.to_be_bytes())),
        checksums: Checksums::default(),
        shown: upload.shown,
        tags: upload.tags,
        stored_at: Clock::System.now(),
        files: parts.iter().map(|part| part.file.clone()).collect(),
    })
}

fn crc_value(text: &str) -> Option<u64> {
    Some(u64::from_be_bytes(STANDARD.decode(text).ok()?.try_into().ok()?))
}

pub(super) fn compare_whole(record: &ObjectRecord, claimed: &Checksum) -> S3Result<()> {
    let other = claimed.checksum_crc32.is_some()
        || claimed.checksum_crc32c.is_some()
        || claimed.checksum_sha1.is_some()
        || claimed.checksum_sha256.is_some();
    if other {
        return Err(refuse("a checksum of the whole other than CRC64NVME"));
    }
    let found = Checksum {
        checksum_crc64nvme: record.crc64nvme.clone(),
        ..Checksum::default()
    };
    receive::compare(&found, claimed)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use s3s::dto::ETag;

    use super::*;
    use crate::records::{ContentFile, ShownHeaders};

    fn part(number: i32, size_bytes: u64) -> PartRecord {
        PartRecord {
            number,
            file: ContentFile {
                name: number.to_string(),
                size_bytes,
            },
            md5: format!("{number:032x}"),
            crc64nvme: String::new(),
            checksums: Checksums::default(),
            stored_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn asked(number: i32) -> CompletedPart {
        CompletedPart {
            part_number: Some(number),
            e_tag: Some(ETag::Strong(format!("{number:032x}"))),
            ..CompletedPart::default()
        }
    }

    fn code(outcome: S3Result<Vec<PartRecord>>) -> String {
        outcome.err().map(|e| e.code().as_str().to_owned()).unwrap_or_default()
    }

    #[test]
    fn parts_are_chosen_as_asked_and_every_fault_has_its_name() {
        let stored = || {
            vec![
                part(1, SHORTEST_PART_BYTES),
                part(2, 1),
                part(5, SHORTEST_PART_BYTES),
                part(9, 1),
            ]
        };
        let chosen = choose(stored(), &[asked(1), asked(5), asked(9)]).unwrap();
        assert_eq!(chosen.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 5, 9]);
        assert_eq!(code(choose(stored(), &[asked(5), asked(1)])), "InvalidPartOrder");
        assert_eq!(code(choose(stored(), &[asked(1), asked(1)])), "InvalidPartOrder");
        assert_eq!(code(choose(stored(), &[asked(3)])), "InvalidPart");
        assert_eq!(code(choose(stored(), &[asked(2), asked(5)])), "EntityTooSmall");
        assert_eq!(code(choose(stored(), &[])), "MalformedXML");
        let mut wrong = asked(1);
        wrong.e_tag = Some(ETag::Strong("0".repeat(32)));
        assert_eq!(code(choose(stored(), &[wrong])), "InvalidPart");
    }

    #[test]
    fn the_whole_checksum_follows_from_those_of_the_parts() {
        let crc = |bytes: &[u8]| STANDARD.encode(crc_fast::crc64_nvme(bytes).to_be_bytes());
        let of = |number, bytes: &[u8]| PartRecord {
            crc64nvme: crc(bytes),
            ..part(number, bytes.len() as u64)
        };
        let upload = UploadRecord {
            key: String::new(),
            opened_at: Timestamp::UNIX_EPOCH,
            checksum_algorithm: None,
            shown: ShownHeaders::default(),
            tags: Vec::new(),
        };
        let record = assemble(upload, &[of(1, b"12345"), of(2, b"6789"), of(3, b"")]).unwrap();
        assert_eq!(record.crc64nvme.as_deref(), Some("rosUhgp5mIg="));
        assert_eq!(record.size_bytes, 9);
    }
}

//! What a neighbour of the agent may print or send without the key or the nonce, and what an oversized line does: nothing.

use diagbot_wire::{
    control::{self, Command, ControlLine},
    digest,
    journal::{self, Event, Hello, JournalLine, Reader},
    redaction::original_digest,
};

const KEY: &[u8] = b"the key of this journal";

fn hello() -> Hello {
    Hello {
        version: diagbot_wire::VERSION,
        capture: "d-x-0-1".to_owned(),
        uid: 1000,
        gid: 1000,
        processes: Vec::new(),
        unmatched: Vec::new(),
    }
}

fn cleaned_up() -> Event {
    Event::CleanedUp {
        removed: 1,
        left: Vec::new(),
    }
}

/// The text of a line in exactly so many bytes: JSON takes blanks behind an object.
fn padded(line: &str, bytes: usize) -> String {
    let line = line.trim();
    format!("{line}{}", " ".repeat(bytes - line.len()))
}

#[test]
fn a_tag_counts_at_its_full_length_only() {
    let tag = hex::encode(digest::hmac_sha256(KEY, b"message"));
    assert!(digest::hmac_matches(KEY, b"message", &tag));
    for end in 0..tag.len() {
        assert!(!digest::hmac_matches(KEY, b"message", &tag[..end]), "{end} digits");
    }
    assert!(!digest::hmac_matches(KEY, b"message", &format!("{tag}00")));
    assert!(!digest::hmac_matches(KEY, b"other", &tag));
}

#[test]
fn a_journal_line_with_an_empty_or_cut_tag_is_rejected() {
    let sealed = JournalLine::seal(2, &cleaned_up(), Some(KEY));
    let with_tag = |mac: &str| JournalLine {
        mac: mac.to_owned(),
        ..sealed.clone()
    };
    let mut reader = Reader::default();
    for (rejected, mac) in ["", &sealed.mac[..2], &sealed.mac[..32], &sealed.mac[..62]]
        .iter()
        .enumerate()
    {
        assert_eq!(reader.take(&with_tag(mac).render(), KEY), None, "tag `{mac}`");
        assert_eq!(reader.rejected(), rejected as u64 + 1, "tag `{mac}`");
    }
    let untagged = format!(r#"{{"seq":2,"body":{}}}"#, serde_json::json!(sealed.body));
    assert_eq!(reader.take(&untagged, KEY), None, "no tag at all");
    assert_eq!(reader.take(&sealed.render(), KEY), Some((2, cleaned_up())));
}

#[test]
fn a_hello_without_a_tag_is_taken_as_the_first_line_only() {
    let event = Event::Hello(hello());
    let mut reader = Reader::default();
    for seq in [0, 2, 3, u64::MAX] {
        let line = JournalLine::seal(seq, &event, None).render();
        assert_eq!(reader.take(&line, KEY), None, "number {seq}");
    }
    assert_eq!(reader.rejected(), 4);
    let first = JournalLine::seal(1, &event, None).render();
    assert_eq!(reader.take(&first, KEY), Some((1, event)));
    let other = Event::Hello(Hello { uid: 0, ..hello() });
    assert_eq!(reader.take(&JournalLine::seal(1, &other, None).render(), KEY), None);
    assert_eq!(reader.rejected(), 5, "a second introduction with other facts");
}

#[test]
fn a_journal_line_over_its_length_is_rejected() {
    let line = JournalLine::seal(2, &cleaned_up(), Some(KEY)).render();
    let mut reader = Reader::default();
    assert_eq!(
        reader.take(&padded(&line, journal::MAX_LINE_BYTES + 1), KEY),
        None,
        "one byte too long"
    );
    assert_eq!(reader.rejected(), 1);
    let longest = padded(&line, journal::MAX_LINE_BYTES);
    assert_eq!(reader.take(&longest, KEY), Some((2, cleaned_up())));
}

#[test]
fn a_control_line_over_its_length_is_dropped() {
    let nonce = control::nonce(b"secret", "uid", 1);
    let hash = digest::sha256_hex(&nonce);
    let line = ControlLine {
        seq: 1,
        nonce: hex::encode(nonce),
        command: Command::Release { step: 0 },
    };
    let sent = line.render();
    assert_eq!(
        ControlLine::parse(&padded(&sent, control::MAX_LINE_BYTES + 1), &hash),
        None
    );
    assert_eq!(
        ControlLine::parse(&padded(&sent, control::MAX_LINE_BYTES), &hash),
        Some(line)
    );
}

#[test]
fn a_control_line_with_an_empty_or_cut_nonce_is_foreign() {
    let nonce = control::nonce(b"secret", "uid", 1);
    let hash = digest::sha256_hex(&nonce);
    let whole = hex::encode(nonce);
    for cut in ["", &whole[..2], &whole[..62]] {
        let line = ControlLine {
            seq: 1,
            nonce: cut.to_owned(),
            command: Command::Release { step: 0 },
        };
        assert_eq!(ControlLine::parse(&line.render(), &hash), None, "nonce `{cut}`");
    }
}

#[test]
fn each_attempt_and_each_capture_has_its_own_keys() {
    let mut keys = Vec::new();
    for secret in [b"secret", b"second"] {
        for uid in ["uid", "other"] {
            for attempt in [1, 2, 11] {
                keys.push(control::nonce(secret, uid, attempt));
                keys.push(control::journal_key(secret, uid, attempt));
            }
        }
    }
    for (index, key) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(key), "key {index} is another one's too");
    }
    // A line of the first attempt says nothing in the second.
    let line = JournalLine::seal(2, &cleaned_up(), Some(&control::journal_key(b"secret", "uid", 1)));
    let second = control::journal_key(b"secret", "uid", 2);
    assert_eq!(Reader::default().take(&line.render(), &second), None);
}

#[test]
fn the_digest_before_redaction_is_keyed() {
    let plain = digest::sha256_hex(b"hunter2");
    let told = original_digest(KEY, &plain);
    // HMAC-SHA256 of `original/<SHA-256 of hunter2>`, computed by Python's hmac module.
    assert_eq!(told, "f643dd9cac92376e316a9dbd2015ae17c5a7ee258121057c3b95f1121286cadd");
    assert_ne!(told, plain);
    assert_ne!(told, original_digest(b"another key", &plain));
    assert_ne!(told, digest::sha256_hex(format!("original/{plain}").as_bytes()));
}

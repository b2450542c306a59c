//! What one side writes, the other reads: whatever the values, however the lines are cut, repeated or forged.

use diagbot_wire::{
    args::{AgentArgs, OutputKind, ProcessSelector, StepArgs},
    control::{self, CancelReason, Command, ControlLine, PinnedProcess, Ticket},
    digest::{self, Hasher, MultipartEtag, PartHasher, PartMd5},
    journal::{Event, Hello, JournalLine, Reader},
    result::{CaptureResult, Failure, SignedResult, StepOutcome, StepResult},
    upload::{Grant, MIN_PART_BYTES, part_count, part_size_bytes},
};
use proptest::prelude::*;

const KEY: &[u8] = b"the key of this journal";

fn steps() -> impl Strategy<Value = StepArgs> {
    let process = prop_oneof![
        Just(ProcessSelector::Main),
        Just(ProcessSelector::Jvm),
        Just(ProcessSelector::None)
    ];
    let output = prop_oneof![Just(OutputKind::Text), Just(OutputKind::Binary)];
    let argv = prop::collection::vec(any::<String>(), 1..5);
    (
        "[a-z][a-z0-9-]{0,39}",
        process,
        output,
        any::<u64>(),
        any::<u32>(),
        (any::<u32>(), any::<bool>(), argv),
    )
        .prop_map(
            |(name, process, output, limit_bytes, deadline_s, (after_s, stop_on_error, argv))| StepArgs {
                name,
                process,
                output,
                limit_bytes,
                deadline_s,
                after_s,
                stop_on_error,
                argv,
            },
        )
}

fn agent_args() -> impl Strategy<Value = AgentArgs> {
    let steps = prop::collection::vec(steps(), 1..4);
    (
        "d-[a-z0-9]{16}-[0-9]",
        "[0-9a-f]{64}",
        any::<u32>(),
        any::<u32>(),
        steps,
    )
        .prop_map(|(capture, nonce_sha256, wait_s, deadline_s, steps)| AgentArgs {
            capture,
            nonce_sha256,
            wait_s,
            deadline_s,
            steps,
        })
}

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

fn progress(captured_bytes: u64) -> Event {
    Event::Progress {
        step: 0,
        captured_bytes,
        uploaded_bytes: 0,
        total_bytes: None,
    }
}

proptest! {
    #[test]
    fn arguments_have_one_form_and_it_is_read_back(args in agent_args()) {
        let words = args.render();
        prop_assert_eq!(AgentArgs::parse(&words), Ok(args.clone()));
        // An added word, a missing word and a changed byte are something else.
        let mut longer = words.clone();
        longer.push("--verbose".to_owned());
        prop_assert!(AgentArgs::parse(&longer).is_err());
        prop_assert!(AgentArgs::parse(&words[1..]).is_err());
        for (index, word) in words.iter().enumerate() {
            let mut spaced = words.clone();
            spaced[index] = format!("{word} ");
            prop_assert_ne!(AgentArgs::parse(&spaced), Ok(args.clone()));
        }
    }

    #[test]
    fn no_text_makes_the_readers_panic(text in any::<String>(), words in prop::collection::vec(any::<String>(), 0..7)) {
        let _refused = AgentArgs::parse(&words);
        prop_assert_eq!(ControlLine::parse(&text, "00"), None);
        prop_assert_eq!(Reader::default().take(&text, KEY), None);
    }

    #[test]
    fn a_control_line_is_taken_under_its_own_nonce_only(seq in any::<u64>(), step in any::<u16>(), nonce in any::<[u8; 32]>(), other in any::<[u8; 32]>()) {
        prop_assume!(nonce != other);
        let line = ControlLine { seq, nonce: hex::encode(nonce), command: Command::Release { step } };
        let sent = line.render();
        prop_assert_eq!(ControlLine::parse(&sent, &digest::sha256_hex(&nonce)), Some(line));
        prop_assert_eq!(ControlLine::parse(&sent, &digest::sha256_hex(&other)), None);
    }

    #[test]
    fn a_journal_read_in_any_pieces_with_repeats_and_forgeries_tells_each_event_once(
        count in 1_u64..20,
        order in prop::collection::vec((0_usize..40, any::<bool>()), 0..60),
    ) {
        let key = Some(KEY);
        let mut lines = vec![JournalLine::seal(1, &Event::Hello(hello()), None).render()];
        lines.extend((2..=count).map(|seq| JournalLine::seal(seq, &progress(seq), key).render()));
        let mut reader = Reader::default();
        let (mut taken, mut forged) = (Vec::new(), 0);
        let whole: Vec<_> = (0..lines.len()).map(|index| (index, false)).collect();
        for (index, forge) in order.into_iter().chain(whole) {
            let index = index % lines.len();
            if forge {
                forged += 1;
                let lie = JournalLine::seal(index as u64 + 2, &progress(u64::MAX), Some(b"a neighbour's key"));
                prop_assert_eq!(reader.take(&lie.render(), KEY), None);
            } else {
                taken.extend(reader.take(&lines[index], KEY).map(|(seq, _)| seq));
            }
        }
        taken.sort_unstable();
        prop_assert_eq!(taken, (1..=count).collect::<Vec<_>>());
        prop_assert_eq!(reader.rejected(), forged);
    }

    #[test]
    fn digests_do_not_depend_on_how_the_bytes_come(bytes in prop::collection::vec(any::<u8>(), 0..5_000), cut in 1_usize..700) {
        let (mut whole, mut pieces, mut part) = (Hasher::default(), Hasher::default(), PartHasher::default());
        whole.update(&bytes);
        for piece in bytes.chunks(cut) {
            pieces.update(piece);
            part.update(piece);
        }
        let whole = whole.finish();
        prop_assert_eq!(&whole.sha256, &digest::sha256_hex(&bytes));
        prop_assert_eq!(whole, pieces.finish());
        prop_assert_eq!(part.finish().0, PartMd5::of(&bytes));
    }

    #[test]
    fn parts_cover_every_byte_within_what_a_store_takes(size in 0_u64..1 << 45, limit in 1_u64..1 << 45) {
        let size = size.min(limit);
        let part = part_size_bytes(limit);
        let parts = u64::from(part_count(size, part));
        prop_assert!(part >= MIN_PART_BYTES);
        prop_assert!((1..=1_000).contains(&parts), "{parts} parts");
        prop_assert!(parts * part >= size);
        prop_assert!((parts - 1) * part < size.max(1));
    }
}

#[test]
fn numbers_in_arguments_have_no_second_spelling() {
    let step = "--step=x;process=none;output=text;limit=1;deadline=1;argv=[\"@sockets\"]";
    let line = |wait: &str, step: &str| {
        AgentArgs::parse(&[
            "run",
            "--capture=d",
            "--nonce=0",
            &format!("--wait={wait}"),
            "--deadline=9",
            step,
        ])
        .is_ok()
    };
    assert!(line("60", step));
    for wait in ["+60", "060", "60 ", "-1", ""] {
        assert!(!line(wait, step), "--wait={wait}");
    }
    for second in [
        "--step=x;process=none;output=text;limit=01;deadline=1;argv=[\"@sockets\"]",
        "--step=x;process=none;output=text;limit=1;deadline=1;argv=[ \"@sockets\"]",
        "--step=x;process=none;output=text;limit=1;deadline=1;argv=[\"\\u0040sockets\"]",
        "--step=x;process=none;output=text;limit=1;deadline=1;argv=[]",
        "--step=x;process=any;output=text;limit=1;deadline=1;argv=[\"@sockets\"]",
    ] {
        assert!(!line("60", second), "{second}");
    }
}

#[test]
fn a_line_that_a_broken_attach_left_unfinished_does_not_spoil_the_next() {
    let nonce = control::nonce(b"secret", "uid", 1);
    let line = ControlLine {
        seq: 7,
        nonce: hex::encode(nonce),
        command: Command::Cancel {
            reason: CancelReason::Requested,
        },
    };
    let sent = line.render();
    let stream = format!("{}{sent}{sent}", &sent[..sent.len() / 2]);
    let taken: Vec<_> = stream
        .lines()
        .filter_map(|text| ControlLine::parse(text, &digest::sha256_hex(&nonce)))
        .collect();
    assert_eq!(taken, [line.clone(), line]);
}

#[test]
fn bearer_secrets_are_not_shown_by_debug() {
    let secret = "s3cr3t";
    let grant = Grant {
        step: 0,
        part_size_bytes: MIN_PART_BYTES,
        first_part: 1,
        urls: vec![format!("https://store/{secret}")],
        expires_at_ms: 0,
    };
    let ticket = Ticket {
        processes: vec![PinnedProcess {
            step: 0,
            pid: 1,
            start_time: 2,
        }],
        journal_key: secret.to_owned(),
        grants: vec![grant.clone()],
        result_url: Some(format!("https://store/{secret}")),
        result_headers: Vec::new(),
        store_ca_pem: None,
        proxy: Some(format!("http://user:{secret}@proxy")),
        room_bytes: None,
        redaction: Vec::new(),
    };
    for command in [Command::Ticket(Box::new(ticket)), Command::Urls { grant }] {
        let line = ControlLine {
            seq: 1,
            nonce: secret.to_owned(),
            command,
        };
        let shown = format!("{line:?}");
        assert!(!shown.contains(secret), "{shown}");
        assert!(line.render().contains(secret), "but it travels");
    }
}

#[test]
fn words_of_a_newer_agent_are_read_as_unknown() {
    let key = Some(KEY);
    let mut reader = Reader::default();
    let future = JournalLine {
        seq: 2,
        body: r#"{"event":"levitated","height":3}"#.to_owned(),
        mac: hex::encode(digest::hmac_sha256(KEY, br#"2/{"event":"levitated","height":3}"#)),
    };
    assert_eq!(reader.take(&future.render(), KEY), Some((2, Event::Unknown)));
    let outcome: StepOutcome = serde_json::from_str(r#"{"kind":"postponed"}"#).expect("a word");
    assert_eq!(outcome, StepOutcome::Unknown);
    let failure: Failure = serde_json::from_str(r#""out-of-luck""#).expect("a word");
    assert_eq!(failure, Failure::Internal);
    let older = r#"{"event":"hello","version":1,"capture":"c","uid":1,"gid":1,"processes":[]}"#;
    assert!(matches!(serde_json::from_str(older), Ok(Event::Hello(_))));
    assert_ne!(
        JournalLine::seal(1, &Event::Unknown, key),
        JournalLine::seal(2, &Event::Unknown, key)
    );
}

#[test]
fn a_result_opens_under_its_own_key_and_unchanged_only() {
    let result = CaptureResult {
        version: diagbot_wire::VERSION,
        capture: "d-x-0-1".to_owned(),
        steps: vec![StepResult {
            step: 0,
            artifact: None,
            outcome: StepOutcome::Cancelled,
            started_ms: 1,
            ended_ms: 2,
        }],
    };
    let sealed = SignedResult::seal(&result, KEY);
    assert_eq!(sealed.open(KEY), Some(result.clone()));
    assert_eq!(sealed.open(b"another key"), None);
    let changed = SignedResult {
        body: sealed.body.replace("cancelled", "done"),
        ..sealed
    };
    assert_eq!(changed.open(KEY), None);
}

#[test]
fn keys_of_attempts_and_purposes_differ() {
    let keys = [
        control::nonce(b"secret", "uid", 1),
        control::nonce(b"secret", "uid", 2),
        control::nonce(b"secret", "other", 1),
        control::journal_key(b"secret", "uid", 1),
    ];
    for (index, key) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(key));
    }
}

#[test]
fn the_multipart_etag_is_what_a_store_shows() {
    // md5(md5("hello ") ++ md5("world")), two parts; computed by another implementation.
    let mut etag = MultipartEtag::default();
    etag.push(PartMd5::of(b"hello "));
    etag.push(PartMd5::of(b"world"));
    assert_eq!(etag.finish(), "e09e4fd6265b36115fe3db32df945d84-2");
}

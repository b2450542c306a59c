use proptest::prelude::*;

use super::*;

const KEY: (&str, &str, Option<&str>) = ("key", "BEGIN KEY", Some("END KEY"));
const PIN: (&str, &str, Option<&str>) = ("pin", "pin=(?P<secret>[0-9]+)", None);
const WORD: (&str, &str, Option<&str>) = ("word", "hunter[0-9]+", None);

fn rules() -> Rules {
    Rules::new([KEY, PIN, WORD]).expect("sound rules")
}

/// The text as it comes out when it is pushed in pieces of these lengths, over and over.
fn in_pieces(rules: &Rules, text: &[u8], lengths: &[usize]) -> (Vec<u8>, Removed) {
    let mut out = Vec::new();
    let mut redactor = Redactor::new(rules);
    let mut rest = text;
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at((*length).clamp(1, rest.len()));
        redactor.push(piece, &mut out);
        rest = behind;
    }
    let removed = redactor.finish(&mut out);
    (out, removed)
}

#[test]
fn only_the_group_goes_and_what_was_removed_is_counted_by_rule() {
    let rules = rules();
    let (out, removed) = in_pieces(&rules, b"a pin=12 b pin=34\nhunter2 pin=\n", &[5]);
    let out = String::from_utf8(out).expect("text");
    assert_eq!(out, "a pin=[redacted:pin] b pin=[redacted:pin]\n[redacted:word] pin=\n");
    assert_eq!(removed.count, 3);
    assert_eq!(removed.by_rule["pin"], 2);
}

#[test]
fn rules_that_want_the_same_bytes_remove_them_once() {
    let rules = Rules::new([("first", "ab+c", None), ("second", "cd", None)]).expect("sound");
    assert_eq!(Redactor::text(&rules, "xabbcdx"), "x[redacted:first]x");
}

#[test]
fn a_block_goes_from_its_begin_to_its_end_and_no_further_than_its_bound() {
    let rules = rules();
    assert_eq!(
        Redactor::text(&rules, "before BEGIN KEY\nabc\n\ndef\nEND KEY behind\nlast\n"),
        "before [redacted:key] behind\nlast\n"
    );
    assert_eq!(
        Redactor::text(&rules, "a BEGIN KEY x END KEY b\nc"),
        "a [redacted:key] b\nc"
    );
    // The rest of a text whose block has no end within reach comes out again.
    let endless = format!("BEGIN KEY\n{}last\n", "0123456789\n".repeat(2 * MAX_BLOCK_BYTES / 11));
    let clean = Redactor::text(&rules, &endless);
    assert!(clean.ends_with("last\n"));
    assert!(clean.len() < endless.len() - MAX_BLOCK_BYTES + 1_024);
}

/// One line may hold several keys: JSON writes each on one line.
#[test]
fn every_block_of_a_line_goes_and_the_last_may_stay_open() {
    let rules = rules();
    let line = "a BEGIN KEY x END KEY b BEGIN KEY y END KEY c BEGIN KEY\nz\nEND KEY d BEGIN KEY v END KEY e\n";
    let (out, removed) = in_pieces(&rules, line.as_bytes(), &[7]);
    assert_eq!(
        String::from_utf8(out).expect("text"),
        "a [redacted:key] b [redacted:key] c [redacted:key] d [redacted:key] e\n"
    );
    assert_eq!(removed.by_rule["key"], 4);
}

#[test]
fn a_block_that_opens_inside_another_match_goes_whole() {
    const NOTE: (&str, &str, Option<&str>) = ("note", "note: .*", None);
    const QUOTED: (&str, &str, Option<&str>) = ("quoted", "v=\"(?P<secret>[^\"]*)", None);
    for other in [NOTE, QUOTED] {
        for rules in [[other, KEY], [KEY, other]] {
            let rules = Rules::new(rules).expect("sound rules");
            for begin in ["note: ", "v=\""] {
                let text = format!("{begin}x BEGIN KEY\nbody\nEND KEY behind\nlast\n");
                let clean = Redactor::text(&rules, &text);
                assert!(!clean.contains("body"), "{text} became {clean}");
                assert!(clean.ends_with("] behind\nlast\n"), "{text} became {clean}");
            }
            // The other match holds a whole block, and the begin of a second one.
            let text = "note: BEGIN KEY a END KEY BEGIN KEY\nbody\nEND KEY behind\n";
            let clean = Redactor::text(&rules, text);
            assert!(!clean.contains("body") && clean.ends_with("] behind\n"), "{clean}");
        }
    }
}

#[test]
fn a_secret_longer_than_a_window_goes_up_to_the_next_blank() {
    let rules = rules();
    let text = format!("x pin={} y pin=1\n", "7".repeat(3 * MAX_LINE_BYTES));
    assert_eq!(
        Redactor::text(&rules, &text),
        "x pin=[redacted:pin] y pin=[redacted:pin]\n"
    );
}

#[test]
fn rules_that_would_mean_something_else_are_refused() {
    for (name, pattern) in [
        ("Upper", "x"),
        ("", "x"),
        ("open", "("),
        ("nothing", "x*"),
        ("text-end", r"x\z"),
        ("huge", "((a{1,1000}){1,1000}){1,1000}"),
        ("look-around", "(?<=x)y"),
    ] {
        assert!(Rules::new([(name, pattern, None)]).is_err(), "{name}: {pattern}");
    }
    let many = (0..=MAX_RULES).map(|_| ("a", "b", None));
    assert!(matches!(Rules::new(many), Err(RuleError::TooMany(_))));
}

proptest! {
    #[test]
    fn however_a_stream_is_cut_the_result_is_the_same(
        words in proptest::collection::vec("(pin=[0-9]{0,3}|hunter[0-9]|BEGIN KEY|END KEY|[a-z ]{0,9}|\n|\r\n)", 0..60),
        lengths in proptest::collection::vec(1_usize..40, 1..8),
    ) {
        let (rules, text) = (rules(), words.concat());
        let whole = in_pieces(&rules, text.as_bytes(), &[usize::MAX]);
        prop_assert_eq!(in_pieces(&rules, text.as_bytes(), &lengths), whole);
    }

    #[test]
    fn wherever_a_secret_stands_in_a_long_line_it_goes(
        before in 0_usize..3 * MAX_LINE_BYTES,
        length in 1_usize..OVERLAP_BYTES - 8,
        behind in 0_usize..2 * MAX_LINE_BYTES,
        piece in 1_usize..MAX_LINE_BYTES,
    ) {
        let rules = rules();
        let text = format!("{} pin={} {}", "x".repeat(before), "7".repeat(length), "y".repeat(behind));
        let (out, removed) = in_pieces(&rules, text.as_bytes(), &[piece]);
        prop_assert_eq!(removed.count, 1);
        prop_assert!(!out.contains(&b'7'));
        prop_assert_eq!(out.len(), text.len() - length + "[redacted:pin]".len());
    }

    #[test]
    fn any_bytes_and_any_cut_keep_memory_bounded_and_lose_nothing_where_no_rule_matches(
        bytes in proptest::collection::vec(any::<u8>(), 0..4_096),
        piece in 1_usize..512,
    ) {
        let rules = Rules::new([("never", "this text is nowhere", None)]).expect("sound");
        prop_assert_eq!(in_pieces(&rules, &bytes, &[piece]).0, bytes);
    }
}

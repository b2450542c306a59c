use super::*;
use crate::{clock::Clock, record::Recorder};

const WRITER: &str = "bot-1";

/// A chain of six entries, and its head.
fn good() -> (Vec<String>, Head) {
    let recorder = Recorder::new(WRITER, Clock::default());
    for run in 0..4 {
        recorder.add(Event::Cancel {
            run: format!("d-{run}"),
            person: "slack:T1:U1".to_owned(),
        });
    }
    recorder.add(Event::Stopped);
    let waiting = recorder.waiting(usize::MAX);
    let head = waiting.last().expect("entries").head.clone();
    (waiting.iter().map(|w| w.line.render()).collect(), head)
}

fn report(lines: Vec<String>, head: &Head) -> ChainReport {
    let chains = [(WRITER.to_owned(), lines)].into();
    let anchors = [(WRITER.to_owned(), head.clone())].into();
    verify(&chains, &anchors).remove(WRITER).expect("a report")
}

/// The line with other text, hashed anew.
fn forged(line: &str, from: &str, to: &str) -> String {
    let line = Line::parse(line).expect("a line");
    let entry = line.entry.replace(from, to);
    assert_ne!(entry, line.entry);
    Line {
        sha256: diagbot_wire::digest::sha256_hex(entry.as_bytes()),
        entry,
    }
    .render()
}

#[test]
fn a_good_chain_is_whole_up_to_its_last_entry() {
    let (lines, head) = good();
    let report = report(lines, &head);
    assert_eq!(report.faults, []);
    assert_eq!(report.whole_up_to.map(|(seq, _)| seq), Some(6));
    assert_eq!((report.entries, report.anchored, report.stopped), (6, Some(6), true));
}

#[test]
fn a_tampered_chain_says_what_was_done_and_up_to_when_it_is_whole() {
    let (lines, head) = good();
    let tampered = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        let report = report(lines, &head);
        (report.faults, report.whole_up_to.map_or(0, |(seq, _)| seq))
    };
    let removed = tampered(&|lines| drop(lines.remove(2)));
    assert_eq!(removed, (vec![Fault::Removed { from: 3, to: 3 }], 2));
    let changed = tampered(&|lines| lines[2] = lines[2].replace("U1", "U2"));
    assert_eq!(changed, (vec![Fault::Changed { seq: 3 }], 2));
    let hashed_anew = tampered(&|lines| lines[2] = forged(&lines[2], "U1", "U2"));
    assert_eq!(hashed_anew, (vec![Fault::Changed { seq: 3 }], 2));
    let reordered = tampered(&|lines| lines.swap(2, 3));
    let places = [(4, 3), (3, 5)].map(|(seq, place)| Fault::Reordered { seq, place });
    assert_eq!(reordered, (places.to_vec(), 2));
    let cut = tampered(&|lines| lines.truncate(4));
    assert_eq!(cut, (vec![Fault::Cut { last: 4, anchored: 6 }], 4));
    let foreign = tampered(&|lines| lines[2] = "{}\n".to_owned());
    assert_eq!(foreign.0[0], Fault::Foreign { line: 3 });
    let last_forged = tampered(&|lines| lines[5] = forged(&lines[5], "stopped", "began-to-lie"));
    assert_eq!(last_forged, (vec![Fault::Rewritten { seq: 6 }], 0));
    let largest = tampered(&|lines| lines[5] = forged(&lines[5], "\"seq\":6", &format!("\"seq\":{}", u64::MAX)));
    assert!(
        matches!(largest.0[..], [Fault::Removed { from: 6, .. }]) && largest.1 == 5,
        "{largest:?}"
    );
    let all_gone = tampered(&Vec::clear);
    assert_eq!(all_gone, (vec![Fault::Cut { last: 0, anchored: 6 }], 0));
}

#[test]
fn a_chain_that_began_later_vouches_for_the_ones_before_it() {
    let (lines, head) = good();
    let later = Recorder::new("bot-2", Clock::default());
    later.add(Event::Found {
        heads: [(WRITER.to_owned(), head)].into(),
    });
    let later = later.waiting(9).iter().map(|w| w.line.render()).collect();
    let mut chains: BTreeMap<_, _> = [(WRITER.to_owned(), lines), ("bot-2".to_owned(), later)].into();
    let whole = verify(&chains, &BTreeMap::new());
    assert!(whole.values().all(|chain| chain.faults.is_empty()), "{whole:?}");
    chains.remove(WRITER);
    let gone = verify(&chains, &BTreeMap::new());
    assert_eq!(gone[WRITER].faults, [Fault::Cut { last: 0, anchored: 6 }]);
}

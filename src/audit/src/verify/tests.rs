use diagbot_base::clock::Clock;

use super::*;
use crate::AuditLog;

const WRITER: &str = "bot-1";

/// A chain of six entries, and its head.
fn good() -> (Vec<String>, Head) {
    let audit_log = AuditLog::new(WRITER, Clock::default());
    for run in 0..4 {
        audit_log.add(Event::Cancel {
            run: format!("d-{run}"),
            person: "slack:T1:U1".to_owned(),
        });
    }
    audit_log.add(Event::Stopped);
    let waiting = audit_log.waiting(usize::MAX);
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
    let later = AuditLog::new("bot-2", Clock::default());
    later.add(Event::Found {
        heads: [(WRITER.to_owned(), head)].into(),
    });
    let (later, anchor) = written(&later);
    let anchors = [("bot-2".to_owned(), anchor)].into();
    let mut chains: BTreeMap<_, _> = [(WRITER.to_owned(), lines), ("bot-2".to_owned(), later)].into();
    let whole = verify(&chains, &anchors);
    assert!(
        whole.values().all(|c| c.faults.is_empty() && c.unproven == 0),
        "{whole:?}"
    );
    chains.remove(WRITER);
    let gone = verify(&chains, &anchors);
    assert_eq!(gone[WRITER].faults, [Fault::Cut { last: 0, anchored: 6 }]);
}

/// An audit log's lines, and the head of them.
fn written(audit_log: &AuditLog) -> (Vec<String>, Head) {
    let waiting = audit_log.waiting(usize::MAX);
    let head = waiting.last().expect("entries").head.clone();
    (waiting.iter().map(|w| w.line.render()).collect(), head)
}

/// Appends well-formed entries to a chain, as whoever can write the store may; gives the new head.
fn append(lines: &mut Vec<String>, events: Vec<Event>) -> Head {
    for event in events {
        let former = Line::parse(lines.last().expect("entries")).expect("a line");
        let mut entry: Entry = serde_json::from_str(&former.entry).expect("an entry");
        (entry.seq, entry.former, entry.event) = (entry.seq + 1, former.sha256, event);
        lines.push(Line::of(&entry).render());
    }
    let last = Line::parse(lines.last().expect("entries")).expect("a line");
    let entry: Entry = serde_json::from_str(&last.entry).expect("an entry");
    Head {
        seq: entry.seq,
        sha256: last.sha256,
        at: entry.at,
    }
}

/// Entries in the name of somebody who never wrote them.
fn forgeries() -> Vec<Event> {
    let forged = |n: u32| Event::Request {
        run: format!("d-{n}"),
        person: "slack:T1:UVICTIM".to_owned(),
        channel: "C1".to_owned(),
        diagnostic: "heap-dump".to_owned(),
        target: "shop/ledger".to_owned(),
    };
    (0..22).map(forged).collect()
}

fn found(writer: &str, head: &Head) -> Event {
    Event::Found {
        heads: [(writer.to_owned(), head.clone())].into(),
    }
}

/// The genuine chain and its anchor, and one by a writer whom nothing anchors, which says `event`.
fn beside(lines: Vec<String>, head: &Head, event: Event) -> Report {
    let invented = AuditLog::new("ghost", Clock::default());
    invented.add(event);
    let chains = [(WRITER.to_owned(), lines), ("ghost".to_owned(), written(&invented).0)];
    verify(&chains.into(), &[(WRITER.to_owned(), head.clone())].into())
}

#[test]
fn appended_entries_are_not_proven() {
    let (mut lines, head) = good();
    append(&mut lines, forgeries());
    let report = report(lines, &head);
    assert_eq!((report.anchored, report.unproven, report.faults), (Some(6), 22, vec![]));
}

#[test]
fn a_chain_does_not_vouch_for_its_own_entries() {
    let (mut lines, head) = good();
    let forged = append(&mut lines, forgeries());
    append(&mut lines, vec![found(WRITER, &forged)]);
    let unproven = report(lines, &head);
    assert_eq!((unproven.anchored, unproven.unproven), (Some(6), 23));
    // Nor where the entry that says so is proven: what it names is the past of its own chain.
    let (mut lines, _) = good();
    let elsewhere = Head {
        seq: 999,
        ..head.clone()
    };
    let anchored = append(&mut lines, vec![found(WRITER, &elsewhere)]);
    assert_eq!(report(lines, &anchored).faults, []);
}

#[test]
fn an_invented_chain_does_not_vouch_for_another() {
    let (mut lines, head) = good();
    let forged = append(&mut lines, forgeries());
    let report = beside(lines, &head, found(WRITER, &forged));
    assert_eq!((report[WRITER].anchored, report[WRITER].unproven), (Some(6), 22));
    assert_eq!((report["ghost"].anchored, report["ghost"].unproven), (None, 2));
}

#[test]
fn an_invented_chain_does_not_accuse_another() {
    let (lines, head) = good();
    for claim in [
        Head {
            seq: 999,
            ..head.clone()
        },
        Head {
            sha256: "0".repeat(64),
            ..head.clone()
        },
    ] {
        let displaced = Event::Displaced {
            chain: WRITER.to_owned(),
            stored: Some(claim.clone()),
            object: "record/bot-1/000000000007.jsonl".to_owned(),
        };
        for event in [found(WRITER, &claim), displaced] {
            let report = beside(lines.clone(), &head, event);
            assert_eq!((&report[WRITER].faults[..], report[WRITER].unproven), (&[][..], 0));
            assert_eq!(report["ghost"].anchored, None);
        }
    }
}

#[test]
fn invented_chains_do_not_vouch_for_each_other() {
    let (lines, head) = good();
    let mut chains: BTreeMap<_, _> = [(WRITER.to_owned(), lines)].into();
    let (one, one_head) = written(&AuditLog::new("ghost-1", Clock::default()));
    let two = AuditLog::new("ghost-2", Clock::default());
    two.add(found("ghost-1", &one_head));
    let (two, two_head) = written(&two);
    let mut one = one;
    append(&mut one, vec![found("ghost-2", &two_head)]);
    chains.extend([("ghost-1".to_owned(), one), ("ghost-2".to_owned(), two)]);
    let report = verify(&chains, &[(WRITER.to_owned(), head)].into());
    assert_eq!((report["ghost-1"].anchored, report["ghost-2"].anchored), (None, None));
}

#[test]
fn a_changed_entry_proves_nothing_before_it() {
    let (lines, head) = good();
    let other = AuditLog::new("bot-2", Clock::default());
    other.add(found(
        WRITER,
        &Head {
            seq: 999,
            ..head.clone()
        },
    ));
    other.add(Event::Stopped);
    let (mut other, anchor) = written(&other);
    other[1] = forged(&other[1], "999", "998");
    let chains = [(WRITER.to_owned(), lines), ("bot-2".to_owned(), other)].into();
    let report = verify(
        &chains,
        &[(WRITER.to_owned(), head), ("bot-2".to_owned(), anchor)].into(),
    );
    assert_eq!(report["bot-2"].faults, [Fault::Changed { seq: 2 }]);
    assert_eq!(report[WRITER].faults, []);
}

#[test]
fn a_displaced_chain_is_whole_up_to_where_the_next_one_goes_on() {
    let (lines, head) = good();
    let next = AuditLog::new("bot-1-next-0", Clock::default());
    let displaced = Event::Displaced {
        chain: WRITER.to_owned(),
        stored: Some(head),
        object: String::new(),
    };
    next.add(displaced);
    let (next, anchor) = written(&next);
    let mut chains: BTreeMap<_, _> = [(WRITER.to_owned(), lines), ("bot-1-next-0".to_owned(), next)].into();
    let anchors = [("bot-1-next-0".to_owned(), anchor)].into();
    assert_eq!(verify(&chains, &anchors)[WRITER].anchored, Some(6));
    chains.get_mut(WRITER).expect("the chain").truncate(4);
    let cut = Fault::Cut { last: 4, anchored: 6 };
    assert_eq!(verify(&chains, &anchors)[WRITER].faults, [cut]);
}

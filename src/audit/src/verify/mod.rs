//! Proof that a record is whole, or where it is not. Pure: lines and anchored heads in, a report out.
//!
//! # Design notes
//! A changed entry has another hash than its line says; one that was hashed anew has another than its successor holds; a
//! removed or moved one breaks the numbers; a chain that was cut is shorter than its head in the Lease, or in a chain that
//! began later. Each chain is told whole up to its first fault, and no further.
//!
//! Proof starts from the Lease alone. An entry is proven when an anchor names it, or when a proven entry was written after it.
//! Only a proven entry speaks about other chains, and never about its own: whoever can write the store can append entries and
//! invent chains, but none of them counts for or against anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;

use super::entry::{Entry, Event, Head, Line};

#[cfg(test)]
mod tests;

/// What is wrong at one place of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A line that is not an entry of this chain.
    Foreign {
        /// Which line of the chain, from 1.
        line: usize,
    },
    /// An entry's text is not the one that was hashed, or not the one that its successor was written after.
    Changed {
        /// The entry.
        seq: u64,
    },
    /// Entries are missing.
    Removed {
        /// First.
        from: u64,
        /// Last.
        to: u64,
    },
    /// An entry stands where another should.
    Reordered {
        /// The entry.
        seq: u64,
        /// Where it stands.
        place: u64,
    },
    /// The end is missing: an anchor knows a later entry.
    Cut {
        /// Last entry that is there; 0 where there is none.
        last: u64,
        /// Last entry that was.
        anchored: u64,
    },
    /// The chain is intact in itself, and not the one that was anchored.
    Rewritten {
        /// The anchored entry.
        seq: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { line } => write!(f, "line {line} is not an entry of this chain"),
            Self::Changed { seq } => write!(f, "entry {seq} was changed"),
            Self::Removed { from, to } if from == to => write!(f, "entry {from} was removed"),
            Self::Removed { from, to } => write!(f, "entries {from} to {to} were removed"),
            Self::Reordered { seq, place } => write!(f, "entry {seq} stands in the place of entry {place}"),
            Self::Cut { last, anchored } => write!(f, "cut: ends at entry {last}, entry {anchored} was written"),
            Self::Rewritten { seq } => write!(
                f,
                "entry {seq} is not the one that was anchored: the chain was rewritten"
            ),
        }
    }
}

/// One writer's chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainReport {
    /// Entries that are there.
    pub entries: u64,
    /// Last entry up to which nothing is missing or changed, and its time.
    pub whole_up_to: Option<(u64, Timestamp)>,
    /// The last entry that an anchor vouches for; none where nothing proven names this chain.
    pub anchored: Option<u64>,
    /// Entries after that one: in the chain, and nobody but the record itself says so.
    pub unproven: u64,
    /// The writer stopped in order.
    pub stopped: bool,
    /// What is wrong, in the order of the chain.
    pub faults: Vec<Fault>,
}

/// All chains, by writer.
pub type Report = BTreeMap<String, ChainReport>;

/// Verifies chains: lines by writer, in the order in which they are kept, against the heads of the Lease.
pub fn verify(chains: &BTreeMap<String, Vec<String>>, anchors: &BTreeMap<String, Head>) -> Report {
    let read: Chains<'_> = chains
        .iter()
        .map(|(writer, lines)| (writer, lines.iter().map(|line| read(writer, line)).collect()))
        .collect();
    let mut known = anchors_of(&read, anchors);
    let mut report: Report = read
        .into_iter()
        .map(|(writer, lines)| {
            let heads = known.remove(writer).unwrap_or_default();
            (writer.clone(), chain(&lines, &heads))
        })
        .collect();
    // Chains of which nothing is left.
    for (writer, heads) in known {
        report.insert(writer, chain(&[], &heads));
    }
    report
}

/// Lines of all chains as they were read, by writer.
type Chains<'a> = BTreeMap<&'a String, Vec<Option<(Line, Entry)>>>;

/// What is anchored of each chain: by the Lease, and by entries that are themselves proven.
fn anchors_of(chains: &Chains<'_>, lease: &BTreeMap<String, Head>) -> BTreeMap<String, Vec<Head>> {
    let intact: BTreeMap<(&str, &str), &Entry> = chains
        .values()
        .flatten()
        .flatten()
        .filter(|(line, _)| line.is_intact())
        .map(|(line, entry)| ((entry.writer.as_str(), line.sha256.as_str()), entry))
        .collect();
    let mut known: BTreeMap<String, Vec<Head>> = BTreeMap::new();
    let mut proven: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut pending: Vec<(&String, &Head)> = lease.iter().collect();
    while let Some((writer, head)) = pending.pop() {
        let heads = known.entry(writer.clone()).or_default();
        if heads.contains(head) {
            continue;
        }
        heads.push(head.clone());
        let (mut seq, mut sha256) = (head.seq, head.sha256.as_str());
        while let Some(entry) = intact.get(&(writer.as_str(), sha256)) {
            if entry.seq != seq || !proven.insert((&entry.writer, sha256)) {
                break;
            }
            pending.extend(entry.event.heads().filter(|(other, _)| *other != writer));
            (seq, sha256) = (seq.saturating_sub(1), &entry.former);
        }
    }
    known
}

fn read(writer: &str, line: &str) -> Option<(Line, Entry)> {
    let line = Line::parse(line)?;
    let entry: Entry = serde_json::from_str(&line.entry).ok()?;
    (entry.writer == writer).then_some((line, entry))
}

fn chain(lines: &[Option<(Line, Entry)>], heads: &[Head]) -> ChainReport {
    let mut report = ChainReport::default();
    let mut hashes: BTreeMap<u64, &str> = BTreeMap::new();
    let mut expected = 1;
    let mut before = None;
    let all: BTreeSet<u64> = lines.iter().flatten().map(|(_, entry)| entry.seq).collect();
    for (number, line) in lines.iter().enumerate() {
        let Some((line, entry)) = line else {
            report.faults.push(Fault::Foreign { line: number + 1 });
            continue;
        };
        report.entries += 1;
        let seq = entry.seq;
        if seq > expected {
            // What is missing here stands elsewhere, or nowhere.
            let missing: Vec<u64> = (expected..seq.min(expected.saturating_add(1_000_000)))
                .filter(|n| !all.contains(n))
                .collect();
            match (missing.first(), missing.last()) {
                (Some(from), Some(to)) => report.faults.push(Fault::Removed { from: *from, to: *to }),
                _ => report.faults.push(Fault::Reordered { seq, place: expected }),
            }
        } else if seq < expected {
            report.faults.push(Fault::Reordered { seq, place: expected });
        }
        if !line.is_intact() {
            report.faults.push(Fault::Changed { seq });
        } else if seq == expected && entry.former != hashes.get(&(seq - 1)).copied().unwrap_or_default() {
            // The former entry was hashed anew; up to the one before it all is well.
            if report.faults.is_empty() {
                report.whole_up_to = before;
            }
            report.faults.push(Fault::Changed {
                seq: seq.saturating_sub(1).max(1),
            });
        }
        if report.faults.is_empty() {
            before = report.whole_up_to;
            report.whole_up_to = Some((seq, entry.at));
        }
        report.stopped = entry.event == Event::Stopped;
        hashes.insert(seq, &line.sha256);
        // A forged number may be the largest.
        expected = expected.max(seq.saturating_add(1));
    }
    for head in heads {
        report.anchored = report.anchored.max(Some(head.seq));
        match hashes.get(&head.seq) {
            Some(sha256) if *sha256 != head.sha256 => report.faults.push(Fault::Rewritten { seq: head.seq }),
            None if head.seq >= expected => report.faults.push(Fault::Cut {
                last: expected - 1,
                anchored: head.seq,
            }),
            // As anchored; or among the entries that are told as missing.
            _ => {}
        }
    }
    let anchored = report.anchored.unwrap_or_default();
    report.unproven = all.iter().filter(|seq| **seq > anchored).count() as u64;
    report.faults.dedup();
    if report
        .faults
        .iter()
        .any(|fault| matches!(fault, Fault::Rewritten { .. }))
    {
        // From where it was rewritten can't be told.
        report.whole_up_to = None;
    }
    report
}

//! The first word: a diagnostic or runbook by name, alias or unique beginning, or one of our own words; else what was meant.

use diagbot_api::run::OFFER;
use diagbot_catalog::{Catalog, Entry};

use super::{Fault, fault};

/// Our own words; they win over the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuiltIn {
    /// `list`
    List,
    /// `help`
    Help,
    /// `status`
    Status,
    /// `runs`
    Runs,
    /// `cancel`
    Cancel,
    /// `pause`
    Pause,
    /// `resume`
    Resume,
    /// `schedule`
    Schedule,
    /// `health`
    Health,
    /// `offer`
    Offer,
    /// `arm`
    Arm,
}

impl BuiltIn {
    /// Every word.
    pub const ALL: [Self; 11] = [
        Self::List,
        Self::Help,
        Self::Status,
        Self::Runs,
        Self::Cancel,
        Self::Pause,
        Self::Resume,
        Self::Schedule,
        Self::Health,
        Self::Offer,
        Self::Arm,
    ];

    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Help => "help",
            Self::Status => "status",
            Self::Runs => "runs",
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Schedule => "schedule",
            Self::Health => "health",
            Self::Offer => OFFER,
            Self::Arm => "arm",
        }
    }
}

/// What the first word means.
#[derive(Debug)]
pub(super) enum Meaning<'a> {
    Entry(Entry<'a>),
    BuiltIn(BuiltIn),
}

/// Shortest beginning that is completed.
const SHORTEST_PREFIX: usize = 2;
/// How unlike two words may be to be taken for a slip.
const MOST_EDITS: usize = 2;

pub(super) fn meaning<'a>(word: &str, catalog: &'a Catalog) -> Result<Meaning<'a>, Fault> {
    // Phones capitalise the first word.
    let word = word.to_lowercase();
    if let Some(built_in) = BuiltIn::ALL.into_iter().find(|b| b.word() == word) {
        return Ok(Meaning::BuiltIn(built_in));
    }
    if let Some(entry) = catalog.entry(&word) {
        return Ok(Meaning::Entry(entry));
    }
    let mut begun: Vec<Entry<'a>> = Vec::new();
    let long_enough = word.len() >= SHORTEST_PREFIX;
    for name in catalog.words().filter(|name| long_enough && name.starts_with(&word)) {
        if let Some(entry) = catalog.entry(name)
            && !begun.iter().any(|known| known.name() == entry.name())
        {
            begun.push(entry);
        }
    }
    match begun.as_slice() {
        [one] => Ok(Meaning::Entry(*one)),
        [] => Err(Fault::UnknownDiagnostic {
            word: fault::shown(&word),
            foreign: super::text::foreign(&word),
            meant: closest(&word, catalog.words().chain(BuiltIn::ALL.iter().map(|b| b.word()))),
        }),
        several => Err(Fault::AmbiguousDiagnostic {
            word: fault::shown(&word),
            names: several.iter().map(|entry| entry.name().to_owned()).take(10).collect(),
        }),
    }
}

/// The word that was probably meant.
pub(super) fn closest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    if word.len() > 60 {
        return None;
    }
    known
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(edits, name)| *edits <= MOST_EDITS && *edits < name.len().min(word.chars().count()))
        .min()
        .map(|(_, name)| name.to_owned())
}

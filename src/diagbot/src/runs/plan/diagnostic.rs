//! Which diagnostic a word means, and whether the parameters fit. Pure.

use std::collections::{BTreeMap, BTreeSet};

use diagbot_catalog::{Catalog, Diagnostic, ParameterError};

use crate::runs::reason::{Reason, shown};

/// Shortest beginning that is completed.
const SHORTEST_PREFIX: usize = 2;
/// Least likeness (Jaro-Winkler) of a near word.
const LIKENESS: f64 = 0.75;
/// Most near words in a message.
const NEAR: usize = 3;

/// A diagnostic and its complete, checked parameters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice<'a> {
    /// The diagnostic.
    pub(super) diagnostic: &'a Diagnostic,
    /// Every parameter with its value.
    pub(super) parameters: BTreeMap<String, String>,
    /// What people should know: the word was completed.
    pub(super) note: Option<String>,
}

/// By canonical name, alias or unique beginning of one.
pub(super) fn choose<'a>(
    catalog: &'a Catalog,
    typed: &str,
    given: &BTreeMap<String, String>,
) -> Result<Choice<'a>, Reason> {
    let word = typed.trim().to_ascii_lowercase();
    let (diagnostic, note) = match catalog.get(&word) {
        Some(diagnostic) => (diagnostic, None),
        None => complete(catalog, &word)?,
    };
    let parameters = diagnostic
        .check_parameters(given)
        .map_err(|errors| Reason::BadParameters {
            faults: errors.iter().map(words).collect(),
            known: diagnostic.parameters.keys().cloned().collect(),
        })?;
    Ok(Choice {
        diagnostic,
        parameters,
        note,
    })
}

fn complete<'a>(catalog: &'a Catalog, word: &str) -> Result<(&'a Diagnostic, Option<String>), Reason> {
    let fitting: BTreeSet<String> = catalog
        .words()
        .filter(|known| word.len() >= SHORTEST_PREFIX && known.starts_with(word))
        .filter_map(|known| catalog.get(known))
        .map(|diagnostic| diagnostic.name.to_string())
        .collect();
    let only = fitting.first().filter(|_| fitting.len() == 1);
    match only.and_then(|name| catalog.get(name)) {
        Some(diagnostic) => {
            let note = format!("`{}` was completed to `{}`.", shown(word), diagnostic.name);
            Ok((diagnostic, Some(note)))
        }
        None if fitting.is_empty() => Err(Reason::UnknownDiagnostic {
            typed: word.to_owned(),
            near: near(catalog, word),
        }),
        None => Err(Reason::SeveralDiagnostics {
            typed: word.to_owned(),
            fitting: fitting.into_iter().collect(),
        }),
    }
}

fn near(catalog: &Catalog, word: &str) -> Vec<String> {
    // A long word is no typing error of a name, and comparing it would take time.
    if word.len() > 64 {
        return Vec::new();
    }
    let mut scored: Vec<(f64, &str)> = catalog
        .words()
        .map(|known| (strsim::jaro_winkler(known, word), known))
        .filter(|(score, _)| *score >= LIKENESS)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored
        .into_iter()
        .take(NEAR)
        .map(|(_, known)| known.to_owned())
        .collect()
}

fn words(error: &ParameterError) -> String {
    match error {
        ParameterError::Unknown { name, .. } => format!("there is no parameter `{}`", shown(name)),
        error => error.to_string(),
    }
}

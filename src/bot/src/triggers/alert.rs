//! One alert, whatever sent it. Its texts are others': bounded here, escaped wherever they are shown.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// Longest text of an alert that is kept, in characters.
const LONGEST: usize = 300;
/// Most labels or details that are kept.
const MOST: usize = 100;

/// An alert.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alert {
    /// What makes two alerts the same, in the source's own terms.
    pub fingerprint: String,
    /// The source's id of the very delivery's event, where it has one: a replay has the same.
    pub event: Option<String>,
    /// Alertmanager's labels.
    pub labels: BTreeMap<String, String>,
    /// PagerDuty's custom details and fields; Alertmanager's annotations.
    pub details: BTreeMap<String, String>,
    /// PagerDuty's service, by name; Alertmanager's label `service`.
    pub service: String,
    /// The alert in its own words.
    pub title: String,
    /// The incident, where the source has a place for notes.
    pub incident: Option<String>,
    /// When it was raised, if the source signs that.
    pub raised_at: Option<Timestamp>,
    /// Its fingerprint names a workload: whichever pod of it an alert is about, one of them is captured in a window.
    pub one_of_its_workload: bool,
}

/// A text, cut.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// Texts by name, cut; what is no text is left out.
pub(super) fn texts<'a>(all: impl Iterator<Item = (&'a String, &'a serde_json::Value)>) -> BTreeMap<String, String> {
    all.take(MOST)
        .filter_map(|(name, value)| {
            let text = match value {
                serde_json::Value::String(text) => cut(text),
                serde_json::Value::Number(number) => number.to_string(),
                serde_json::Value::Bool(word) => word.to_string(),
                _ => return None,
            };
            Some((cut(name), text))
        })
        .collect()
}

//! The form behind the command alone and behind the shortcuts: which fields it has, what it remembers, and how it is read
//! back. Pure: opening it and answering it is the front's part, its looks are the views'.

use std::collections::{BTreeMap, BTreeSet};

use diagbot_api::target::{TargetRef, is_name, parse};
use diagbot_catalog::{Catalog, Diagnostic, ParameterError};
use diagbot_cluster::pod_index::PodEntry;
use serde::{Deserialize, Serialize};

use crate::inbound::FormState;

/// `callback_id` of the form.
pub(crate) const CALLBACK: &str = "diag.form";
/// Block of the cluster.
pub(crate) const CLUSTER: &str = "cluster";
/// Block of targets that were found in a message.
pub(crate) const FOUND: &str = "found";
/// Block of the target, with type-ahead.
pub(crate) const TARGET: &str = "target";
/// Block of the container.
pub(crate) const CONTAINER: &str = "container";
/// Block of the diagnostic.
pub(crate) const DIAGNOSTIC: &str = "diagnostic";
/// Begins the block of a parameter.
pub(crate) const PARAMETER: &str = "parameter.";
/// Most characters of an option's value, by the Block Kit reference.
const OPTION_VALUE: usize = 150;
/// Targets of a message that are offered: with names of the longest kind they fit the 3,000 characters of metadata.
pub(crate) const MOST_FOUND: usize = 8;
/// Most words of a message that are looked up.
const MOST_WORDS: usize = 200;

/// What a form remembers: where the answer goes, and what it offers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormMemory {
    /// Channel that the run is told in.
    #[serde(default)]
    pub channel: String,
    /// Thread of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_ts: Option<String>,
    /// Targets found in a message, as people would type them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<String>,
}

/// A form: what it remembers and what is chosen in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// What it remembers.
    pub memory: FormMemory,
    /// The cluster that targets are looked for in.
    pub cluster: String,
    /// The chosen diagnostic (canonical).
    pub diagnostic: Option<String>,
}

/// A form that can be a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled {
    /// The diagnostic (canonical).
    pub diagnostic: String,
    /// The target.
    pub target: TargetRef,
    /// Parameters, checked.
    pub parameters: BTreeMap<String, String>,
}

/// Faults by the block that they are shown at.
pub(crate) type Faults = BTreeMap<String, String>;

impl Form {
    /// The form as it came back. `home`: the cluster where none is chosen.
    pub fn read(state: &FormState, home: &str) -> Self {
        Self {
            memory: serde_json::from_str(&state.metadata).unwrap_or_default(),
            cluster: state.values.get(CLUSTER).cloned().unwrap_or_else(|| home.to_owned()),
            diagnostic: state.values.get(DIAGNOSTIC).cloned(),
        }
    }

    /// What is submitted, checked against the catalog; or the faults of each field.
    pub fn fill(&self, state: &FormState, catalog: &Catalog) -> Result<Filled, Faults> {
        let mut faults = Faults::new();
        let value = |block: &str| {
            state
                .values
                .get(block)
                .map(|value| value.trim())
                .filter(|v| !v.is_empty())
        };
        let typed = value(TARGET).or(value(FOUND));
        let target = typed.and_then(|text| parse(text).ok());
        if target.is_none() {
            let block = if self.memory.found.is_empty() { TARGET } else { FOUND };
            faults.insert(block.to_owned(), "Choose a pod or a workload.".to_owned());
        }
        let container = value(CONTAINER).map(str::to_ascii_lowercase);
        if container.as_deref().is_some_and(|name| !is_name(name, 63)) {
            let rule = "A container's name holds lower-case letters, digits and `-` only.";
            faults.insert(CONTAINER.to_owned(), rule.to_owned());
        }
        let diagnostic = self.diagnostic.as_deref().and_then(|name| catalog.get(name));
        if diagnostic.is_none() {
            faults.insert(DIAGNOSTIC.to_owned(), "Choose a diagnostic.".to_owned());
        }
        let parameters = diagnostic.map(|diagnostic| parameters(state, diagnostic, &mut faults));
        match (target, diagnostic, parameters) {
            (Some(target), Some(diagnostic), Some(parameters)) if faults.is_empty() => Ok(Filled {
                diagnostic: diagnostic.name.to_string(),
                target: TargetRef {
                    cluster: Some(self.cluster.clone()),
                    container,
                    ..target
                },
                parameters,
            }),
            _ => Err(faults),
        }
    }
}

/// The parameters that the form's fields give the diagnostic; faults go to their fields.
fn parameters(state: &FormState, diagnostic: &Diagnostic, faults: &mut Faults) -> BTreeMap<String, String> {
    // Fields of a diagnostic that was chosen before may still be in the state.
    let given: BTreeMap<String, String> = state
        .values
        .iter()
        .filter_map(|(block, value)| Some((block.strip_prefix(PARAMETER)?.to_owned(), value.trim().to_owned())))
        .filter(|(name, value)| !value.is_empty() && diagnostic.parameters.contains_key(name))
        .collect();
    for error in diagnostic.check_parameters(&given).err().into_iter().flatten() {
        let (ParameterError::Unknown { name, .. }
        | ParameterError::Refused { name, .. }
        | ParameterError::Missing { name, .. }) = &error;
        faults.insert(format!("{PARAMETER}{name}"), error.to_string());
    }
    given
}

/// An entry as the value of an option: what people would type. None where it is too long for one; it can still be typed.
pub(crate) fn option_value(pod_entry: &PodEntry) -> Option<String> {
    let target = TargetRef {
        namespace: Some(pod_entry.namespace.clone()),
        kind: Some(pod_entry.kind),
        name: pod_entry.name.clone(),
        ..TargetRef::default()
    };
    Some(target.to_string()).filter(|text| text.len() <= OPTION_VALUE)
}

/// Words of a foreign message that may be names of pods or workloads.
pub(crate) fn names_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.'))
        .map(|word| word.trim_matches(['-', '.']).to_ascii_lowercase())
        .filter(|word| word.len() >= 2 && is_name(word, 253))
        .take(MOST_WORDS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_an_alert_of_another_bot() {
        let alert = "*[FIRING:1]* KubePodCrashLooping: Pod <https://x.example/y|shop/checkout-7d9f8b6c5-x2x4z> (app) is \
                     restarting.\nnamespace=`shop`, deployment: Checkout.";
        let names = names_in(alert);
        for name in ["checkout-7d9f8b6c5-x2x4z", "shop", "checkout"] {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn what_a_form_remembers_is_read_back_and_nonsense_is_nothing() {
        let memory = FormMemory {
            channel: "C1".to_owned(),
            thread_ts: Some("1.2".to_owned()),
            found: vec!["shop/pod/x".to_owned()],
        };
        let state = FormState {
            metadata: serde_json::to_string(&memory).unwrap(),
            values: [(DIAGNOSTIC.to_owned(), "jstack".to_owned())].into(),
            ..FormState::default()
        };
        let form = Form::read(&state, "home");
        assert_eq!((form.memory, form.cluster.as_str()), (memory, "home"));
        let broken = FormState {
            metadata: "{".to_owned(),
            ..state
        };
        assert_eq!(Form::read(&broken, "home").memory, FormMemory::default());
    }
}

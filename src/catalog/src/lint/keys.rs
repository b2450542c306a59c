//! The shape of a file: every key by itself, so that all faults are told at once.
//!
//! Where a faulty key's place can be taken by a harmless value, it is, so that the checks of the parts against each other run
//! as well and tell their faults in the same breath; what was read that way is never used for anything else.

use std::collections::BTreeMap;

use diagbot_wire::args::{OutputKind, ProcessSelector};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Faults;
use crate::{
    diagnostic::{Approval, ByteSize, Diagnostic, DiagnosticName, Identity, Impact, Method, Runtime, Sensitivity},
    parameter::ParameterKind,
    runbook::{ContainerState, Runbook, Targets},
};

/// Largest file in bytes.
const MAX_FILE_BYTES: usize = 64 * 1024;

/// What a key holds and whether it must be there.
struct Key {
    name: &'static str,
    required: bool,
    check: fn(&Value) -> Result<(), String>,
    /// A value, as JSON, that keeps every rule, for the place of a faulty one; none where others' faults would depend on it.
    stand_in: Option<&'static str>,
}

impl Key {
    const fn stand_in(mut self, json: &'static str) -> Self {
        self.stand_in = Some(json);
        self
    }
}

const fn required(name: &'static str, check: fn(&Value) -> Result<(), String>) -> Key {
    Key {
        name,
        required: true,
        check,
        stand_in: None,
    }
}

const fn optional(name: &'static str, check: fn(&Value) -> Result<(), String>) -> Key {
    Key {
        name,
        required: false,
        check,
        stand_in: None,
    }
}

const DIAGNOSTIC: &[Key] = &[
    required("name", is::<DiagnosticName>),
    optional("aliases", is::<Vec<DiagnosticName>>),
    required("summary", is::<String>).stand_in(r#""…""#),
    optional("runtime", is::<Runtime>),
    required("method", is::<Method>),
    optional("image", is::<Option<String>>),
    optional("argv", is::<Vec<String>>),
    optional("parameters", is::<BTreeMap<String, Value>>),
    optional("process", is::<ProcessSelector>),
    optional("identity", is::<Identity>),
    optional("capabilities", is::<Vec<String>>),
    required("deadline", is::<Deadline>).stand_in(r#""1s""#),
    required("limit", is::<ByteSize>).stand_in(r#""1KiB""#),
    required("artifact", is::<Map<String, Value>>)
        .stand_in(r#"{"name": "file", "mediaType": "text/plain", "output": "text"}"#),
    required("sensitivity", is::<Sensitivity>).stand_in(r#""normal""#),
    required("impact", is::<Impact>).stand_in(r#""none""#),
    optional("approval", is::<Approval>),
    optional("description", is::<String>).stand_in(r#""""#),
];

const ARTIFACT: &[Key] = &[
    required("name", is::<String>).stand_in(r#""file""#),
    required("mediaType", is::<String>).stand_in(r#""text/plain""#),
    required("output", is::<OutputKind>).stand_in(r#""text""#),
];

const PARAMETER: &[Key] = &[
    required("kind", is::<ParameterKind>).stand_in(r#""text""#),
    required("pattern", is::<String>).stand_in(r#""^a$""#),
    optional("default", is::<Option<String>>).stand_in("null"),
    required("rule", is::<String>).stand_in(r#""…""#),
];

const RUNBOOK: &[Key] = &[
    required("name", is::<DiagnosticName>),
    optional("aliases", is::<Vec<DiagnosticName>>),
    required("summary", is::<String>).stand_in(r#""…""#),
    optional("targets", is::<Targets>),
    optional("healthyControl", is::<bool>),
    required("steps", is::<Vec<Value>>),
    optional("description", is::<String>).stand_in(r#""""#),
];

const STEP: &[Key] = &[
    required("diagnostic", is::<DiagnosticName>),
    optional("parameters", is::<BTreeMap<String, String>>),
    optional("repeat", is::<Map<String, Value>>),
    optional("when", is::<Map<String, Value>>),
    optional("continueOnError", is::<bool>),
];

const REPEAT: &[Key] = &[required("count", is::<u32>), required("every", is::<Deadline>)];

const WHEN: &[Key] = &[
    optional("runtime", is::<Option<Runtime>>),
    optional("container", is::<Option<ContainerState>>),
];

/// A deadline by itself, in the form that [`Diagnostic`] reads.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Deadline {
    #[serde(with = "crate::diagnostic::humantime_text")]
    _value: std::time::Duration,
}

fn is<T: DeserializeOwned>(value: &Value) -> Result<(), String> {
    T::deserialize(value).map(|_| ()).map_err(|error| error.to_string())
}

/// Reads one file as a plain tree.
fn tree(text: &str, faults: &mut Faults) -> Option<Map<String, Value>> {
    if text.len() > MAX_FILE_BYTES {
        faults.add("", format!("is longer than {MAX_FILE_BYTES} bytes"));
        return None;
    }
    match serde_saphyr::from_str(text) {
        Ok(tree) => Some(tree),
        Err(error) => {
            let error = error.to_string();
            faults.add(
                "",
                format!("is no YAML mapping: {}", error.lines().next().unwrap_or_default()),
            );
            None
        }
    }
}

/// Reads one diagnostic; none where its shape has a fault that no other value can stand in for. Faults are among `faults`.
pub(super) fn parse(text: &str, faults: &mut Faults) -> Option<Diagnostic> {
    let mut tree = tree(text, faults)?;
    let mut readable = check_keys("", &mut tree, DIAGNOSTIC, faults);
    if let Some(Value::Object(artifact)) = tree.get_mut("artifact") {
        readable &= check_keys("artifact.", artifact, ARTIFACT, faults);
    }
    if let Some(Value::Object(parameters)) = tree.get_mut("parameters") {
        for (name, parameter) in parameters {
            if let Value::Object(parameter) = parameter {
                readable &= check_keys(&format!("parameters.{name}."), parameter, PARAMETER, faults);
            } else {
                readable = false;
                faults.add(
                    format!("parameters.{name}"),
                    "must be a mapping: kind, pattern, default, rule",
                );
            }
        }
    }
    if readable { typed(tree, faults) } else { None }
}

/// Reads one runbook; as [`parse`].
pub(super) fn parse_runbook(text: &str, faults: &mut Faults) -> Option<Runbook> {
    let mut tree = tree(text, faults)?;
    let mut readable = check_keys("", &mut tree, RUNBOOK, faults);
    let steps = tree
        .get_mut("steps")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten();
    for (index, step) in steps.enumerate() {
        let key = format!("steps[{index}]");
        let Value::Object(step) = step else {
            readable = false;
            faults.add(
                key,
                "must be a mapping: diagnostic, parameters, repeat, when, continueOnError",
            );
            continue;
        };
        readable &= check_keys(&format!("{key}."), step, STEP, faults);
        for (part, known) in [("repeat", REPEAT), ("when", WHEN)] {
            if let Some(Value::Object(part_tree)) = step.get_mut(part) {
                readable &= check_keys(&format!("{key}.{part}."), part_tree, known, faults);
            }
        }
    }
    if readable { typed(tree, faults) } else { None }
}

fn typed<T: DeserializeOwned>(tree: Map<String, Value>, faults: &mut Faults) -> Option<T> {
    match serde_json::from_value(Value::Object(tree)) {
        Ok(typed) => Some(typed),
        Err(error) => {
            faults.add("", error.to_string());
            None
        }
    }
}

/// Tells each faulty key, takes it out or gives its place to a stand-in, and says whether the tree can be read now.
fn check_keys(prefix: &str, tree: &mut Map<String, Value>, known: &[Key], faults: &mut Faults) -> bool {
    let unknown: Vec<_> = tree
        .keys()
        .filter(|name| known.iter().all(|k| k.name != *name))
        .cloned()
        .collect();
    for name in unknown {
        tree.remove(&name);
        let names: Vec<_> = known.iter().map(|k| k.name).collect();
        faults.add(
            format!("{prefix}{name}"),
            format!("is not a key; the keys are {}", names.join(", ")),
        );
    }
    let mut readable = true;
    for key in known {
        let rule = match tree.get(key.name) {
            None if key.required => "is missing".to_owned(),
            Some(value) => match (key.check)(value) {
                Ok(()) => continue,
                Err(rule) => rule,
            },
            None => continue,
        };
        faults.add(format!("{prefix}{}", key.name), rule);
        match key.stand_in.map(serde_json::from_str) {
            Some(Ok(value)) => {
                tree.insert(key.name.to_owned(), value);
            }
            Some(Err(_)) | None => readable = false,
        }
    }
    readable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_for_a_faulty_value_keeps_its_keys_rule() {
        for key in [DIAGNOSTIC, ARTIFACT, PARAMETER, RUNBOOK, STEP, REPEAT, WHEN]
            .into_iter()
            .flatten()
        {
            let Some(json) = key.stand_in else { continue };
            let value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{}: {error}", key.name));
            assert_eq!((key.check)(&value), Ok(()), "{}", key.name);
        }
    }
}

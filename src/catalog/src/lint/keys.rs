//! The shape of a file: every key by itself, so that all faults are told at once.

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
}

const fn required(name: &'static str, check: fn(&Value) -> Result<(), String>) -> Key {
    Key {
        name,
        required: true,
        check,
    }
}

const fn optional(name: &'static str, check: fn(&Value) -> Result<(), String>) -> Key {
    Key {
        name,
        required: false,
        check,
    }
}

const DIAGNOSTIC: &[Key] = &[
    required("name", is::<DiagnosticName>),
    optional("aliases", is::<Vec<DiagnosticName>>),
    required("summary", is::<String>),
    optional("runtime", is::<Runtime>),
    required("method", is::<Method>),
    optional("image", is::<Option<String>>),
    optional("argv", is::<Vec<String>>),
    optional("parameters", is::<BTreeMap<String, Value>>),
    optional("process", is::<ProcessSelector>),
    optional("identity", is::<Identity>),
    optional("capabilities", is::<Vec<String>>),
    required("deadline", is::<Deadline>),
    required("limit", is::<ByteSize>),
    required("artifact", is::<Map<String, Value>>),
    required("sensitivity", is::<Sensitivity>),
    required("impact", is::<Impact>),
    optional("approval", is::<Approval>),
    optional("description", is::<String>),
];

const ARTIFACT: &[Key] = &[
    required("name", is::<String>),
    required("mediaType", is::<String>),
    required("output", is::<OutputKind>),
];

const PARAMETER: &[Key] = &[
    required("kind", is::<ParameterKind>),
    required("pattern", is::<String>),
    optional("default", is::<Option<String>>),
    required("rule", is::<String>),
];

const RUNBOOK: &[Key] = &[
    required("name", is::<DiagnosticName>),
    optional("aliases", is::<Vec<DiagnosticName>>),
    required("summary", is::<String>),
    optional("targets", is::<Targets>),
    optional("healthyControl", is::<bool>),
    required("steps", is::<Vec<Value>>),
    optional("description", is::<String>),
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

/// Reads one diagnostic; none where its shape has a fault, which is then among `faults`.
pub(super) fn parse(text: &str, faults: &mut Faults) -> Option<Diagnostic> {
    let before = faults.all.len();
    let tree = tree(text, faults)?;
    check_keys("", &tree, DIAGNOSTIC, faults);
    if let Some(Value::Object(artifact)) = tree.get("artifact") {
        check_keys("artifact.", artifact, ARTIFACT, faults);
    }
    if let Some(Value::Object(parameters)) = tree.get("parameters") {
        for (name, parameter) in parameters {
            match parameter {
                Value::Object(parameter) => {
                    check_keys(&format!("parameters.{name}."), parameter, PARAMETER, faults);
                }
                _ => faults.add(
                    format!("parameters.{name}"),
                    "must be a mapping: kind, pattern, default, rule",
                ),
            }
        }
    }
    typed(tree, before, faults)
}

/// Reads one runbook; none where its shape has a fault, which is then among `faults`.
pub(super) fn parse_runbook(text: &str, faults: &mut Faults) -> Option<Runbook> {
    let before = faults.all.len();
    let tree = tree(text, faults)?;
    check_keys("", &tree, RUNBOOK, faults);
    let steps = tree.get("steps").and_then(Value::as_array).into_iter().flatten();
    for (index, step) in steps.enumerate() {
        let key = format!("steps[{index}]");
        let Value::Object(step) = step else {
            faults.add(
                key,
                "must be a mapping: diagnostic, parameters, repeat, when, continueOnError",
            );
            continue;
        };
        check_keys(&format!("{key}."), step, STEP, faults);
        for (part, known) in [("repeat", REPEAT), ("when", WHEN)] {
            if let Some(Value::Object(part_tree)) = step.get(part) {
                check_keys(&format!("{key}.{part}."), part_tree, known, faults);
            }
        }
    }
    typed(tree, before, faults)
}

/// The tree as its type, unless it has a fault.
fn typed<T: DeserializeOwned>(tree: Map<String, Value>, before: usize, faults: &mut Faults) -> Option<T> {
    if faults.all.len() > before {
        return None;
    }
    match serde_json::from_value(Value::Object(tree)) {
        Ok(typed) => Some(typed),
        Err(error) => {
            faults.add("", error.to_string());
            None
        }
    }
}

fn check_keys(prefix: &str, tree: &Map<String, Value>, known: &[Key], faults: &mut Faults) {
    for name in tree.keys().filter(|name| known.iter().all(|k| k.name != *name)) {
        let names: Vec<_> = known.iter().map(|k| k.name).collect();
        faults.add(
            format!("{prefix}{name}"),
            format!("is no key; the keys are {}", names.join(", ")),
        );
    }
    for key in known {
        match tree.get(key.name) {
            None if key.required => faults.add(format!("{prefix}{}", key.name), "is missing"),
            None => {}
            Some(value) => {
                if let Err(rule) = (key.check)(value) {
                    faults.add(format!("{prefix}{}", key.name), rule);
                }
            }
        }
    }
}

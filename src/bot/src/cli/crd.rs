//! `diagbot crd`: the custom resource definitions of runs, captures and schedules as YAML, made from the Rust types.
//!
//! Owns the text of `deploy/base/crds.yaml`; a test compares the two, so that neither drifts. Calls no cluster.

use diagbot_api::{
    capture::DiagnosticCapture, pause::DiagnosticPause, run::DiagnosticRun, schedule::DiagnosticSchedule,
};
use kube::CustomResourceExt;
use serde::Serialize;
use serde_json::Value;

/// First lines of the file: where it comes from.
const HEAD: &str = "# Printed by `diagbot crd`; a test keeps this file equal to it.\n";

/// The definitions, as one YAML file of a document each.
pub fn render() -> String {
    let documents = [
        document(&DiagnosticRun::crd()),
        document(&DiagnosticCapture::crd()),
        document(&DiagnosticPause::crd()),
        document(&DiagnosticSchedule::crd()),
    ];
    format!("{HEAD}{}", documents.join("---\n"))
}

fn document(definition: &impl Serialize) -> String {
    // By way of a `Value`, whose maps are sorted: the same types give the same text.
    let mut value = serde_json::to_value(definition).expect("a custom resource definition is plain data");
    adjust(&mut value);
    let mut text = serde_saphyr::to_string(&value).expect("JSON data is YAML data");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// What the API server wants otherwise than the schema's maker writes it: it knows no `uint…` formats and would warn about
/// each at every apply (the minimum of 0 stays), and it can't take null for a word of a list, whatever `nullable` says:
/// such fields are left out when they are empty.
fn adjust(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let unsigned = |format: &Value| format.as_str().is_some_and(|name| name.starts_with("uint"));
            if map.get("format").is_some_and(unsigned) {
                map.remove("format");
            }
            if map.contains_key("enum") {
                map.remove("nullable");
            }
            map.values_mut().for_each(adjust);
        }
        Value::Array(items) => items.iter_mut().for_each(adjust),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deployed_definitions_are_those_of_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/base/crds.yaml");
        let deployed = std::fs::read_to_string(path).expect("deploy/base/crds.yaml is in the repository");
        assert!(
            deployed == render(),
            "run: cargo run -p diagbot -- crd > deploy/base/crds.yaml"
        );
    }
}

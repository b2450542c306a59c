//! Custom resources against their definitions: defaults, pruning and validation, as the API server does on every write.
//!
//! Owns the reading of `deploy/base/crds.yaml`. Knows the part of structural schemas that those use, and nothing of CEL.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    answer::{ApiError, Cause},
    kind::Kind,
    pod::list,
    store::text,
};

const DEFINITIONS: &str = include_str!("../../../../deploy/base/crds.yaml");

/// The schemas of the custom kinds, by plural name.
#[derive(Debug)]
pub(super) struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    /// Reads the definitions.
    pub(super) fn load() -> Result<Self, serde_saphyr::Error> {
        let definitions = serde_saphyr::from_multiple::<Value>(DEFINITIONS)?;
        let schemas = definitions
            .iter()
            .map(|d| {
                let schema = d["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
                (text(&d["spec"]["names"]["plural"]).to_owned(), schema)
            })
            .collect();
        Ok(Self(schemas))
    }

    /// The object as it would be stored, or 422 with every fault.
    pub(super) fn admit(&self, kind: &Kind, mut object: Value) -> Result<Value, ApiError> {
        let Some(schema) = self.0.get(kind.plural) else {
            return Ok(object);
        };
        let mut causes = Vec::new();
        let allowed = schema["properties"].as_object();
        if let Some(fields) = object.as_object_mut() {
            fields.retain(|name, _| {
                matches!(name.as_str(), "apiVersion" | "kind" | "metadata")
                    || allowed.is_some_and(|a| a.contains_key(name))
            });
        }
        for field in ["spec", "status"] {
            if let Some(value) = object.get_mut(field) {
                visit(&schema["properties"][field], value, field, &mut causes);
            }
        }
        for field in list(&schema["required"])
            .iter()
            .filter(|f| object.get(text(f)).is_none())
        {
            causes.push(Cause::required(text(field), ""));
        }
        if causes.is_empty() {
            return Ok(object);
        }
        Err(ApiError::invalid(kind, text(&object["metadata"]["name"]), &causes))
    }
}

fn visit(schema: &Value, value: &mut Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    let kind = text(&schema["type"]);
    if !kind.is_empty() && !has_type(kind, value) {
        let found = json_type(value);
        let words = format!("{path} in body must be of type {kind}: {found:?}");
        causes.push(Cause::invalid(path, found, &words));
        return;
    }
    let allowed = list(&schema["enum"]);
    if !allowed.is_empty() && !allowed.contains(value) {
        causes.push(Cause::unsupported(
            path,
            text(value),
            &allowed.iter().map(text).collect::<Vec<_>>(),
        ));
    }
    if schema["format"] == "date-time" && text(value).parse::<jiff::Timestamp>().is_err() {
        let words = format!("{path} in body must be of type date-time: {:?}", text(value));
        causes.push(Cause::invalid(path, text(value), &words));
    }
    check_range(schema, value, path, causes);
    match value {
        Value::Object(fields) => visit_fields(schema, fields, path, causes),
        Value::Array(elements) => {
            for (index, element) in elements.iter_mut().enumerate() {
                visit(&schema["items"], element, &format!("{path}[{index}]"), causes);
            }
        }
        _ => {}
    }
}

fn visit_fields(schema: &Value, fields: &mut Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
    let empty = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    let others = &schema["additionalProperties"];
    if schema["x-kubernetes-preserve-unknown-fields"] != true && !others.is_object() && *others != true {
        fields.retain(|name, _| properties.contains_key(name));
    }
    for (name, property) in properties {
        // A null that is not allowed counts as absent.
        if fields.get(name).is_some_and(Value::is_null) && property["nullable"] != true {
            fields.remove(name);
        }
        if let (None, Some(default)) = (fields.get(name), property.get("default")) {
            fields.insert(name.clone(), default.clone());
        }
    }
    for field in list(&schema["required"])
        .iter()
        .filter(|f| !fields.contains_key(text(f)))
    {
        causes.push(Cause::required(format!("{path}.{}", text(field)), ""));
    }
    for (name, value) in fields.iter_mut() {
        visit(
            properties.get(name).unwrap_or(others),
            value,
            &format!("{path}.{name}"),
            causes,
        );
    }
}

fn check_range(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(number) = value.as_f64() else { return };
    let bounds = [
        ("minimum", "greater than or equal to", -1.0),
        ("maximum", "less than or equal to", 1.0),
    ];
    for (bound, words, sign) in bounds {
        if let Some(limit) = schema[bound].as_f64().filter(|limit| (number - limit) * sign > 0.0) {
            causes.push(Cause {
                field: path.to_owned(),
                message: format!("Invalid value: {value}: {path} in body should be {words} {limit}"),
                reason: "FieldValueInvalid",
            });
        }
    }
}

fn has_type(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Schemas;
    use crate::kubernetes::kind::Kind;

    fn sound_run() -> Value {
        json!({
            "apiVersion": "diagbot.dev/v1alpha1", "kind": "DiagnosticRun",
            "metadata": { "name": "d-1" },
            "spec": {
                "key": { "kind": "Cli", "id": "1" }, "requester": { "user": "ada" }, "origin": {},
                "diagnostic": "jstack", "target": { "name": "checkout" }, "receivedAt": "2026-11-22T00:00:00.000000Z",
            },
        })
    }

    #[test]
    fn runs_get_defaults_lose_unknown_fields_and_are_refused_field_by_field() {
        let schemas = Schemas::load().expect("the definitions");
        let kind = Kind::of_path("diagbot.dev", "v1alpha1", "diagnosticruns").expect("a kind");
        let mut run = sound_run();
        run["spec"]["surprise"] = json!(1);
        let stored = schemas.admit(kind, run).expect("admitted");
        assert!(stored["spec"].get("surprise").is_none(), "unknown fields are pruned");
        assert_eq!(stored["spec"]["dryRun"], false, "defaults are filled in");

        let mut broken = sound_run();
        broken["spec"]["key"] = json!({ "kind": "Rumour", "id": 7 });
        if let Some(spec) = broken["spec"].as_object_mut() {
            spec.remove("diagnostic");
        }
        let refused = schemas.admit(kind, broken).expect_err("three faults").message;
        for words in [
            r#"DiagnosticRun.diagbot.dev "d-1" is invalid: ["#,
            "spec.diagnostic: Required value",
            r#"spec.key.id: Invalid value: "integer": spec.key.id in body must be of type string: "integer""#,
            r#"spec.key.kind: Unsupported value: "Rumour": supported values: "#,
        ] {
            assert!(refused.contains(words), "{refused}");
        }
    }
}

//! What an API server holds, against what is rendered here: whether it holds the bot to the same, however the server spells it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::ONLY_THE_BOT;

/// The user names that an installed policy is about; none where it is about everybody, or was not rendered here.
pub fn users(policy: &Value) -> Vec<String> {
    let conditions = policy["spec"]["matchConditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let condition = conditions.find(|condition| condition["name"] == ONLY_THE_BOT);
    let expression = condition.and_then(|condition| condition["expression"].as_str());
    expression.map(literals).unwrap_or_default()
}

/// The string literals of an expression that was rendered here, in their order.
pub fn literals(expression: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut characters = expression.chars();
    while characters.any(|c| c == '\'') {
        let mut literal = String::new();
        loop {
            match characters.next() {
                Some('\\') => literal.extend(characters.next()),
                Some('\'') | None => break,
                Some(other) => literal.push(other),
            }
        }
        found.push(literal);
    }
    found
}

/// The fields of the spec in which an installed policy or binding differs from the rendered one; none where it means the same.
/// What the API server fills in makes no difference, and neither does an audit entry beside the refusal.
pub fn differences(rendered: &Value, installed: &Value) -> Vec<String> {
    let (rendered, installed) = (meant(&rendered["spec"]), meant(&installed["spec"]));
    let fields: BTreeSet<&String> = rendered.keys().chain(installed.keys()).collect();
    let differing = fields
        .into_iter()
        .filter(|field| rendered.get(*field) != installed.get(*field));
    differing.cloned().collect()
}

/// A spec without what says nothing: defaults of the API, and fields that are empty.
fn meant(spec: &Value) -> Map<String, Value> {
    let mut spec = spec.clone();
    for place in ["matchConstraints", "matchResources"] {
        let Some(constraints) = spec.get_mut(place) else {
            continue;
        };
        drop_default(constraints, "matchPolicy", &json!("Equivalent"));
        for rules in ["resourceRules", "excludeResourceRules"] {
            elements(constraints.get_mut(rules)).for_each(|rule| drop_default(rule, "scope", &json!("*")));
        }
    }
    elements(spec.get_mut("validations")).for_each(|rule| drop_default(rule, "reason", &json!("Invalid")));
    drop_default(&mut spec, "failurePolicy", &json!("Fail"));
    if elements(spec.get_mut("validationActions")).any(|action| action == "Deny") {
        // `Deny` and `Warn` exclude each other; `Audit` refuses nothing less.
        spec["validationActions"] = json!(["Deny"]);
    }
    match without_empty(spec) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn elements(list: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    list.and_then(Value::as_array_mut).into_iter().flatten()
}

fn drop_default(object: &mut Value, field: &str, default: &Value) {
    if let Some(fields) = object.as_object_mut()
        && fields.get(field) == Some(default)
    {
        fields.remove(field);
    }
}

/// An empty selector selects everything, as none does. An empty text is kept: a label may have to be empty.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, without_empty(value)));
            let says = |value: &Value| match value {
                Value::Null => false,
                Value::Object(fields) => !fields.is_empty(),
                Value::Array(elements) => !elements.is_empty(),
                _ => true,
            };
            Value::Object(fields.filter(|(_, value)| says(value)).collect())
        }
        Value::Array(elements) => Value::Array(elements.into_iter().map(without_empty).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{list, quote};

    fn policy() -> Value {
        json!({ "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "resources": ["pods/exec"] }] },
            "matchConditions": [],
            "validations": [{ "expression": "a", "message": "m" }, { "expression": "b", "message": "n" }],
        } })
    }

    fn binding() -> Value {
        json!({ "spec": { "policyName": "p", "validationActions": ["Deny"] } })
    }

    /// The fields that differ once the object was changed so.
    fn after(object: &Value, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut installed = object.clone();
        change(&mut installed["spec"]);
        differences(object, &installed)
    }

    #[test]
    fn what_the_server_fills_in_makes_no_difference() {
        let filled = after(&policy(), |spec| {
            let constraints = &mut spec["matchConstraints"];
            constraints["matchPolicy"] = json!("Equivalent");
            constraints["namespaceSelector"] = json!({});
            constraints["objectSelector"] = json!({ "matchExpressions": [] });
            constraints["excludeResourceRules"] = json!([]);
            constraints["resourceRules"][0]["scope"] = json!("*");
            spec["validations"][0]["reason"] = json!("Invalid");
            spec.as_object_mut().unwrap().remove("matchConditions");
        });
        assert_eq!(filled, Vec::<String>::new());
        let filled = after(&binding(), |spec| {
            spec["matchResources"] = json!({ "matchPolicy": "Equivalent", "namespaceSelector": {} });
            spec["validationActions"] = json!(["Audit", "Deny"]);
        });
        assert_eq!(filled, Vec::<String>::new());
    }

    #[test]
    fn every_change_of_a_policy_is_named_with_its_field() {
        type Change = fn(&mut Value);
        let changes: [(&str, Change); 12] = [
            ("failurePolicy", |s| s["failurePolicy"] = json!("Ignore")),
            ("validations", |s| s["validations"][1]["expression"] = json!("true")),
            ("validations", |s| drop(s["validations"].as_array_mut().unwrap().pop())),
            ("variables", |s| {
                s["variables"] = json!([{ "name": "v", "expression": "1" }]);
            }),
            ("matchConditions", |s| {
                s["matchConditions"] = json!([{ "name": "n", "expression": "false" }]);
            }),
            ("paramKind", |s| s["paramKind"] = json!({ "kind": "ConfigMap" })),
            ("matchConstraints", |s| {
                s["matchConstraints"]["resourceRules"][0]["resources"] = json!(["pods/attach"]);
            }),
            ("matchConstraints", |s| {
                s["matchConstraints"]["resourceRules"][0]["scope"] = json!("Cluster");
            }),
            ("matchConstraints", |s| {
                s["matchConstraints"]["resourceRules"][0]["resourceNames"] = json!(["x"]);
            }),
            ("matchConstraints", |s| {
                s["matchConstraints"]["excludeResourceRules"] = json!([{ "resources": ["pods/exec"] }]);
            }),
            ("matchConstraints", |s| {
                s["matchConstraints"]["matchPolicy"] = json!("Exact");
            }),
            ("matchConstraints", |s| {
                // A label that must be empty exempts nearly every namespace.
                s["matchConstraints"]["namespaceSelector"] = json!({ "matchLabels": { "scope": "" } });
            }),
        ];
        for (field, change) in changes {
            assert_eq!(after(&policy(), change), [field]);
        }
    }

    #[test]
    fn every_change_of_a_binding_is_named_with_its_field() {
        let changed = |field: &str, value: Value| after(&binding(), |spec| spec[field] = value);
        assert_eq!(
            changed("validationActions", json!(["Warn", "Audit"])),
            ["validationActions"]
        );
        assert_eq!(changed("validationActions", json!([])), ["validationActions"]);
        assert_eq!(changed("policyName", json!("other")), ["policyName"]);
        assert_eq!(changed("paramRef", json!({ "name": "x" })), ["paramRef"]);
        let narrowed = json!({ "namespaceSelector": { "matchLabels": { "matchPolicy": "Equivalent" } } });
        assert_eq!(changed("matchResources", narrowed), ["matchResources"]);
        assert_eq!(
            differences(&binding(), &json!({})),
            ["policyName", "validationActions"],
            "an object without a spec is not a rendered policy"
        );
    }

    #[test]
    fn users_are_read_as_they_were_written() {
        let names = ["system:serviceaccount:diagbot:diagbot", r"o'b\c", ""];
        let condition = |expression: &str| json!({ "spec": { "matchConditions": [{ "name": ONLY_THE_BOT, "expression": expression }] } });
        let written = condition(&format!("request.userInfo.username in {}", list(names)));
        assert_eq!(users(&written), names);
        assert_eq!(users(&policy()), Vec::<String>::new());
        assert_eq!(literals(&format!("c.matches({})", quote(r"^\d'$"))), [r"^\d'$"]);
        assert_eq!(literals("no end 'x"), ["x"]);
    }
}

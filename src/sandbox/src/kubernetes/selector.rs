//! Label and field selectors.
//!
//! Pure: parse once, match values. Never knows a kind.

use serde_json::Value;

use super::answer::ApiError;

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq)]
enum LabelRule {
    Equals(String, String),
    Differs(String, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// One requirement of a field selector.
#[derive(Debug, Clone, PartialEq)]
struct FieldRule {
    path: Vec<String>,
    value: String,
    equal: bool,
}

/// What a list or watch is narrowed to.
#[derive(Debug, Clone, Default)]
pub(super) struct Selector {
    labels: Vec<LabelRule>,
    fields: Vec<FieldRule>,
}

impl Selector {
    /// Reads both query parameters; empty texts select everything.
    pub(super) fn parse(labels: &str, fields: &str) -> Result<Self, ApiError> {
        Ok(Self {
            labels: split_outside_parentheses(labels)
                .into_iter()
                .map(label_rule)
                .collect::<Result<_, _>>()?,
            fields: fields
                .split(',')
                .filter(|f| !f.is_empty())
                .map(field_rule)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether the object is selected.
    pub(super) fn matches(&self, object: &Value) -> bool {
        self.labels
            .iter()
            .all(|r| label_matches(r, &object["metadata"]["labels"]))
            && self.fields.iter().all(|r| field_matches(r, object))
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|p| !p.is_empty())
    .collect()
}

fn label_rule(text: &str) -> Result<LabelRule, ApiError> {
    let unreadable = || ApiError::bad_request(format!("unable to parse requirement: {text:?}"));
    if let Some(key) = text.strip_prefix('!') {
        return Ok(LabelRule::Absent(key.trim().to_owned()));
    }
    for (word, inside) in [(" notin ", false), (" in ", true)] {
        if let Some((key, set)) = text.split_once(word) {
            let set = set
                .trim()
                .strip_prefix('(')
                .and_then(|s| s.strip_suffix(')'))
                .ok_or_else(unreadable)?;
            let values = set.split(',').map(|v| v.trim().to_owned()).collect();
            let key = key.trim().to_owned();
            return Ok(if inside {
                LabelRule::In(key, values)
            } else {
                LabelRule::NotIn(key, values)
            });
        }
    }
    let pair = |k: &str, v: &str| (k.trim().to_owned(), v.trim().to_owned());
    if let Some((key, value)) = text.split_once("!=") {
        let (key, value) = pair(key, value);
        return Ok(LabelRule::Differs(key, value));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        let (key, value) = pair(key, value);
        return Ok(LabelRule::Equals(key, value));
    }
    Ok(LabelRule::Exists(text.to_owned()))
}

fn label_matches(rule: &LabelRule, labels: &Value) -> bool {
    let of = |key: &str| labels[key].as_str();
    match rule {
        LabelRule::Equals(key, value) => of(key) == Some(value),
        LabelRule::Differs(key, value) => of(key) != Some(value),
        LabelRule::In(key, values) => of(key).is_some_and(|v| values.iter().any(|w| w == v)),
        LabelRule::NotIn(key, values) => of(key).is_none_or(|v| values.iter().all(|w| w != v)),
        LabelRule::Exists(key) => of(key).is_some(),
        LabelRule::Absent(key) => of(key).is_none(),
    }
}

fn field_rule(text: &str) -> Result<FieldRule, ApiError> {
    let (path, value, equal) = text
        .split_once("!=")
        .map(|(p, v)| (p, v, false))
        .or_else(|| {
            text.split_once("==")
                .or_else(|| text.split_once('='))
                .map(|(p, v)| (p, v, true))
        })
        .ok_or_else(|| ApiError::bad_request(format!("invalid selector: {text:?}; can't understand {text:?}")))?;
    Ok(FieldRule {
        path: path.split('.').map(str::to_owned).collect(),
        value: value.to_owned(),
        equal,
    })
}

fn field_matches(rule: &FieldRule, object: &Value) -> bool {
    let found = rule.path.iter().fold(object, |value, key| &value[key.as_str()]);
    let text = match found {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    (text == rule.value) == rule.equal
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Selector;

    #[test]
    fn selectors_match_as_the_api_server_reads_them() {
        let pod = json!({
            "metadata": { "name": "a", "labels": { "app": "shop", "tier": "web" } },
            "spec": { "nodeName": "sandbox" },
        });
        let matches = |labels: &str, fields: &str| {
            Selector::parse(labels, fields)
                .unwrap_or_else(|e| panic!("{labels} {fields}: {e}"))
                .matches(&pod)
        };
        assert!(matches(
            "app=shop,tier in (db, web),!gone",
            "metadata.name=a,spec.nodeName!=other"
        ));
        assert!(matches("tier notin (db),app", ""));
        assert!(!matches("app!=shop", ""));
        assert!(!matches("app==shop", "metadata.name=b"));
        assert!(Selector::parse("app in shop", "").is_err());
        assert!(Selector::parse("", "nonsense").is_err());
    }
}

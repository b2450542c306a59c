//! A pod's manifest without values that look secret. Pure.
//!
//! References (`valueFrom`) stay, since they name a Secret and do not hold it. Removed are values whose *name* looks secret
//! or which themselves look like a credential in a URL, wherever people put them: environment, arguments, annotations.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::Pod;
use regex::Regex;
use serde_json::Value;

/// What stands for a removed value.
const REMOVED: &str = "(removed)";
/// The manifest again, as somebody applied it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

static SECRET_NAME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)pass(word|wd|phrase)?|secret|token|credential|api[-_.]?key|access[-_.]?key|private[-_.]?key|auth|cookie|session|dsn|connection[-_.]?string|salt|signature|_pw$|_pwd$|\bpwd\b|cert|jwt|bearer|encryption")
        .expect("a sound pattern")
});
/// `--db-password=x`, `-Dapi.key=x`, `password: x` within one argument.
static SECRET_ARGUMENT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)([\w.-]*(?:pass(?:word|wd|phrase)?|secret|token|credential|api[-_.]?key|access[-_.]?key|private[-_.]?key|auth)[\w.-]*\s*[=:]\s*)([^\s,;&]+)")
        .expect("a sound pattern")
});
/// A flag whose value is the next argument.
static SECRET_FLAG: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)^--?[\w.-]*(?:pass(?:word|wd|phrase)?|secret|token|credential|api[-_.]?key|access[-_.]?key|private[-_.]?key)[\w.-]*$")
        .expect("a sound pattern")
});
/// `scheme://user:password@host`.
static URL_PASSWORD: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"([a-zA-Z][a-zA-Z0-9+.-]*://[^/\s:@]*):[^/\s@]+@").expect("a sound pattern"));

/// The manifest as JSON text, values that look secret removed.
pub(super) fn manifest(pod: &Pod) -> String {
    let mut pod = pod.clone();
    pod.metadata.managed_fields = None;
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.remove(LAST_APPLIED);
        for (name, value) in annotations.iter_mut() {
            *value = if SECRET_NAME.is_match(name) {
                REMOVED.to_owned()
            } else {
                text(value)
            };
        }
    }
    // The container states have a section of their own; here the spec matters.
    let mut value = serde_json::to_value(&pod).unwrap_or_default();
    walk(&mut value);
    serde_json::to_string_pretty(&value).unwrap_or_default()
}

fn walk(value: &mut Value) {
    match value {
        Value::Object(object) => {
            // An entry of an `env` list, an HTTP header of a probe.
            let named = object
                .get("name")
                .and_then(Value::as_str)
                .is_some_and(|n| SECRET_NAME.is_match(n));
            if named && object.get("value").is_some_and(Value::is_string) {
                object.insert("value".to_owned(), REMOVED.into());
            }
            for (key, inner) in object.iter_mut() {
                match inner {
                    Value::Array(list) if key == "args" || key == "command" => arguments(list),
                    inner => walk(inner),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(walk),
        Value::String(string) => *string = text(string),
        _ => {}
    }
}

fn arguments(list: &mut [Value]) {
    let mut secret_follows = false;
    for argument in list {
        let Value::String(argument) = argument else { continue };
        let flag = SECRET_FLAG.is_match(argument);
        *argument = if secret_follows {
            REMOVED.to_owned()
        } else {
            text(argument)
        };
        secret_follows = flag;
    }
}

fn text(text: &str) -> String {
    let text = SECRET_ARGUMENT.replace_all(text, format!("${{1}}{REMOVED}"));
    URL_PASSWORD
        .replace_all(&text, format!("${{1}}:{REMOVED}@"))
        .into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_that_look_secret_are_gone_and_the_rest_stays() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "annotations": {
                LAST_APPLIED: "{\"env\": \"hunter1\"}", "vault/token": "hunter2", "note": "api_key=hunter3 kept1",
            }},
            "spec": {"containers": [{"name": "app",
                "command": ["run", "--password", "hunter4", "--port", "8080"],
                "args": ["-Ddb.password=hunter5", "--url=postgres://me:hunter6@db/x", "kept2"],
                "env": [
                    {"name": "DB_PASSWORD", "value": "hunter7"},
                    {"name": "JDBC_URL", "value": "jdbc:x://u:hunter8@h/d"},
                    {"name": "LEVEL", "value": "kept3"},
                    {"name": "API_TOKEN", "valueFrom": {"secretKeyRef": {"name": "kept4", "key": "kept5"}}},
                ]}]},
        }))
        .expect("a pod");
        let shown = manifest(&pod);
        assert!(!shown.contains("hunter"), "{shown}");
        for kept in ["kept1", "kept2", "kept3", "kept4", "kept5", "8080", "postgres://me"] {
            assert!(shown.contains(kept), "{kept} in {shown}");
        }
    }
}

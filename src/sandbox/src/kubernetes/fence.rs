//! Validating admission policies, as far as diagbot's fence needs them: the defaults that the server fills in, and the fence's
//! rules about images and arguments.
//!
//! Owns two rules of one policy. The sandbox has no CEL: it reads images and the pattern of arguments out of whatever render of
//! the fence is installed, and leaves every other expression alone. The rules themselves are tried on a real API server.

use std::{collections::BTreeSet, sync::Arc};

use diagbot_catalog::policy::{CONTAINERS, installed};
use regex::Regex;
use serde_json::{Value, json};

use super::{
    answer::ApiError,
    identity::User,
    kind::{self, Kind},
    pod::list,
    store::{Key, Store, text},
};

/// Fills in what the server fills in, as measured on Kubernetes 1.36; any other kind stays as it is.
pub(super) fn fill_in(kind: &Kind, object: &mut Value) {
    let constraints = if *kind == kind::POLICY {
        &mut object["spec"]["matchConstraints"]
    } else if *kind == kind::POLICY_BINDING && object["spec"]["matchResources"].is_object() {
        &mut object["spec"]["matchResources"]
    } else {
        return;
    };
    default_field(constraints, "matchPolicy", json!("Equivalent"));
    default_field(constraints, "namespaceSelector", json!({}));
    default_field(constraints, "objectSelector", json!({}));
    for rule in constraints["resourceRules"].as_array_mut().into_iter().flatten() {
        default_field(rule, "scope", json!("*"));
    }
    if *kind == kind::POLICY {
        default_field(&mut object["spec"], "failurePolicy", json!("Fail"));
    }
}

fn default_field(object: &mut Value, field: &str, value: Value) {
    if object.get(field).is_none_or(Value::is_null) {
        object[field] = value;
    }
}

/// The fence that binds one user, if one does.
#[derive(Debug)]
pub(super) struct Fence(Option<Arc<Value>>);

impl Fence {
    pub(super) fn around(store: &Store, user: &User) -> Self {
        let get = |kind| store.get(&Key::new(kind, "", CONTAINERS)).ok();
        let denies = |binding: Arc<Value>| {
            binding["spec"]["policyName"] == CONTAINERS
                && list(&binding["spec"]["validationActions"]).iter().any(|a| a == "Deny")
        };
        let policy = get(&kind::POLICY).filter(|policy| installed::users(policy).contains(&user.name));
        Self(policy.filter(|_| get(&kind::POLICY_BINDING).is_some_and(denies)))
    }

    /// Refuses ephemeral containers that are new and that the policy does not name.
    pub(super) fn admit(&self, current: &Value, next: &Value) -> Result<(), ApiError> {
        let Some(policy) = &self.0 else { return Ok(()) };
        let before: BTreeSet<&str> = containers(current).map(|c| text(&c["name"])).collect();
        let added = || containers(next).filter(|c| !before.contains(text(&c["name"])));
        let mut rules = list(&policy["spec"]["validations"]).iter();
        match rules.find(|rule| added().any(|container| breaks(container, text(&rule["expression"])))) {
            Some(rule) => Err(ApiError::fenced(
                text(&next["metadata"]["name"]),
                text(&rule["message"]),
            )),
            None => Ok(()),
        }
    }
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["spec"]["ephemeralContainers"]).iter()
}

/// Whether a container breaks a rule about images or arguments; any other rule is not known here.
fn breaks(container: &Value, expression: &str) -> bool {
    let words = installed::literals(expression);
    if expression.contains("c.image in ") {
        return !words.iter().any(|image| container["image"] == image.as_str());
    }
    if expression.contains("c.args.all(a, a.matches(") {
        let pattern = words.first().and_then(|pattern| Regex::new(pattern).ok());
        let fits = |argument: &Value| pattern.as_ref().is_some_and(|p| p.is_match(text(argument)));
        return !list(&container["args"]).iter().all(fits);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_or_argument_that_no_rule_names_breaks_it() {
        let container = json!({ "image": "a", "args": ["run", "--step=x"] });
        for (expression, broken) in [
            ("all(c, c.image in ['b', 'a'])", false),
            ("all(c, c.image in ['b'])", true),
            ("c.args.all(a, a.matches('^(?:run|--step=x)$'))", false),
            ("c.args.all(a, a.matches('^(?:run|--step=y)$'))", true),
            ("c.args.all(a, a.matches('('))", true),
            ("!has(c.command)", false),
        ] {
            assert_eq!(breaks(&container, expression), broken, "{expression}");
        }
    }
}

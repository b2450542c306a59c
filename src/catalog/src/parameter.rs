//! What people may set on a diagnostic, and the check of what they typed.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;

/// One parameter of a diagnostic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parameter {
    /// What kind of value it is; a form shows a fitting field.
    pub kind: ParameterKind,
    /// Anchored pattern (`^…$`) that a value must match whole; bounded, so that arguments stay bounded.
    pub pattern: String,
    /// The value where a person gives none; a parameter without default must be given.
    #[serde(default)]
    pub default: Option<String>,
    /// The rule in words, shown when a value is refused.
    pub rule: String,
}

/// What kind of value a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParameterKind {
    /// Digits.
    Integer,
    /// One of a few words; the pattern lists them.
    Choice,
    /// Short text.
    Text,
    /// `true` or `false`.
    Boolean,
}

/// Why a person's parameters don't fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// The diagnostic has no such parameter.
    #[error("{diagnostic} has no parameter `{name}`")]
    Unknown {
        /// Canonical name of the diagnostic.
        diagnostic: String,
        /// What was typed.
        name: String,
        /// The names it has.
        known: Vec<String>,
    },
    /// The value does not match.
    #[error("{name}: {rule}")]
    Refused {
        /// The parameter.
        name: String,
        /// The rule in words.
        rule: String,
    },
    /// A parameter without a default is missing.
    #[error("{name} must be given: {rule}")]
    Missing {
        /// The parameter.
        name: String,
        /// The rule in words.
        rule: String,
    },
}

impl Diagnostic {
    /// Checks what a person typed and adds the defaults: the complete values, or every fault.
    pub fn check_parameters(
        &self,
        given: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, Vec<ParameterError>> {
        let mut values = BTreeMap::new();
        let mut errors: Vec<_> = given
            .keys()
            .filter(|name| !self.parameters.contains_key(*name))
            .map(|name| ParameterError::Unknown {
                diagnostic: self.name.to_string(),
                name: name.clone(),
                known: self.parameters.keys().cloned().collect(),
            })
            .collect();
        for (name, parameter) in &self.parameters {
            match given.get(name).or(parameter.default.as_ref()) {
                Some(value) if parameter.accepts(value) => {
                    values.insert(name.clone(), value.clone());
                }
                Some(_) => errors.push(ParameterError::Refused {
                    name: name.clone(),
                    rule: parameter.rule.clone(),
                }),
                None => errors.push(ParameterError::Missing {
                    name: name.clone(),
                    rule: parameter.rule.clone(),
                }),
            }
        }
        if errors.is_empty() { Ok(values) } else { Err(errors) }
    }
}

impl Parameter {
    /// Whether `value` matches the pattern whole. A pattern that does not compile accepts nothing; the lint reports it.
    pub fn accepts(&self, value: &str) -> bool {
        Regex::new(&format!("\\A(?:{})\\z", self.pattern)).is_ok_and(|pattern| pattern.is_match(value))
    }
}

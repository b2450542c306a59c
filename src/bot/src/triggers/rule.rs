//! What an alert means: the first rule that fits, and what it fills in from the alert. Pure.
//!
//! Owns the fence around what others wrote: a text of an alert becomes a name of Kubernetes or nothing, and a cluster and
//! namespace that the source may name or nothing.

use std::collections::BTreeMap;

use diagbot_api::{
    run::OFFER,
    target::{self, TargetRef},
};
use diagbot_catalog::Catalog;
use regex::Regex;
use serde::Deserialize;

use super::{
    alert::Alert,
    config::{RuleConfig, SourceConfig, When, impact, weight},
};

/// A text that must fit: as it stands, or as an anchored regular expression behind `~`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Fits);

#[derive(Debug, Clone)]
enum Fits {
    Whole(String),
    Expression(Regex),
}

/// A pattern is none.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}` is not a valid regular expression")]
pub struct PatternError {
    pattern: String,
    #[source]
    source: regex::Error,
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        let Some(expression) = text.strip_prefix('~') else {
            return Ok(Self(Fits::Whole(text)));
        };
        match Regex::new(&format!("^(?:{expression})$")) {
            Ok(expression) => Ok(Self(Fits::Expression(expression))),
            Err(source) => Err(PatternError { pattern: text, source }),
        }
    }
}

impl Pattern {
    fn fits(&self, text: &str) -> bool {
        match &self.0 {
            Fits::Whole(whole) => whole == text,
            Fits::Expression(expression) => expression.is_match(text),
        }
    }
}

/// A text with places that an alert fills.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Label(String),
    Detail(String),
    Service,
    Title,
}

/// A text is no template.
#[derive(Debug, thiserror::Error)]
#[error("`${{{0}}}` is unknown: labels.NAME, details.NAME, service or title")]
pub struct TemplateError(String);

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, behind)) = rest.split_once("${") {
            let (name, after) = behind.split_once('}').ok_or_else(|| TemplateError(behind.to_owned()))?;
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(match name.split_once('.') {
                Some(("labels", label)) => Piece::Label(label.to_owned()),
                Some(("details", detail)) => Piece::Detail(detail.to_owned()),
                None if name == "service" => Piece::Service,
                None if name == "title" => Piece::Title,
                _ => return Err(TemplateError(name.to_owned())),
            });
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }
}

impl Template {
    /// The text, or the place that the alert leaves empty.
    fn fill(&self, alert: &Alert) -> Result<String, String> {
        let mut text = String::new();
        for piece in &self.0 {
            let (place, value) = match piece {
                Piece::Text(literal) => {
                    text.push_str(literal);
                    continue;
                }
                Piece::Label(name) => (format!("labels.{name}"), alert.labels.get(name).map(String::as_str)),
                Piece::Detail(name) => (format!("details.{name}"), alert.details.get(name).map(String::as_str)),
                Piece::Service => ("service".to_owned(), Some(alert.service.as_str())),
                Piece::Title => ("title".to_owned(), Some(alert.title.as_str())),
            };
            text.push_str(value.filter(|value| !value.is_empty()).ok_or(place)?);
        }
        Ok(text)
    }
}

/// What an alert comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Capture this.
    Capture(Box<Capture>),
    /// No rule fits.
    Unmatched,
    /// A rule fits, and what it comes to may not be.
    Refused {
        /// The rule.
        rule: String,
        /// Why, in a sentence.
        why: String,
    },
}

/// What to capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// The rule.
    pub rule: String,
    /// What makes two alerts the same.
    pub fingerprint: String,
    /// The target.
    pub target: TargetRef,
    /// The diagnostic.
    pub diagnostic: String,
    /// Its parameters.
    pub parameters: BTreeMap<String, String>,
    /// Where it is told.
    pub channel: String,
}

/// What the alert means. `home` is the home cluster's name.
pub fn judge(source: &SourceConfig, alert: &Alert, catalog: &Catalog, home: &str) -> Verdict {
    let Some(rule) = source.rules.iter().find(|rule| rule.when.fits(alert)) else {
        return Verdict::Unmatched;
    };
    match capture(source, rule, alert, catalog, home) {
        Ok(capture) => Verdict::Capture(Box::new(capture)),
        Err(why) => Verdict::Refused {
            rule: rule.name.clone(),
            why,
        },
    }
}

impl When {
    fn fits(&self, alert: &Alert) -> bool {
        let all = |wanted: &BTreeMap<String, Pattern>, given: &BTreeMap<String, String>| {
            wanted
                .iter()
                .all(|(name, pattern)| pattern.fits(given.get(name).map_or("", String::as_str)))
        };
        all(&self.labels, &alert.labels)
            && all(&self.details, &alert.details)
            && self.service.as_ref().is_none_or(|service| service.fits(&alert.service))
            && self.title.as_ref().is_none_or(|title| title.fits(&alert.title))
    }
}

fn capture(
    source: &SourceConfig,
    rule: &RuleConfig,
    alert: &Alert,
    catalog: &Catalog,
    home: &str,
) -> Result<Capture, String> {
    let fill = |template: &Template| {
        template
            .fill(alert)
            .map_err(|place| format!("the alert has no {place}, which the rule needs"))
    };
    // An alert that says where it is from means nothing elsewhere, unless the rule's author says so.
    let said = || alert.labels.get("cluster").filter(|name| !name.is_empty()).cloned();
    let cluster = match &rule.cluster {
        Some(template) => fill(template)?,
        None => said().unwrap_or_else(|| home.to_owned()),
    };
    let namespace = fill(&rule.namespace)?;
    let allowed = source.clusters.get(&cluster);
    if !allowed.is_some_and(|namespaces| namespaces.contains(&namespace)) {
        return Err(format!(
            "this source may not name the namespace `{}` of the cluster `{}`",
            shown(&namespace),
            shown(&cluster)
        ));
    }
    let diagnostic = diagnostic(&rule.diagnostic, source, catalog)?;
    // A pod that the alert leaves open is no fault: then the workload's sickest is meant.
    let pod = rule.pod.as_ref().and_then(|pod| pod.fill(alert).ok());
    let text = match &pod {
        Some(pod) => format!("pod/{pod}"),
        None => fill(&rule.target)?,
    };
    let parsed = target::parse(&text).map_err(|error| format!("`{}` is not a valid target: {error}", shown(&text)))?;
    if parsed.cluster.is_some() || parsed.namespace.is_some() {
        return Err(format!("`{}` names a cluster or namespace of its own", shown(&text)));
    }
    let container = rule.container.as_ref().map(fill).transpose()?;
    Ok(Capture {
        rule: rule.name.clone(),
        fingerprint: rule.fingerprint.as_ref().map_or(Ok(alert.fingerprint.clone()), fill)?,
        target: TargetRef {
            cluster: Some(cluster),
            namespace: Some(namespace),
            container,
            sickest: pod.is_none(),
            ..parsed
        },
        diagnostic,
        parameters: rule.parameters.clone(),
        channel: rule.channel.clone().unwrap_or_else(|| source.channel.clone()),
    })
}

/// The canonical name of what a rule starts, where the source may; an offer starts nothing by itself.
fn diagnostic(word: &str, source: &SourceConfig, catalog: &Catalog) -> Result<String, String> {
    if word == OFFER {
        return Ok(OFFER.to_owned());
    }
    let entry = catalog
        .entry(word)
        .ok_or_else(|| format!("there is no diagnostic or runbook `{word}`"))?;
    if weight(impact(entry, catalog)) > weight(source.most_impact) {
        return Err(format!(
            "`{}` does more to its target than this source may",
            entry.name()
        ));
    }
    Ok(entry.name().to_owned())
}

fn shown(text: &str) -> String {
    diagbot_wire::text::quotable(text, 60)
}

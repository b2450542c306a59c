//! How often one alert may start something: once for each fingerprint, target and window. Pure.
//!
//! # Design notes
//! The number of the window is part of the request's key, so that two replicas which decide at once, or one that was started
//! anew, come to the same run. Two alerts around the end of a window would still be two runs: the recorded runs are looked
//! at first, so that a window counts from the capture that it has.

use std::sync::Arc;

use diagbot_api::{
    request_key::{RequestKey, RunName},
    run::{DiagnosticRun, KeyKind},
};
use jiff::{SignedDuration, Timestamp};

/// What may be captured once in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The trigger.
    pub source: String,
    /// What makes two alerts the same.
    pub fingerprint: String,
    /// The target as text; none: whatever the target, the fingerprint tells.
    pub target: Option<String>,
    /// The diagnostic.
    pub diagnostic: String,
}

impl Subject {
    /// The key of the one run that the subject may have in the window of that time.
    pub fn key(&self, at: Timestamp, window: SignedDuration) -> RequestKey {
        let number = at.as_second().div_euclid(window.as_secs().max(1));
        let target = self.target.clone().unwrap_or_default();
        let parts = [&self.fingerprint, &target, &self.diagnostic, &number.to_string()];
        RequestKey::Webhook {
            source: self.source.clone(),
            id: serde_json::to_string(&parts).expect("a list of strings is valid JSON"),
        }
    }

    /// The recorded run that this subject has already in the window that ends at `at`.
    pub fn captured(&self, recorded: &[Recorded], at: Timestamp, window: SignedDuration) -> Option<RunName> {
        let within = |run: &&Recorded| at.duration_since(run.at).abs() < window;
        let same = |run: &&Recorded| {
            let subject = Self {
                target: self.target.as_ref().and(run.subject.target.clone()),
                ..run.subject.clone()
            };
            subject == *self
        };
        recorded
            .iter()
            .filter(same)
            .filter(within)
            .max_by_key(|run| run.at)
            .map(|run| run.name.clone())
    }
}

/// A run that an alert made.
#[derive(Debug, Clone)]
pub struct Recorded {
    subject: Subject,
    name: RunName,
    at: Timestamp,
}

impl Recorded {
    /// The alerts' runs among these.
    pub fn of(runs: &[Arc<DiagnosticRun>]) -> Vec<Self> {
        runs.iter().filter_map(|run| Self::one(run)).collect()
    }

    fn one(run: &DiagnosticRun) -> Option<Self> {
        if run.spec.key.kind != KeyKind::Webhook {
            return None;
        }
        let cause = run.spec.origin.cause.as_ref()?;
        Some(Self {
            subject: Subject {
                source: cause.source.clone(),
                fingerprint: cause.fingerprint.clone(),
                target: Some(run.spec.target.to_string()),
                diagnostic: run.spec.diagnostic.clone(),
            },
            name: run.name()?,
            at: cause.raised_at.as_ref().map_or(run.spec.received_at.0, |time| time.0),
        })
    }
}

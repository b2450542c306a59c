//! What a run's object says about itself.

use std::collections::BTreeSet;

use crate::{
    approval::{ANNOTATION_VERDICT, VerdictRequest},
    capture::ANNOTATION_CANCEL,
    cluster_name::ClusterName,
    request_key::RunName,
    run::{CancelRequest, DiagnosticRun, OFFER, Phase, RunStatus},
};

/// Annotation: alerts within the window beside the one that made the run.
pub const ANNOTATION_ALERTS: &str = "diagbot.dev/alerts";
/// Annotation: the incident has its note, or never will.
pub const ANNOTATION_NOTED: &str = "diagbot.dev/noted";

impl DiagnosticRun {
    /// The run's name, if the object is one that we made.
    pub fn name(&self) -> Option<RunName> {
        self.metadata.name.as_deref()?.parse().ok()
    }

    /// Where the run is; a run without status was just accepted.
    pub fn phase(&self) -> Phase {
        self.status.as_ref().map(|status| status.phase).unwrap_or_default()
    }

    /// Whether it waits for a restart of its target.
    pub fn is_armed(&self) -> bool {
        let armed = self.status.as_ref().and_then(|status| status.armed.as_ref());
        let waits = matches!(self.phase(), Phase::Accepted | Phase::Resolving);
        waits && self.spec.armed_until.is_some() && armed.is_none_or(|armed| armed.fired.is_none())
    }

    /// Cluster and namespace of the target: as resolved, else as typed, else the home cluster and no namespace (which
    /// asks for a permission in all namespaces).
    pub fn place(&self, home: &ClusterName) -> (String, String) {
        let resolved = self.status.as_ref().and_then(|status| status.captures.first());
        if let Some(capture) = resolved {
            return (capture.target.cluster.clone(), capture.target.namespace.clone());
        }
        let target = &self.spec.target;
        let cluster = target.cluster.clone();
        (
            cluster.unwrap_or_else(|| home.to_string()),
            target.namespace.clone().unwrap_or_default(),
        )
    }

    /// The diagnostic: canonical once known, as typed before.
    pub fn diagnostic_name(&self) -> &str {
        let known = self.status.as_ref().and_then(|status| status.diagnostic.as_deref());
        known.unwrap_or(&self.spec.diagnostic)
    }

    /// Whether it only finds out what could be taken.
    pub fn is_offer(&self) -> bool {
        self.spec.diagnostic == OFFER
    }

    /// All that the run takes, each once; what was typed before that is known. Never empty, so that a review of each is one
    /// of at least one.
    pub fn diagnostics(&self) -> BTreeSet<&str> {
        let known = self.status.as_ref().map(RunStatus::diagnostics).unwrap_or_default();
        if known.is_empty() {
            [self.spec.diagnostic.as_str()].into()
        } else {
            known
        }
    }

    /// Whether its thread is that one.
    pub fn is_told_in(&self, channel: &str, thread_ts: &str) -> bool {
        let told = self.status.as_ref().is_some_and(|status| {
            status.telling.channel.as_deref() == Some(channel) && status.telling.root_ts.as_deref() == Some(thread_ts)
        });
        told || (self.spec.origin.channel == channel && self.spec.origin.thread_ts.as_deref() == Some(thread_ts))
    }

    /// Alerts within the window beside the one that made the run.
    pub fn alerts(&self) -> u64 {
        let annotations = self.metadata.annotations.as_ref();
        let count = annotations.and_then(|all| all.get(ANNOTATION_ALERTS)?.parse().ok());
        count.unwrap_or_default()
    }

    /// Whether the incident has its note.
    pub fn is_noted(&self) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        annotations.is_some_and(|all| all.contains_key(ANNOTATION_NOTED))
    }

    /// The recorded request to cancel; one that can't be read counts for nothing.
    pub fn cancel_request(&self) -> Option<CancelRequest> {
        let text = self.metadata.annotations.as_ref()?.get(ANNOTATION_CANCEL)?;
        serde_json::from_str(text).ok()
    }

    /// What a person said when asked for an approval; text that can't be read counts for nothing.
    pub fn verdict_request(&self) -> Option<VerdictRequest> {
        let text = self.metadata.annotations.as_ref()?.get(ANNOTATION_VERDICT)?;
        serde_json::from_str(text).ok()
    }
}

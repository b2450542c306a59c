//! What came of it: on standard output what was captured, as text or as one JSON object; on standard error everything that is
//! said about it.

use std::path::PathBuf;

use diagbot_api::{
    capture::{ArtifactRecord, CapturePhase, DiagnosticCapture, Explanation, PinnedTarget},
    run::{DiagnosticRun, Phase},
};
use diagbot_artifacts::{ArtifactKey, Destination};
use diagbot_slack::views::escape::short_size;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::EphemeralContainer;
use serde::Serialize;
use serde_json::{Value, json};

pub(in crate::cli) use super::settings::Arguments as Setting;

/// The outcome of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunReport {
    run: String,
    phase: &'static str,
    diagnostic: String,
    targets: Vec<PinnedTarget>,
    artifacts: Vec<Artifact>,
    notes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    candidates: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Explanation>,
    #[serde(skip)]
    failed: Vec<(String, Explanation)>,
}

/// One artifact and where it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Artifact {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Link>,
    pod: String,
    diagnostic: String,
    size_bytes: u64,
    sha256: String,
    proof: diagbot_api::capture::Proof,
    truncated: bool,
    sensitive: bool,
    redacted: u64,
    findings: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    url: String,
    expires_at: Timestamp,
}

impl RunReport {
    /// The outcome, with the places of everything that was kept.
    pub(super) async fn of(run: &DiagnosticRun, destination: &Destination) -> Self {
        let mut report = Self::without_artifacts(run);
        for capture in run.status.iter().flat_map(|status| &status.captures) {
            for record in &capture.artifacts {
                let mut artifact = Artifact::of(record, &capture.target);
                match destination {
                    Destination::Folder(folder) => artifact.file = folder.file(&record.key),
                    Destination::Store(store) => match link(store, record).await {
                        Ok(link) => artifact.link = Some(link),
                        Err(why) => report.notes.push(why),
                    },
                }
                report.artifacts.push(artifact);
            }
        }
        report
    }

    /// The outcome of a run that kept nothing.
    pub(super) fn without_artifacts(run: &DiagnosticRun) -> Self {
        let status = run.status.clone().unwrap_or_default();
        let failed = status.captures.iter().filter_map(|capture| {
            let place = format!("{}/{}", capture.target.namespace, capture.target.pod);
            (capture.phase != CapturePhase::Succeeded).then_some((place, capture.reason.clone()?))
        });
        let own = |reason: Explanation| Explanation {
            message: reason.message.replace("The bot's service account", "Your account"),
            remedy: reason
                .remedy
                .replace("`list` shows all diagnostics", "the allowlist's folder has all of them"),
            code: reason.code,
        };
        let mut notes = status.notes.clone();
        notes.extend(status.captures.iter().flat_map(|capture| capture.notes.clone()));
        Self {
            run: run.metadata.name.clone().unwrap_or_default(),
            phase: status.phase.as_str(),
            diagnostic: status.diagnostic.clone().unwrap_or_else(|| run.spec.diagnostic.clone()),
            targets: status.captures.iter().map(|capture| capture.target.clone()).collect(),
            artifacts: Vec::new(),
            notes,
            candidates: status
                .candidates
                .iter()
                .map(|candidate| match &candidate.container {
                    Some(container) => format!("{}/{} -c {container}", candidate.namespace, candidate.pod),
                    None => format!("{}/{} ({})", candidate.namespace, candidate.pod, candidate.hint),
                })
                .collect(),
            failed: failed.map(|(place, reason)| (place, own(reason))).collect(),
            reason: status.reason.map(own),
        }
    }

    /// For standard output: a line for each artifact, its place first.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for artifact in &self.artifacts {
            let place = match (&artifact.file, &artifact.link) {
                (Some(file), _) => file.display().to_string(),
                (None, Some(link)) => link.url.clone(),
                (None, None) => continue,
            };
            lines.push(place);
        }
        lines
    }

    /// The whole as one JSON object.
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is plain data")
    }

    /// For standard error: what there is to say about the artifacts, and about those that there are not.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.artifacts.iter().flat_map(Artifact::remarks).collect();
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        if self.phase == Phase::Cancelled.as_str() {
            lines.push(if self.targets.is_empty() {
                "stopped: nothing had been started".to_owned()
            } else {
                "stopped in the pod, and proven so".to_owned()
            });
        }
        let many = self.targets.len() > 1;
        for (place, reason) in self.failed.iter().filter(|_| many) {
            lines.push(format!("{place}: {}", sentence(reason)));
        }
        match &self.reason {
            Some(reason) if !many => lines.push(format!("diagbot: {}", sentence(reason))),
            _ => {}
        }
        lines.extend(self.candidates.iter().map(|candidate| format!("  {candidate}")));
        lines
    }
}

impl Artifact {
    fn of(record: &ArtifactRecord, target: &PinnedTarget) -> Self {
        Self {
            file: None,
            link: None,
            pod: format!("{}/{}", target.namespace, target.pod),
            diagnostic: record.diagnostic.clone(),
            size_bytes: record.size_bytes,
            sha256: record.sha256.clone(),
            proof: record.proof,
            truncated: record.truncated,
            sensitive: record.sensitive,
            redacted: record.redaction.as_ref().map_or(0, |redaction| redaction.count),
            findings: record.findings.clone(),
        }
    }

    fn remarks(&self) -> Vec<String> {
        let mut words = vec![
            format!("{} of {}", self.diagnostic, self.pod),
            size(self.size_bytes),
            format!("SHA-256 {}", self.sha256),
        ];
        if self.truncated {
            words.push("NOT WHOLE".to_owned());
        }
        if self.sensitive {
            words.push("sensitive".to_owned());
        }
        match self.redacted {
            0 => {}
            1 => words.push("1 place redacted".to_owned()),
            n => words.push(format!("{n} places redacted")),
        }
        if let Some(link) = &self.link {
            words.push(format!("the link ends at {}", link.expires_at));
        }
        let findings = self.findings.iter().map(|finding| format!("  found: {finding}"));
        std::iter::once(words.join(" · ")).chain(findings).collect()
    }
}

async fn link(store: &diagbot_artifacts::Store, record: &ArtifactRecord) -> Result<Link, String> {
    let key = ArtifactKey::try_from(record.key.clone()).map_err(|error| error.to_string())?;
    let signed = store
        .link(&key, record.version.as_deref(), &record.name, record.sensitive)
        .await
        .map_err(|error| format!("the artifact {key} is in the store, and no link could be made: {error}"))?;
    Ok(Link {
        expires_at: signed.expires_at,
        url: signed.into_exposed(),
    })
}

fn sentence(reason: &Explanation) -> String {
    let message = reason.message.trim_end_matches('.');
    format!("{message}. {}", reason.remedy).trim_end().to_owned()
}

/// What would be added to each pod.
pub(super) fn preview(shown: &[(DiagnosticCapture, Option<EphemeralContainer>)]) -> Value {
    let one = |(capture, container): &(DiagnosticCapture, Option<EphemeralContainer>)| {
        let target = &capture.spec.target;
        let steps: Vec<&str> = capture.spec.steps.iter().map(|s| s.diagnostic.as_str()).collect();
        json!({
            "cluster": target.cluster,
            "pod": format!("{}/{}", target.namespace, target.pod),
            "container": target.container,
            "diagnostics": steps,
            // Nothing is started where the Kubernetes API alone is read.
            "ephemeralContainer": container,
        })
    };
    Value::Array(shown.iter().map(one).collect())
}

/// The JSON object of a request that was never one.
pub(super) fn refused(message: &str) -> String {
    let reason = json!({ "code": "Settings", "message": message, "remedy": "" });
    json!({ "phase": Phase::Refused.as_str(), "artifacts": [], "reason": reason }).to_string()
}

/// A length for people.
pub(super) fn size(bytes: u64) -> String {
    short_size(bytes).unwrap_or_else(|| format!("{bytes} B"))
}

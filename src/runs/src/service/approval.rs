//! What a second person says to somebody else's run. The first word counts; whoever leads reviews that person once more.

use diagbot_api::{
    approval::{ANNOTATION_VERDICT, VerdictRequest},
    decision::Verb,
    request_key::RunName,
    requester::Requester,
    run::{DiagnosticRun, Phase},
};
use diagbot_audit::{Event, Word};
use diagbot_cluster::deadline;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{CALL, RunService, ServiceError};
use crate::reason::Reason;

/// Writes that may meet another's write before we give up.
const ATTEMPTS: u32 = 5;

/// What became of a word of a second person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApprovalOutcome {
    /// It is recorded.
    Said {
        /// Consented, or refused.
        approved: bool,
    },
    /// Somebody had said something before.
    SaidBefore(VerdictRequest),
    /// Nothing is asked any more.
    Over(Phase),
}

impl RunService {
    /// Consents to a run, or refuses. Takes the verb `approve` where the target is; nobody consents to their own.
    pub async fn approval(
        &self,
        run: &RunName,
        by: &Requester,
        channel: &str,
        approved: bool,
    ) -> Result<ApprovalOutcome, ServiceError> {
        for _ in 0..ATTEMPTS {
            let found = self.fresh(run).await?;
            if let Some(said) = found.verdict_request() {
                return Ok(ApprovalOutcome::SaidBefore(said));
            }
            if found.phase() != Phase::AwaitingApproval {
                return Ok(ApprovalOutcome::Over(found.phase()));
            }
            if found.spec.requester == *by {
                return Err(ServiceError::Denied(Reason::OwnRequest.explain()));
            }
            self.check_may(Verb::Approve, &found, (by, channel)).await?;
            let request = VerdictRequest {
                by: by.clone(),
                approved,
                at: self.now(),
                channel: channel.to_owned(),
            };
            let text = serde_json::to_string(&request).expect("a verdict is valid JSON");
            // The resourceVersion makes the first one win.
            let patch = Patch::Merge(json!({ "metadata": {
                "resourceVersion": found.metadata.resource_version,
                "annotations": { ANNOTATION_VERDICT: text },
            }}));
            let params = PatchParams::default();
            match deadline(CALL, self.0.api.patch(run.as_str(), &params, &patch)).await {
                Ok(_) => {
                    self.audit_log().add(Event::Approval {
                        run: run.to_string(),
                        person: by.user_name(),
                        verdict: if approved { Word::SaidYes } else { Word::SaidNo },
                        reason: String::new(),
                    });
                    return Ok(ApprovalOutcome::Said { approved });
                }
                Err(error) if error.is_conflict() => {}
                Err(error) if error.is_not_found() => return Err(ServiceError::NotFound),
                Err(source) => {
                    return Err(ServiceError::Call {
                        doing: "record what was said",
                        source,
                    });
                }
            }
        }
        Err(ServiceError::Contended)
    }

    /// The Role and RoleBinding that would give the person who asked what was denied, as YAML for the namespace's owners;
    /// none where nothing was denied.
    pub fn grant(&self, run: &DiagnosticRun) -> Option<String> {
        let decision = run.status.as_ref()?.decision.as_ref().filter(|d| !d.allowed)?;
        let (_, namespace) = run.place(&self.clusters().home().name);
        let diagnostic = run.diagnostic_name();
        let names = run.diagnostics().into_iter().collect::<Vec<_>>().join(", ");
        Some(format!(
            "apiVersion: rbac.authorization.k8s.io/v1\n\
             kind: Role\n\
             metadata: {{ name: diagbot-{diagnostic}, namespace: {namespace} }}\n\
             rules:\n\
             - apiGroups: [diagbot.dev]\n  resources: [diagnostics]\n  resourceNames: [{names}]\n  verbs: [run, read, list]\n\
             ---\n\
             apiVersion: rbac.authorization.k8s.io/v1\n\
             kind: RoleBinding\n\
             metadata: {{ generateName: diagbot-{diagnostic}-, namespace: {namespace} }}\n\
             roleRef: {{ apiGroup: rbac.authorization.k8s.io, kind: Role, name: diagbot-{diagnostic} }}\n\
             subjects:\n\
             - {{ apiGroup: rbac.authorization.k8s.io, kind: User, name: \"{}\" }}\n",
            decision.user
        ))
    }
}

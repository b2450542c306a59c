//! Asking a run to stop. The request is an annotation; the first one wins and later ones hear who was first.

use diagbot_api::{
    capture::ANNOTATION_CANCEL,
    decision::{Decision, Verb},
    request_key::RunName,
    requester::Requester,
    run::{CancelRequest, DiagnosticRun, Phase},
};
use diagbot_cluster::deadline;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{CALL, RunService, ServiceError};
use crate::{access::Question, reason::Reason};

/// Writes that may meet another's write before we give up.
const ATTEMPTS: u32 = 5;

/// What became of a request to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It is recorded; the run says `Cancelled` when everything is proven to have stopped.
    Asked,
    /// Somebody had asked before.
    AlreadyAsked {
        /// Who.
        by: Requester,
        /// When.
        at: Timestamp,
    },
    /// The run had ended.
    AlreadyEnded(Phase),
}

impl RunService {
    /// Asks a run to stop. People may cancel their own runs; others need the verb `cancel` where the run's target is. `channel`:
    /// where the person asks.
    pub async fn cancel(&self, run: &RunName, by: &Requester, channel: &str) -> Result<CancelOutcome, ServiceError> {
        for _ in 0..ATTEMPTS {
            let found = self.fresh(run).await?;
            if found.phase().is_final() {
                return Ok(CancelOutcome::AlreadyEnded(found.phase()));
            }
            if let Some(earlier) = found.cancel_request() {
                return Ok(CancelOutcome::AlreadyAsked {
                    by: earlier.by,
                    at: earlier.at,
                });
            }
            self.check_may(Verb::Cancel, &found, (by, channel)).await?;
            let request = CancelRequest {
                by: by.clone(),
                at: self.now(),
            };
            let text = serde_json::to_string(&request).expect("a cancel request is valid JSON");
            // The resourceVersion makes the first one win.
            let patch = Patch::Merge(json!({ "metadata": {
                "resourceVersion": found.metadata.resource_version,
                "annotations": { ANNOTATION_CANCEL: text },
            }}));
            let params = PatchParams::default();
            match deadline(CALL, self.0.api.patch(run.as_str(), &params, &patch)).await {
                Ok(_) => {
                    self.audit_log().add(diagbot_audit::Event::Cancel {
                        run: run.to_string(),
                        person: by.user_name(),
                    });
                    return Ok(CancelOutcome::Asked);
                }
                Err(error) if error.is_conflict() => {}
                Err(error) if error.is_not_found() => return Err(ServiceError::NotFound),
                Err(source) => {
                    return Err(ServiceError::Call {
                        doing: "ask the run to stop",
                        source,
                    });
                }
            }
        }
        Err(ServiceError::Contended)
    }

    /// Reviews a verb where the run's target is, for everything that the run takes, of somebody in the channel where they ask:
    /// a run's own channel says nothing of who is in it. A person's own run passes for [`Verb::Cancel`].
    pub(super) async fn check_may(
        &self,
        verb: Verb,
        run: &DiagnosticRun,
        by: (&Requester, &str),
    ) -> Result<(), ServiceError> {
        if verb == Verb::Cancel && run.spec.requester == *by.0 {
            return Ok(());
        }
        for diagnostic in run.diagnostics() {
            let decision = self.decide(verb, run, diagnostic, by).await?;
            let (cluster, namespace) = run.place(&self.clusters().home().name);
            self.audit_log().add(diagbot_audit::Event::Decision {
                run: run.metadata.name.clone().unwrap_or_default(),
                person: decision.user.clone(),
                verb: verb.as_str().to_owned(),
                diagnostic: diagnostic.to_owned(),
                cluster: cluster.clone(),
                namespace: namespace.clone(),
                allowed: decision.allowed,
                reason: decision.authorizer_reason.clone(),
            });
            if !decision.allowed {
                let reason = Reason::not_allowed(verb, &decision, (&cluster, &namespace));
                return Err(ServiceError::Denied(reason.explain()));
            }
        }
        Ok(())
    }

    /// Reviews a verb where the run's target is, for one diagnostic.
    pub(super) async fn decide(
        &self,
        verb: Verb,
        run: &DiagnosticRun,
        diagnostic: &str,
        (by, channel): (&Requester, &str),
    ) -> Result<Decision, ServiceError> {
        let (cluster, namespace) = run.place(&self.clusters().home().name);
        let known = self.clusters().get(&cluster).ok_or(ServiceError::NotFound)?;
        let question = Question {
            cluster: known,
            namespace: &namespace,
            verb,
            diagnostic,
        };
        let review = self.access().review(question, by, Some(channel));
        Ok(review.await?)
    }
}

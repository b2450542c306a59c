//! The access review of a run: asked of the target cluster for the person who asked, on record whatever it says. Every failure
//! denies.

use diagbot_api::{
    decision::{Decision, Verb},
    run::DiagnosticRun,
};
use diagbot_catalog::Sensitivity;
use diagbot_cluster::Cluster;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::SignedDuration;

use super::{ActError, Actor, Done, PARALLEL};
use crate::{
    access::{AccessError, Question},
    reason::Reason,
};

/// How long the record's store is waited for before sensitive evidence is refused.
const RECORD_PATIENCE: SignedDuration = SignedDuration::from_secs(5);

impl Actor<'_> {
    /// One decision a diagnostic, in order.
    pub(super) async fn review(
        &self,
        run: &DiagnosticRun,
        cluster: &str,
        namespace: &str,
        diagnostics: &[String],
    ) -> Result<Done, ActError> {
        let Some(known) = self.service.clusters().get(cluster) else {
            return Ok(Done::Reviewed(Err(Reason::ReviewFailed {
                what: format!("the cluster {cluster} is not configured any more"),
            })));
        };
        let running = |diagnostic| Question {
            cluster: known,
            namespace,
            verb: Verb::Run,
            diagnostic,
        };
        let asked = diagnostics
            .iter()
            .map(|name| self.ask(run, running(name.as_str())))
            .collect::<Vec<_>>();
        let answers: Result<Vec<Decision>, AccessError> = stream::iter(asked).buffered(PARALLEL).try_collect().await;
        let decisions = match answers {
            Ok(decisions) => decisions,
            Err(error) => return Ok(Done::Reviewed(Err(self.denial(run, error)?))),
        };
        for (decision, diagnostic) in decisions.iter().zip(diagnostics) {
            self.record_decision(run, decision, Verb::Run, (cluster, namespace), diagnostic);
        }
        for diagnostic in diagnostics {
            if let Some(away) = self.check_record(run, diagnostic)? {
                return Ok(Done::Reviewed(Err(away)));
            }
        }
        Ok(Done::Reviewed(Ok(decisions)))
    }

    pub(super) fn record_decision(
        &self,
        run: &DiagnosticRun,
        decision: &Decision,
        verb: Verb,
        (cluster, namespace): (&str, &str),
        diagnostic: &str,
    ) {
        self.service.audit_log().add(diagbot_audit::Event::Decision {
            run: run.metadata.name.clone().unwrap_or_default(),
            person: decision.user.clone(),
            verb: verb.as_str().to_owned(),
            diagnostic: diagnostic.to_owned(),
            cluster: cluster.to_owned(),
            namespace: namespace.to_owned(),
            allowed: decision.allowed,
            reason: decision.authorizer_reason.clone(),
        });
    }

    /// What nobody could account for later is not begun. For a moment the record's store is waited for.
    fn check_record(&self, run: &DiagnosticRun, diagnostic: &str) -> Result<Option<Reason>, ActError> {
        let known = self.service.catalog().get(diagnostic);
        let sensitive = known.is_none_or(|d| d.sensitivity == Sensitivity::Sensitive);
        match self.service.audit_log().room_for(sensitive) {
            Ok(()) => Ok(None),
            Err(away) if self.waited(run) < RECORD_PATIENCE => Err(ActError::Record(away)),
            Err(_) => Ok(Some(Reason::RecordAway)),
        }
    }

    /// The reason to deny that follows from a failed review. For a moment it is asked again instead.
    pub(super) fn denial(&self, run: &DiagnosticRun, error: AccessError) -> Result<Reason, ActError> {
        match error {
            AccessError::Identity(error) => Ok(Reason::IdentityRefused(error)),
            error if self.patient(run) => Err(ActError::Review(error)),
            error => {
                tracing::warn!(
                    error = %diagbot_base::telemetry::Chain(&error),
                    "the access review failed, so the run is denied"
                );
                Ok(Reason::ReviewFailed {
                    what: error.to_string(),
                })
            }
        }
    }

    pub(super) async fn ask(&self, run: &DiagnosticRun, question: Question<'_>) -> Result<Decision, AccessError> {
        let channel = Some(run.spec.origin.channel.as_str());
        self.service
            .access()
            .review(question, &run.spec.requester, channel)
            .await
    }

    async fn ask_ahead(
        &self,
        run: &DiagnosticRun,
        cluster: &Cluster,
        namespace: &str,
        diagnostic: &str,
    ) -> Result<(), AccessError> {
        let channel = run.spec.origin.channel.as_str();
        let access = self.service.access();
        let reading = Question {
            cluster,
            namespace,
            verb: Verb::Read,
            diagnostic,
        };
        let may_run = self.ask(
            run,
            Question {
                verb: Verb::Run,
                ..reading
            },
        );
        let may_read = self.ask(run, reading);
        let of_channel = async {
            if channel.starts_with(['C', 'G']) {
                access.review_channel(reading, channel).await?;
            }
            Ok(())
        };
        tokio::try_join!(may_run, may_read, of_channel).map(|_| ())
    }

    /// Where the person named the namespace, the review that follows is asked beside the look-up; its answer is remembered
    /// for seconds, and one that failed is asked again when it counts.
    pub(super) async fn review_ahead(&self, run: &DiagnosticRun, cluster: &Cluster, diagnostic: &str) {
        if let Some(namespace) = &run.spec.target.namespace
            && !diagnostic.is_empty()
            && let Err(error) = Box::pin(self.ask_ahead(run, cluster, namespace, diagnostic)).await
        {
            tracing::debug!(error = %diagbot_base::telemetry::Chain(&error), "the review is asked again");
        }
    }
}

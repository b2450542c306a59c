//! Who may see what a run captured, asked when it is to be shown: a right that was taken away meanwhile shows nothing any more.
//! Answers are remembered for seconds; what can't be told counts as no.

use std::collections::BTreeSet;

use diagbot_api::{
    approval::Audience,
    decision::{Decision, Verb},
    requester::Requester,
    run::DiagnosticRun,
};

use super::RunService;
use crate::access::{AccessError, Question};

impl RunService {
    /// Who may see what the run captured, now. Nobody, of a run that was not admitted; as recorded, while there is nothing to
    /// see.
    pub async fn audience(&self, run: &DiagnosticRun) -> Audience {
        let Some(status) = &run.status else {
            return Audience::default();
        };
        let recorded = status.audience.unwrap_or_default();
        let evidence = status.captures.iter().any(|capture| !capture.artifacts.is_empty());
        if !evidence {
            return recorded;
        }
        let mut places = BTreeSet::new();
        for target in status.captures.iter().map(|capture| &capture.target) {
            let of_target = |name: &str| [target.cluster.clone(), target.namespace.clone(), name.to_owned()];
            places.extend(run.diagnostics().into_iter().map(of_target));
        }
        self.audience_of(places, &run.spec.requester, &run.spec.origin.channel)
            .await
    }

    /// Who may see what comes of diagnostics at places (cluster, namespace, diagnostic): the channel's own principal, and the
    /// person.
    pub(crate) async fn audience_of(
        &self,
        places: BTreeSet<[String; 3]>,
        person: &Requester,
        channel: &str,
    ) -> Audience {
        let access = self.access();
        let mut audience = Audience {
            // A direct message is the person's own, and no channel.
            channel: channel.starts_with(['C', 'G']),
            requester: true,
        };
        for [cluster, namespace, diagnostic] in &places {
            let Some(known) = self.clusters().get(cluster) else {
                return Audience::default();
            };
            let reading = Question {
                cluster: known,
                namespace,
                verb: Verb::Read,
                diagnostic,
            };
            let of_channel = async { audience.channel && may_see(access.review_channel(reading, channel).await) };
            let of_person = async { may_see(access.review(reading, person, Some(channel)).await) };
            let (channel, requester) = tokio::join!(of_channel, of_person);
            audience = Audience {
                channel: audience.channel && channel,
                requester: audience.requester && requester,
            };
        }
        audience
    }
}

fn may_see(review: Result<Decision, AccessError>) -> bool {
    match review {
        Ok(decision) => decision.allowed,
        Err(error) => {
            tracing::warn!(
                error = %diagbot_base::telemetry::Chain(&error),
                "who may see the evidence is not known, so it is shown to nobody unasked"
            );
            false
        }
    }
}

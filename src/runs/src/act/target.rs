//! Finding what was named: the look-up in the target cluster, in the namespaces that the person may be told about.

use std::collections::BTreeSet;

use diagbot_api::{decision::Verb, run::DiagnosticRun};
use diagbot_cluster::{
    Cluster,
    resolve::{self, LookUpError, Visible},
};
use futures::{StreamExt as _, stream};

use super::{ActError, Actor, Done, PARALLEL, answer};
use crate::{
    access::{AccessError, Question},
    reason::Reason,
};

/// Most namespaces that one look-up reviews; further ones count as not visible.
const REVIEWED: usize = 32;

impl Actor<'_> {
    pub(super) async fn find_target(
        &self,
        run: &DiagnosticRun,
        cluster: &str,
        diagnostic: &str,
        most: usize,
        siblings: bool,
    ) -> Result<Done, ActError> {
        let Some(known) = self.service.clusters().get(cluster) else {
            let known = self.service.clusters().names().map(ToString::to_string).collect();
            return Ok(Done::Target(Err(Reason::UnknownCluster {
                typed: cluster.to_owned(),
                known,
            })));
        };
        let visible = async |namespaces| self.visible(run, known, diagnostic, namespaces).await;
        let find = async {
            let mut found = resolve::find(known, &run.spec.target, most, visible).await?;
            if let (true, [only]) = (siblings, found.pods.as_slice()) {
                found.siblings = resolve::siblings(known, only).await?;
            }
            Ok(found)
        };
        let (found, ()) = tokio::join!(find, Box::pin(self.review_ahead(run, known, diagnostic)));
        let error = match found {
            Ok(found) => return Ok(Done::Target(Ok(found))),
            Err(LookUpError::Visible(error)) => return self.denial(run, error).map(|reason| Done::Target(Err(reason))),
            Err(LookUpError::Call(error)) => error,
        };
        if error.is_forbidden() {
            return Ok(Done::Target(Err(Reason::BotForbidden {
                cluster: cluster.to_owned(),
                what: match &run.spec.target.namespace {
                    Some(namespace) => format!("list pods in namespace `{namespace}`"),
                    None => "list pods in all namespaces".to_owned(),
                },
            })));
        }
        if error.is_transient() && self.patient(run) {
            return Err(ActError::Call {
                doing: "look up the target",
                source: error,
            });
        }
        Ok(Done::Target(Err(Reason::ClusterUnavailable {
            cluster: cluster.to_owned(),
            answer: answer(&error),
        })))
    }

    /// The namespaces that the person may be told about: with the verb `list`, or with `run` for this diagnostic.
    async fn visible(
        &self,
        run: &DiagnosticRun,
        cluster: &Cluster,
        diagnostic: &str,
        namespaces: BTreeSet<String>,
    ) -> Result<Visible, AccessError> {
        let reviews = namespaces.into_iter().take(REVIEWED).map(|namespace| async move {
            for (verb, diagnostic) in [(Verb::List, ""), (Verb::Run, diagnostic)] {
                let question = Question {
                    cluster,
                    namespace: &namespace,
                    verb,
                    diagnostic,
                };
                if self.ask(run, question).await?.allowed {
                    return Ok(Some(namespace));
                }
            }
            Ok(None)
        });
        let seen: Vec<Result<Option<String>, AccessError>> =
            stream::iter(reviews).buffer_unordered(PARALLEL).collect().await;
        let seen: Vec<Option<String>> = seen.into_iter().collect::<Result<_, _>>()?;
        Ok(Visible::Only(seen.into_iter().flatten().collect()))
    }
}

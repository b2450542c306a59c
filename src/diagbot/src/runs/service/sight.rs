//! Which runs a person may be told of: their own, and those whose place and diagnostic they may `list`. What can't be told
//! is not shown.

use std::{collections::HashMap, sync::Arc};

use super::RunService;
use crate::{
    access::{Requester, Verb},
    runs::resource::DiagnosticRun,
};

impl RunService {
    /// Those of `runs` that the person may be told of, at most `most`, in order.
    pub async fn told_of(
        &self,
        runs: Vec<Arc<DiagnosticRun>>,
        by: &Requester,
        channel: &str,
        most: usize,
    ) -> Vec<Arc<DiagnosticRun>> {
        let mut asked: HashMap<(String, String, String), bool> = HashMap::new();
        let mut seen = Vec::new();
        for run in runs {
            if seen.len() >= most {
                break;
            }
            if run.spec.requester == *by {
                seen.push(run);
                continue;
            }
            let (cluster, namespace) = run.place(self.clusters());
            let mut all = true;
            for diagnostic in run.diagnostics() {
                let place = (cluster.clone(), namespace.clone(), diagnostic.to_owned());
                let known = asked.get(&place).copied();
                let may = match known {
                    Some(may) => may,
                    None => self.may_be_told(&place, by, channel).await,
                };
                asked.insert(place, may);
                all &= may;
            }
            if all {
                seen.push(run);
            }
        }
        seen
    }

    async fn may_be_told(&self, place: &(String, String, String), by: &Requester, channel: &str) -> bool {
        let (cluster, namespace, diagnostic) = place;
        let Some(known) = self.clusters().get(cluster) else {
            return false;
        };
        let review = self
            .access()
            .review(known, namespace, Verb::List, diagnostic, by, Some(channel));
        match review.await {
            Ok(decision) => decision.allowed,
            Err(error) => {
                tracing::warn!(
                    error = %crate::telemetry::Chain(&error),
                    "what a person may be told of is not known, so it is not told"
                );
                false
            }
        }
    }
}

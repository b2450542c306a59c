//! Which runs and schedules a person may be told of: their own, and those whose place and diagnostic they may `list`. What
//! can't be told is not shown.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use diagbot_api::{decision::Verb, requester::Requester, run::DiagnosticRun, schedule::DiagnosticSchedule};

use super::RunService;
use crate::access::Question;

/// Cluster, namespace and diagnostic.
type TargetPlace = (String, String, String);

impl RunService {
    /// Those of `runs` that the person may be told of, at most `most`, in order.
    pub async fn told_of(
        &self,
        runs: Vec<Arc<DiagnosticRun>>,
        by: &Requester,
        channel: &str,
        most: usize,
    ) -> Vec<Arc<DiagnosticRun>> {
        let mut sight = Sight::of(self, by, channel);
        let mut seen = Vec::new();
        for run in runs {
            if seen.len() >= most {
                break;
            }
            let (cluster, namespace) = run.place(&self.clusters().home().name);
            let takes = run.diagnostics().into_iter().map(str::to_owned).collect();
            if sight.reaches(&run.spec.requester, (cluster, namespace), takes).await {
                seen.push(run);
            }
        }
        seen
    }

    /// Those of `schedules` that the person may be told of, in order.
    pub async fn schedules_told_of(
        &self,
        schedules: Vec<Arc<DiagnosticSchedule>>,
        by: &Requester,
        channel: &str,
    ) -> Vec<Arc<DiagnosticSchedule>> {
        let mut sight = Sight::of(self, by, channel);
        let mut seen = Vec::new();
        for schedule in schedules {
            let spec = &schedule.spec;
            let home = &self.clusters().home().name;
            let cluster = spec.target.cluster.clone().unwrap_or_else(|| home.to_string());
            let namespace = spec.target.namespace.clone().unwrap_or_default();
            let takes = self.schedules().takes(spec);
            if sight.reaches(&spec.owner, (cluster, namespace), takes).await {
                seen.push(schedule);
            }
        }
        seen
    }
}

/// What one person in one channel may be told of; each place is asked about once.
struct Sight<'a> {
    service: &'a RunService,
    by: &'a Requester,
    channel: &'a str,
    asked: HashMap<TargetPlace, bool>,
}

impl<'a> Sight<'a> {
    fn of(service: &'a RunService, by: &'a Requester, channel: &'a str) -> Self {
        Self {
            service,
            by,
            channel,
            asked: HashMap::new(),
        }
    }

    /// Whether the person may be told of somebody's work at a cluster and namespace that takes these diagnostics.
    async fn reaches(&mut self, owner: &Requester, place: (String, String), takes: BTreeSet<String>) -> bool {
        if owner == self.by {
            return true;
        }
        for diagnostic in takes {
            let place = (place.0.clone(), place.1.clone(), diagnostic);
            let may = match self.asked.get(&place) {
                Some(known) => *known,
                None => self.may_list(&place).await,
            };
            self.asked.insert(place, may);
            if !may {
                return false;
            }
        }
        true
    }

    async fn may_list(&self, (cluster, namespace, diagnostic): &TargetPlace) -> bool {
        let Some(known) = self.service.clusters().get(cluster) else {
            return false;
        };
        let listing = Question {
            cluster: known,
            namespace,
            verb: Verb::List,
            diagnostic,
        };
        let review = self.service.access().review(listing, self.by, Some(self.channel));
        match review.await {
            Ok(decision) => decision.allowed,
            Err(error) => {
                tracing::warn!(
                    error = %diagbot_base::telemetry::Chain(&error),
                    "what a person may be told of is not known, so it is not told"
                );
                false
            }
        }
    }
}

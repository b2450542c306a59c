//! Looking at a run's targets and places right before launch, all at once.

use std::{collections::BTreeSet, time::Duration};

use diagbot_api::{
    capture::PinnedTarget,
    decision::{Decision, Verb},
    requester::Requester,
    run::DiagnosticRun,
};
use diagbot_cluster::{CallError, Cluster, deadline};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, api::ListParams};

use super::{ActError, Actor, Done, PARALLEL, answer};
use crate::{
    access::{self, AccessError},
    plan::PreflightQuestion,
    preflight::{Preflight, TargetSnapshot},
    reason::Reason,
};

/// Pods of a namespace that are read to tell a workload's replicas; further ones are not counted among them.
const COUNTED: u32 = 500;

/// Why a preflight failed.
enum Missed {
    Call {
        cluster: String,
        what: String,
        source: CallError,
    },
    Access(AccessError),
}

impl From<AccessError> for Missed {
    fn from(error: AccessError) -> Self {
        Self::Access(error)
    }
}

impl Actor<'_> {
    pub(super) async fn preflight(&self, run: &DiagnosticRun, question: &PreflightQuestion) -> Result<Done, ActError> {
        let looks = question
            .targets
            .iter()
            .map(|target| self.snapshot(target, question.count_workload))
            .collect::<Vec<_>>();
        let snapshots = stream::iter(looks)
            .buffered(PARALLEL)
            .try_collect::<Vec<TargetSnapshot>>();
        let audience = async {
            let channel = &run.spec.origin.channel;
            let places = question.places();
            let places = places.map(|(cluster, namespace, name)| [cluster, namespace, name].map(str::to_owned));
            let places = places.collect();
            let of = self.service.audience_of(places, &run.spec.requester, channel);
            Ok(of.await)
        };
        let break_glass = self.break_glass(run, question);
        let surveyed = tokio::try_join!(
            snapshots,
            audience,
            break_glass,
            self.members(run),
            self.approver(run, question)
        );
        let missed = match surveyed {
            Ok((snapshots, audience, break_glass, members, approver)) => {
                return Ok(Done::Surveyed(Ok(Preflight {
                    snapshots,
                    audience,
                    break_glass,
                    members,
                    approver,
                })));
            }
            Err(missed) => missed,
        };
        let reason = match missed {
            Missed::Access(error) => self.denial(run, error)?,
            Missed::Call { source, .. } if source.is_transient() && self.patient(run) => {
                return Err(ActError::Call {
                    doing: "look at the target's namespace",
                    source,
                });
            }
            Missed::Call { cluster, what, source } if source.is_forbidden() => Reason::BotForbidden { cluster, what },
            Missed::Call { cluster, source, .. } => Reason::ClusterUnavailable {
                cluster,
                answer: answer(&source),
            },
        };
        Ok(Done::Surveyed(Err(reason)))
    }

    /// The review of a second person who said something: the verb `approve`, for everything that the run does.
    async fn approver(&self, run: &DiagnosticRun, question: &PreflightQuestion) -> Result<Option<Decision>, Missed> {
        let Some(said) = run.verdict_request() else {
            return Ok(None);
        };
        let asker = (&said.by, said.channel.as_str());
        self.review_all(run, question, Verb::Approve, asker).await
    }

    async fn snapshot(&self, target: &PinnedTarget, count_workload: bool) -> Result<TargetSnapshot, Missed> {
        let missed = |(what, source)| Missed::Call {
            cluster: target.cluster.clone(),
            what,
            source,
        };
        let Some(cluster) = self.service.clusters().get(&target.cluster) else {
            return Ok(TargetSnapshot::default());
        };
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        let namespace = async {
            deadline(self.limit(), namespaces.get(&target.namespace))
                .await
                .map_err(|error| missed((format!("read the namespace `{}`", target.namespace), error)))
        };
        let pod = async {
            pod_site(cluster, target, count_workload, self.limit())
                .await
                .map_err(missed)
        };
        let (namespace, snapshot) = tokio::try_join!(namespace, pod)?;
        Ok(TargetSnapshot {
            labels: namespace.metadata.labels.unwrap_or_default(),
            annotations: namespace.metadata.annotations.unwrap_or_default(),
            ..snapshot
        })
    }

    /// How many would read that somebody uses break-glass, where the person does; nobody is counted in a direct message.
    async fn members(&self, run: &DiagnosticRun) -> Result<Option<u64>, Missed> {
        let channel = &run.spec.origin.channel;
        if run.spec.appeal.break_glass.is_none() || !channel.starts_with(['C', 'G']) {
            return Ok(None);
        }
        Ok(self.service.access().members(channel).await?)
    }

    /// The review for break-glass, for everything that the run does.
    async fn break_glass(&self, run: &DiagnosticRun, question: &PreflightQuestion) -> Result<Option<Decision>, Missed> {
        if run.spec.appeal.break_glass.is_none() {
            return Ok(None);
        }
        let asker = (&run.spec.requester, run.spec.origin.channel.as_str());
        self.review_all(run, question, Verb::BreakGlass, asker).await
    }

    /// Reviews a person, asking in that channel, for everything that the run does, up to the first denial: that one, or the last.
    async fn review_all(
        &self,
        run: &DiagnosticRun,
        question: &PreflightQuestion,
        verb: Verb,
        (by, channel): (&Requester, &str),
    ) -> Result<Option<Decision>, Missed> {
        let access = self.service.access();
        let mut last = None;
        for (cluster, namespace, diagnostic) in question.places() {
            let Some(known) = self.service.clusters().get(cluster) else {
                return Ok(None);
            };
            let asked = access::Question {
                cluster: known,
                namespace,
                verb,
                diagnostic,
            };
            let decision = match verb {
                Verb::BreakGlass => access.review_named(asked, by, Some(channel)).await?,
                _ => access.review(asked, by, Some(channel)).await?,
            };
            self.record_decision(run, &decision, verb, (cluster, namespace), diagnostic);
            let allowed = decision.allowed;
            last = Some(decision);
            if !allowed {
                break;
            }
        }
        Ok(last)
    }
}

/// A target's pod afresh, without its namespace; an error says what could not be done.
pub(crate) async fn pod_site(
    cluster: &Cluster,
    target: &PinnedTarget,
    count_workload: bool,
    limit: Duration,
) -> Result<TargetSnapshot, (String, CallError)> {
    let missed = |what: &str| {
        let what = format!("{what} pods in `{}`", target.namespace);
        move |error| (what, error)
    };
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &target.namespace);
    let pod = deadline(limit, pods.get_opt(&target.pod))
        .await
        .map_err(missed("read"))?;
    let mut snapshot = TargetSnapshot::default();
    let Some(pod) = pod else { return Ok(snapshot) };
    snapshot.container_id = container_id(&pod, &target.container);
    snapshot.containers = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.ephemeral_containers)
        .map(Vec::len)
        .sum();
    if let Some(owner) = controller(&pod).filter(|_| count_workload) {
        let params = ListParams::default().limit(COUNTED);
        let listed = deadline(limit, pods.list_metadata(&params))
            .await
            .map_err(missed("list"))?;
        snapshot.siblings = listed
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter(|pod| {
                let mut owners = pod.metadata.owner_references.iter().flatten();
                owners.any(|o| o.controller == Some(true) && o.uid == owner)
            })
            .filter_map(|pod| pod.metadata.uid)
            .collect::<BTreeSet<String>>();
    }
    snapshot.pod_uid = pod.metadata.uid;
    Ok(snapshot)
}

/// UID of the pod's controller.
fn controller(pod: &Pod) -> Option<String> {
    let owners = pod.metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    controllers.next().map(|owner| owner.uid.clone())
}

fn container_id(pod: &Pod, container: &str) -> String {
    let Some(status) = &pod.status else {
        return String::new();
    };
    let main = status.container_statuses.iter().flatten();
    let init = status.init_container_statuses.iter().flatten();
    let found = main.chain(init).find(|s| s.name == container);
    found.and_then(|s| s.container_id.clone()).unwrap_or_default()
}

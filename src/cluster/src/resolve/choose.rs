//! Which of the listed pods a word means. Pure.

use std::collections::BTreeSet;

use diagbot_api::target::{TargetKind, TargetRef};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::{Found, How};

/// Most near names that a message offers.
const NEAR: usize = 5;
/// Least likeness (Jaro-Winkler) of a near name.
const LIKENESS: f64 = 0.8;
/// Label that the Deployment controller puts on its pods and into its ReplicaSets' names.
const LABEL_TEMPLATE: &str = "pod-template-hash";

/// A pod as a list of metadata shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Workloads that it belongs to: its controller, and the Deployment behind a ReplicaSet.
    pub owners: Vec<(TargetKind, String)>,
}

/// Namespaces whose names and contents a person may be told about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visible {
    /// Every one that was asked about.
    All,
    /// These.
    Only(BTreeSet<String>),
}

impl Visible {
    /// Whether the namespace is among them.
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(namespaces) => namespaces.contains(namespace),
        }
    }
}

/// Pods that fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// How.
    pub how: How,
    /// Which.
    pub pods: Vec<Listed>,
}

impl Listed {
    /// From an object's metadata; none where it has no name.
    pub fn of(metadata: ObjectMeta) -> Option<Self> {
        let template = metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_TEMPLATE));
        let owners = metadata
            .owner_references
            .iter()
            .flatten()
            .filter(|owner| owner.controller == Some(true))
            .flat_map(|owner| workloads(owner, template.map(String::as_str)))
            .collect();
        Some(Self {
            namespace: metadata.namespace?,
            name: metadata.name?,
            owners,
        })
    }

    /// The workload that it belongs to, `deployment/checkout`; none where it is nobody's.
    pub fn workload(&self) -> Option<String> {
        self.owners.first().map(|(kind, name)| format!("{kind}/{name}"))
    }
}

fn workloads(owner: &OwnerReference, template: Option<&str>) -> Vec<(TargetKind, String)> {
    let kind = match owner.kind.as_str() {
        "ReplicaSet" => TargetKind::ReplicaSet,
        "StatefulSet" => TargetKind::StatefulSet,
        "DaemonSet" => TargetKind::DaemonSet,
        "Job" => TargetKind::Job,
        _ => return Vec::new(),
    };
    let deployment = template
        .filter(|_| kind == TargetKind::ReplicaSet)
        .and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-'))
        .map(|name| (TargetKind::Deployment, name.to_owned()));
    deployment.into_iter().chain([(kind, owner.name.clone())]).collect()
}

/// The pods that fit the target: whole pod names before whole workload names before beginnings of pod names.
pub(super) fn matches(listed: &[Listed], target: &TargetRef) -> Match {
    matches_seen(listed, target, &Visible::All)
}

/// As [`matches()`], where only the visible namespaces exist.
pub(super) fn matches_seen(listed: &[Listed], target: &TargetRef, visible: &Visible) -> Match {
    let name = target.name.as_str();
    // A whole name in a namespace that the person named is theirs to ask about: nothing is revealed.
    let named = target.namespace.is_some();
    let of = |how: How, fits: &dyn Fn(&Listed) -> bool| Match {
        how,
        pods: listed
            .iter()
            .filter(|pod| fits(pod) && ((named && how == How::Exact) || visible.contains(&pod.namespace)))
            .cloned()
            .collect(),
    };
    let workload = |kind: TargetKind| {
        of(How::Workload(kind), &|pod| {
            pod.owners.iter().any(|(k, n)| *k == kind && n == name)
        })
    };
    let exact = || of(How::Exact, &|pod| pod.name == name);
    let prefix = || of(How::Prefix, &|pod| pod.name.starts_with(name));
    if target.selector.is_some() {
        // The API server has chosen by the labels.
        return of(How::Selector, &|_| true);
    }
    let ways: Vec<Match> = match target.kind {
        Some(TargetKind::Pod) => vec![exact(), prefix()],
        Some(kind) => vec![workload(kind)],
        None => std::iter::once(exact())
            .chain(TargetKind::ALL.into_iter().skip(1).map(workload))
            .chain([prefix()])
            .collect(),
    };
    let nothing = Match {
        how: How::Nothing,
        pods: Vec::new(),
    };
    ways.into_iter().find(|way| !way.pods.is_empty()).unwrap_or(nothing)
}

/// Names near to what was typed, as `namespace/pod`: the one place where names go out that nobody typed.
pub fn near(listed: &[Listed], target: &TargetRef, visible: &Visible) -> Vec<String> {
    near_pods(listed, target)
        .into_iter()
        .filter(|pod| visible.contains(&pod.namespace))
        .take(NEAR)
        .map(|pod| format!("{}/{}", pod.namespace, pod.name))
        .collect()
}

/// The nearest pods, best first; a few more than are shown, since some may not be visible.
pub(super) fn near_pods(listed: &[Listed], target: &TargetRef) -> Vec<Listed> {
    let typed = target.name.as_str();
    let mut scored: Vec<(f64, &Listed)> = listed
        .iter()
        .map(|pod| (likeness(pod, typed), pod))
        .filter(|(score, _)| *score >= LIKENESS)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
    scored.into_iter().take(NEAR * 4).map(|(_, pod)| pod.clone()).collect()
}

fn likeness(pod: &Listed, typed: &str) -> f64 {
    if typed.len() >= 3 && pod.name.contains(typed) {
        return 1.0;
    }
    let names = pod
        .owners
        .iter()
        .map(|(_, name)| name.as_str())
        .chain([pod.name.as_str()]);
    names.map(|name| strsim::jaro_winkler(name, typed)).fold(0.0, f64::max)
}

/// What was matched and read: live pods only where there are any, sickest first.
pub(super) fn settle(matched: &Match, mut pods: Vec<Pod>, near: Vec<String>) -> Found {
    let mut count = matched.pods.len();
    let live = pods.iter().filter(|pod| is_live(pod)).count();
    if live > 0 && live < pods.len() {
        count -= pods.len() - live;
        pods.retain(is_live);
    }
    pods.sort_by_key(|pod| std::cmp::Reverse(sickness(pod)));
    Found {
        how: if pods.is_empty() { How::Nothing } else { matched.how },
        pods,
        count,
        near,
        siblings: Vec::new(),
    }
}

/// Live, and with every container ready: fit to compare a sick one with.
pub fn is_healthy(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let ready = statuses.is_some_and(|all| !all.is_empty() && all.iter().all(|status| status.ready));
    is_live(pod) && ready
}

/// Neither ended nor ending.
fn is_live(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Not ready first, then by restarts, then by the latest end of a container.
fn sickness(pod: &Pod) -> (usize, i32, Option<Timestamp>) {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    statuses.fold((0, 0, None), |(unready, restarts, ended), status| {
        let last = last_end(status).and_then(|end| end.finished_at.as_ref());
        (
            unready + usize::from(!status.ready),
            restarts + status.restart_count,
            ended.max(last.map(|time| time.0)),
        )
    })
}

/// How the container ended last: now, or the time before.
pub fn last_end(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let states = [&status.state, &status.last_state];
    states
        .into_iter()
        .find_map(|state| state.as_ref().and_then(|state| state.terminated.as_ref()))
}

#[cfg(test)]
mod tests {
    use diagbot_api::target::parse;

    use super::*;

    fn pod(namespace: &str, name: &str, owners: &[(TargetKind, &str)]) -> Listed {
        Listed {
            namespace: namespace.into(),
            name: name.into(),
            owners: owners.iter().map(|(kind, name)| (*kind, (*name).to_owned())).collect(),
        }
    }

    fn cluster() -> Vec<Listed> {
        let checkout: &[(TargetKind, &str)] = &[
            (TargetKind::Deployment, "checkout"),
            (TargetKind::ReplicaSet, "checkout-7d9f"),
        ];
        vec![
            pod("shop", "checkout-7d9f-x2x4z", checkout),
            pod("shop", "checkout-7d9f-abcde", checkout),
            pod("shop", "ledger", &[]),
            pod("shop", "ledger-archive", &[]),
            pod("secret", "merger-plans-0", &[(TargetKind::StatefulSet, "merger-plans")]),
        ]
    }

    fn found(text: &str) -> (How, Vec<String>) {
        let matched = matches(&cluster(), &parse(text).unwrap());
        (matched.how, matched.pods.into_iter().map(|pod| pod.name).collect())
    }

    #[test]
    fn whole_names_win_over_workloads_and_those_over_beginnings() {
        assert_eq!(found("ledger"), (How::Exact, vec!["ledger".into()]));
        assert_eq!(found("checkout").0, How::Workload(TargetKind::Deployment));
        assert_eq!(found("checkout").1.len(), 2);
        assert_eq!(
            found("checkout-7d9f-x"),
            (How::Prefix, vec!["checkout-7d9f-x2x4z".into()])
        );
        assert_eq!(found("rs/checkout-7d9f").1.len(), 2);
        assert_eq!(found("sts/merger"), (How::Nothing, vec![]), "a workload is named whole");
        assert_eq!(found("pod/checkout").0, How::Prefix);
    }

    #[test]
    fn names_that_a_person_may_not_see_do_not_exist() {
        let visible = Visible::Only(["shop".to_owned()].into());
        let typo = parse("merger-plan-0").unwrap();
        assert_eq!(near(&cluster(), &typo, &Visible::All), ["secret/merger-plans-0"]);
        assert_eq!(near(&cluster(), &typo, &visible), Vec::<String>::new());
        let prefix = parse("merger").unwrap();
        assert_eq!(matches_seen(&cluster(), &prefix, &visible).how, How::Nothing);
        assert_eq!(near(&cluster(), &parse("ledgr").unwrap(), &visible)[0], "shop/ledger");
    }

    #[test]
    fn the_deployment_is_told_from_the_replica_set_and_the_template_hash() {
        let owner = OwnerReference {
            kind: "ReplicaSet".into(),
            name: "check-out-7d9f".into(),
            controller: Some(true),
            ..OwnerReference::default()
        };
        assert_eq!(
            workloads(&owner, Some("7d9f")),
            [
                (TargetKind::Deployment, "check-out".to_owned()),
                (TargetKind::ReplicaSet, "check-out-7d9f".to_owned())
            ]
        );
        assert_eq!(workloads(&owner, None).len(), 1);
    }
}

//! From a target as typed to one pinned container: reads pods of a target cluster and decides by pure functions.
//!
//! Owns which pod a word means. Never decides whether a person may: callers bring what the person may see, and every name
//! that is not in there does not exist for the answer.
//!
//! # Design notes
//! One list of pods' metadata answers every form: a workload's pods are told by their owner references, so no workload is
//! read and no further permission is needed. An exact pod name is tried first, by one GET.

mod choose;
mod pin;

use std::{collections::BTreeSet, time::Duration};

use diagbot_api::target::{TargetKind, TargetRef, is_name, is_selector};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};

pub use self::{
    choose::{Listed, Match, Visible, is_healthy, last_end, near},
    pin::{Need, Pin, PinError, pin},
};
use crate::{CallError, Cluster, deadline};

/// Longest wait for one call.
const CALL: Duration = Duration::from_secs(10);
/// Pods of one page: about 1 MiB of metadata.
const PAGE: u32 = 500;
/// Pods of which the state is read to tell live ones and to give hints, where one is meant.
pub const LOOKED_AT: usize = 25;
/// Most pods among which the sickest is looked for.
const JUDGED: usize = 300;
/// Calls at a time.
const PARALLEL: usize = 8;

/// Pods that fit a target, before one is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// How they fit.
    pub how: How,
    /// The fitting pods whose state was read, live ones only if there is any; sickest first.
    pub pods: Vec<Pod>,
    /// How many fit in all.
    pub count: usize,
    /// Names that are near, where nothing fits.
    pub near: Vec<String>,
    /// Further pods of the same workload, where they were asked for; sickest first.
    pub siblings: Vec<Pod>,
}

/// How pods fit what was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It is the pod's whole name.
    Exact,
    /// It is the whole name of a workload that the pods belong to.
    Workload(TargetKind),
    /// It is the beginning of their names.
    Prefix,
    /// They have its labels.
    Selector,
    /// Not at all.
    Nothing,
}

/// What of the cluster is searched.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    /// One namespace, which the person named.
    Named(String),
    /// All namespaces.
    All,
}

/// Why a target was not looked up.
#[derive(Debug)]
pub enum LookUpError<E> {
    /// The cluster did not answer, or refused.
    Call(CallError),
    /// What the person may see could not be told.
    Visible(E),
}

impl<E> From<CallError> for LookUpError<E> {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// Finds the pods that fit the target, and reads the state of at most `most`. Except for a whole pod name in a namespace that
/// the person named, `visible` is asked for the namespaces of every match and of every near name, and what it does not return
/// is not there.
pub async fn find<V, F, E>(
    cluster: &Cluster,
    target: &TargetRef,
    most: usize,
    visible: V,
) -> Result<Found, LookUpError<E>>
where
    V: Fn(BTreeSet<String>) -> F,
    F: Future<Output = Result<Visible, E>>,
{
    let of_one = |how, pods: Vec<Pod>| Found {
        how,
        count: pods.len(),
        pods,
        near: Vec::new(),
        siblings: Vec::new(),
    };
    // Names become parts of URLs: what is no name is not asked for.
    let named = |name: &String| is_name(name, 253);
    let sound = match &target.selector {
        Some(selector) => target.name.is_empty() && is_selector(selector),
        None => named(&target.name),
    };
    if !sound || !target.namespace.iter().all(named) {
        return Ok(of_one(How::Nothing, Vec::new()));
    }
    let scope = target.namespace.clone().map_or(Scope::All, Scope::Named);
    let by_name = target.selector.is_none() && target.kind.is_none_or(|kind| kind == TargetKind::Pod);
    if let (Scope::Named(namespace), true) = (&scope, by_name) {
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        if let Some(pod) = deadline(CALL, api.get_opt(&target.name)).await? {
            return Ok(of_one(How::Exact, vec![pod]));
        }
    }
    let listed = list(cluster, &scope, target.selector.as_deref()).await?;
    let matched = choose::matches(&listed, target);
    let touched: BTreeSet<String> = matched
        .pods
        .iter()
        .chain(&choose::near_pods(&listed, target))
        .map(|pod| pod.namespace.clone())
        .collect();
    let visible = visible(touched).await.map_err(LookUpError::Visible)?;
    let matched = choose::matches_seen(&listed, target, &visible);
    let most = if target.sickest { most.max(JUDGED) } else { most };
    let pods = read(cluster, &matched.pods, most).await?;
    let near = if matched.pods.is_empty() {
        near(&listed, target, &visible)
    } else {
        Vec::new()
    };
    Ok(choose::settle(&matched, pods, near))
}

/// The live pods with the same controller as `pod`, itself left out; sickest first.
pub async fn siblings(cluster: &Cluster, pod: &Pod) -> Result<Vec<Pod>, CallError> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let Some(own) = Listed::of(pod.metadata.clone()).filter(|own| !own.owners.is_empty()) else {
        return Ok(Vec::new());
    };
    let mut listed = list(cluster, &Scope::Named(namespace), None).await?;
    listed.retain(|other| other.name != own.name && other.owners.iter().any(|owner| own.owners.contains(owner)));
    let pods = read(cluster, &listed, LOOKED_AT).await?;
    let matched = Match {
        how: How::Exact,
        pods: listed,
    };
    Ok(choose::settle(&matched, pods, Vec::new()).pods)
}

/// The metadata of the pods in scope.
async fn list(cluster: &Cluster, scope: &Scope, selector: Option<&str>) -> Result<Vec<Listed>, CallError> {
    let api: Api<Pod> = match scope {
        Scope::Named(namespace) => Api::namespaced(cluster.client.clone(), namespace),
        Scope::All => Api::all(cluster.client.clone()),
    };
    let mut listed = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    if let Some(selector) = selector {
        params = params.labels(selector);
    }
    loop {
        let page = deadline(CALL, api.list_metadata(&params)).await?;
        listed.extend(page.items.into_iter().filter_map(|pod| Listed::of(pod.metadata)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(listed),
        }
    }
}

/// The pods in full; one that went away meanwhile is left out.
async fn read(cluster: &Cluster, pods: &[Listed], most: usize) -> Result<Vec<Pod>, CallError> {
    let wanted: Vec<Listed> = pods.iter().take(most).cloned().collect();
    let reads = wanted.into_iter().map(|pod| {
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &pod.namespace);
        async move { deadline(CALL, api.get_opt(&pod.name)).await }
    });
    let answers: Vec<_> = stream::iter(reads).buffered(PARALLEL).collect().await;
    answers.into_iter().filter_map(Result::transpose).collect()
}

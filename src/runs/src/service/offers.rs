//! What a person may be offered while typing: pods and workloads of namespaces that they may `list`, and nothing else.

use std::collections::BTreeSet;

use diagbot_api::{decision::Verb, requester::Requester};
use diagbot_cluster::{Cluster, pod_index::PodEntry, resolve::Visible};
use futures::{StreamExt as _, stream};

use super::{RunService, ServiceError};
use crate::access::Question;

/// Options of one field: Slack takes 100.
const OFFERED: usize = 100;
/// Most namespaces that are asked about for one person and text; who sees more names one of them.
const REVIEWED: usize = 64;
/// Reviews at a time: Slack waits 3 s for options, and people less.
const PARALLEL: usize = 16;

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    /// `[namespace/]part of a name`, as typed so far.
    Part(String),
    /// Whole names, found in a message say.
    Names(BTreeSet<String>),
}

impl RunService {
    /// Pods and workloads of the cluster that fit, in namespaces that the person may `list`, best first, at most 100.
    /// An unknown cluster has none.
    pub async fn offers(
        &self,
        by: &Requester,
        channel: &str,
        cluster: &str,
        sought: &Sought,
    ) -> Result<Vec<PodEntry>, ServiceError> {
        let Some(known) = self.clusters().get(cluster) else {
            return Ok(Vec::new());
        };
        let pod_index = &self.0.parts.pod_index;
        let namespaces = match sought {
            Sought::Part(text) => pod_index.namespaces(cluster, text),
            Sought::Names(names) => {
                let found = pod_index.named(cluster, names, &Visible::All, OFFERED);
                found.into_iter().map(|pod_entry| pod_entry.namespace).collect()
            }
        };
        let visible = self.visible(by, channel, known, namespaces).await?;
        Ok(match sought {
            Sought::Part(text) => pod_index.search(cluster, text, &visible, OFFERED),
            Sought::Names(names) => pod_index.named(cluster, names, &visible, OFFERED),
        })
    }

    /// Those of the namespaces that the person may `list`; who may list all of them is asked about once.
    async fn visible(
        &self,
        by: &Requester,
        channel: &str,
        cluster: &Cluster,
        namespaces: BTreeSet<String>,
    ) -> Result<Visible, ServiceError> {
        if namespaces.is_empty() {
            return Ok(Visible::Only(namespaces));
        }
        if self.may_list(by, channel, cluster, "").await? {
            return Ok(Visible::All);
        }
        let reviews = namespaces.into_iter().take(REVIEWED).map(|namespace| async move {
            let allowed = self.may_list(by, channel, cluster, &namespace).await?;
            Ok::<_, ServiceError>(allowed.then_some(namespace))
        });
        let seen: Vec<_> = stream::iter(reviews).buffer_unordered(PARALLEL).collect().await;
        let seen: Vec<Option<String>> = seen.into_iter().collect::<Result<_, _>>()?;
        Ok(Visible::Only(seen.into_iter().flatten().collect()))
    }

    /// An empty namespace stands for all of them.
    async fn may_list(
        &self,
        by: &Requester,
        channel: &str,
        cluster: &Cluster,
        namespace: &str,
    ) -> Result<bool, ServiceError> {
        let listing = Question {
            cluster,
            namespace,
            verb: Verb::List,
            diagnostic: "",
        };
        Ok(self.access().review(listing, by, Some(channel)).await?.allowed)
    }
}

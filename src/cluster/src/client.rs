//! Clients of the clusters. Owns how they are made and that every call has a deadline.
//!
//! # Design notes
//! kube's default retry repeats POSTs for minutes (kube-rs/kube#2082), so it is off: callers decide what may be repeated.
//! Streams (watch, log, attach, exec) have a client of their own, so that a long transfer never holds a connection that an
//! interactive call waits for.

use std::{collections::BTreeMap, fmt, future::Future, path::PathBuf, sync::Arc, time::Duration};

use diagbot_api::cluster_name::ClusterName;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::Deserialize;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How to reach one cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterConfig {
    /// Name, shown in every message.
    pub name: ClusterName,
    /// Kubeconfig file; without one the bot's own service account in the cluster it runs in.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig; its current context unless given.
    #[serde(default)]
    pub context: Option<String>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Two clusters have one name.
    #[error("the cluster name `{0}` is used twice")]
    Twice(ClusterName),
    /// The kubeconfig can't be read or used.
    #[error("read the kubeconfig of cluster `{name}`")]
    Kubeconfig {
        /// The cluster.
        name: ClusterName,
        /// Why.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// Who runs a capture themselves has no kubeconfig that can be used.
    #[error("use your kubeconfig ($KUBECONFIG, else ~/.kube/config)")]
    Caller(#[source] Box<kube::config::KubeconfigError>),
    /// There is no service account.
    #[error("use the service account of the pod for cluster `{name}`; outside a cluster, give a kubeconfig")]
    InCluster {
        /// The cluster.
        name: ClusterName,
        /// Why.
        #[source]
        source: kube::config::InClusterError,
    },
    /// The client can't be built.
    #[error("build a client for cluster `{name}`")]
    Client {
        /// The cluster.
        name: ClusterName,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// One cluster.
#[derive(Clone)]
pub struct Cluster {
    /// Its name.
    pub name: ClusterName,
    /// For calls that answer at once; always used within [`deadline`].
    pub client: Client,
    /// For watch, log, attach and exec.
    pub stream_client: Client,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The home cluster and the target clusters. The home cluster is a target too.
#[derive(Debug, Clone)]
pub struct Clusters(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    home: Cluster,
    all: BTreeMap<ClusterName, Cluster>,
    namespace: String,
}

impl Clusters {
    /// Makes the clients; nothing is called yet.
    pub async fn connect(
        home: &ClusterConfig,
        others: &[ClusterConfig],
        namespace: &str,
    ) -> Result<Self, ClusterError> {
        let mut all = BTreeMap::new();
        for config in std::iter::once(home).chain(others) {
            if all
                .insert(config.name.clone(), Cluster::connect(config).await?)
                .is_some()
            {
                return Err(ClusterError::Twice(config.name.clone()));
            }
        }
        let home = all[&home.name].clone();
        Ok(Self(Arc::new(Inner {
            home,
            all,
            namespace: namespace.to_owned(),
        })))
    }

    /// One cluster alone, which holds no runs and captures.
    pub fn alone(cluster: Cluster) -> Self {
        Self(Arc::new(Inner {
            all: BTreeMap::from([(cluster.name.clone(), cluster.clone())]),
            home: cluster,
            namespace: String::new(),
        }))
    }

    /// The cluster that holds runs and captures.
    pub fn home(&self) -> &Cluster {
        &self.0.home
    }

    /// The cluster of that name.
    pub fn get(&self, name: &str) -> Option<&Cluster> {
        self.0.all.values().find(|c| c.name.as_str() == name)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &ClusterName> {
        self.0.all.keys()
    }

    /// The bot's own namespace in the home cluster.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }
}

impl Cluster {
    async fn connect(config: &ClusterConfig) -> Result<Self, ClusterError> {
        let name = config.name.clone();
        let kube = match &config.kubeconfig {
            Some(path) => {
                let wrap = |source| ClusterError::Kubeconfig {
                    name: name.clone(),
                    source: Box::new(source),
                };
                let options = KubeConfigOptions {
                    context: config.context.clone(),
                    ..KubeConfigOptions::default()
                };
                let file = Kubeconfig::read_from(path).map_err(wrap)?;
                Config::from_custom_kubeconfig(file, &options).await.map_err(wrap)?
            }
            None => Config::incluster().map_err(|source| ClusterError::InCluster {
                name: name.clone(),
                source,
            })?,
        };
        Self::build(&name, kube)
    }

    /// The cluster of the caller's own kubeconfig, found as kubectl finds it, with the namespace that its context names. Its
    /// name is the context's, as far as that is one.
    pub async fn of_caller(context: Option<&str>) -> Result<(Self, String), ClusterError> {
        let wrap = |source| ClusterError::Caller(Box::new(source));
        let file = Kubeconfig::read().map_err(wrap)?;
        let options = KubeConfigOptions {
            context: context.map(str::to_owned),
            ..KubeConfigOptions::default()
        };
        let chosen = options.context.clone().or_else(|| file.current_context.clone());
        let kube = Config::from_custom_kubeconfig(file, &options).await.map_err(wrap)?;
        let namespace = kube.default_namespace.clone();
        let name = spelled(&chosen.unwrap_or_default());
        Ok((Self::build(&name, kube)?, namespace))
    }

    fn build(name: &ClusterName, mut kube: Config) -> Result<Self, ClusterError> {
        kube.default_retry = false;
        kube.connect_timeout = Some(CONNECT_TIMEOUT);
        kube.write_timeout = Some(WRITE_TIMEOUT);
        let build = |kube: Config| {
            Client::try_from(kube).map_err(|source| ClusterError::Client {
                name: name.clone(),
                source: Box::new(source),
            })
        };
        Ok(Self {
            client: build(kube.clone())?,
            stream_client: build(kube)?,
            name: name.clone(),
        })
    }
}

/// A context's name as a cluster's: `kubernetes-admin@Prod` is `kubernetes-admin-prod`.
fn spelled(context: &str) -> ClusterName {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.';
    let name: String = context
        .to_ascii_lowercase()
        .chars()
        .map(|c| if word(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(63)
        .collect();
    ClusterName::try_from(name)
        .or_else(|_| ClusterName::try_from("cluster".to_owned()))
        .expect("`cluster` is a valid name")
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The API server, or the way to it, answered with an error.
    #[error("call the API server")]
    Kube(#[source] Box<kube::Error>),
    /// No answer in time: whether the call had an effect is not known.
    #[error("no answer from the API server in {} ms", .0.as_millis())]
    Deadline(Duration),
}

impl CallError {
    /// The API server's own status, where it gave one.
    pub fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Kube(error) => match &**error {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Deadline(_) => None,
        }
    }

    /// True where the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|s| s.code == 404)
    }

    /// True for a write that was refused since somebody wrote first, or since the object exists.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|s| s.code == 409)
    }

    /// True where the bot's own service account may not do this.
    pub fn is_forbidden(&self) -> bool {
        self.status().is_some_and(|s| s.code == 403)
    }

    /// True where the effect of a write is unknown or the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        self.status().is_none_or(|s| s.code == 429 || s.code >= 500)
    }
}

impl diagbot_base::retry::Permanence for CallError {
    fn is_permanent(&self) -> bool {
        !self.is_transient()
    }
}

/// Waits at most `limit` for a call.
pub async fn deadline<T>(limit: Duration, call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(|error| CallError::Kube(Box::new(error))),
        Err(_) => Err(CallError::Deadline(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_become_cluster_names() {
        for (context, name) in [("Kind@Prod_EU", "kind-prod-eu"), ("", "cluster"), ("//", "cluster")] {
            assert_eq!(spelled(context).as_str(), name);
        }
    }

    #[test]
    fn cluster_names_are_lower_case_words() {
        assert!(ClusterName::try_from("prod-eu.1".to_owned()).is_ok());
        for bad in ["", "Prod", "-x", "a b", &"x".repeat(64)] {
            assert!(ClusterName::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}

//! What works right now, for `/diag health`: each cluster and the store are asked, with a short deadline and all at once.

use std::time::Duration;

use diagbot_api::{
    pause::{LABEL_PAUSED, Pause},
    run::Phase,
};
use diagbot_artifacts::ArtifactKey;
use diagbot_cluster::{Cluster, deadline};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;

use super::RunService;

/// Longest wait for one answer: the person waits for all of them.
const CALL: Duration = Duration::from_secs(2);

/// What works.
#[derive(Debug, Clone)]
pub struct Health {
    /// Clusters by name.
    pub clusters: Vec<(String, Result<String, String>)>,
    /// The store.
    pub store: Result<(), String>,
    /// Runs that wait for something to start.
    pub waiting: usize,
    /// Runs whose captures are under way.
    pub running: usize,
    /// Schedules, and how many of them are paused.
    pub schedules: (usize, usize),
    /// Where nothing may be captured, who said so, and since when.
    pub pauses: Vec<Pause>,
    /// Why the label that pauses everything could not be read, if it could not.
    pub label_unread: Option<String>,
    /// Whether some replica leads, as far as this one knows: it does itself.
    pub leads: bool,
}

impl RunService {
    /// Asks everything that a run needs.
    pub async fn health(&self) -> Health {
        let known: Vec<Cluster> = self
            .clusters()
            .names()
            .filter_map(|name| self.clusters().get(name.as_str()).cloned())
            .collect();
        let asked = join_all(known.iter().map(reach));
        let (clusters, store, label) = tokio::join!(asked, self.reach_store(), self.labelled());
        let runs = self.cache().all();
        let phases: Vec<Phase> = runs
            .iter()
            .map(|run| run.phase())
            .filter(|phase| !phase.is_final())
            .collect();
        let capturing = |phase: &&Phase| matches!(phase, Phase::Capturing | Phase::Cancelling);
        let running = phases.iter().filter(capturing).count();
        let schedules = self.schedules().all();
        let paused = schedules.iter().filter(|schedule| schedule.spec.suspend).count();
        let mut pauses = self.pauses();
        pauses.extend(label.as_ref().is_ok_and(|set| *set).then(Pause::by_label));
        Health {
            pauses,
            label_unread: label.err(),
            clusters: known
                .iter()
                .map(|cluster| cluster.name.to_string())
                .zip(clusters)
                .collect(),
            store,
            waiting: phases.len() - running,
            running,
            schedules: (schedules.len(), paused),
            leads: self.leadership().current().is_some(),
        }
    }

    /// Whether the label on the bot's own namespace pauses everything.
    async fn labelled(&self) -> Result<bool, String> {
        let namespaces: Api<Namespace> = Api::all(self.clusters().home().client.clone());
        let own = namespaces.get(self.clusters().namespace());
        let own = deadline(CALL, own).await.map_err(|error| error.to_string())?;
        let labels = own.metadata.labels.unwrap_or_default();
        Ok(labels.get(LABEL_PAUSED).is_some_and(|value| value == "true"))
    }

    async fn reach_store(&self) -> Result<(), String> {
        // Nothing is there; that the store says so is the proof.
        let key = ArtifactKey::try_from("_health/none".to_owned()).map_err(|error| error.to_string())?;
        let read = self.0.parts.store.read_small(&key, 1);
        match tokio::time::timeout(CALL, read).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer in {} s", CALL.as_secs())),
        }
    }
}

async fn reach(cluster: &Cluster) -> Result<String, String> {
    match deadline(CALL, cluster.client.apiserver_version()).await {
        Ok(version) => Ok(version.git_version),
        Err(error) => Err(error.to_string()),
    }
}

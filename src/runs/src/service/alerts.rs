//! Marks that triggers leave on a run beside its spec and status: how many alerts came besides, and that the incident has its
//! note. Annotations, since a spec never changes and the status is the leader's.

use diagbot_api::{
    request_key::RunName,
    run::{ANNOTATION_ALERTS, ANNOTATION_NOTED},
};
use diagbot_cluster::deadline;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{CALL, RunService, ServiceError};

/// Writes that may meet another's write before we give up.
const ATTEMPTS: u32 = 8;

impl RunService {
    /// Adds to the run's count of alerts.
    pub async fn count_alerts(&self, run: &RunName, more: u64) -> Result<(), ServiceError> {
        for _ in 0..ATTEMPTS {
            let found = self.fresh(run).await?;
            let count = found.alerts().saturating_add(more).to_string();
            // The resourceVersion keeps two replicas from counting over each other.
            let version = found.metadata.resource_version.clone();
            match self.mark(run, version, &json!({ ANNOTATION_ALERTS: count })).await {
                Err(ServiceError::Contended) => {}
                outcome => return outcome,
            }
        }
        Err(ServiceError::Contended)
    }

    /// Records that the run's incident has its note.
    pub async fn record_note(&self, run: &RunName) -> Result<(), ServiceError> {
        self.mark(run, None, &json!({ ANNOTATION_NOTED: "true" })).await
    }

    async fn mark(&self, run: &RunName, version: Option<String>, annotations: &Value) -> Result<(), ServiceError> {
        let mut metadata = json!({ "annotations": annotations });
        if let Some(version) = version {
            metadata["resourceVersion"] = version.into();
        }
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let params = PatchParams::default();
        match deadline(CALL, self.0.api.patch(run.as_str(), &params, &patch)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => Err(ServiceError::Contended),
            Err(error) if error.is_not_found() => Err(ServiceError::NotFound),
            Err(source) => Err(ServiceError::Call {
                doing: "mark the run",
                source,
            }),
        }
    }
}

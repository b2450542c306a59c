//! The captures of a run: made once, by a name that follows from the run, and asked to stop.

use diagbot_api::capture::{ANNOTATION_CANCEL, DiagnosticCapture};
use diagbot_cluster::deadline;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::{ActError, Actor, Done, answer};

impl Actor<'_> {
    /// A crash after the create is found by the name, which follows from the run.
    pub(super) async fn create_capture(&self, capture: DiagnosticCapture) -> Result<Done, ActError> {
        let name = capture.metadata.name.clone().unwrap_or_default();
        let params = PostParams::default();
        match deadline(self.limit(), self.captures.create(&params, &capture)).await {
            Ok(created) => Ok(Done::Capture(Box::new(created))),
            Err(error) if error.is_conflict() => self.existing(&capture, name).await,
            Err(error) if error.is_transient() => Err(ActError::Call {
                doing: "make the capture",
                source: error,
            }),
            Err(error) => Ok(Done::CaptureRefused {
                capture: name,
                answer: answer(&error),
            }),
        }
    }

    async fn existing(&self, capture: &DiagnosticCapture, name: String) -> Result<Done, ActError> {
        let found = self.capture(&name).await?;
        let ours = |found: &DiagnosticCapture| found.metadata.owner_references == capture.metadata.owner_references;
        match found {
            Some(found) if ours(&found) && found.spec == capture.spec => Ok(Done::Capture(Box::new(found))),
            Some(_) => Ok(Done::CaptureRefused {
                answer: "another object has its name".to_owned(),
                capture: name,
            }),
            None => Ok(Done::Stale),
        }
    }

    /// The capture as the API server has it.
    pub(crate) async fn capture(&self, name: &str) -> Result<Option<DiagnosticCapture>, ActError> {
        deadline(self.limit(), self.captures.get_opt(name))
            .await
            .map_err(|source| ActError::Call {
                doing: "read the capture",
                source,
            })
    }

    pub(super) async fn cancel_captures(&self, names: Vec<String>) -> Result<Done, ActError> {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { ANNOTATION_CANCEL: "true" } } }));
        let mut patched = Vec::new();
        for name in names {
            match deadline(
                self.limit(),
                self.captures.patch(&name, &PatchParams::default(), &patch),
            )
            .await
            {
                Ok(capture) => patched.push(capture),
                Err(error) if error.is_not_found() => {}
                Err(source) => {
                    return Err(ActError::Call {
                        doing: "ask the capture to stop",
                        source,
                    });
                }
            }
        }
        Ok(Done::Cancelled(patched))
    }
}

//! Links to what a run produced, for one person who may read it. Signed anew at each call; never recorded, never logged.

use diagbot_api::{
    capture::{Proof, Shortfall},
    decision::Verb,
    request_key::RunName,
    requester::Requester,
    run::DiagnosticRun,
};
use diagbot_artifacts::{ArtifactKey, SignedUrl};
use jiff::Timestamp;

use super::{RunService, ServiceError};

/// A link to one artifact.
#[derive(Debug, Clone)]
pub struct ArtifactLink {
    /// File name.
    pub name: String,
    /// The capture that produced it.
    pub capture: String,
    /// The link: a bearer secret.
    pub url: SignedUrl,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Never shown in a channel.
    pub sensitive: bool,
    /// How the artifact was proven whole.
    pub proof: Proof,
    /// Not whole; never presented as such.
    pub truncated: bool,
    /// Why not, where that was recorded.
    pub shortfall: Option<Shortfall>,
}

impl RunService {
    /// Links to the run's verified artifacts, for a person with the verb `read` where the target is. `channel`: where the
    /// person asks.
    pub async fn links(&self, run: &RunName, by: &Requester, channel: &str) -> Result<Vec<ArtifactLink>, ServiceError> {
        self.signed(&self.fresh(run).await?, by, channel).await
    }

    /// The same on behalf of a run's thread: for who asked, where they asked.
    pub async fn links_of(&self, run: &DiagnosticRun) -> Result<Vec<ArtifactLink>, ServiceError> {
        self.signed(run, &run.spec.requester, &run.spec.origin.channel).await
    }

    async fn signed(
        &self,
        run: &DiagnosticRun,
        by: &Requester,
        channel: &str,
    ) -> Result<Vec<ArtifactLink>, ServiceError> {
        self.check_may(Verb::Read, run, (by, channel)).await?;
        let (mut links, mut objects) = (Vec::new(), Vec::new());
        for capture in run.status.iter().flat_map(|status| &status.captures) {
            for artifact in &capture.artifacts {
                let key = ArtifactKey::try_from(artifact.key.clone()).map_err(|_| ServiceError::NotFound)?;
                let url = self
                    .0
                    .parts
                    .store
                    .link(&key, artifact.version.as_deref(), &artifact.name, artifact.sensitive)
                    .await?;
                objects.push(artifact.key.clone());
                links.push(ArtifactLink {
                    name: artifact.name.clone(),
                    capture: capture.name.clone(),
                    expires_at: url.expires_at,
                    url,
                    sensitive: artifact.sensitive,
                    proof: artifact.proof,
                    truncated: artifact.truncated,
                    shortfall: artifact.shortfall,
                });
            }
        }
        if !links.is_empty() {
            self.audit_log().add(diagbot_audit::Event::Link {
                run: run.metadata.name.clone().unwrap_or_default(),
                person: by.user_name(),
                objects,
                expires: links.iter().map(|link| link.expires_at).min(),
            });
        }
        Ok(links)
    }
}

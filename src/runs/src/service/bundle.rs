//! The bundle of a run, on request of one person who may read: made or found, recorded, and linked for that person.

use std::collections::BTreeSet;

use diagbot_api::{capture::Proof, decision::Verb, request_key::RunName, requester::Requester, run::DiagnosticRun};
use diagbot_artifacts::Store;
use jiff::Timestamp;

use super::{ArtifactLink, RunService, ServiceError};
use crate::{
    bundle::{self, Contents},
    reason::Reason,
};

/// Bundles that this process makes at a time; each holds one part in memory.
pub(super) const AT_ONCE: usize = 2;
/// Longest bundle in bytes: what is read and written again in minutes.
const LONGEST: u64 = 16 << 30;

/// A bundle.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The link, as to any artifact: a bearer secret.
    pub link: ArtifactLink,
    /// Files in it, its manifest left out.
    pub files: usize,
    /// Length in bytes.
    pub size_bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Diagnostics of which the person may not read what they gave.
    pub withheld: BTreeSet<String>,
}

impl RunService {
    /// One archive of what a run produced and the person may read, with a manifest. Made once; whoever asks again gets the same.
    /// `channel`: where the person asks.
    pub async fn bundle(&self, run: &RunName, by: &Requester, channel: &str) -> Result<Bundle, ServiceError> {
        let found = self.fresh(run).await?;
        let readable = self.readable(&found, (by, channel)).await?;
        let contents = bundle::contents(&found, &readable).map_err(|_| ServiceError::NotFound)?;
        let bytes = Store::archive_length(&contents.files);
        let refusal = if !found.phase().is_final() || contents.objects.len() < 2 {
            Some(Reason::NothingToBundle)
        } else if bytes > LONGEST {
            Some(Reason::BundleTooLong { bytes, most: LONGEST })
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return Err(ServiceError::Denied(refusal.explain()));
        }
        let busy = |_| ServiceError::Denied(Reason::BundlesBusy.explain());
        let _permit = self.0.bundling.try_acquire().map_err(busy)?;
        self.make(run, &found, contents, by).await
    }

    async fn make(
        &self,
        run: &RunName,
        found: &DiagnosticRun,
        contents: Contents,
        by: &Requester,
    ) -> Result<Bundle, ServiceError> {
        let store = &self.0.parts.store;
        let (cluster, namespace) = found.place(&self.clusters().home().name);
        let day = contents.at.strftime("%Y-%m-%d").to_string();
        let file_name = format!("{}-{}.tar", run.short(), found.diagnostic_name());
        // No pod has such a name.
        let key = store.key(&[
            &cluster,
            &namespace,
            "_bundles",
            &day,
            run.as_str(),
            &contents.id(),
            &file_name,
        ]);
        let tags = [
            ("diagbot-run".to_owned(), run.to_string()),
            ("diagbot-sensitive".to_owned(), contents.sensitive.to_string()),
        ];
        let archive = store.archive(&key, &contents.files, contents.at, &tags).await?;
        self.audit_log().add(diagbot_audit::Event::Bundle {
            run: run.to_string(),
            person: by.user_name(),
            objects: contents.objects.clone(),
            object: key.to_string(),
            size_bytes: archive.size_bytes,
            sha256: archive.sha256.clone(),
        });
        let version = archive.version.as_deref();
        let url = store.link(&key, version, &file_name, contents.sensitive).await?;
        let expires_at: Timestamp = url.expires_at;
        self.audit_log().add(diagbot_audit::Event::Link {
            run: run.to_string(),
            person: by.user_name(),
            objects: vec![key.to_string()],
            expires: Some(expires_at),
        });
        Ok(Bundle {
            link: ArtifactLink {
                name: file_name,
                capture: String::new(),
                url,
                expires_at,
                sensitive: contents.sensitive,
                proof: match archive.proof {
                    diagbot_artifacts::Proof::StoreChecked => Proof::StoreChecked,
                    diagbot_artifacts::Proof::ReadBack => Proof::ReadBack,
                },
                truncated: contents.truncated,
                shortfall: None,
            },
            files: contents.objects.len(),
            size_bytes: archive.size_bytes,
            sha256: archive.sha256,
            withheld: contents.withheld,
        })
    }

    /// Of what the run takes, what the person may read; who may read nothing is denied.
    async fn readable(&self, run: &DiagnosticRun, by: (&Requester, &str)) -> Result<BTreeSet<String>, ServiceError> {
        let mut readable = BTreeSet::new();
        let mut denied = None;
        for diagnostic in run.diagnostics() {
            let decision = self.decide(Verb::Read, run, diagnostic, by).await?;
            if decision.allowed {
                readable.insert(diagnostic.to_owned());
            } else {
                denied.get_or_insert(decision);
            }
        }
        let Some(denied) = denied.filter(|_| readable.is_empty()) else {
            return Ok(readable);
        };
        let (cluster, namespace) = run.place(&self.clusters().home().name);
        let reason = Reason::not_allowed(Verb::Read, &denied, (&cluster, &namespace));
        Err(ServiceError::Denied(reason.explain()))
    }
}

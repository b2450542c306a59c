//! A step's captured file on its way: straight to the store, or staged for the bot where the store can't be reached.

use std::{
    cell::{Cell, RefCell},
    io::Write as _,
    sync::Arc,
};

use diagbot_analysis::redact::{Redactor, Rules};
use diagbot_wire::{
    args::StepArgs,
    control::Ticket,
    digest::PartMd5,
    journal::Event,
    redaction::{RedactionReport, original_digest},
    result::{ArtifactReport, Failure, SignedResult, StepOutcome, StepResult, Via},
};
use tokio::task::JoinSet;

use super::Session;
use crate::{
    pipeline::Captured,
    spool,
    step_context::StepError,
    upload::{self, Hashing, Store, UploadError, Uploaded},
};

/// Delivers the artifacts of one session.
pub(super) struct Delivery<'a> {
    session: &'a Session<'a>,
    store: Option<Arc<Store>>,
    /// Steps for which there are URLs.
    direct: Vec<u16>,
    /// What is removed from a tool's last words.
    rules: Option<&'a Rules>,
    journal_key: Vec<u8>,
    result_url: Option<String>,
    result_headers: Vec<(String, String)>,
    /// Looks for the way to the store while the tools run.
    reaching: RefCell<JoinSet<Result<(), UploadError>>>,
    /// Why the store can't be reached, once that is known: no later step tries again.
    unreachable: Cell<Option<String>>,
}

impl<'a> Delivery<'a> {
    /// The steps that have URLs, and some address of the store, if the bot gave any.
    pub(super) fn new(
        session: &'a Session<'a>,
        ticket: &Ticket,
        (direct, url): (Vec<u16>, Option<String>),
        rules: Option<&'a Rules>,
    ) -> Self {
        let store = Store::new(ticket.store_ca_pem.as_deref(), ticket.proxy.as_deref());
        let unreachable = store.as_ref().err().map(ToString::to_string);
        let store = store.ok().map(Arc::new);
        let mut reaching = JoinSet::new();
        if let (Some(store), Some(url)) = (store.clone(), url) {
            reaching.spawn(async move { upload::reach(&store, &url).await });
        }
        Self {
            session,
            store,
            direct,
            rules,
            journal_key: hex::decode(&ticket.journal_key).unwrap_or_default(),
            result_url: ticket.result_url.clone(),
            result_headers: ticket.result_headers.clone(),
            reaching: RefCell::new(reaching),
            unreachable: Cell::new(unreachable),
        }
    }

    /// Delivers what a step captured, and tells how the step ended.
    pub(super) async fn deliver(
        &self,
        index: u16,
        step: &StepArgs,
        outcome: Result<Captured, StepError>,
        started_ms: u64,
        ended_ms: u64,
    ) -> StepResult {
        let (captured, outcome) = match outcome {
            Ok(captured) if captured.truncated => {
                let outcome = StepOutcome::Truncated {
                    limit_bytes: step.limit_bytes,
                };
                (Some(captured), outcome)
            }
            Ok(captured) => (Some(captured), StepOutcome::Done),
            Err(error) => {
                let outcome = StepOutcome::Failed {
                    failure: error.failure,
                    detail: self.clean(error.detail),
                };
                (error.partial.map(|partial| *partial), outcome)
            }
        };
        let result = |artifact, outcome| StepResult {
            step: index,
            artifact,
            outcome,
            started_ms,
            ended_ms,
        };
        let Some(captured) = captured else {
            return result(None, outcome);
        };
        match self
            .send(index, step, captured, &|artifact| {
                result(Some(artifact), outcome.clone())
            })
            .await
        {
            Ok(artifact) => result(Some(artifact), outcome),
            Err(error) => {
                let detail = error.to_string();
                result(
                    None,
                    StepOutcome::Failed {
                        failure: Failure::UploadFailed,
                        detail,
                    },
                )
            }
        }
    }

    /// A tool's last words are the target's text, too.
    fn clean(&self, detail: String) -> String {
        match self.rules {
            Some(rules) => StepError::new(Failure::Internal, Redactor::text(rules, &detail)).detail,
            None => detail,
        }
    }

    async fn send(
        &self,
        index: u16,
        step: &StepArgs,
        captured: Captured,
        result: &dyn Fn(ArtifactReport) -> StepResult,
    ) -> Result<ArtifactReport, UploadError> {
        let Captured {
            file,
            size_bytes,
            preview,
            findings,
            suffix,
            note,
            redaction,
            written,
            hashing,
            ..
        } = captured;
        let redaction = redaction.map(|redaction| RedactionReport {
            count: redaction.removed.count,
            by_rule: redaction.removed.by_rule,
            original_bytes: redaction.original.size_bytes,
            original_digest: original_digest(&self.journal_key, &redaction.original.sha256),
        });
        let hashing = hashing.unwrap_or_else(|| {
            let hashing = upload::hash(step.limit_bytes, &file);
            hashing.whole(size_bytes);
            hashing
        });
        let report = |uploaded: Uploaded, via| ArtifactReport {
            digests: uploaded.digests,
            parts: uploaded.parts,
            etag: uploaded.etag,
            via,
            suffix: suffix.to_owned(),
            preview,
            findings,
            note,
            redaction,
        };
        let reason = match self.upload(index, &hashing, &file).await {
            Ok(()) => {
                let uploaded = hashing.finish().await?.must_match(written.as_ref())?;
                return Ok(report(uploaded, Via::Direct));
            }
            Err(error) if error.wants_relay() => error.to_string(),
            Err(error) => return Err(error),
        };
        self.unreachable.set(Some(reason.clone()));
        if let Some(relay) = &self.session.no_relay {
            return Err(UploadError::NoRelay {
                store: reason,
                relay: relay.clone(),
            });
        }
        let uploaded = hashing.finish().await?.must_match(written.as_ref())?;
        let artifact = report(uploaded, Via::Relay);
        self.session.staged.add(index, file, size_bytes);
        self.session.journal.write(&Event::Staged {
            result: result(artifact.clone()),
            reason,
        });
        self.session
            .inbox
            .wait(|contents| contents.is_released(index).then_some(()))
            .await;
        self.session.staged.remove(index);
        Ok(artifact)
    }

    async fn upload(&self, index: u16, hashing: &Hashing, file: &Arc<std::fs::File>) -> Result<(), UploadError> {
        let mut reaching = std::mem::take(&mut *self.reaching.borrow_mut());
        if let Some(Ok(reached)) = reaching.join_next().await {
            reached?;
        }
        let known = self.unreachable.take();
        self.unreachable.set(known.clone());
        match (&self.store, known) {
            (Some(_), None) if !self.direct.contains(&index) => {
                Err(UploadError::Unreachable("the bot gave no upload URLs".to_owned()))
            }
            (Some(store), None) => {
                let (inbox, journal) = (&*self.session.inbox, &self.session.journal);
                upload::upload(index, hashing, file, store, inbox, journal).await
            }
            (_, reason) => Err(UploadError::Unreachable(reason.unwrap_or_default())),
        }
    }

    /// PUTs the result object, since the journal dies with the pod. False where that is not possible.
    pub(super) async fn store_result(&self, sealed: &SignedResult) -> bool {
        let known = self.unreachable.take();
        let (Some(store), Some(url), None) = (&self.store, &self.result_url, known) else {
            return false;
        };
        let Ok(text) = serde_json::to_vec(sealed) else {
            return false;
        };
        let Ok(mut file) = spool::memory() else {
            return false;
        };
        if file.write_all(&text).is_err() {
            return false;
        }
        let md5 = PartMd5::of(&text);
        upload::put_small(store, url, &self.result_headers, Arc::new(file), md5, text.len() as u64)
            .await
            .is_ok()
    }
}

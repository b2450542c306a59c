//! The capture's object: read, and written by the leader alone, or by the one process that knows it. Owns the only writes
//! of a capture's status, and where they go: to the home cluster, or nowhere but into this process's memory.
//!
//! # Design notes
//! Writes are replaces with the resourceVersion, so that the API server refuses the write of a former leader; on a conflict
//! the object is read again, and a higher epoch in it ends our task. A change is a function of the status that can be
//! applied twice.

use std::{sync::Arc, time::Duration};

use diagbot_api::capture::{ANNOTATION_CANCEL, CaptureStatus, DiagnosticCapture};
use diagbot_base::failpoint;
use diagbot_cluster::{CallError, deadline, lease::Leadership};
use kube::{Api, api::PostParams};
use tokio::sync::{Mutex, watch};

/// Longest wait for one call to the home cluster.
const CALL: Duration = Duration::from_secs(5);
/// The epoch of a process that is alone.
const EPOCH: u64 = 1;
/// Conflicts in a row after which the write is left to a later look.
const ATTEMPTS: u32 = 5;

/// Why the record was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatusWriteError {
    /// We don't lead (any more).
    #[error("another process leads")]
    Fenced,
    /// The object is gone.
    #[error("the capture's object is gone")]
    Gone,
    /// The home cluster did not take it.
    #[error("write the capture's status")]
    Call(#[source] CallError),
    /// Somebody writes all the time.
    #[error("the capture's status changed under every write")]
    Contended,
}

/// Where the object is kept.
#[derive(Debug)]
enum Keeper {
    /// In the home cluster.
    Cluster(Box<Api<DiagnosticCapture>>),
    /// Here alone: it ends with the process, as the capture does.
    Memory,
}

/// One capture's object.
#[derive(Debug)]
pub(super) struct StatusWriter {
    keeper: Keeper,
    name: String,
    leadership: Leadership,
    epoch: u64,
    writing: Mutex<()>,
    current: watch::Sender<Arc<DiagnosticCapture>>,
}

impl StatusWriter {
    pub(super) fn new(
        api: Api<DiagnosticCapture>,
        name: String,
        leadership: Leadership,
        epoch: u64,
        object: Arc<DiagnosticCapture>,
    ) -> Self {
        Self {
            keeper: Keeper::Cluster(Box::new(api)),
            name,
            leadership,
            epoch,
            writing: Mutex::new(()),
            current: watch::Sender::new(object),
        }
    }

    /// The record of a capture that no cluster knows.
    pub(super) fn in_memory(name: String, object: Arc<DiagnosticCapture>) -> Self {
        Self {
            keeper: Keeper::Memory,
            name,
            leadership: Leadership::always(EPOCH),
            epoch: EPOCH,
            writing: Mutex::new(()),
            current: watch::Sender::new(object),
        }
    }

    /// The object as last read or written.
    pub(super) fn current(&self) -> Arc<DiagnosticCapture> {
        Arc::clone(&self.current.borrow())
    }

    /// Notes that somebody wants it stopped, as an annotation in the cluster would. For a record in memory.
    pub(super) async fn ask_to_stop(&self) {
        let _writing = self.writing.lock().await;
        self.current.send_modify(|current| {
            let annotations = &mut Arc::make_mut(current).metadata.annotations;
            annotations
                .get_or_insert_default()
                .insert(ANNOTATION_CANCEL.to_owned(), "true".to_owned());
        });
    }

    /// Tells when the object changes.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<DiagnosticCapture>> {
        self.current.subscribe()
    }

    /// Takes what the watch delivered, unless our own write is newer.
    pub(super) fn take(&self, object: Arc<DiagnosticCapture>) {
        self.current.send_if_modified(|current| {
            let newer = revision(&object) > revision(current);
            if newer {
                *current = object;
            }
            newer
        });
    }

    /// Whether an act is still ours to do: asked before everything that the world can see.
    pub(super) fn check_term(&self) -> Result<(), StatusWriteError> {
        match self.leadership.current() {
            Some(term) if term.epoch == self.epoch => Ok(()),
            _ => Err(StatusWriteError::Fenced),
        }
    }

    /// Changes the status. Nothing is written where nothing changes.
    pub(super) async fn write(&self, change: impl Fn(&mut CaptureStatus) + Sync) -> Result<(), StatusWriteError> {
        let _writing = self.writing.lock().await;
        for _ in 0..ATTEMPTS {
            self.check_term()?;
            let mut object = DiagnosticCapture::clone(&self.current.borrow());
            let mut status = object.status.clone().unwrap_or_default();
            if status.epoch > self.epoch {
                return Err(StatusWriteError::Fenced);
            }
            // Nothing follows a final phase: a write that was under way when the end was recorded is void.
            if status.phase.is_final() {
                return Ok(());
            }
            change(&mut status);
            status.epoch = self.epoch;
            if object.status.as_ref() == Some(&status) {
                return Ok(());
            }
            object.status = Some(status);
            failpoint::unrecorded();
            match self.keeper.replace(&self.name, &object).await {
                Ok(written) => {
                    self.current.send_replace(Arc::new(written));
                    return Ok(());
                }
                Err(error) if error.is_conflict() => self.read().await?,
                Err(error) if error.is_not_found() => return Err(StatusWriteError::Gone),
                // Whether it was written is not known: the next attempt finds out by its resourceVersion.
                Err(error) => return Err(StatusWriteError::Call(error)),
            }
        }
        Err(StatusWriteError::Contended)
    }

    async fn read(&self) -> Result<(), StatusWriteError> {
        let Keeper::Cluster(api) = &self.keeper else {
            return Ok(());
        };
        match deadline(CALL, api.get(&self.name)).await {
            Ok(object) => {
                self.current.send_replace(Arc::new(object));
                Ok(())
            }
            Err(error) if error.is_not_found() => Err(StatusWriteError::Gone),
            Err(error) => Err(StatusWriteError::Call(error)),
        }
    }
}

impl Keeper {
    /// Keeps the object in place of the former one; as it is kept.
    async fn replace(&self, name: &str, object: &DiagnosticCapture) -> Result<DiagnosticCapture, CallError> {
        match self {
            Self::Cluster(api) => deadline(CALL, api.replace_status(name, &PostParams::default(), object)).await,
            Self::Memory => Ok(object.clone()),
        }
    }
}

/// Versions of one object are numbers that rise (so the API server's documentation since 1.35); one that is none is
/// believed to be new.
fn revision(object: &DiagnosticCapture) -> u128 {
    let version = object.metadata.resource_version.as_deref();
    version.and_then(|v| v.parse().ok()).unwrap_or(u128::MAX)
}

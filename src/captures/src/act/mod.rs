//! Does one action of the plan. Each can be done twice: names, numbers and keys follow from the record, and the record comes
//! before the act.

pub(super) mod keep;
pub(super) mod launch;
mod notice;
mod report;
mod session;
pub(super) mod uploads;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use diagbot_api::capture::{CaptureStatus, Explanation};
use diagbot_artifacts::{ArtifactKey, StoreError};
use diagbot_base::{failpoint, retry::Permanence as _};
use diagbot_cluster::{CallError, Cluster};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::Api;
use tokio::sync::{Mutex, RwLock, Semaphore};
pub(super) use uploads::names;

use super::{
    config::CapturesContext,
    control::Control,
    explain::{self, Refusal},
    plan::{Action, Facts, Fault, PodFact, ResultFact},
    relay::RelayError,
    status_writer::{StatusWriteError, StatusWriter},
};

/// Longest wait for a call to the target cluster that answers at once.
const CALL: Duration = Duration::from_secs(10);

/// What the actions of one task work with.
pub(super) struct TaskContext {
    /// The bot.
    pub context: CapturesContext,
    /// The target's cluster.
    pub cluster: Cluster,
    /// The capture's object.
    pub status_writer: StatusWriter,
    /// The way to the container under way; made anew with each attempt.
    pub control: RwLock<Option<Arc<Control>>>,
    /// One control line's number at a time.
    pub numbers: Mutex<()>,
    /// Bytes that the relay under way has fetched.
    pub relayed_bytes: AtomicU64,
    /// Bounds the relays of the process.
    pub relays: Arc<Semaphore>,
}

/// What an action brought to light.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The record tells.
    Recorded,
    /// A new attempt is recorded.
    NewAttempt,
    /// The container was taken; the pod as the API server answered.
    Added(Box<Pod>),
    /// The container was refused.
    Refused(Explanation),
    /// The pod afresh, and the events about the container.
    Looked {
        /// The pod.
        pod: PodFact,
        /// The events' text, oldest first.
        events: Vec<String>,
    },
    /// The ticket is on its way.
    TicketSent,
    /// The deciding check failed; nothing was sent.
    Unfit(Explanation),
    /// A control line was sent, or could not be.
    Sent,
    /// The result object.
    Result(ResultFact),
    /// An artifact is in the store, and recorded.
    Kept {
        /// The manifest of everything is in the store, too.
        described: bool,
    },
    /// The manifest is in the store.
    ManifestWritten,
}

/// Why an action was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActError {
    /// We don't lead any more, or the object is gone.
    #[error("the capture is no longer ours")]
    NotOurs,
    /// It may work later.
    #[error("{what}")]
    Later {
        /// What did not work, for people.
        what: String,
        /// The wait that the other side asked for.
        after: Option<Duration>,
    },
    /// It will not work.
    #[error("{}", .1.message)]
    Never(Fault, Explanation),
}

impl From<StatusWriteError> for ActError {
    fn from(error: StatusWriteError) -> Self {
        match error {
            StatusWriteError::Fenced | StatusWriteError::Gone => Self::NotOurs,
            StatusWriteError::Call(_) | StatusWriteError::Contended => Self::Later {
                what: "the capture's record could not be written".to_owned(),
                after: None,
            },
        }
    }
}

impl ActError {
    pub(super) fn of_store(fault: Fault, error: &StoreError) -> Self {
        let refusal = match error {
            StoreError::Mismatch { .. } => Refusal::NotVerified,
            StoreError::File { .. } => Refusal::Folder,
            _ => Refusal::Store,
        };
        if error.is_permanent() {
            Self::Never(fault, explain::refusal(refusal, &error.to_string()))
        } else {
            Self::Later {
                what: format!("the store: {error}"),
                after: error.retry_after(),
            }
        }
    }

    pub(super) fn of_call(fault: Fault, refusal: Refusal, error: &CallError) -> Self {
        let said = error.status().map_or_else(|| error.to_string(), |s| s.message.clone());
        if error.is_transient() {
            Self::Later {
                what: format!("the API server of the target's cluster: {}", explain::clean(&said)),
                after: None,
            }
        } else {
            Self::Never(fault, explain::refusal(refusal, &said))
        }
    }

    fn of_relay(step: u16, error: &RelayError) -> Self {
        let fault = Fault::Artifact(step);
        match error {
            RelayError::Exec(error) => Self::of_call(fault, Refusal::Relay, error),
            RelayError::Store(error) => Self::of_store(fault, error),
            RelayError::Short { .. } => Self::Never(fault, explain::refusal(Refusal::Relay, &error.to_string())),
        }
    }
}

impl TaskContext {
    /// Pods of the target's namespace, for calls that answer at once.
    pub(super) fn pods(&self) -> Api<Pod> {
        Api::namespaced(
            self.cluster.client.clone(),
            &self.status_writer.current().spec.target.namespace,
        )
    }

    /// The same for watch, log, attach and exec.
    pub(super) fn streaming_pods(&self) -> Api<Pod> {
        Api::namespaced(
            self.cluster.stream_client.clone(),
            &self.status_writer.current().spec.target.namespace,
        )
    }

    pub(super) fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    /// The key of one of the attempt's objects.
    fn key(&self, attempt: u32, name: &str) -> ArtifactKey {
        let capture = self.status_writer.current();
        let target = &capture.spec.target;
        let created = capture
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or_else(|| self.now(), |t| t.0);
        let day = created.strftime("%Y-%m-%d").to_string();
        let attempt = attempt.to_string();
        let capture = capture.metadata.name.as_deref().unwrap_or_default();
        self.context.store.key(&[
            &target.cluster,
            &target.namespace,
            &target.pod,
            &day,
            capture,
            &attempt,
            name,
        ])
    }

    /// Changes the record, and takes the trace along.
    async fn write(&self, f: &Facts, change: impl Fn(&mut CaptureStatus) + Sync) -> Result<(), StatusWriteError> {
        self.status_writer
            .write(|status| {
                for (moment, at) in &f.trace {
                    status.trace.entry((*moment).to_owned()).or_insert(MicroTime(*at));
                }
                change(status);
            })
            .await
    }

    fn secret(&self) -> &[u8] {
        self.context.secret.expose()
    }
}

/// Does one action.
pub(super) async fn perform(scene: &TaskContext, f: &Facts, action: &Action) -> Result<Outcome, ActError> {
    scene.status_writer.check_term()?;
    failpoint::around(action.name(), dispatch(scene, f, action)).await
}

async fn dispatch(scene: &TaskContext, f: &Facts, action: &Action) -> Result<Outcome, ActError> {
    match action {
        Action::Attempt { number, identity } => launch::attempt(scene, f, *number, *identity).await,
        Action::OpenUploads => uploads::open(scene, f).await,
        Action::AddContainer => launch::add_container(scene, f).await,
        Action::LookCloser => launch::look_closer(scene, f).await,
        Action::SendTicket => Box::pin(session::send_ticket(scene, f)).await,
        Action::SendUrls { step, from_part, .. } => session::send_urls(scene, f, *step, *from_part).await,
        Action::SendRelease { step } => session::send_release(scene, f, *step).await,
        Action::SendCancel { reason } => session::send_cancel(scene, f, *reason).await,
        Action::Relay { step } => keep::relay(scene, f, *step).await,
        Action::ReadResult { .. } => keep::read_result(scene, f).await,
        Action::Complete { step } => keep::complete(scene, f, *step).await,
        Action::Report { step } => report::make(scene, f, *step).await,
        Action::AbortUploads => uploads::abort(scene, f, Fault::Abort).await,
        Action::WriteManifest => keep::write_manifest(scene, f).await,
        Action::Observe(observed) => keep::observe(scene, f, observed).await,
        Action::Finish(capture_outcome) => keep::finish(scene, f, capture_outcome).await,
    }
}

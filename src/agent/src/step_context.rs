//! What a step works with, and why it has no whole output.

use std::io;

use diagbot_analysis::redact::Rules;
use diagbot_wire::result::Failure;

use crate::{
    cleanup::Cleanup,
    hotspot::Signalled,
    pipeline::Captured,
    process::{ProcFs, Process},
    spool::SpoolError,
};

/// What a step works with.
pub(crate) struct Context<'a> {
    /// `/proc`.
    pub(crate) proc_fs: &'a ProcFs,
    /// The pinned process, for steps that look at one.
    pub(crate) process: Option<&'a Process>,
    /// Files that we make in the target.
    pub(crate) cleanup: &'a Cleanup,
    /// JVMs that were asked to listen.
    pub(crate) signalled: &'a Signalled,
    /// Most bytes that may be written into the pod's file systems, where its owner set a limit.
    pub(crate) room_bytes: Option<u64>,
    /// What is removed from text.
    pub(crate) rules: &'a Rules,
    /// Told how many bytes were captured.
    pub(crate) progress: &'a dyn Fn(u64),
}

/// Longest detail in bytes.
const MAX_DETAIL_BYTES: usize = 400;

/// Why a step has no whole output.
#[derive(Debug)]
pub(crate) struct StepError {
    /// Its class.
    pub(crate) failure: Failure,
    /// What is known beyond that; at most [`MAX_DETAIL_BYTES`] bytes.
    pub(crate) detail: String,
    /// What the tool put out before it failed.
    pub(crate) partial: Option<Box<Captured>>,
}

impl StepError {
    /// An error without output.
    pub(crate) fn new(failure: Failure, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        let mut end = MAX_DETAIL_BYTES.min(detail.len());
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        detail.truncate(end);
        Self {
            failure,
            detail,
            partial: None,
        }
    }

    /// The same, with what the tool put out before it failed.
    pub(crate) fn with_partial(mut self, captured: Captured) -> Self {
        self.partial = (captured.size_bytes > 0).then(|| Box::new(captured));
        self
    }
}

impl From<io::Error> for StepError {
    fn from(error: io::Error) -> Self {
        let failure = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::NoSpace,
            io::ErrorKind::PermissionDenied => Failure::PermissionDenied,
            io::ErrorKind::ReadOnlyFilesystem => Failure::ReadOnlyFileSystem,
            _ => Failure::Internal,
        };
        Self::new(failure, error.to_string())
    }
}

impl From<SpoolError> for StepError {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::NoPrivatePlace(_) => Self::new(Failure::NoPrivatePlace, error.to_string()),
            SpoolError::Io(error) => error.into(),
        }
    }
}

//! Brings the chain to the store: batches of lines as objects that are created once, then their head into the Lease.
//!
//! Names of objects can be foretold by whoever lists the store. An object of somebody else under our next name is never taken
//! for ours: the chain goes on under another name, which nobody can foretell.

use std::time::Duration;

use bytes::Bytes;
use diagbot_artifacts::{Created, Store, StoreError};
use diagbot_base::{
    clock::Clock,
    retry::{self, Backoff},
    telemetry::metrics::{Metrics, Outcome},
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{
    anchor,
    chain::{AuditLog, Waiting},
    entry::Event,
};

#[cfg(test)]
mod tests;

/// Where the record lies beneath the store's prefix: `record/<writer>/<number of the first entry>.jsonl`.
pub const FOLDER: &str = "record";
/// How long entries are collected before they are written together.
const COLLECT: Duration = Duration::from_millis(500);
/// Most entries of one object.
const MOST_ENTRIES: usize = 256;
/// Largest object that is read back, in bytes.
const MOST_BYTES: usize = 16 << 20;
/// How long the last entries may take when the process stops.
const FAREWELL: Duration = Duration::from_secs(5);
/// Stands between a process's name and the random part of a further chain's.
const NEXT: &str = "-next-";
const MEDIA_TYPE: &str = "application/jsonl";

/// How the record is kept (`record:` in the configuration file).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordConfig {
    /// Days for which the store must neither change nor remove an object of the record (Object Lock, compliance mode). For
    /// buckets that were made with Object Lock; unless given, none.
    #[serde(default)]
    pub lock_days: Option<u16>,
}

/// What the sink works with.
#[derive(Clone)]
pub struct SinkParts {
    /// The chain.
    pub audit_log: AuditLog,
    /// Where it goes.
    pub store: Store,
    /// Leases of the bot's namespace in the home cluster.
    pub leases: Api<Lease>,
    /// Settings.
    pub config: RecordConfig,
    /// The time.
    pub clock: Clock,
    /// Counts the objects that were written, and those that were not.
    pub metrics: Metrics,
}

impl SinkParts {
    fn count(&self, outcome: &'static str) {
        self.metrics.record_writes.get_or_create(&Outcome { outcome }).inc();
    }
}

/// What became of an attempt to store a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Written {
    /// The store has so many of its entries.
    Stored(usize),
    /// Somebody else's object stands under this key.
    Displaced(String),
}

/// Keeps the record until `stop`, then writes what is left.
pub async fn keep(parts: SinkParts, stop: CancellationToken) {
    parts.audit_log.attach();
    let following = async {
        match anchor::heads(&parts.leases).await {
            Ok(heads) if heads.is_empty() => {}
            Ok(heads) => parts.audit_log.add(Event::Found { heads }),
            Err(error) => tracing::warn!(
                error = %diagbot_base::telemetry::Chain(&error),
                "the heads of other chains are not known to this one"
            ),
        }
        loop {
            parts.audit_log.added().await;
            retry::pause(COLLECT).await;
            write_all(&parts).await;
        }
    };
    tokio::select! {
        () = following => {}
        () = stop.cancelled() => {}
    }
    parts.audit_log.add(Event::Stopped);
    if tokio::time::timeout(FAREWELL, write_all(&parts)).await.is_err() {
        tracing::warn!("the last entries of the record are only in the log");
    }
}

/// Writes everything that waits, however long the store is away.
async fn write_all(parts: &SinkParts) {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
    loop {
        let batch = parts.audit_log.waiting(MOST_ENTRIES);
        if batch.is_empty() {
            return;
        }
        let stored = match write(parts, &batch).await {
            Ok(Written::Stored(stored)) => stored,
            Ok(Written::Displaced(object)) => {
                parts.count("displaced");
                tracing::error!(
                    object,
                    "another's object stands in the record's place: a new chain goes on"
                );
                let writer = new_name(&parts.audit_log.writer());
                parts.audit_log.displaced(writer, object);
                backoff.wait(None).await;
                continue;
            }
            Err(error) => {
                parts.count("unavailable");
                parts.audit_log.failed();
                tracing::warn!(error = %diagbot_base::telemetry::Chain(&error), "the record could not be stored yet");
                backoff.wait(None).await;
                continue;
            }
        };
        let Some(last) = batch.get(stored.saturating_sub(1)) else {
            return;
        };
        parts.count("stored");
        parts.audit_log.stored(last.head.seq);
        if let Err(error) = anchor::advance(&parts.leases, &parts.audit_log.writer(), &last.head).await {
            tracing::warn!(error = %diagbot_base::telemetry::Chain(&error), "the record's head could not be anchored yet");
        }
    }
}

/// A name that nobody can foretell, after the process's own.
fn new_name(former: &str) -> String {
    let process = former.split_once(NEXT).map_or(former, |(process, _)| process);
    format!("{process}{NEXT}{:016x}", rand::random::<u64>())
}

/// Writes the batch. An attempt whose answer was lost may have made the object, with fewer entries than there are by now.
async fn write(parts: &SinkParts, batch: &[Waiting]) -> Result<Written, StoreError> {
    let Some(first) = batch.first() else {
        return Ok(Written::Stored(0));
    };
    let name = format!("{:012}.jsonl", first.head.seq);
    let key = parts.store.key(&[FOLDER, &parts.audit_log.writer(), &name]);
    let text: String = batch.iter().map(|waiting| waiting.line.render()).collect();
    let bytes = Bytes::from(text);
    let until = parts
        .config
        .lock_days
        .map(|days| parts.clock.now() + jiff::SignedDuration::from_hours(24 * i64::from(days)));
    match parts.store.create(&key, bytes.clone(), MEDIA_TYPE, until).await? {
        Created::New => Ok(Written::Stored(batch.len())),
        Created::Exists => {
            let found = match parts.store.read_small(&key, MOST_BYTES).await {
                Ok(found) => found.unwrap_or_default(),
                // Larger than any of ours.
                Err(StoreError::TooLong { .. }) => Bytes::new(),
                Err(error) => return Err(error),
            };
            Ok(ours(&bytes, &found).map_or_else(|| Written::Displaced(key.as_str().to_owned()), Written::Stored))
        }
    }
}

/// How many whole lines of ours an object holds, if it holds nothing else.
fn ours(lines: &[u8], found: &[u8]) -> Option<usize> {
    let whole = found.ends_with(b"\n") && lines.starts_with(found);
    whole.then(|| found.split_inclusive(|byte| *byte == b'\n').count())
}

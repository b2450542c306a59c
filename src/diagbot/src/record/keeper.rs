//! Brings the chain to the store: batches of lines as objects that are created once, then their head into the Lease.

use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{
    anchor,
    chain::{Recorder, Waiting},
    entry::Event,
};
use crate::{
    artifacts::{Created, Store, StoreError},
    clock::Clock,
    retry::{self, Backoff},
};

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

/// What the keeper works with.
#[derive(Clone)]
pub struct KeeperParts {
    /// The chain.
    pub recorder: Recorder,
    /// Where it goes.
    pub store: Store,
    /// Leases of the bot's namespace in the home cluster.
    pub leases: Api<Lease>,
    /// Settings.
    pub config: RecordConfig,
    /// The time.
    pub clock: Clock,
}

/// Keeps the record until `stop`, then writes what is left.
pub async fn keep(parts: KeeperParts, stop: CancellationToken) {
    parts.recorder.attach();
    let following = async {
        match anchor::heads(&parts.leases).await {
            Ok(heads) if heads.is_empty() => {}
            Ok(heads) => parts.recorder.add(Event::Found { heads }),
            Err(error) => tracing::warn!(
                error = %crate::telemetry::Chain(&error),
                "the heads of other chains are not known to this one"
            ),
        }
        loop {
            parts.recorder.added().await;
            retry::pause(COLLECT).await;
            write_all(&parts).await;
        }
    };
    tokio::select! {
        () = following => {}
        () = stop.cancelled() => {}
    }
    parts.recorder.add(Event::Stopped);
    if tokio::time::timeout(FAREWELL, write_all(&parts)).await.is_err() {
        tracing::warn!("the last entries of the record are only in the log");
    }
}

/// Writes everything that waits, however long the store is away.
async fn write_all(parts: &KeeperParts) {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
    loop {
        let batch = parts.recorder.waiting(MOST_ENTRIES);
        let stored = match write(parts, &batch).await {
            Ok(stored) => stored,
            Err(error) => {
                parts.recorder.failed();
                tracing::warn!(error = %crate::telemetry::Chain(&error), "the record could not be stored yet");
                backoff.wait(None).await;
                continue;
            }
        };
        let Some(last) = batch.get(stored.saturating_sub(1)) else {
            return;
        };
        parts.recorder.stored(last.head.seq);
        if let Err(error) = anchor::advance(&parts.leases, parts.recorder.writer(), &last.head).await {
            tracing::warn!(error = %crate::telemetry::Chain(&error), "the record's head could not be anchored yet");
        }
    }
}

/// Writes the batch; tells how many of its entries the store has now. An attempt whose answer was lost may have made the
/// object, with fewer entries than there are by now.
async fn write(parts: &KeeperParts, batch: &[Waiting]) -> Result<usize, StoreError> {
    let Some(first) = batch.first() else { return Ok(0) };
    let name = format!("{:012}.jsonl", first.head.seq);
    let key = parts.store.key(&[FOLDER, parts.recorder.writer(), &name]);
    let text: String = batch.iter().map(|waiting| waiting.line.render()).collect();
    let bytes = Bytes::from(text);
    let until = parts
        .config
        .lock_days
        .map(|days| parts.clock.now() + jiff::SignedDuration::from_hours(24 * i64::from(days)));
    match parts.store.create(&key, bytes.clone(), MEDIA_TYPE, until).await? {
        Created::New => Ok(batch.len()),
        Created::Exists => {
            let found = parts.store.read_small(&key, MOST_BYTES).await?.unwrap_or_default();
            if !found.is_empty() && bytes.starts_with(&found) {
                return Ok(found.split_inclusive(|byte| *byte == b'\n').count());
            }
            tracing::error!("the store holds another record under our name: somebody else writes there");
            Ok(batch.len())
        }
    }
}

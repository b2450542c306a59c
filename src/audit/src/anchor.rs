//! The heads of all chains, in a Lease's annotation. A Lease of its own: those who watch the leader's judge by its changes.

use std::{collections::BTreeMap, time::Duration};

use diagbot_cluster::{CallError, deadline};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};

use super::Head;

/// Name of the Lease.
pub const LEASE: &str = "diagbot-record";
/// The annotation: heads by writer, as JSON.
const HEADS: &str = "diagbot.dev/record-heads";
/// Most heads that are kept: the newest. Older ones stand in the chains that began after them.
const MOST_HEADS: usize = 500;
/// Longest wait for one call.
const CALL: Duration = Duration::from_secs(5);
/// Writes that may meet another's write.
const ATTEMPTS: u32 = 5;

/// Why the anchor was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The cluster gave no answer.
    #[error("read or write the record's Lease")]
    Call(#[source] CallError),
    /// Others write all the time.
    #[error("the record's Lease changed under every write")]
    Contended,
    /// Its annotation is not ours.
    #[error("the record's Lease holds no heads")]
    Unreadable,
}

/// The heads as they stand there.
pub async fn heads(leases: &Api<Lease>) -> Result<BTreeMap<String, Head>, AnchorError> {
    match deadline(CALL, leases.get_opt(LEASE)).await.map_err(AnchorError::Call)? {
        Some(lease) => of(&lease),
        None => Ok(BTreeMap::new()),
    }
}

fn of(lease: &Lease) -> Result<BTreeMap<String, Head>, AnchorError> {
    let annotations = lease.metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|annotations| annotations.get(HEADS)) else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_str(text).map_err(|_| AnchorError::Unreadable)
}

/// Writes a chain's head, never back to an earlier one.
pub(super) async fn advance(leases: &Api<Lease>, writer: &str, head: &Head) -> Result<(), AnchorError> {
    let params = PostParams::default();
    for _ in 0..ATTEMPTS {
        let found = deadline(CALL, leases.get_opt(LEASE)).await.map_err(AnchorError::Call)?;
        let mut heads = found.as_ref().map(of).transpose()?.unwrap_or_default();
        if heads.get(writer).is_some_and(|known| known.seq >= head.seq) {
            return Ok(());
        }
        heads.insert(writer.to_owned(), head.clone());
        while heads.len() > MOST_HEADS {
            let oldest = heads
                .iter()
                .min_by_key(|(_, head)| head.at)
                .map(|(writer, _)| writer.clone());
            oldest.and_then(|oldest| heads.remove(&oldest));
        }
        let text = serde_json::to_string(&heads).expect("heads are plain data");
        let exists = found.is_some();
        let mut lease = found.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(LEASE.to_owned()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(HEADS.to_owned(), text);
        let written = if exists {
            deadline(CALL, leases.replace(LEASE, &params, &lease)).await
        } else {
            deadline(CALL, leases.create(&params, &lease)).await
        };
        match written {
            Ok(_) => return Ok(()),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(AnchorError::Call(error)),
        }
    }
    Err(AnchorError::Contended)
}

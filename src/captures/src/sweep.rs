//! Uploads that a crash left between their opening and their record: found in the store and aborted.

use std::{collections::BTreeSet, time::Duration};

use diagbot_api::capture::DiagnosticCapture;
use diagbot_base::retry;
use diagbot_cluster::deadline;
use jiff::SignedDuration;
use kube::{Api, api::ListParams};

use super::config::CapturesContext;

/// Between two looks.
const EVERY: Duration = Duration::from_mins(15);
/// A younger upload may be about to be recorded.
const MIN_AGE: SignedDuration = SignedDuration::from_mins(10);
/// Longest wait for the list of captures.
const CALL: Duration = Duration::from_secs(30);

/// Looks again and again; never ends.
pub(super) async fn run(context: &CapturesContext) {
    if let Some(store) = context.store.store()
        && let Err(error) = store.prepare().await
    {
        tracing::warn!(error = %error, "the store can't be used yet");
    }
    loop {
        once(context).await;
        retry::pause(EVERY).await;
    }
}

/// Aborts every old upload beneath our prefix that no living capture has recorded.
async fn once(context: &CapturesContext) {
    let uploads = match context.store.open_uploads().await {
        Ok(uploads) => uploads,
        Err(error) => {
            tracing::info!(error = %error, "open uploads could not be listed");
            return;
        }
    };
    let now = context.clock.now();
    let old: Vec<_> = uploads
        .into_iter()
        .filter(|(_, _, opened)| now.duration_since(*opened) > MIN_AGE)
        .collect();
    if old.is_empty() {
        return;
    }
    let clusters = &context.clusters;
    let captures = Api::<DiagnosticCapture>::namespaced(clusters.home().client.clone(), clusters.namespace());
    let recorded: BTreeSet<String> = match deadline(CALL, captures.list(&ListParams::default())).await {
        Ok(list) => list.items.iter().flat_map(living_uploads).collect(),
        Err(error) => {
            tracing::info!(error = %diagbot_base::telemetry::Chain(&error), "captures could not be listed");
            return;
        }
    };
    for (key, upload, _) in old.iter().filter(|(_, id, _)| !recorded.contains(id.as_str())) {
        if context.leadership.current().is_none() {
            return;
        }
        match context.store.abort(key, upload).await {
            Ok(()) => tracing::info!(key = %key, "aborted an upload that no capture owns"),
            Err(error) => tracing::info!(error = %error, "an upload that no capture owns could not be aborted"),
        }
    }
}

fn living_uploads(capture: &DiagnosticCapture) -> Vec<String> {
    let Some(status) = &capture.status else {
        return Vec::new();
    };
    if status.phase.is_final() {
        return Vec::new();
    }
    status.uploads.iter().map(|u| u.upload_id.clone()).collect()
}

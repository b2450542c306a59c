//! Entries of the record that wait on their runs: left there while its store was away, taken up when it is back.
//!
//! Owned by the leader. What a process of another life left is recorded anew, as found; what is our own is in the store by
//! then.

use std::time::Duration;

use diagbot_api::run::DiagnosticRun;
use diagbot_audit::Event;
use diagbot_cluster::deadline;
use kube::api::PostParams;

use crate::service::RunService;

/// Longest wait for one call to the home cluster.
const CALL: Duration = Duration::from_secs(5);

/// Takes up what waits, once the store takes entries again.
pub(super) async fn settle(service: &RunService) {
    let audit_log = service.audit_log();
    if audit_log.room_for(true).is_err() {
        return;
    }
    let leadership = service.leadership();
    for run in service.cache().all() {
        let left = run.status.as_ref().map_or(&[][..], |status| &status.unrecorded);
        let Some(term) = leadership.current() else { return };
        if left.is_empty() {
            continue;
        }
        let name = run.metadata.name.clone().unwrap_or_default();
        for line in left.iter().filter(|line| !audit_log.is_own(line)) {
            audit_log.add(Event::Recovered {
                run: name.clone(),
                line: line.clone(),
            });
        }
        clear(service, &run, CALL.min(term.remaining())).await;
    }
}

/// One that was not cleared is taken up again: an entry twice is better than none.
async fn clear(service: &RunService, run: &DiagnosticRun, limit: Duration) {
    let mut run = run.clone();
    let Some(status) = &mut run.status else { return };
    status.unrecorded.clear();
    let name = run.metadata.name.clone().unwrap_or_default();
    let params = PostParams::default();
    let write = service.api().replace_status(&name, &params, &run);
    if let Err(error) = deadline(limit, write).await {
        tracing::info!(error = %diagbot_base::telemetry::Chain(&error), run.id = name, "the run is looked at again");
    }
}

//! Logs of a pod's containers, now and before their last restart, bounded each.

use std::time::Duration;

use diagbot_artifacts::StoreError;
use diagbot_cluster::deadline;
use futures::{AsyncRead, AsyncReadExt as _};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{Api, api::LogParams};

use super::{artifact::Artifact, text, why};

/// Last lines of each log.
const TAIL_LINES: i64 = 2_000;
/// Most bytes of each log.
const LIMIT_BYTES: i64 = 1 << 20;
/// Longest wait for a log to open.
const OPEN: Duration = Duration::from_secs(10);
/// Longest wait for its next bytes.
const IDLE: Duration = Duration::from_secs(10);
const CHUNK_BYTES: usize = 64 * 1024;

/// One log of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Log {
    container: String,
    previous: bool,
}

/// Appends the logs of all containers, the crashed ones first.
pub(super) async fn write(pods: &Api<Pod>, pod: &Pod, artifact: &mut Artifact<'_>) -> Result<(), StoreError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    for log in wanted(pod) {
        if artifact.is_full() {
            return Ok(());
        }
        artifact
            .push(text::log_title(&log.container, log.previous).as_bytes())
            .await?;
        let params = LogParams {
            container: Some(log.container),
            previous: log.previous,
            tail_lines: Some(TAIL_LINES),
            limit_bytes: Some(LIMIT_BYTES),
            timestamps: true,
            ..LogParams::default()
        };
        match deadline(OPEN, pods.log_stream(name, &params)).await {
            Ok(stream) => copy(stream, artifact).await?,
            Err(error) => {
                artifact
                    .push(format!("(not available: {})\n", why(&error)).as_bytes())
                    .await?;
            }
        }
    }
    Ok(())
}

/// Which logs exist: the current one of every container that was ever started, the previous one of those that restarted.
fn wanted(pod: &Pod) -> Vec<Log> {
    let status = pod.status.as_ref();
    let all = |list: Option<&Vec<ContainerStatus>>| list.cloned().unwrap_or_default();
    let mut containers = all(status.and_then(|s| s.container_statuses.as_ref()));
    containers.extend(all(status.and_then(|s| s.init_container_statuses.as_ref())));
    containers.sort_by_key(|c| std::cmp::Reverse(c.restart_count));
    let mut logs = Vec::new();
    for container in containers {
        let log = |previous| Log {
            container: container.name.clone(),
            previous,
        };
        if container.last_state.as_ref().is_some_and(|s| s.terminated.is_some()) {
            logs.push(log(true));
        }
        if container.container_id.is_some() || container.state.as_ref().is_some_and(|s| s.waiting.is_none()) {
            logs.push(log(false));
        }
    }
    logs
}

async fn copy(stream: impl AsyncRead, artifact: &mut Artifact<'_>) -> Result<(), StoreError> {
    let mut stream = std::pin::pin!(stream);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match tokio::time::timeout(IDLE, stream.read(&mut chunk)).await {
            Ok(Ok(0)) => return artifact.push(b"\n").await,
            Ok(Ok(read)) => artifact.push(&chunk[..read]).await?,
            Ok(Err(_)) | Err(_) => return artifact.push(b"\n(the log ended early)\n").await,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_log_of_a_crash_comes_first_and_a_container_that_never_ran_has_none() {
        let status = |name: &str, restarts: i32, state: serde_json::Value, last: serde_json::Value| {
            json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": restarts,
                   "state": state, "lastState": last})
        };
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [
            status("fresh", 0, json!({"running": {}}), json!({})),
            status("new", 0, json!({"waiting": {"reason": "PodInitializing"}}), json!({})),
            status("crashes", 9, json!({"terminated": {"exitCode": 1}}), json!({"terminated": {"exitCode": 1}})),
        ]}}))
        .expect("a pod");
        let names: Vec<_> = wanted(&pod).into_iter().map(|l| (l.container, l.previous)).collect();
        let expected = [("crashes", true), ("crashes", false), ("fresh", false)];
        assert_eq!(names, expected.map(|(name, previous)| (name.to_owned(), previous)));
    }
}

//! Watches one pod: the last state counts, not the way there.

use std::{sync::Arc, time::Duration};

use diagbot_cluster::deadline;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::sync::watch;

use super::plan::PodFact;

/// A watch is made anew after this time, in seconds: one that went quiet is noticed a little later.
pub(super) const WATCH_S: u32 = 15;

/// Longest wait for the first look.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Tells the pod's state until nobody listens. `pods` must be of a client without a read timeout.
pub(super) async fn watch(pods: Api<Pod>, name: String, tell: watch::Sender<PodFact>) {
    // A watch begins with a list, which waits until the API server's cache has caught up with the last write to anything:
    // measured, a tenth of a second. A read of the one pod does not. Where it fails, the watch tells.
    if let Ok(pod) = deadline(FIRST_LOOK, pods.get_opt(&name)).await {
        tell.send_replace(pod.map_or(PodFact::Gone, |pod| PodFact::Seen(Arc::new(pod))));
    }
    let config = watcher::Config::default()
        .fields(&format!("metadata.name={name}"))
        .timeout(WATCH_S);
    let mut events = std::pin::pin!(watcher(pods, config).default_backoff());
    let mut listed = PodFact::Gone;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed = PodFact::Gone,
            Ok(watcher::Event::InitApply(pod)) => listed = PodFact::Seen(Arc::new(pod)),
            Ok(watcher::Event::InitDone) => {
                tell.send_replace(std::mem::take(&mut listed));
            }
            Ok(watcher::Event::Apply(pod)) => {
                tell.send_replace(PodFact::Seen(Arc::new(pod)));
            }
            Ok(watcher::Event::Delete(_)) => {
                tell.send_replace(PodFact::Gone);
            }
            Err(error) => {
                tracing::info!(error = %error, "the watch of the target's pod broke and is taken up again");
                tell.send_if_modified(|fact| {
                    let unread = matches!(fact, PodFact::Unknown);
                    if unread {
                        *fact = PodFact::Unreadable(error.to_string());
                    }
                    unread
                });
            }
        }
        if tell.is_closed() {
            return;
        }
    }
}

//! Which captures take a slot of their cluster: `agent.concurrency` captures at a time, whatever runs they are of.
//!
//! A capture is made when a slot is free for it, so that it never waits between the review of its run and its launch.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use diagbot_api::capture::DiagnosticCapture;

/// How long a capture that was made counts though the watch has not told it.
const UNSEEN_FOR: Duration = Duration::from_secs(30);

/// The slots of every cluster.
#[derive(Debug)]
pub(super) struct Slots {
    most: usize,
    /// Captures that were made here and that the watch may not have told, with their clusters.
    made: Mutex<BTreeMap<String, (Instant, String)>>,
}

impl Slots {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            made: Mutex::default(),
        }
    }

    /// How many more captures of the cluster may be made; `known` are those that the watch told.
    pub(super) fn free(&self, known: &[Arc<DiagnosticCapture>], cluster: &str) -> usize {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        self.count(&mut made, known, cluster)
    }

    /// Takes a slot for a capture that is about to be made; false: none is free.
    pub(super) fn take(&self, known: &[Arc<DiagnosticCapture>], capture: &DiagnosticCapture) -> bool {
        let Some(name) = capture.metadata.name.clone() else {
            return false;
        };
        let cluster = &capture.spec.target.cluster;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.count(&mut made, known, cluster) > 0;
        if free {
            made.insert(name, (Instant::now(), cluster.clone()));
        }
        free
    }

    /// Gives the slot of a capture back that was not made.
    pub(super) fn release(&self, capture: &str) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.remove(capture);
    }

    fn count(
        &self,
        made: &mut BTreeMap<String, (Instant, String)>,
        known: &[Arc<DiagnosticCapture>],
        cluster: &str,
    ) -> usize {
        made.retain(|_, (since, _)| since.elapsed() < UNSEEN_FOR);
        for name in known.iter().filter_map(|capture| capture.metadata.name.as_ref()) {
            made.remove(name);
        }
        let running = |capture: &&Arc<DiagnosticCapture>| {
            let ended = capture.status.as_ref().is_some_and(|status| status.phase.is_final());
            capture.spec.target.cluster == cluster && !ended
        };
        let unseen = made.values().filter(|(_, of)| of == cluster).count();
        let taken = known.iter().filter(running).count() + unseen;
        self.most.saturating_sub(taken)
    }
}

#[cfg(test)]
mod tests {
    use diagbot_api::capture::{CapturePhase, CaptureSpec, CaptureStatus, PinnedTarget};
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    fn capture(name: &str, cluster: &str) -> DiagnosticCapture {
        let spec = CaptureSpec {
            run: "d-1".to_owned(),
            index: 0,
            target: PinnedTarget {
                cluster: cluster.to_owned(),
                ..PinnedTarget::default()
            },
            steps: Vec::new(),
            image: String::new(),
            requester: String::new(),
            catalog_sha256: String::new(),
            deadline: MicroTime(Timestamp::UNIX_EPOCH),
        };
        DiagnosticCapture::new(name, spec)
    }

    #[test]
    fn a_slot_is_taken_until_its_capture_ends() {
        let slots = Slots::new(2);
        let (a, b, c) = (capture("a", "local"), capture("b", "local"), capture("c", "local"));
        assert!(slots.take(&[], &a) && slots.take(&[], &b));
        assert!(!slots.take(&[], &c), "two at a time");
        slots.release("b");
        assert!(slots.take(&[], &b), "what was not made is made again");
        assert!(
            slots.take(&[], &capture("d", "eu")),
            "clusters don't wait for each other"
        );
        let mut known = vec![Arc::new(a.clone()), Arc::new(b)];
        assert_eq!(slots.free(&known, "local"), 0, "told by the watch, they count once");
        let status = CaptureStatus {
            phase: CapturePhase::Succeeded,
            ..CaptureStatus::default()
        };
        known[0] = Arc::new(DiagnosticCapture {
            status: Some(status),
            ..a
        });
        assert_eq!(slots.free(&known, "local"), 1);
    }
}

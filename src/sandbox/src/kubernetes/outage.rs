//! Times in which the API server is away. Owns when; never touches the node, whose containers go on.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

/// When the server is back; in the past, or none, while it is there.
#[derive(Debug)]
pub(super) struct Outage {
    until: watch::Sender<Option<Instant>>,
}

impl Default for Outage {
    fn default() -> Self {
        Self {
            until: watch::Sender::new(None),
        }
    }
}

impl Outage {
    /// Breaks every connection and takes none for so long.
    pub(super) fn begin(&self, away: Duration) {
        self.until.send_replace(Some(Instant::now() + away));
    }

    /// Whether connections are turned away now.
    pub(super) fn is_on(&self) -> bool {
        self.until.borrow().is_some_and(|until| until > Instant::now())
    }

    /// Waits for the next outage.
    pub(super) async fn strikes(&self) {
        let mut until = self.until.subscribe();
        // The sender lives as long as the server, which the waiting connection belongs to.
        if until.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

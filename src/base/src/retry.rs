//! Waiting between attempts: one growing, jittered backoff for everybody. Owns the only sleeps of the program.

use std::{future::Future, time::Duration};

use rand::Rng as _;

/// Whether trying again can help.
pub trait Permanence {
    /// True where the same attempt would fail for ever.
    fn is_permanent(&self) -> bool;

    /// The wait that the other side asked for.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// A backoff: full jitter over a window that doubles from `first` to `longest`.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempt: u32,
}

impl Backoff {
    /// A fresh backoff.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            attempt: 0,
        }
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// The next wait, in `[window/2, window]`.
    pub fn next_delay(&mut self) -> Duration {
        let window = self.first.saturating_mul(1 << self.attempt.min(16)).min(self.longest);
        self.attempt = self.attempt.saturating_add(1);
        let half = window / 2;
        half + half.mul_f64(rand::rng().random_range(0.0..=1.0))
    }

    /// Waits for the next delay, or for what the other side asked if that is longer.
    pub async fn wait(&mut self, asked: Option<Duration>) {
        let delay = self.next_delay().max(asked.unwrap_or_default());
        pause(delay).await;
    }
}

/// A plain pause, for pacing (never for synchronisation).
pub async fn pause(delay: Duration) {
    tokio::time::sleep(delay).await;
}

/// Tries `operation` up to `attempts` times, waiting in between; a permanent error ends it at once.
pub async fn retry<T, E, F, Fut>(attempts: u32, mut backoff: Backoff, mut operation: F) -> Result<T, E>
where
    E: Permanence,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let mut tried = 1;
    loop {
        match operation().await {
            Err(error) if !error.is_permanent() && tried < attempts => backoff.wait(error.retry_after()).await,
            outcome => return outcome,
        }
        tried += 1;
    }
}

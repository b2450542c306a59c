//! Addresses of connections: one pace for the whole process, and what Slack's refusals mean.

use std::time::{Duration, Instant};

use diagbot_base::retry;
use secrecy::SecretString;
use tokio::sync::Mutex;

use crate::api::{ApiError, Rejection, SlackApi};

/// Calls at once: both connections and their replacements, twice.
const BURST: f64 = 8.0;
/// One more call each. `apps.connections.open` is tier 1 ("1+ per minute") by one page and tier 3 by another; a 429 is
/// honoured besides.
const REFILL: Duration = Duration::from_secs(30);

/// Asks for addresses.
#[derive(Debug)]
pub(super) struct ConnectThrottle {
    api: SlackApi,
    bucket: Mutex<OpenBucket>,
}

#[derive(Debug)]
struct OpenBucket {
    calls: f64,
    at: Instant,
}

/// Why there is no address.
#[derive(Debug)]
pub(super) enum OpenError {
    /// An operator must act first.
    Fatal(String),
    /// Trying again may help.
    Retry(ApiError),
}

impl ConnectThrottle {
    pub(super) fn new(api: SlackApi) -> Self {
        let bucket = Mutex::new(OpenBucket {
            calls: BURST,
            at: Instant::now(),
        });
        Self { api, bucket }
    }

    /// An address, as soon as the pace allows.
    pub(super) async fn open(&self) -> Result<SecretString, OpenError> {
        self.take().await;
        match self.api.open_connection().await {
            Ok(address) => Ok(address),
            Err(ApiError::Refused(Rejection::Token(code))) => Err(OpenError::Fatal(format!(
                "Slack refuses the app token ({code}): put a valid token (xapp-…, scope connections:write) in place and restart"
            ))),
            Err(ApiError::Refused(Rejection::MissingScope(_))) => Err(OpenError::Fatal(
                "the app token lacks the scope connections:write: make a new one and restart".to_owned(),
            )),
            Err(error) => {
                if matches!(error, ApiError::NotSent { .. }) {
                    // Slack never saw the call, so it does not count.
                    self.bucket.lock().await.calls += 1.0;
                }
                Err(OpenError::Retry(error))
            }
        }
    }

    async fn take(&self) {
        // Held while waiting: the others queue behind.
        let mut bucket = self.bucket.lock().await;
        let wait = bucket.take(Instant::now());
        if !wait.is_zero() {
            tracing::info!(wait_ms = wait.as_millis(), "pacing the opening of Slack connections");
            retry::pause(wait).await;
        }
    }
}

impl OpenBucket {
    /// Takes a call and says how long to wait before it is made.
    fn take(&mut self, now: Instant) -> Duration {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() / REFILL.as_secs_f64();
        self.calls = (self.calls + gained).min(BURST) - 1.0;
        self.at = now;
        if self.calls >= 0.0 {
            Duration::ZERO
        } else {
            REFILL.mul_f64(-self.calls)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_reconnects_comes_down_to_two_calls_a_minute() {
        let start = Instant::now();
        let mut bucket = OpenBucket {
            calls: BURST,
            at: start,
        };
        let mut now = start;
        let mut calls = 0;
        while now < start + Duration::from_mins(10) {
            now += bucket.take(now);
            calls += 1;
        }
        assert!((20..=30).contains(&calls), "{calls} calls in ten minutes");
    }
}

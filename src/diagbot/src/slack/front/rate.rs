//! How many runs a person and a channel may ask of this process. Keeps a stuck key or a loop of bots from filling the
//! records; the cluster-wide budgets are the controller's.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock as _, DefaultClock},
};

/// Of one person at once, and a minute.
const PERSON_AT_ONCE: NonZeroU32 = NonZeroU32::new(10).expect("10 is not zero");
const PERSON_A_MINUTE: NonZeroU32 = NonZeroU32::new(20).expect("20 is not zero");
/// In one channel at once, and a minute: a whole incident's crew.
const CHANNEL_AT_ONCE: NonZeroU32 = NonZeroU32::new(60).expect("60 is not zero");
const CHANNEL_A_MINUTE: NonZeroU32 = NonZeroU32::new(120).expect("120 is not zero");
/// Keys that are kept before those at rest are dropped.
const KEYS: usize = 10_000;

/// The limits.
#[derive(Debug)]
pub(super) struct Rates {
    people: DefaultKeyedRateLimiter<String>,
    channels: DefaultKeyedRateLimiter<String>,
}

/// Too many requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooFast {
    /// When to come again.
    pub(super) wait: Duration,
    /// The channel's limit, not the person's.
    pub(super) of_channel: bool,
}

impl Rates {
    pub(super) fn new() -> Self {
        let limiter =
            |a_minute, at_once| DefaultKeyedRateLimiter::keyed(Quota::per_minute(a_minute).allow_burst(at_once));
        Self {
            people: limiter(PERSON_A_MINUTE, PERSON_AT_ONCE),
            channels: limiter(CHANNEL_A_MINUTE, CHANNEL_AT_ONCE),
        }
    }

    /// Counts a request.
    pub(super) fn take(&self, person: &str, channel: &str) -> Result<(), TooFast> {
        take(&self.people, person).map_err(|wait| TooFast {
            wait,
            of_channel: false,
        })?;
        take(&self.channels, channel).map_err(|wait| TooFast { wait, of_channel: true })
    }
}

fn take(limiter: &DefaultKeyedRateLimiter<String>, key: &str) -> Result<(), Duration> {
    if limiter.len() > KEYS {
        limiter.retain_recent();
    }
    limiter
        .check_key(&key.to_owned())
        .map_err(|until| until.wait_time_from(DefaultClock::default().now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_the_wait_and_others_are_not_held_up() {
        let rates = Rates::new();
        for _ in 0..PERSON_AT_ONCE.get() {
            rates.take("U1", "C1").unwrap();
        }
        let refused = rates.take("U1", "C1").unwrap_err();
        assert!(!refused.of_channel);
        assert!(refused.wait > Duration::ZERO && refused.wait <= Duration::from_secs(3));
        rates.take("U2", "C1").unwrap();
        let crowd = (0..100).filter(|n| rates.take(&format!("V{n}"), "C1").is_ok()).count();
        assert!(crowd < 60, "{crowd}");
    }
}

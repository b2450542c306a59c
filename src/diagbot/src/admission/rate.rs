//! How often a person and a channel may ask, in this process. Owns the count at the door; budgets over the durable runs are
//! another matter.
//!
//! # Design notes
//! Keys are authenticated ids only, never text that a person chose, and are forgotten as soon as they no longer count, so
//! that memory stays bounded by the people who ask at a time.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::DashMapStateStore,
};
use serde::Deserialize;

use crate::access::Requester;

/// Keys beyond which those that no longer count are looked for.
const SWEEP_ABOVE: usize = 1024;

/// How often people may ask (`rates:` in the configuration file).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RateConfig {
    /// Requests of one person in a minute, also all at once. Default: 20.
    pub person_per_minute: NonZeroU32,
    /// Requests in one channel in a minute, also all at once. Default: 120.
    pub channel_per_minute: NonZeroU32,
}

impl Default for RateConfig {
    fn default() -> Self {
        Self {
            person_per_minute: NonZeroU32::new(20).expect("20 is not 0"),
            channel_per_minute: NonZeroU32::new(120).expect("120 is not 0"),
        }
    }
}

type Limiter<K> = RateLimiter<K, DashMapStateStore<K>, DefaultClock>;

/// The count of this process. Cheap to clone.
#[derive(Clone)]
pub struct Door(Arc<Inner>);

struct Inner {
    people: Limiter<Requester>,
    channels: Limiter<String>,
}

/// Too often; this long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests; the next one is taken in {} s", .0.as_secs())]
pub struct TooOften(pub Duration);

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Door {
    /// A door that has counted nobody.
    pub fn new(config: RateConfig) -> Self {
        Self(Arc::new(Inner {
            people: RateLimiter::keyed(Quota::per_minute(config.person_per_minute)),
            channels: RateLimiter::keyed(Quota::per_minute(config.channel_per_minute)),
        }))
    }

    /// Counts a request, or says how long to wait. `channel` is empty where there is none.
    pub fn knock(&self, person: &Requester, channel: &str) -> Result<(), TooOften> {
        check(&self.0.people, person)?;
        if channel.is_empty() {
            return Ok(());
        }
        check(&self.0.channels, &channel.to_owned())
    }
}

fn check<K: std::hash::Hash + Eq + Clone>(limiter: &Limiter<K>, key: &K) -> Result<(), TooOften> {
    if limiter.len() > SWEEP_ABOVE {
        limiter.retain_recent();
        limiter.shrink_to_fit();
    }
    limiter.check_key(key).map_err(|not_until| {
        let wait = not_until.wait_time_from(DefaultClock::default().now());
        TooOften(Duration::from_secs(wait.as_secs() + 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(user: &str) -> Requester {
        Requester {
            team: "T1".into(),
            user: user.into(),
        }
    }

    #[test]
    fn who_asks_too_often_hears_how_long_to_wait_and_nobody_else_does() {
        let door = Door::new(RateConfig::default());
        for _ in 0..20 {
            assert_eq!(door.knock(&person("U1"), "C1"), Ok(()));
        }
        let TooOften(wait) = door.knock(&person("U1"), "C1").unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(4), "{wait:?}");
        assert_eq!(door.knock(&person("U2"), "C1"), Ok(()));
    }

    #[test]
    fn a_channel_has_a_count_of_its_own() {
        let door = Door::new(RateConfig::default());
        let refused = (0..121)
            .filter(|n| door.knock(&person(&format!("U{n}")), "C1").is_err())
            .count();
        assert_eq!(refused, 1);
        assert_eq!(door.knock(&person("U1"), "C2"), Ok(()));
    }
}

//! How often a person, a channel and a command may ask, and how often a person may look, in this process. Owns the count at
//! the door; budgets over the durable runs are another matter.
//!
//! # Design notes
//! Keys are authenticated ids and names of the catalog only, never text that a person chose, and are forgotten as soon as they
//! no longer count, so that memory stays bounded by the people who ask at a time.
//!
//! What stops something - cancelling, the off-switch - is never counted: whoever asked too often may still take it back.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use diagbot_api::requester::Requester;
use governor::{
    Quota,
    clock::{Clock as _, DefaultClock},
    state::keyed::DashMapStateStore,
};
use serde::Deserialize;

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
    /// Requests for one diagnostic or runbook in a minute, whoever asks, also all at once. Default: 300.
    pub command_per_minute: NonZeroU32,
    /// What one person looks at in a minute: lists, states, links, names that are offered while typing. Default: 300.
    pub looks_per_minute: NonZeroU32,
}

impl Default for RateConfig {
    fn default() -> Self {
        Self {
            person_per_minute: NonZeroU32::new(20).expect("20 is not 0"),
            channel_per_minute: NonZeroU32::new(120).expect("120 is not 0"),
            command_per_minute: NonZeroU32::new(300).expect("300 is not 0"),
            looks_per_minute: NonZeroU32::new(300).expect("300 is not 0"),
        }
    }
}

type Limiter<K> = governor::RateLimiter<K, DashMapStateStore<K>, DefaultClock>;

/// The count of this process. Cheap to clone.
#[derive(Clone)]
pub struct RateLimiter(Arc<Limiters>);

struct Limiters {
    people: Limiter<Requester>,
    channels: Limiter<String>,
    commands: Limiter<String>,
    looks: Limiter<Requester>,
}

/// Too often; this long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests; the next one is taken in {} s", .0.as_secs())]
pub struct TooOften(pub Duration);

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl RateLimiter {
    /// A door that has counted nobody.
    pub fn new(config: RateConfig) -> Self {
        Self(Arc::new(Limiters {
            people: Limiter::keyed(Quota::per_minute(config.person_per_minute)),
            channels: Limiter::keyed(Quota::per_minute(config.channel_per_minute)),
            commands: Limiter::keyed(Quota::per_minute(config.command_per_minute)),
            looks: Limiter::keyed(Quota::per_minute(config.looks_per_minute)),
        }))
    }

    /// Counts a request, or says how long to wait. `channel` is empty where there is none; `command` is a name of the catalog,
    /// none where the words mean nothing in it.
    pub fn check(&self, person: &Requester, channel: &str, command: Option<&str>) -> Result<(), TooOften> {
        check(&self.0.people, person)?;
        if !channel.is_empty() {
            check(&self.0.channels, &channel.to_owned())?;
        }
        command.map_or(Ok(()), |name| check(&self.0.commands, &name.to_owned()))
    }

    /// Counts a look of a person, or says how long to wait.
    pub fn look(&self, person: &Requester) -> Result<(), TooOften> {
        check(&self.0.looks, person)
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
        let rate_limiter = RateLimiter::new(RateConfig::default());
        for _ in 0..20 {
            assert_eq!(rate_limiter.check(&person("U1"), "C1", None), Ok(()));
        }
        let TooOften(wait) = rate_limiter.check(&person("U1"), "C1", None).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(4), "{wait:?}");
        assert_eq!(rate_limiter.check(&person("U2"), "C1", None), Ok(()));
        assert_eq!(
            rate_limiter.look(&person("U1")),
            Ok(()),
            "looking has a count of its own"
        );
    }

    #[test]
    fn a_channel_has_a_count_of_its_own() {
        let rate_limiter = RateLimiter::new(RateConfig::default());
        let refused = (0..121)
            .filter(|n| rate_limiter.check(&person(&format!("U{n}")), "C1", None).is_err())
            .count();
        assert_eq!(refused, 1);
        assert_eq!(rate_limiter.check(&person("U1"), "C2", None), Ok(()));
    }

    #[test]
    fn a_command_has_a_count_of_its_own_whoever_asks_wherever() {
        let rate_limiter = RateLimiter::new(RateConfig::default());
        let ask = |n: u32| rate_limiter.check(&person(&format!("U{n}")), &format!("C{n}"), Some("jstack"));
        assert_eq!((0..301).filter(|n| ask(*n).is_err()).count(), 1);
        assert_eq!(rate_limiter.check(&person("U1"), "C1", Some("process")), Ok(()));
    }
}

//! Slack's rate limits: token buckets per method, and per channel where Slack counts so.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// A bucket that holds `burst` calls and gets `per_minute` new ones a minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    per_minute: f64,
    burst: f64,
}

const fn tier(per_minute: f64) -> Rate {
    Rate {
        per_minute,
        burst: per_minute,
    }
}

/// 20+ a minute.
const TIER_2: Rate = tier(20.0);
/// 50+ a minute.
const TIER_3: Rate = tier(50.0);
/// 100+ a minute.
const TIER_4: Rate = tier(100.0);
/// `chat.postMessage`: one a second and channel, "short bursts" tolerated; the size of the burst is not documented.
const POST_PER_CHANNEL: Rate = Rate {
    per_minute: 60.0,
    burst: 3.0,
};
/// `chat.postMessage` over the whole workspace: "several hundred a minute".
const POST_PER_WORKSPACE: Rate = tier(300.0);
/// `apps.connections.open`: documented as tier 1 or tier 3 on different pages. Ten connections open at once in practice, so the
/// bucket starts with a whole pool and refills slowly: a reconnect storm runs dry at once.
const OPEN_CONNECTIONS: Rate = Rate {
    per_minute: 10.0,
    burst: 20.0,
};

/// The limits of a method: what Slack's pages say of its tier, and the key each is counted under.
fn rates(method: &str, channel: &str) -> Vec<(String, Rate)> {
    let whole = |rate| vec![(method.to_owned(), rate)];
    match method {
        "chat.postMessage" => {
            vec![
                (format!("{method} {channel}"), POST_PER_CHANNEL),
                (method.to_owned(), POST_PER_WORKSPACE),
            ]
        }
        "apps.connections.open" => whole(OPEN_CONNECTIONS),
        "conversations.list" | "usergroups.list" | "usergroups.users.list" | "users.list" => whole(TIER_2),
        "chat.update"
        | "chat.delete"
        | "conversations.info"
        | "conversations.history"
        | "conversations.replies"
        | "conversations.open"
        | "conversations.join"
        | "users.lookupByEmail" => whole(TIER_3),
        "chat.postEphemeral"
        | "views.open"
        | "views.update"
        | "views.push"
        | "users.info"
        | "conversations.members"
        | "files.getUploadURLExternal"
        | "files.completeUploadExternal" => whole(TIER_4),
        _ => Vec::new(),
    }
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// The state of all limits.
#[derive(Debug, Default)]
pub(super) struct RateLimits {
    buckets: HashMap<String, Bucket>,
}

impl RateLimits {
    /// Counts a call. `Err` says after how long to come again; a refused call costs nothing.
    pub(super) fn take(&mut self, method: &str, channel: &str, now: Instant) -> Result<(), Duration> {
        let rates = rates(method, channel);
        for (key, rate) in &rates {
            let bucket = self.buckets.entry(key.clone()).or_insert_with(|| Bucket {
                tokens: rate.burst,
                at: now,
            });
            let gained = now.duration_since(bucket.at).as_secs_f64() * rate.per_minute / 60.0;
            bucket.tokens = (bucket.tokens + gained).min(rate.burst);
            bucket.at = now;
            if bucket.tokens < 1.0 {
                let wait = (1.0 - bucket.tokens) * 60.0 / rate.per_minute;
                return Err(Duration::from_secs(wait.ceil() as u64));
            }
        }
        for (key, _) in &rates {
            if let Some(bucket) = self.buckets.get_mut(key) {
                bucket.tokens -= 1.0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_takes_a_short_burst_and_then_one_message_a_second() {
        let (mut limits, start) = (RateLimits::default(), Instant::now());
        for _ in 0..3 {
            limits
                .take("chat.postMessage", "C1", start)
                .expect("the burst is tolerated");
        }
        assert_eq!(
            limits.take("chat.postMessage", "C1", start),
            Err(Duration::from_secs(1))
        );
        limits
            .take("chat.postMessage", "C2", start)
            .expect("another channel counts for itself");
        limits
            .take("chat.postMessage", "C1", start + Duration::from_secs(1))
            .expect("one second later there is room");
        assert!(
            limits
                .take("chat.postMessage", "C1", start + Duration::from_secs(1))
                .is_err()
        );
    }

    #[test]
    fn edits_are_limited_for_the_whole_app() {
        let (mut limits, start) = (RateLimits::default(), Instant::now());
        let allowed = (0..100)
            .filter(|n| limits.take("chat.update", &format!("C{n}"), start).is_ok())
            .count();
        assert_eq!(allowed, 50);
    }
}

//! Slack's limits on posts and edits, kept by us: nobody is made to wait by a 429 that could be foreseen.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// `chat.update` is tier 3: 50 a minute for the whole app.
const EDITS: Rate = Rate {
    each: Duration::from_millis(1_200),
    burst: 20.0,
};
/// `chat.postMessage`: one a second and channel; short bursts are tolerated.
const POSTS: Rate = Rate {
    each: Duration::from_secs(1),
    burst: 2.0,
};
/// Edits that progress leaves for ends of runs.
const RESERVED_EDITS: f64 = 8.0;
/// Channels that are remembered; one at rest is as good as a new one.
const CHANNELS: usize = 1_000;

#[derive(Debug, Clone, Copy)]
struct Rate {
    each: Duration,
    burst: f64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
    blocked: Option<Instant>,
}

/// What may be sent now.
#[derive(Debug)]
pub(super) struct Budget {
    edits: Bucket,
    posts: HashMap<String, Bucket>,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            edits: Bucket::full(EDITS, now),
            posts: HashMap::new(),
        }
    }

    /// Takes an edit, or says how long to wait.
    pub(super) fn edit(&mut self, settled: bool, now: Instant) -> Result<(), Duration> {
        let reserve = if settled { 0.0 } else { RESERVED_EDITS };
        self.edits.take(EDITS, reserve, now)
    }

    /// Takes a post to a channel, or says how long to wait.
    pub(super) fn post(&mut self, channel: &str, now: Instant) -> Result<(), Duration> {
        if self.posts.len() > CHANNELS {
            self.posts
                .retain(|_, bucket| now.saturating_duration_since(bucket.at) < Duration::from_mins(2));
        }
        let bucket = self
            .posts
            .entry(channel.to_owned())
            .or_insert_with(|| Bucket::full(POSTS, now));
        bucket.take(POSTS, 0.0, now)
    }

    /// Slack asked to wait with edits.
    pub(super) fn block_edits(&mut self, until: Instant) {
        self.edits.blocked = Some(until);
    }

    /// Slack asked to wait with posts to a channel.
    pub(super) fn block_posts(&mut self, channel: &str, until: Instant) {
        if let Some(bucket) = self.posts.get_mut(channel) {
            bucket.blocked = Some(until);
        }
    }
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self {
            left: rate.burst,
            at: now,
            blocked: None,
        }
    }

    fn take(&mut self, rate: Rate, reserve: f64, now: Instant) -> Result<(), Duration> {
        if let Some(until) = self.blocked.filter(|until| *until > now) {
            return Err(until - now);
        }
        let gained = now.saturating_duration_since(self.at).as_secs_f64() / rate.each.as_secs_f64();
        self.left = (self.left + gained).min(rate.burst);
        self.at = now;
        let missing = 1.0 + reserve - self.left;
        if missing > 0.0 {
            return Err(rate.each.mul_f64(missing));
        }
        self.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_never_takes_the_edits_that_ends_of_runs_need() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        let progress = (0..100).filter(|_| budget.edit(false, now).is_ok()).count();
        let ends = (0..100).filter(|_| budget.edit(true, now).is_ok()).count();
        assert_eq!((progress, ends), (12, 8));
        assert!(budget.edit(true, now).unwrap_err() <= EDITS.each);
    }

    #[test]
    fn a_channel_gets_one_post_a_second_and_a_long_wait_is_kept() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let posts = (0..1_000)
            .filter(|n| budget.post("C1", start + Duration::from_millis(n * 10)).is_ok())
            .count();
        assert_eq!(posts, 11);
        budget.block_posts("C1", start + Duration::from_secs(100));
        let wait = budget.post("C1", start + Duration::from_secs(40)).unwrap_err();
        assert_eq!(wait, Duration::from_mins(1));
        budget.post("C2", start).unwrap();
    }
}

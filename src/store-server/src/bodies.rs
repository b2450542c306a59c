//! Which bodies are received, how many at once, how long, and how slow they may be. Owns the numbers, never the bytes.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use diagbot_base::clock::Clock;
use jiff::Timestamp;
use s3s::S3Result;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{connections::busy, disk::no_room, gate::Signed, limits::StoreLimits, pace::Rate, visit::Visit};

/// Longest silence of the account while it sends: the bot passes on what a pod sends, at that pod's pace.
const ACCOUNT_IDLE: Duration = Duration::from_mins(1);
/// An object of the account that is this small may use the last room of the disk: the bot's records.
const SMALL_BYTES: u64 = 1 << 20;

/// The bodies under way.
#[derive(Debug)]
pub(super) struct Bodies {
    limits: StoreLimits,
    under_way: Mutex<UnderWay>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct UnderWay {
    all: usize,
    by_url: usize,
    of_peer: HashMap<IpAddr, usize>,
    of_upload: HashMap<String, usize>,
    announced_bytes: u64,
}

/// A body's turn, given up on drop.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    bodies: &'a Bodies,
    body: Announced,
}

/// A body before its first byte.
#[derive(Debug, Clone)]
struct Announced {
    bytes: u64,
    /// The address, for one by URL.
    peer: Option<IpAddr>,
    upload: Option<String>,
}

/// What a body must keep to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) rate: Rate,
    /// When it is cut off.
    pub(super) ends: Option<Instant>,
    /// Most versions that the object may have before it.
    pub(super) most_versions: Option<usize>,
}

impl Bodies {
    pub(super) fn new(limits: StoreLimits) -> Self {
        Self {
            limits,
            under_way: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// What the request must keep to.
    pub(super) fn terms(&self, visit: &Visit) -> Terms {
        match visit.signed() {
            Signed::ByUrl(url) => Terms {
                rate: Rate {
                    window: self.limits.rate_window,
                    least_bytes_per_s: self.limits.least_bytes_per_s,
                },
                ends: Some(Instant::now() + left(url.ends_at, Clock::System.now()) + self.limits.after_expiry),
                most_versions: Some(self.limits.url_versions),
            },
            Signed::ByAccount | Signed::ByNobody => Terms {
                rate: Rate {
                    window: ACCOUNT_IDLE,
                    least_bytes_per_s: 0,
                },
                ends: None,
                most_versions: None,
            },
        }
    }

    /// Waits for a body's turn, which is refused where the disk would have too little room, or where there is none in time.
    pub(super) async fn turn(
        &self,
        visit: &Visit,
        upload: Option<&str>,
        length: u64,
        free_bytes: u64,
    ) -> S3Result<Turn<'_>> {
        let by_url = matches!(visit.signed(), Signed::ByUrl(_));
        let body = Announced {
            bytes: length,
            peer: by_url.then(|| visit.peer()),
            upload: upload.filter(|_| by_url).map(str::to_owned),
        };
        let reserve = if by_url || length > SMALL_BYTES {
            self.limits.free_reserve_bytes
        } else {
            0
        };
        let waiting = async {
            loop {
                let freed = self.freed.notified();
                if self.take(&body, reserve, free_bytes)? {
                    return Ok(());
                }
                freed.await;
            }
        };
        match timeout(self.limits.turn_deadline, waiting).await {
            Ok(taken) => taken.map(|()| Turn { bodies: self, body }),
            Err(_) => Err(busy("too many bodies are being received")),
        }
    }

    fn take(&self, body: &Announced, reserve: u64, free_bytes: u64) -> S3Result<bool> {
        let mut under_way = self.under_way();
        // What is announced and not there yet is counted as if it were, and what is there once more: the safe side.
        let wanted = reserve
            .saturating_add(under_way.announced_bytes)
            .saturating_add(body.bytes);
        if reserve > 0 && free_bytes < wanted {
            return Err(no_room("the store keeps its last room for the bot's records"));
        }
        Ok(under_way.take(&self.limits, body))
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    fn take(&mut self, limits: &StoreLimits, body: &Announced) -> bool {
        let all = limits.bodies.max(1);
        let for_urls = all.saturating_sub(limits.reserved_bodies).max(1);
        let of_peer = body.peer.as_ref().and_then(|peer| self.of_peer.get(peer));
        let of_upload = body.upload.as_ref().and_then(|upload| self.of_upload.get(upload));
        let fits = self.all < all
            && (body.peer.is_none() || self.by_url < for_urls)
            && of_peer.is_none_or(|count| *count < limits.peer_bodies)
            && of_upload.is_none_or(|count| *count < limits.upload_bodies);
        if !fits {
            return false;
        }
        self.all += 1;
        self.announced_bytes = self.announced_bytes.saturating_add(body.bytes);
        if let Some(peer) = body.peer {
            self.by_url += 1;
            *self.of_peer.entry(peer).or_default() += 1;
        }
        if let Some(upload) = &body.upload {
            *self.of_upload.entry(upload.clone()).or_default() += 1;
        }
        true
    }

    fn give_back(&mut self, body: &Announced) {
        self.all -= 1;
        self.announced_bytes = self.announced_bytes.saturating_sub(body.bytes);
        if let Some(peer) = body.peer {
            self.by_url -= 1;
            one_less(&mut self.of_peer, &peer);
        }
        if let Some(upload) = &body.upload {
            one_less(&mut self.of_upload, upload);
        }
    }
}

fn one_less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.bodies.under_way().give_back(&self.body);
        self.bodies.freed.notify_waiters();
    }
}

/// How long a URL still lives; none where it has ended.
fn left(ends_at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(ends_at.duration_since(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn bodies_are_limited_in_all_and_by_peer_and_upload() {
        let limits = StoreLimits {
            bodies: 6,
            reserved_bodies: 2,
            peer_bodies: 3,
            upload_bodies: 2,
            ..StoreLimits::default()
        };
        let url = |peer: u8, upload: &str| Announced {
            bytes: 5,
            peer: Some(Ipv4Addr::new(10, 0, 0, peer).into()),
            upload: Some(upload.to_owned()),
        };
        let account = Announced {
            bytes: 7,
            peer: None,
            upload: None,
        };
        let mut under_way = UnderWay::default();
        let mut take = |body: &Announced| under_way.take(&limits, body);
        assert!(take(&url(1, "a")) && take(&url(1, "a")));
        assert!(!take(&url(2, "a")), "two of an upload");
        assert!(take(&url(1, "b")));
        assert!(!take(&url(1, "c")), "three of an address");
        assert!(take(&url(2, "c")));
        assert!(!take(&url(3, "d")), "two are kept for the account");
        assert!(take(&account) && take(&account) && !take(&account));
        assert_eq!(under_way.announced_bytes, 4 * 5 + 2 * 7);
        for body in [
            url(1, "a"),
            url(1, "a"),
            url(1, "b"),
            url(2, "c"),
            account.clone(),
            account,
        ] {
            under_way.give_back(&body);
        }
        assert_eq!((under_way.all, under_way.by_url, under_way.announced_bytes), (0, 0, 0));
        assert!(under_way.of_peer.is_empty() && under_way.of_upload.is_empty());
    }
}

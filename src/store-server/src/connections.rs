//! Who is connected, and who goes when there is no room. Owns the table of connections, never a socket.
//!
//! # Design notes
//! A connection waits until a signature was verified, and again once the answer is sent. What waits can be closed at any
//! time without harm: who is honest connects again. So a new connection always finds a place, unless all are busy with
//! requests that the account's key signed. The places of requests by URL are limited, as a whole and for each address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use s3s::{S3Error, S3ErrorCode, S3Result};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::limits::StoreLimits;

/// The table of connections.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    reserved: usize,
    of_peer: usize,
    table: Mutex<Table>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    entries: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    peer: IpAddr,
    state: State,
    /// It has brought a request that the account's key signed in a header.
    of_account: bool,
    evicted: CancellationToken,
}

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing that a verified signature asks for.
    Waiting,
    /// Answers a request by URL.
    ByUrl,
    /// Answers a request that the account's key signed in a header.
    ByAccount,
}

/// A place in the table, given up on drop.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    connections: Arc<Connections>,
    /// Cancelled when the connection must go.
    pub(super) evicted: CancellationToken,
}

impl Connections {
    pub(super) fn new(most: usize, limits: &StoreLimits) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            reserved: limits.reserved_connections,
            of_peer: limits.peer_connections.max(1),
            table: Mutex::default(),
            freed: Notify::new(),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when there is room for one more, by closing another if need be.
    pub(super) async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            {
                let table = self.table();
                if table.entries.len() < self.most || table.to_evict(|_| true).is_some() {
                    return;
                }
            }
            freed.await;
        }
    }

    /// Enters a connection; one that waits goes where there is no room, in the whole or for this address.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Place {
        let mut table = self.table();
        let waiting = table.count(|entry| entry.peer == peer && entry.state == State::Waiting);
        if waiting >= self.of_peer {
            table.evict(|entry| entry.peer == peer);
        }
        if table.entries.len() >= self.most {
            table.evict(|_| true);
        }
        let id = table.next;
        table.next += 1;
        let evicted = CancellationToken::new();
        let entry = Entry {
            peer,
            state: State::Waiting,
            of_account: false,
            evicted: evicted.clone(),
        };
        table.entries.insert(id, entry);
        Place {
            id,
            connections: Arc::clone(self),
            evicted,
        }
    }
}

impl Table {
    fn count(&self, which: impl Fn(&Entry) -> bool) -> usize {
        self.entries.values().filter(|entry| which(entry)).count()
    }

    /// The one to close: it waits, did not bring the account's requests if there is another, is of the address with the most
    /// that wait, and is the oldest of those.
    fn to_evict(&self, which: impl Fn(&Entry) -> bool) -> Option<u64> {
        let mut crowds: HashMap<IpAddr, usize> = HashMap::new();
        let waiting = || self.entries.iter().filter(|(_, entry)| entry.state == State::Waiting);
        for (_, entry) in waiting() {
            *crowds.entry(entry.peer).or_default() += 1;
        }
        waiting()
            .filter(|(_, entry)| which(entry))
            .min_by_key(|(id, entry)| (entry.of_account, usize::MAX - crowds[&entry.peer], **id))
            .map(|(id, _)| *id)
    }

    fn evict(&mut self, which: impl Fn(&Entry) -> bool) {
        if let Some(entry) = self.to_evict(which).and_then(|id| self.entries.remove(&id)) {
            tracing::debug!(peer = %entry.peer, "a connection that waited was closed to make room");
            entry.evicted.cancel();
        }
    }
}

impl Place {
    /// A verified request is under way.
    pub(super) fn begin(&self, state: State) -> S3Result<()> {
        let connections = &self.connections;
        let mut table = connections.table();
        let Some(peer) = table.entries.get(&self.id).map(|entry| entry.peer) else {
            return Err(busy("this connection was closed to make room"));
        };
        if state == State::ByUrl {
            let all = table.count(|entry| entry.state == State::ByUrl);
            let of_peer = table.count(|entry| entry.state == State::ByUrl && entry.peer == peer);
            if all >= connections.most.saturating_sub(connections.reserved).max(1) {
                return Err(busy("too many requests by URL are under way"));
            }
            if of_peer >= connections.of_peer {
                return Err(busy("too many requests by URL are under way from this address"));
            }
        }
        if let Some(entry) = table.entries.get_mut(&self.id) {
            entry.state = state;
            entry.of_account |= state == State::ByAccount;
        }
        Ok(())
    }

    /// The request is over.
    pub(super) fn end(&self) {
        if let Some(entry) = self.connections.table().entries.get_mut(&self.id) {
            entry.state = State::Waiting;
        }
        self.connections.freed.notify_waiters();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.table().entries.remove(&self.id);
        self.connections.freed.notify_waiters();
    }
}

/// S3's own answer to who asks for too much at once: clients try again later.
pub(super) fn busy(message: &'static str) -> S3Error {
    S3Error::with_message(S3ErrorCode::SlowDown, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn connections(most: usize, reserved: usize, of_peer: usize) -> Arc<Connections> {
        let limits = StoreLimits {
            reserved_connections: reserved,
            peer_connections: of_peer,
            ..StoreLimits::default()
        };
        Connections::new(most, &limits)
    }

    fn gone(places: &[Place]) -> Vec<bool> {
        places.iter().map(|place| place.evicted.is_cancelled()).collect()
    }

    #[test]
    fn the_oldest_of_the_crowd_that_waits_goes_first() {
        let table = connections(4, 1, 9);
        let places: Vec<_> = [TWO, ONE, ONE, ONE].map(|peer| table.enter(peer)).into();
        places[1].begin(State::ByUrl).unwrap();
        let _new = table.enter(TWO);
        assert_eq!(gone(&places), [false, false, true, false]);
        places[3].begin(State::ByAccount).unwrap();
        places[3].end();
        let _newer = table.enter(TWO);
        assert_eq!(
            gone(&places),
            [true, false, true, false],
            "the account's connections go last"
        );
    }

    #[test]
    fn urls_leave_places_to_the_account_and_to_others() {
        let table = connections(4, 1, 2);
        let places: Vec<_> = [ONE, ONE, ONE, TWO].map(|peer| table.enter(peer)).into();
        assert_eq!(gone(&places), [true, false, false, false], "two of an address wait");
        let code = |outcome: S3Result<()>| outcome.err().map(|error| error.code().as_str().to_owned());
        let slow_down = Some("SlowDown".to_owned());
        assert_eq!(code(places[0].begin(State::ByUrl)), slow_down, "it was closed");
        assert_eq!(code(places[1].begin(State::ByUrl)), None);
        assert_eq!(code(places[2].begin(State::ByUrl)), None);
        let third = table.enter(ONE);
        assert_eq!(code(third.begin(State::ByUrl)), slow_down, "two of an address are busy");
        assert_eq!(code(places[3].begin(State::ByUrl)), None);
        assert_eq!(code(third.begin(State::ByAccount)), None);
        assert_eq!(code(table.enter(TWO).begin(State::ByUrl)), slow_down, "the last place");
    }
}

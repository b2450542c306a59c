//! Whether Slack hears us: from `hello` and from how long ago each connection was heard, never from "started".

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A connection that was not heard for so long does not count: two pings missed, and the third due.
const FRESH: Duration = Duration::from_secs(16);

/// Readiness of the socket. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SocketHealth(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    links: BTreeMap<u64, Heard>,
    next: u64,
    expected: usize,
    fatal: Option<String>,
    alarm: Option<String>,
}

#[derive(Debug)]
struct Heard {
    hello: bool,
    at: Instant,
}

impl SocketHealth {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether commands reach us, and how we know, in words.
    pub fn report(&self) -> (bool, String) {
        let state = self.state();
        if let Some(fatal) = &state.fatal {
            return (false, fatal.clone());
        }
        let ages = state
            .links
            .values()
            .filter(|heard| heard.hello)
            .map(|heard| heard.at.elapsed());
        let fresh: Vec<Duration> = ages.filter(|age| *age < FRESH).collect();
        let mut words = match fresh.iter().min() {
            Some(age) => {
                let noun = if fresh.len() == 1 { "connection" } else { "connections" };
                format!("{} {noun}, last heard {} s ago", fresh.len(), age.as_secs())
            }
            None => "no connection has been heard".to_owned(),
        };
        if let Some(alarm) = &state.alarm {
            words.push_str("; ");
            words.push_str(alarm);
        }
        (!fresh.is_empty(), words)
    }

    pub(super) fn expect(&self, connections: usize) {
        self.state().expected = connections;
    }

    /// A connection was opened; the number names it here.
    pub(super) fn opened(&self) -> u64 {
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        state.links.insert(
            id,
            Heard {
                hello: false,
                at: Instant::now(),
            },
        );
        id
    }

    pub(super) fn heard(&self, id: u64) {
        if let Some(heard) = self.state().links.get_mut(&id) {
            heard.at = Instant::now();
        }
    }

    /// `hello` came, with the number of connections that Slack counts for the app. Too many: the same app token is in use
    /// elsewhere, which splits commands silently.
    pub(super) fn hello(&self, id: u64, counted: Option<usize>) {
        let mut state = self.state();
        if let Some(heard) = state.links.get_mut(&id) {
            heard.hello = true;
        }
        let expected = state.expected;
        state.alarm = counted.filter(|counted| *counted > expected).map(|counted| {
            format!(
                "Slack counts {counted} connections and at most {expected} are expected outside a rollout: is the app token \
                 in use elsewhere?"
            )
        });
        if let Some(alarm) = &state.alarm {
            tracing::error!("{alarm}");
        }
    }

    pub(super) fn closed(&self, id: u64) {
        self.state().links.remove(&id);
    }

    /// Slack will not serve us until an operator acts. The first reason stays.
    pub(super) fn fail(&self, reason: &str) {
        let mut state = self.state();
        if state.fatal.is_none() {
            tracing::error!("Slack connections are given up: {reason}");
            state.fatal = Some(reason.to_owned());
        }
    }

    pub(super) fn failed(&self) -> bool {
        self.state().fatal.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_comes_from_hello_and_a_second_deployment_is_an_alarm() {
        let health = SocketHealth::default();
        health.expect(5);
        let id = health.opened();
        health.heard(id);
        assert!(!health.report().0, "opened is not heard of");
        health.hello(id, Some(4));
        assert!(health.report().0);
        assert!(!health.report().1.contains("token"));
        health.hello(id, Some(6));
        assert!(health.report().1.contains("is the app token in use elsewhere?"));
        health.closed(id);
        assert!(!health.report().0);
        health.fail("revoked");
        health.fail("something later");
        assert_eq!(health.report(), (false, "revoked".to_owned()));
    }
}

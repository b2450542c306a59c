//! Who leads: one Lease, one holder, an epoch that grows with every change of hands.
//!
//! Owns the election. Whether a leader's act is still allowed is asked of [`Leadership::current`] right before the act.
//!
//! # Design notes
//! Written with plain replaces and resourceVersion, so that a paused former holder's renewal is refused by the API server.
//! Expiry is judged by how long *we* have seen the lease unchanged, never by the times written in it: clocks of nodes
//! differ. A holder counts its term from before it sent the renewal and gives up [`MARGIN`] early, so that two terms never
//! overlap.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use diagbot_base::{retry, telemetry::metrics::Metrics};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{CallError, Cluster, deadline};

/// How long a lease that nobody renews still counts.
const DURATION: Duration = Duration::from_secs(15);
/// How much earlier than others its holder stops believing in it.
const MARGIN: Duration = Duration::from_secs(3);
/// Between two renewals of the holder.
const RENEW: Duration = Duration::from_secs(5);
/// Between two looks of the others; with [`DURATION`] a dead leader is replaced in under 20 s.
const LOOK: Duration = Duration::from_secs(2);
/// Longest wait for one call: a lost renewal leaves time for another.
const CALL: Duration = Duration::from_secs(3);

/// A time in which this process leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Grows with every change of hands; written into every status.
    pub epoch: u64,
    /// When we must stop acting unless the term was renewed.
    pub valid_until: Instant,
}

impl Term {
    /// What is left of the term; zero when it is over. Check it before every act that the world can see.
    pub fn remaining(&self) -> Duration {
        self.valid_until.saturating_duration_since(Instant::now())
    }
}

/// Whether this process leads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Leadership {
    term: watch::Receiver<Option<Term>>,
    /// Keeps the channel of [`Leadership::always`] open.
    _sender: Option<Arc<watch::Sender<Option<Term>>>>,
}

/// The election's end of a [`Leadership`].
#[derive(Debug)]
pub struct LeadershipSender {
    term: watch::Sender<Option<Term>>,
    shown: Gauge,
}

/// A leadership that [`hold`] decides, and that the metrics show.
pub fn leadership(metrics: &Metrics) -> (LeadershipSender, Leadership) {
    let (sender, term) = watch::channel(None);
    let sender = LeadershipSender {
        term: sender,
        shown: metrics.leading.clone(),
    };
    (sender, Leadership { term, _sender: None })
}

impl Leadership {
    /// The term, while we lead.
    pub fn current(&self) -> Option<Term> {
        self.term.borrow().filter(|term| !term.remaining().is_zero())
    }

    /// Returns when leadership was won or lost; at once if that happened since the last call. Never returns after the
    /// election has ended.
    pub async fn changed(&mut self) {
        if self.term.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// A leadership without an election, for a single process and for tests.
    pub fn always(epoch: u64) -> Self {
        let valid_until = Instant::now() + Duration::from_hours(24 * 365);
        let (sender, term) = watch::channel(Some(Term { epoch, valid_until }));
        Self {
            term,
            _sender: Some(Arc::new(sender)),
        }
    }
}

impl LeadershipSender {
    /// Sets the term; only a change of hands wakes waiters, a renewal does not.
    fn set(&self, term: Option<Term>) {
        self.shown.set(i64::from(term.is_some()));
        self.term.send_if_modified(|current| {
            let woken = current.map(|t| t.epoch) != term.map(|t| t.epoch);
            *current = term;
            woken
        });
    }
}

/// Takes part in the election until `stop`, then releases the lease. `identity` must differ between processes, also
/// between two starts of one pod.
pub async fn hold(
    cluster: Cluster,
    namespace: String,
    lease_name: String,
    identity: String,
    stop: CancellationToken,
    sender: LeadershipSender,
) {
    let mut elector = Elector {
        api: Api::namespaced(cluster.client, &namespace),
        namespace,
        lease_name,
        identity,
        seen: None,
        held: None,
    };
    loop {
        match elector.step().await {
            Ok(()) => {}
            Err(error) => tracing::warn!(
                error = %diagbot_base::telemetry::Chain(&error),
                "the lease could not be read or written"
            ),
        }
        elector.held = elector.held.filter(|term| !term.remaining().is_zero());
        sender.set(elector.held);
        let wait = if elector.held.is_some() { RENEW } else { LOOK };
        tokio::select! {
            () = stop.cancelled() => break,
            () = retry::pause(wait) => {}
        }
    }
    sender.set(None);
    if elector.held.is_some()
        && let Err(error) = elector.release().await
    {
        tracing::info!(
            error = %diagbot_base::telemetry::Chain(&error),
            "the lease was not released and will expire"
        );
    }
}

struct Elector {
    api: Api<Lease>,
    namespace: String,
    lease_name: String,
    identity: String,
    /// The lease's last resourceVersion, and since when we see it.
    seen: Option<(String, Instant)>,
    held: Option<Term>,
}

impl Elector {
    async fn step(&mut self) -> Result<(), CallError> {
        let sent = Instant::now();
        let Some(lease) = deadline(CALL, self.api.get_opt(&self.lease_name)).await? else {
            return self.write(None, 1, sent).await;
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => sent,
        };
        self.seen = Some((version, since));
        let spec = lease.spec.clone().unwrap_or_default();
        match stand(&spec, &self.identity, self.held, since.elapsed()) {
            Stand::Renew { epoch } | Stand::Take { epoch } => self.write(Some(lease), epoch, sent).await,
            Stand::Wait => {
                self.held = None;
                Ok(())
            }
        }
    }

    async fn write(&mut self, lease: Option<Lease>, epoch: u64, sent: Instant) -> Result<(), CallError> {
        let now = MicroTime(Timestamp::now());
        let renewed = self.held.is_some_and(|term| term.epoch == epoch);
        let former = lease.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: former.acquire_time.filter(|_| renewed).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: i32::try_from(epoch).ok(),
            ..former
        };
        let written = self.put(lease, spec).await;
        match written {
            Ok(lease) => {
                self.seen = lease.metadata.resource_version.map(|version| (version, Instant::now()));
                let valid_until = given_up_at(sent);
                if !renewed {
                    tracing::info!(lease.epoch = epoch, "leading");
                }
                self.held = Some(Term { epoch, valid_until });
                Ok(())
            }
            Err(error) if error.is_conflict() => {
                // Somebody was faster; the next look tells who.
                self.held = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn put(&self, lease: Option<Lease>, spec: LeaseSpec) -> Result<Lease, CallError> {
        let params = PostParams::default();
        if let Some(mut lease) = lease {
            lease.spec = Some(spec);
            return deadline(CALL, self.api.replace(&self.lease_name, &params, &lease)).await;
        }
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.lease_name.clone()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
        };
        deadline(CALL, self.api.create(&params, &lease)).await
    }

    /// Lets the next replica take over at once.
    async fn release(&self) -> Result<(), CallError> {
        let Some(lease) = deadline(CALL, self.api.get_opt(&self.lease_name)).await? else {
            return Ok(());
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(());
        }
        let released = LeaseSpec {
            holder_identity: Some(String::new()),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..spec
        };
        self.put(Some(lease), released).await.map(|_| ())
    }
}

/// What to do about a lease as read.
#[derive(Debug, PartialEq, Eq)]
enum Stand {
    Renew { epoch: u64 },
    Take { epoch: u64 },
    Wait,
}

/// `unchanged`: how long we have seen this very version of the lease.
fn stand(spec: &LeaseSpec, identity: &str, held: Option<Term>, unchanged: Duration) -> Stand {
    let epoch = spec
        .lease_transitions
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or_default();
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    if holder == identity && held.is_some_and(|term| term.epoch == epoch) {
        return Stand::Renew { epoch };
    }
    let length = spec
        .lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok())
        .map_or(DURATION, Duration::from_secs);
    if holder.is_empty() || holder == identity || unchanged > length {
        Stand::Take { epoch: epoch + 1 }
    } else {
        Stand::Wait
    }
}

/// When a term that was written at `sent` is given up: before anybody may take the lease.
fn given_up_at(sent: Instant) -> Instant {
    sent + DURATION.saturating_sub(MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    fn term(epoch: u64) -> Term {
        Term {
            epoch,
            valid_until: Instant::now() + Duration::from_secs(10),
        }
    }

    #[test]
    fn another_holder_is_replaced_only_after_it_was_seen_silent_for_the_whole_lease() {
        let fresh = Duration::from_secs(14);
        let silent = Duration::from_secs(16);
        assert_eq!(stand(&lease("b", 3), "a", None, fresh), Stand::Wait);
        assert_eq!(stand(&lease("b", 3), "a", None, silent), Stand::Take { epoch: 4 });
        // We believed that we held it: somebody took it.
        assert_eq!(stand(&lease("b", 4), "a", Some(term(3)), fresh), Stand::Wait);
    }

    #[test]
    fn a_term_is_given_up_3_seconds_before_the_lease_ends() {
        let sent = Instant::now();
        assert_eq!(given_up_at(sent), sent + Duration::from_secs(12));
        assert_eq!(
            stand(&lease("b", 3), "a", None, Duration::from_millis(14_999)),
            Stand::Wait
        );
    }

    #[test]
    fn every_change_of_hands_and_every_restart_is_a_new_epoch() {
        let now = Duration::ZERO;
        assert_eq!(
            stand(&lease("a", 3), "a", Some(term(3)), now),
            Stand::Renew { epoch: 3 }
        );
        assert_eq!(
            stand(&lease("a", 3), "a", None, now),
            Stand::Take { epoch: 4 },
            "our own, of a former life"
        );
        assert_eq!(
            stand(&lease("", 3), "a", None, now),
            Stand::Take { epoch: 4 },
            "released"
        );
    }

    #[tokio::test]
    async fn a_term_that_ran_out_is_no_leadership_and_a_renewal_wakes_nobody() {
        let (sender, mut leadership) = leadership(&Metrics::new());
        assert_eq!(leadership.current(), None);
        sender.set(Some(term(1)));
        leadership.changed().await;
        assert_eq!(leadership.current().map(|t| t.epoch), Some(1));
        sender.set(Some(term(1)));
        let woken = tokio::time::timeout(Duration::ZERO, leadership.changed()).await;
        assert!(woken.is_err());
        sender.set(Some(Term {
            epoch: 1,
            valid_until: Instant::now(),
        }));
        assert_eq!(leadership.current(), None);
    }
}

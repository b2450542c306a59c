//! The credentials that sign. Owns where they come from and how long they may be used; never shows them.
//!
//! # Design notes
//! The SDK's own identity cache hides the expiry and is not asked for links: a link signed with temporary credentials dies
//! with them, whatever its own expiry says. So the cache is here, and the SDK's is off.

use std::{path::PathBuf, sync::Arc, time::Duration};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use diagbot_base::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

/// Credentials with less than this left are replaced before they are used.
const SPARE: SignedDuration = SignedDuration::from_mins(5);
/// A provider is asked for longer-lived credentials at most this often.
const RENEWAL_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// Gives the credentials that sign, and knows when they end.
#[derive(Debug, Clone)]
pub(super) struct Signer(Arc<CredentialState>);

#[derive(Debug)]
struct CredentialState {
    source: Source,
    clock: Clock,
    cached: Mutex<Option<Cached>>,
}

#[derive(Debug)]
enum Source {
    Files { access_key: PathBuf, secret_key: PathBuf },
    Provider(SharedCredentialsProvider),
}

#[derive(Debug, Clone)]
struct Cached {
    credentials: Credentials,
    fetched_at: Timestamp,
}

impl Signer {
    /// Static credentials in two files.
    pub(super) fn from_files(access_key: PathBuf, secret_key: PathBuf, clock: Clock) -> Self {
        Self::new(Source::Files { access_key, secret_key }, clock)
    }

    /// Credentials of a provider.
    pub(super) fn from_provider(provider: SharedCredentialsProvider, clock: Clock) -> Self {
        Self::new(Source::Provider(provider), clock)
    }

    fn new(source: Source, clock: Clock) -> Self {
        Self(Arc::new(CredentialState {
            source,
            clock,
            cached: Mutex::new(None),
        }))
    }

    /// Words for people: where the credentials come from.
    pub(super) fn describe(&self) -> &'static str {
        match self.0.source {
            Source::Files { .. } => "static, from files",
            Source::Provider(_) => "from the environment (web identity, container, instance or variables)",
        }
    }

    /// Until when something signed now is good, at most `wanted` from now. Renews the credentials where that gives more.
    pub(super) async fn good_until(&self, wanted: SignedDuration) -> Result<Timestamp, CredentialsError> {
        let now = self.0.clock.now();
        let limit = now.saturating_add(wanted).unwrap_or(Timestamp::MAX);
        let credentials = self.current(wanted).await?;
        Ok(expiry(&credentials).map_or(limit, |end| limit.min(end)))
    }

    async fn current(&self, wanted: SignedDuration) -> Result<Credentials, CredentialsError> {
        match &self.0.source {
            Source::Files { access_key, secret_key } => {
                let access = read(access_key).await?;
                let secret = read(secret_key).await?;
                Ok(Credentials::new(access, secret, None, None, "files"))
            }
            Source::Provider(provider) => {
                let now = self.0.clock.now();
                let mut cached = self.0.cached.lock().await;
                if let Some(cached) = cached.as_ref().filter(|c| is_fresh(c, wanted, now)) {
                    return Ok(cached.credentials.clone());
                }
                let credentials = provider.provide_credentials().await?;
                *cached = Some(Cached {
                    credentials: credentials.clone(),
                    fetched_at: now,
                });
                Ok(credentials)
            }
        }
    }
}

impl ProvideCredentials for Signer {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.current(SPARE))
    }
}

fn expiry(credentials: &Credentials) -> Option<Timestamp> {
    credentials.expiry().and_then(|time| Timestamp::try_from(time).ok())
}

fn is_fresh(cached: &Cached, wanted: SignedDuration, now: Timestamp) -> bool {
    let age = now.duration_since(cached.fetched_at);
    match expiry(&cached.credentials) {
        // Credentials without an end may still be replaced at their source.
        None => age < RENEWAL_PAUSE,
        Some(end) => {
            let left = end.duration_since(now);
            left > SPARE && (left >= wanted || age < RENEWAL_PAUSE)
        }
    }
}

async fn read(path: &PathBuf) -> Result<String, CredentialsError> {
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(CredentialsError::provider_error)?;
    let text = text.trim();
    if text.is_empty() {
        return Err(CredentialsError::not_loaded("the file is empty"));
    }
    Ok(text.to_owned())
}

/// [`SignedDuration`] of a [`Duration`], cut at the longest.
pub(super) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cached(now: Timestamp, lifetime: Option<SignedDuration>, age: SignedDuration) -> Cached {
        let end = lifetime.map(|left| (now + left).into());
        Cached {
            credentials: Credentials::new("a", "b", None, end, "test"),
            fetched_at: now - age,
        }
    }

    #[tokio::test]
    async fn nothing_signed_outlives_the_credentials() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000);
        let clock = Clock::Test(Arc::new(std::sync::Mutex::new(now)));
        let end = now + SignedDuration::from_mins(40);
        let temporary = Credentials::new("a", "b", Some("t".to_owned()), Some(end.into()), "test");
        let signer = Signer::from_provider(SharedCredentialsProvider::new(temporary), clock.clone());
        let good_until = |wanted| {
            let signer = signer.clone();
            async move { signer.good_until(wanted).await.unwrap() }
        };
        assert_eq!(good_until(SignedDuration::from_hours(24)).await, end);
        assert_eq!(
            good_until(SignedDuration::from_mins(1)).await,
            now + SignedDuration::from_mins(1)
        );
        clock.advance(SignedDuration::from_mins(39));
        assert_eq!(
            good_until(SignedDuration::from_hours(24)).await,
            end,
            "time passes, the end stays"
        );
    }

    #[test]
    fn credentials_are_renewed_before_they_end_and_for_longer_links() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000);
        let mins = SignedDuration::from_mins;
        assert!(is_fresh(&cached(now, Some(mins(60)), mins(50)), mins(60), now));
        assert!(
            !is_fresh(&cached(now, Some(mins(4)), mins(1)), mins(1), now),
            "about to end"
        );
        assert!(
            !is_fresh(&cached(now, Some(mins(30)), mins(30)), mins(60), now),
            "too short for the link"
        );
        assert!(
            is_fresh(&cached(now, Some(mins(30)), mins(1)), mins(60), now),
            "the provider has no longer ones"
        );
    }
}

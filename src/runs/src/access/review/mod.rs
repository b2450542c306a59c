//! The access review: may this person do this to that diagnostic in that namespace? Asked of the target cluster itself.
//!
//! Owns the question and a cache of answers that lives for seconds. The rights by which one person's word lets a capture begin,
//! `approve` and `break-glass`, are asked for each time. Every failure is an error, and callers deny on it.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use diagbot_api::{
    decision::{Decision, Verb},
    requester::Requester,
};
use diagbot_base::{
    clock::Clock,
    retry::{Backoff, retry},
};
use diagbot_cluster::{CallError, Cluster, deadline};
use k8s_openapi::{
    api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, api::PostParams};
use serde::Deserialize;

use crate::access::principal::{Directory, DirectoryError, IdentityError, Principal};

/// How long an answer counts, allowed or not; SECURITY.md names it.
const CACHE_FOR: Duration = Duration::from_secs(10);
/// Most answers that are kept.
const CACHE_SIZE: usize = 4096;
/// Longest wait for one review.
const CALL: Duration = Duration::from_secs(3);
/// Reviews that get no answer are asked again, this often in all.
const ATTEMPTS: u32 = 3;

/// What stands in a decision where only a wildcard would allow.
pub const BY_WILDCARD: &str = "only a wildcard gives it, which does not count";

/// What counts as a group.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessConfig {
    /// Public channels count as groups too, though anybody may join them. Default: false.
    #[serde(default)]
    pub public_channels: bool,
}

/// Why there is no decision. Callers deny.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The person may do nothing here at all.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The directory did not answer.
    #[error("the person's account could not be checked")]
    Directory(#[from] DirectoryError),
    /// The cluster did not answer.
    #[error("the cluster `{cluster}` could not be asked for permission")]
    Review {
        /// The cluster.
        cluster: String,
        /// Why.
        #[source]
        source: CallError,
    },
}

/// The reviewer. Cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<Reviewer>);

struct Reviewer {
    directory: Arc<dyn Directory>,
    config: AccessConfig,
    clock: Clock,
    cache: Mutex<HashMap<CacheKey, (Instant, Decision)>>,
    /// A verb, resource and name that no rule can mean.
    nobody: String,
}

/// What is asked of a cluster: whether somebody may do this to that diagnostic there.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Where the target is; it answers.
    pub cluster: &'a Cluster,
    /// The target's namespace; empty: all of them.
    pub namespace: &'a str,
    /// What somebody wants to do.
    pub verb: Verb,
    /// The diagnostic; empty: any.
    pub diagnostic: &'a str,
}

/// A question about somebody, as it is put to the authorizer and remembered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CacheKey {
    cluster: String,
    namespace: String,
    verb: String,
    resource: String,
    diagnostic: String,
    principal: Principal,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    /// A reviewer that takes people's facts from `directory`.
    pub fn new(directory: Arc<dyn Directory>, config: AccessConfig, clock: Clock) -> Self {
        Self(Arc::new(Reviewer {
            directory,
            config,
            clock,
            cache: Mutex::default(),
            nobody: format!("unmeant-{:016x}", rand::random::<u64>()),
        }))
    }

    /// Asks whether the requester may. `channel`: where the person asks; its group counts if the channel is private (or
    /// public ones are enabled).
    pub async fn review(
        &self,
        question: Question<'_>,
        requester: &Requester,
        channel: Option<&str>,
    ) -> Result<Decision, AccessError> {
        let principal = self.principal(requester, channel).await?;
        self.answer(question.cluster, question.about(principal)).await
    }

    /// The same for a right that counts only where it is given by name: what a wildcard gives is not allowed.
    ///
    /// Authorizers don't say why they allow, so the question is asked again with a verb, a resource and a name that nobody
    /// can have meant. Where one of these is allowed too, a wildcard is at work, and the right does not count; who has both
    /// must have the wildcard taken away.
    pub async fn review_named(
        &self,
        question: Question<'_>,
        requester: &Requester,
        channel: Option<&str>,
    ) -> Result<Decision, AccessError> {
        let asked = question.about(self.principal(requester, channel).await?);
        let nobody = &self.0.nobody;
        let unmeant = [
            CacheKey {
                verb: nobody.clone(),
                ..asked.clone()
            },
            CacheKey {
                resource: nobody.clone(),
                ..asked.clone()
            },
            CacheKey {
                diagnostic: nobody.clone(),
                ..asked.clone()
            },
        ];
        let mut decision = self.answer(question.cluster, asked).await?;
        if !decision.allowed {
            return Ok(decision);
        }
        for asked in unmeant {
            if self.answer(question.cluster, asked).await?.allowed {
                decision.allowed = false;
                BY_WILDCARD.clone_into(&mut decision.authorizer_reason);
                break;
            }
        }
        Ok(decision)
    }

    /// Whether everybody who reads the channel may: its own principal, user and group `slack:channel:<id>`. A channel that
    /// other organisations read may nothing.
    pub async fn review_channel(&self, question: Question<'_>, channel: &str) -> Result<Decision, AccessError> {
        let principal = Principal::of_channel(channel);
        if self.0.directory.channel(channel).await?.shared {
            return Ok(Decision {
                allowed: false,
                user: principal.user,
                groups: principal.groups,
                authorizer_reason: "other organisations read this channel".to_owned(),
                diagnostic: question.diagnostic.to_owned(),
                at: MicroTime(self.0.clock.now()),
            });
        }
        self.answer(question.cluster, question.about(principal)).await
    }

    /// How many are in the channel, the bot included; none where the bot is not, or where Slack does not say.
    pub async fn members(&self, channel: &str) -> Result<Option<u64>, AccessError> {
        Ok(self.0.directory.channel(channel).await?.members)
    }

    async fn answer(&self, cluster: &Cluster, asked: CacheKey) -> Result<Decision, AccessError> {
        if asked.is_of_approval() {
            return self.ask(cluster, &asked).await;
        }
        if let Some(decision) = self.cached(&asked) {
            return Ok(decision);
        }
        let decision = self.ask(cluster, &asked).await?;
        self.keep(asked, &decision);
        Ok(decision)
    }

    /// Who asks, as the authorizers see it. A trigger is nobody in Slack, and no channel's group counts for it.
    async fn principal(&self, requester: &Requester, channel: Option<&str>) -> Result<Principal, AccessError> {
        if requester.is_trigger() {
            return Ok(Principal::of_trigger(requester));
        }
        let person = self.0.directory.person(&requester.team, &requester.user).await?;
        let channel = match channel.filter(|c| !c.is_empty()) {
            Some(channel) if self.counts(channel).await => Some(channel),
            _ => None,
        };
        Ok(Principal::of(requester, &person, channel)?)
    }

    /// Whether the channel's group counts. Where the channel's facts can't be had it does not, which only takes rights away.
    async fn counts(&self, channel: &str) -> bool {
        match self.0.directory.channel(channel).await {
            Ok(facts) => !facts.shared && (facts.private || self.0.config.public_channels),
            Err(error) => {
                tracing::warn!(
                    error = %diagbot_base::telemetry::Chain(&error),
                    slack.channel = channel,
                    "the channel's facts are missing; its group does not count"
                );
                false
            }
        }
    }

    async fn ask(&self, cluster: &Cluster, asked: &CacheKey) -> Result<Decision, AccessError> {
        let review = asked.review();
        let api: Api<SubjectAccessReview> = Api::all(cluster.client.clone());
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let params = PostParams::default();
        let answer = retry(ATTEMPTS, backoff, || deadline(CALL, api.create(&params, &review)))
            .await
            .map_err(|source| AccessError::Review {
                cluster: asked.cluster.clone(),
                source,
            })?;
        let status = answer.status.unwrap_or_default();
        Ok(Decision {
            allowed: status.allowed && status.denied != Some(true),
            user: asked.principal.user.clone(),
            groups: asked.principal.groups.clone(),
            authorizer_reason: status.reason.or(status.evaluation_error).unwrap_or_default(),
            diagnostic: asked.diagnostic.clone(),
            at: MicroTime(self.0.clock.now()),
        })
    }

    fn cached(&self, asked: &CacheKey) -> Option<Decision> {
        let cache = self.0.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache
            .get(asked)
            .filter(|(since, _)| since.elapsed() < CACHE_FOR)
            .map(|(_, decision)| decision.clone())
    }

    fn keep(&self, asked: CacheKey, decision: &Decision) {
        let mut cache = self.0.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_SIZE {
            cache.retain(|_, (since, _)| since.elapsed() < CACHE_FOR);
        }
        if cache.len() < CACHE_SIZE {
            cache.insert(asked, (Instant::now(), decision.clone()));
        }
    }
}

impl Question<'_> {
    fn about(self, principal: Principal) -> CacheKey {
        CacheKey {
            cluster: self.cluster.name.to_string(),
            namespace: self.namespace.to_owned(),
            verb: self.verb.as_str().to_owned(),
            resource: "diagnostics".to_owned(),
            diagnostic: self.diagnostic.to_owned(),
            principal,
        }
    }
}

impl CacheKey {
    /// Whether the right lets somebody's word stand in for another's: rarely asked for, and too much for an old answer.
    fn is_of_approval(&self) -> bool {
        [Verb::Approve, Verb::BreakGlass]
            .iter()
            .any(|verb| verb.as_str() == self.verb)
    }

    fn review(&self) -> SubjectAccessReview {
        SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(self.principal.user.clone()),
                groups: Some(self.principal.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("diagbot.dev".to_owned()),
                    resource: Some(self.resource.clone()),
                    name: Some(self.diagnostic.clone()).filter(|name| !name.is_empty()),
                    namespace: Some(self.namespace.clone()),
                    verb: Some(self.verb.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        }
    }
}

#[cfg(test)]
mod tests;

//! People and channels, as Slack knows them: the directory behind access reviews.
//!
//! Owns a short cache. Fails closed: what Slack does not answer is an error, never an empty fact.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::{Mutex, OnceCell};

use crate::{
    access::{ChannelFacts, Directory, DirectoryError, PersonFacts},
    retry::{Backoff, retry},
    slack::api::{ApiError, SlackApi},
};

/// How long facts about a person or channel count.
const FACTS: Duration = Duration::from_secs(30);
/// How long the user groups count; `usergroups.list` is tier 2 (20 a minute).
const GROUPS: Duration = Duration::from_mins(1);
/// Entries that are kept.
const MOST: usize = 2_000;
/// Tries of one question.
const ATTEMPTS: u32 = 3;

/// The directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SlackDirectory(Arc<Inner>);

/// Members by group.
type Groups = BTreeMap<String, Vec<String>>;

#[derive(Debug)]
struct Inner {
    api: SlackApi,
    people: Mutex<HashMap<String, (Instant, PersonFacts)>>,
    channels: Mutex<HashMap<String, (Instant, ChannelFacts)>>,
    groups: Mutex<Option<(Instant, Groups)>>,
    /// The workspace that we are installed in; it never changes under a token.
    home: OnceCell<String>,
}

impl SlackDirectory {
    /// A directory that has asked nothing yet.
    pub fn new(api: SlackApi) -> Self {
        Self(Arc::new(Inner {
            api,
            people: Mutex::default(),
            channels: Mutex::default(),
            groups: Mutex::default(),
            home: OnceCell::new(),
        }))
    }

    async fn ask_person(&self, user: &str) -> Result<PersonFacts, DirectoryError> {
        let known = self.0.people.lock().await.get(user).cloned();
        if let Some((_, facts)) = known.filter(|(since, _)| since.elapsed() < FACTS) {
            return Ok(facts);
        }
        let failed = |source: ApiError| DirectoryError {
            about: "the person",
            source: source.into(),
        };
        let asked = retry(ATTEMPTS, pace(), || self.0.api.user(user));
        let (object, home) = tokio::try_join!(asked, self.home()).map_err(failed)?;
        let facts = person(&object, home, self.groups_of(user).await.map_err(failed)?);
        remember(&mut *self.0.people.lock().await, user, facts.clone());
        Ok(facts)
    }

    async fn ask_channel(&self, channel: &str) -> Result<ChannelFacts, DirectoryError> {
        let known = self.0.channels.lock().await.get(channel).cloned();
        if let Some((_, facts)) = known.filter(|(since, _)| since.elapsed() < FACTS) {
            return Ok(facts);
        }
        let object = retry(ATTEMPTS, pace(), || self.0.api.channel(channel))
            .await
            .map_err(|source| DirectoryError {
                about: "the channel",
                source: source.into(),
            })?;
        let facts = channel_facts(&object);
        remember(&mut *self.0.channels.lock().await, channel, facts.clone());
        Ok(facts)
    }

    async fn home(&self) -> Result<&str, ApiError> {
        let asked = || async { Ok(retry(ATTEMPTS, pace(), || self.0.api.auth_test()).await?.team) };
        self.0.home.get_or_try_init(asked).await.map(String::as_str)
    }

    /// Ids of the groups that the user is in. The lock is held over the call, so that many reviews ask once.
    async fn groups_of(&self, user: &str) -> Result<Vec<String>, ApiError> {
        let mut groups = self.0.groups.lock().await;
        let fresh = groups.as_ref().is_some_and(|(since, _)| since.elapsed() < GROUPS);
        if !fresh {
            let asked = retry(ATTEMPTS, pace(), || self.0.api.usergroups()).await?;
            *groups = Some((Instant::now(), asked));
        }
        let all = groups.iter().flat_map(|(_, groups)| groups);
        Ok(all
            .filter(|(_, members)| members.iter().any(|member| member == user))
            .map(|(id, _)| id.clone())
            .collect())
    }
}

impl Directory for SlackDirectory {
    fn person<'a>(&'a self, _team: &'a str, user: &'a str) -> BoxFuture<'a, Result<PersonFacts, DirectoryError>> {
        Box::pin(self.ask_person(user))
    }

    fn channel<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<ChannelFacts, DirectoryError>> {
        Box::pin(self.ask_channel(channel))
    }
}

fn pace() -> Backoff {
    Backoff::new(Duration::from_millis(250), Duration::from_secs(4))
}

fn remember<T>(known: &mut HashMap<String, (Instant, T)>, id: &str, facts: T) {
    if known.len() >= MOST {
        known.retain(|_, (since, _)| since.elapsed() < FACTS);
    }
    if known.len() < MOST {
        known.insert(id.to_owned(), (Instant::now(), facts));
    }
}

/// Reads a user object. A flag that is missing where Slack documents it counts against the person only if it could be true
/// for a stranger: `team_id` missing leaves the team empty, which matches nobody's.
///
/// `is_stranger` says less than its name: it is set only for people with whom we share no channel. Who is not of `home`, the
/// workspace that we are installed in, is a stranger here, be it one of the same Enterprise Grid; a person of a grid may be of
/// several workspaces, which `enterprise_user.teams` lists.
fn person(user: &Value, home: &str, usergroups: Vec<String>) -> PersonFacts {
    let flag = |name: &str| user[name].as_bool().unwrap_or_default();
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    // An address is verified where Slack says so, or does not say otherwise: bots and strangers have none.
    let verified = user["is_email_confirmed"].as_bool() != Some(false);
    let also = user["enterprise_user"]["teams"].as_array().into_iter().flatten();
    let team = [&user["team_id"]].into_iter().chain(also).find(|team| **team == home);
    PersonFacts {
        team: text(team.unwrap_or(&user["team_id"])).unwrap_or_default(),
        email: text(&user["profile"]["email"]).filter(|_| verified),
        usergroups,
        bot: flag("is_bot") || flag("is_workflow_bot") || user["id"] == "USLACKBOT",
        guest: flag("is_restricted") || flag("is_ultra_restricted"),
        stranger: flag("is_stranger") || team.is_none(),
        deleted: flag("deleted"),
    }
}

/// Reads a channel object. What is not said to be public counts as neither private nor safe: `is_private` grants a group, so
/// it must be said.
fn channel_facts(channel: &Value) -> ChannelFacts {
    let flag = |name: &str| channel[name].as_bool().unwrap_or_default();
    ChannelFacts {
        private: flag("is_private") && !flag("is_im"),
        shared: flag("is_ext_shared") || flag("is_pending_ext_shared"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_fail_closed() {
        let read = |user: Value| person(&user, "T1", Vec::new());
        let nobody = read(json!({}));
        assert_eq!(nobody.team, "", "matches no requester");
        assert!(nobody.stranger);
        assert!(read(json!({"team_id": "T1", "is_ultra_restricted": true})).guest);
        let unconfirmed = json!({"team_id": "T1", "is_email_confirmed": false, "profile": {"email": "a@b"}});
        assert_eq!(read(unconfirmed).email, None);
        assert!(!channel_facts(&json!({})).private, "grants nothing");
        assert!(channel_facts(&json!({"is_ext_shared": true})).shared);
    }

    #[test]
    fn who_is_not_of_our_workspace_is_a_stranger_though_of_the_same_grid() {
        let read = |user: Value| {
            let facts = person(&user, "T1", Vec::new());
            (facts.team, facts.stranger)
        };
        assert_eq!(read(json!({"team_id": "T1"})), ("T1".to_owned(), false));
        assert_eq!(read(json!({"team_id": "T2"})), ("T2".to_owned(), true));
        let grid = json!({"team_id": "T2", "enterprise_user": {"teams": ["T3", "T1"]}});
        assert_eq!(read(grid), ("T1".to_owned(), false));
        assert_eq!(
            read(json!({"team_id": "T1", "is_stranger": true})),
            ("T1".to_owned(), true)
        );
    }
}

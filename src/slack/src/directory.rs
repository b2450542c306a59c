//! People and channels, as Slack knows them: the directory behind access reviews.
//!
//! Owns a short cache. Fails closed: what Slack does not answer is an error, never an empty fact. User groups are kept apart
//! from what is known about a person, so that somebody who left a group has it for [`GROUPS`] at most.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use diagbot_base::retry::{Backoff, retry};
use diagbot_runs::access::{ChannelFacts, Directory, DirectoryError, PersonFacts};
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::{Mutex, OnceCell};

use crate::api::{ApiError, SlackApi};

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
pub struct SlackDirectory(Arc<DirectoryState>);

/// Members by group.
type Groups = BTreeMap<String, Vec<String>>;

/// The user groups as Slack last told them.
#[derive(Debug, Default)]
struct GroupBook(Option<(Instant, Groups)>);

impl GroupBook {
    /// Ids of the groups that the user is in; none once what was told is too old to count.
    fn of(&self, user: &str, now: Instant) -> Option<Vec<String>> {
        let (told, groups) = self.0.as_ref()?;
        let holding = |members: &Vec<String>| members.iter().any(|member| member == user);
        let ids = groups.iter().filter(|(_, members)| holding(members));
        (now.duration_since(*told) < GROUPS).then(|| ids.map(|(id, _)| id.clone()).collect())
    }
}

/// Ids of the groups that the user is in, asked for where what is known does not count any more. The book is held over the
/// question, so that many reviews ask once; what is too old is never an answer, whatever the question ends with.
async fn groups_of<E>(
    book: &Mutex<GroupBook>,
    user: &str,
    now: impl Fn() -> Instant,
    ask: impl AsyncFnOnce() -> Result<Groups, E>,
) -> Result<Vec<String>, E> {
    let mut book = book.lock().await;
    if let Some(known) = book.of(user, now()) {
        return Ok(known);
    }
    // Counted from before the question: what changes while it is answered is as old as that.
    let asked = now();
    book.0 = Some((asked, ask().await?));
    Ok(book.of(user, asked).unwrap_or_default())
}

#[derive(Debug)]
struct DirectoryState {
    api: SlackApi,
    people: Mutex<HashMap<String, (Instant, PersonFacts)>>,
    channels: Mutex<HashMap<String, (Instant, ChannelFacts)>>,
    groups: Mutex<GroupBook>,
    /// The workspace that we are installed in; it never changes under a token.
    home: OnceCell<String>,
}

impl SlackDirectory {
    /// A directory that has asked nothing yet.
    pub fn new(api: SlackApi) -> Self {
        Self(Arc::new(DirectoryState {
            api,
            people: Mutex::default(),
            channels: Mutex::default(),
            groups: Mutex::default(),
            home: OnceCell::new(),
        }))
    }

    async fn ask_person(&self, user: &str) -> Result<PersonFacts, DirectoryError> {
        let failed = |source: ApiError| DirectoryError {
            about: "the person",
            source: source.into(),
        };
        let facts = self.account(user).await.map_err(failed)?;
        let ask = async || retry(ATTEMPTS, pace(), || self.0.api.usergroups()).await;
        let usergroups = groups_of(&self.0.groups, user, Instant::now, ask).await;
        Ok(PersonFacts {
            usergroups: usergroups.map_err(failed)?,
            ..facts
        })
    }

    /// What the account itself says: no groups.
    async fn account(&self, user: &str) -> Result<PersonFacts, ApiError> {
        if let Some(facts) = still_known(&*self.0.people.lock().await, user, Instant::now()) {
            return Ok(facts);
        }
        let asked = retry(ATTEMPTS, pace(), || self.0.api.user(user));
        let (object, home) = tokio::try_join!(asked, self.home())?;
        let facts = person(&object, home);
        remember(&mut *self.0.people.lock().await, user, facts.clone());
        Ok(facts)
    }

    async fn ask_channel(&self, channel: &str) -> Result<ChannelFacts, DirectoryError> {
        if let Some(facts) = still_known(&*self.0.channels.lock().await, channel, Instant::now()) {
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

/// What is known of somebody or of a channel, unless it is too old to count.
fn still_known<T: Clone>(known: &HashMap<String, (Instant, T)>, id: &str, now: Instant) -> Option<T> {
    let (since, facts) = known.get(id)?;
    (now.duration_since(*since) < FACTS).then(|| facts.clone())
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
fn person(user: &Value, home: &str) -> PersonFacts {
    let flag = |name: &str| user[name].as_bool().unwrap_or_default();
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    // Where Slack does not say so, nobody knows whose the address is.
    let verified = user["is_email_confirmed"] == true;
    let also = user["enterprise_user"]["teams"].as_array().into_iter().flatten();
    let team = [&user["team_id"]].into_iter().chain(also).find(|team| **team == home);
    PersonFacts {
        team: text(team.unwrap_or(&user["team_id"])).unwrap_or_default(),
        email: text(&user["profile"]["email"]).filter(|_| verified),
        usergroups: Vec::new(),
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
        // Where the bot is not a member, its announcement goes to the person alone.
        members: channel["num_members"]
            .as_u64()
            .filter(|_| flag("is_member") && !flag("is_im")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(groups: &[(&str, &[&str])]) -> Groups {
        let owned = |members: &[&str]| members.iter().map(|member| (*member).to_owned()).collect();
        groups
            .iter()
            .map(|(id, members)| ((*id).to_owned(), owned(members)))
            .collect()
    }

    #[tokio::test]
    async fn groups_are_asked_for_once_a_minute_and_who_left_or_joined_is_seen_after_it() {
        let (book, begun) = (Mutex::default(), Instant::now());
        let questions = std::cell::Cell::new(0);
        let of = async |user: &str, after: Duration, slack: Option<Groups>| {
            let ask = async || {
                questions.set(questions.get() + 1);
                slack.ok_or("Slack does not answer")
            };
            groups_of(&book, user, || begun + after, ask).await
        };
        let (first, then) = (told(&[("S1", &["ada", "grace"])]), told(&[("S1", &["grace", "linus"])]));
        for (user, groups) in [
            ("ada", vec!["S1"]),
            ("grace", vec!["S1"]),
            ("linus", vec![]),
            ("ada", vec!["S1"]),
        ] {
            let ids = groups.into_iter().map(str::to_owned).collect();
            assert_eq!(of(user, Duration::ZERO, Some(first.clone())).await, Ok(ids), "{user}");
        }
        let last = GROUPS.mul_f64(0.99);
        assert_eq!(of("ada", last, Some(then.clone())).await, Ok(vec!["S1".to_owned()]));
        assert_eq!(questions.get(), 1, "five questions of ours are one to Slack");
        assert_eq!(of("ada", GROUPS, Some(then.clone())).await, Ok(vec![]));
        assert_eq!(of("linus", GROUPS, Some(then)).await, Ok(vec!["S1".to_owned()]));
        assert_eq!(questions.get(), 2);
    }

    #[tokio::test]
    async fn groups_that_are_too_old_are_no_answer_while_slack_gives_none() {
        let (book, begun) = (Mutex::default(), Instant::now());
        let known = groups_of(&book, "ada", || begun, async || Ok::<_, ()>(told(&[("S1", &["ada"])]))).await;
        assert_eq!(known, Ok(vec!["S1".to_owned()]));
        let silent = async || Err("Slack does not answer");
        for _ in 0..2 {
            let now = begun + GROUPS;
            assert_eq!(
                groups_of(&book, "ada", || now, silent).await,
                Err("Slack does not answer")
            );
        }
    }

    #[test]
    fn facts_count_for_30_seconds() {
        let mut known = HashMap::new();
        remember(&mut known, "U1", PersonFacts::default());
        let begun = known["U1"].0;
        let after = |millis| still_known(&known, "U1", begun + Duration::from_millis(millis)).is_some();
        assert!(after(0) && after(29_999));
        assert!(!after(30_000), "SECURITY.md names it");
        assert!(still_known(&known, "U2", begun).is_none());
    }

    #[test]
    fn facts_fail_closed() {
        let read = |user: Value| person(&user, "T1");
        let nobody = read(json!({}));
        assert_eq!(nobody.team, "", "matches no requester");
        assert!(nobody.stranger);
        assert!(read(json!({"team_id": "T1", "is_ultra_restricted": true})).guest);
        assert!(!channel_facts(&json!({})).private, "grants nothing");
        assert!(channel_facts(&json!({"is_ext_shared": true})).shared);
        assert!(
            channel_facts(&json!({"is_pending_ext_shared": true})).shared,
            "others were invited"
        );
    }

    #[test]
    fn members_are_counted_only_where_the_bot_is_one() {
        let members = |channel: Value| channel_facts(&channel).members;
        assert_eq!(members(json!({"is_member": true, "num_members": 3})), Some(3));
        for nobody in [
            json!({}),
            json!({"is_member": true}),
            json!({"num_members": 3}),
            json!({"is_member": false, "num_members": 3}),
            json!({"is_member": true, "is_im": true, "num_members": 3}),
        ] {
            assert_eq!(members(nobody.clone()), None, "{nobody}");
        }
    }

    #[test]
    fn an_address_counts_only_where_slack_says_it_is_confirmed() {
        let email = |said: Option<Value>| {
            let mut user = json!({"team_id": "T1", "profile": {"email": "a@b"}});
            if let Some(said) = said {
                user["is_email_confirmed"] = said;
            }
            person(&user, "T1").email
        };
        assert_eq!(email(Some(json!(true))).as_deref(), Some("a@b"));
        let no = [
            json!(false),
            json!(null),
            json!("true"),
            json!("yes"),
            json!(1),
            json!([true]),
        ];
        for said in no.into_iter().map(Some).chain([None]) {
            assert_eq!(email(said.clone()), None, "{said:?}");
        }
    }

    #[test]
    fn who_is_not_of_our_workspace_is_a_stranger_though_of_the_same_grid() {
        let read = |user: Value| {
            let facts = person(&user, "T1");
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

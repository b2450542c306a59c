//! Principals: a person of Slack as a Kubernetes user with groups, from immutable ids and verified facts only; and triggers,
//! which are users of their own.

use std::error::Error;

use diagbot_api::requester::Requester;
use futures::future::BoxFuture;

/// What Slack knows about a person. Handles and display names are missing on purpose: people choose them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PersonFacts {
    /// The team that the account belongs to.
    pub team: String,
    /// The verified e-mail address.
    pub email: Option<String>,
    /// Ids of the user groups that the person is in (`S…`).
    pub usergroups: Vec<String>,
    /// A bot or an app.
    pub bot: bool,
    /// A guest (`is_restricted` or `is_ultra_restricted`).
    pub guest: bool,
    /// From another organisation, by a shared channel (`is_stranger`, or another team).
    pub stranger: bool,
    /// Deactivated.
    pub deleted: bool,
}

/// What Slack knows about a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChannelFacts {
    /// Somebody must be invited to be in it.
    pub private: bool,
    /// Shared with other organisations.
    pub shared: bool,
    /// How many are in it, the bot included; none where the bot is not, or where Slack does not say.
    pub members: Option<u64>,
}

/// The people's directory could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("ask Slack about {about}")]
pub struct DirectoryError {
    /// What was asked about: `the person`, `the channel`.
    pub about: &'static str,
    /// Why there is no answer.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// Facts about people; the Slack front implements it. Answers may be cached for seconds, never beyond a minute.
pub trait Directory: Send + Sync {
    /// The person's facts.
    fn person<'a>(&'a self, team: &'a str, user: &'a str) -> BoxFuture<'a, Result<PersonFacts, DirectoryError>>;

    /// The channel's facts.
    fn channel<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<ChannelFacts, DirectoryError>>;
}

/// A person as Kubernetes' authorizers see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    /// `slack:<team>:<user id>`
    pub user: String,
    /// `slack:email:…`, `slack:usergroup:…`, `slack:channel:…`
    pub groups: Vec<String>,
}

/// Who is denied whatever the cluster's permissions say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No Slack person.
    #[error("the request names no Slack person")]
    Nobody,
    /// A bot.
    #[error("bots and apps may not run diagnostics")]
    Bot,
    /// A deactivated account.
    #[error("the account is deactivated")]
    Deactivated,
    /// Another organisation or workspace.
    #[error("people of another organisation or workspace may not run diagnostics")]
    Stranger,
    /// A guest.
    #[error("guests may not run diagnostics")]
    Guest,
}

impl Principal {
    /// The principal of a trigger: its own name and no group, so that every right is given to it alone.
    pub fn of_trigger(requester: &Requester) -> Self {
        Self {
            user: requester.user_name(),
            groups: Vec::new(),
        }
    }

    /// The principal of a channel: everybody who reads it.
    pub fn of_channel(channel: &str) -> Self {
        let name = format!("slack:channel:{channel}");
        Self {
            user: name.clone(),
            groups: vec![name],
        }
    }

    /// The principal of a person, asking in a channel whose own group counts (none: it does not count).
    pub fn of(
        requester: &Requester,
        person: &PersonFacts,
        counted_channel: Option<&str>,
    ) -> Result<Self, IdentityError> {
        if !is_id(&requester.team) || !is_id(&requester.user) {
            return Err(IdentityError::Nobody);
        }
        if person.deleted {
            return Err(IdentityError::Deactivated);
        }
        if person.bot {
            return Err(IdentityError::Bot);
        }
        if person.stranger || person.team != requester.team {
            return Err(IdentityError::Stranger);
        }
        if person.guest {
            return Err(IdentityError::Guest);
        }
        let email = person.email.as_deref().and_then(email_group);
        let usergroups = person.usergroups.iter().map(|id| format!("slack:usergroup:{id}"));
        let channel = counted_channel.map(|id| format!("slack:channel:{id}"));
        let mut groups: Vec<String> = email.into_iter().chain(usergroups).chain(channel).collect();
        groups.sort();
        Ok(Self {
            user: requester.user_name(),
            groups,
        })
    }
}

/// The group of an address: printable ASCII only, with letters in lower case. Other letters are no principal: some become ASCII
/// letters in lower case (the Kelvin sign a `k`), others only look like them.
fn email_group(email: &str) -> Option<String> {
    let plain = !email.is_empty() && email.bytes().all(|b| b.is_ascii_graphic());
    plain.then(|| format!("slack:email:{}", email.to_ascii_lowercase()))
}

/// Slack's ids are upper-case letters and digits; anything else could forge another part of the user name.
fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ada() -> (Requester, PersonFacts) {
        let requester = Requester {
            team: "T1".into(),
            user: "U1".into(),
        };
        let person = PersonFacts {
            team: "T1".into(),
            email: Some("Ada@Example.com".into()),
            usergroups: vec!["S7".into()],
            ..PersonFacts::default()
        };
        (requester, person)
    }

    #[test]
    fn a_person_is_user_email_usergroups_and_a_counted_channel() {
        let (requester, person) = ada();
        let principal = Principal::of(&requester, &person, Some("G9")).unwrap();
        assert_eq!(principal.user, "slack:T1:U1");
        assert_eq!(
            principal.groups,
            ["slack:channel:G9", "slack:email:ada@example.com", "slack:usergroup:S7"]
        );
        assert_eq!(Principal::of(&requester, &person, None).unwrap().groups.len(), 2);
    }

    #[test]
    fn only_an_ascii_address_is_a_group() {
        let groups = |email: &str| {
            let (requester, mut person) = ada();
            (person.email, person.usergroups) = (Some(email.to_owned()), Vec::new());
            Principal::of(&requester, &person, None).unwrap().groups
        };
        for (email, group) in [
            ("ada@example.com", "slack:email:ada@example.com"),
            ("Ada.K+x@EXAMPLE.com", "slack:email:ada.k+x@example.com"),
        ] {
            assert_eq!(groups(email), [group]);
        }
        // The Kelvin sign; a dotted capital I; a Cyrillic a; a full-width at sign; an invisible joiner; spaces; nothing.
        for email in [
            "\u{212a}im@example.com",
            "\u{130}da@example.com",
            "\u{430}da@example.com",
            "ada\u{ff20}example.com",
            "a\u{2060}da@example.com",
            "ada @example.com",
            "ada@example.com\n",
            "",
        ] {
            assert_eq!(groups(email), [""; 0], "{email:?}");
        }
    }

    #[test]
    fn a_trigger_is_its_own_principal_and_no_person_can_be_one() {
        let trigger = Requester::trigger("pagerduty");
        assert_eq!(trigger.user_name(), "trigger:pagerduty");
        assert!(trigger.is_trigger());
        let mut person = trigger.clone();
        person.team = "T1".into();
        assert!(!person.is_trigger(), "people have a team");
        for name in ["", "a:b", "A", "-a"] {
            assert!(!Requester::trigger(name).is_trigger(), "{name}");
        }
    }

    #[test]
    fn accounts_that_are_no_member_in_good_standing_are_nobody() {
        let (requester, person) = ada();
        let with = |change: &dyn Fn(&mut PersonFacts)| {
            let mut person = person.clone();
            change(&mut person);
            Principal::of(&requester, &person, None)
        };
        assert_eq!(with(&|p| p.deleted = true), Err(IdentityError::Deactivated));
        assert_eq!(with(&|p| p.bot = true), Err(IdentityError::Bot));
        assert_eq!(with(&|p| p.stranger = true), Err(IdentityError::Stranger));
        assert_eq!(with(&|p| p.team = "T2".into()), Err(IdentityError::Stranger));
        assert_eq!(with(&|p| p.guest = true), Err(IdentityError::Guest));
        for user in ["", "U1:x", "system:admin", "u1"] {
            let requester = Requester {
                user: user.into(),
                ..requester.clone()
            };
            assert_eq!(
                Principal::of(&requester, &person, None),
                Err(IdentityError::Nobody),
                "{user}"
            );
        }
    }
}

//! Principals: a person of Slack as a Kubernetes user with groups, from immutable ids and verified facts only.

use std::error::Error;

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

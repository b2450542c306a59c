//! One message to Slack: posted once, then edited in place.

use std::time::{Duration, Instant};

use diagbot_api::run::ThreadStatus;
use diagbot_base::{failpoint, retry::Permanence as _};
use diagbot_cluster::lease::Term;
use tokio::time::timeout;

use super::{
    desired::{DIRECT, DesiredMessage, ROOT},
    memory::{Memory, Next},
    parts::NotifierParts,
    tell::{TERM_WAIT, after_record, warn},
};
use crate::{
    api::{ApiError, Metadata, Posted, Rejection},
    views::{Message, RunView, invitation, repeated},
};

/// A new message, among the actions of the bot.
pub(super) const POST: &str = "slack.post";
/// An edit of a message, among the actions of the bot.
pub(super) const EDIT: &str = "slack.edit";
/// The wait after a refusal that only an operator can end: a revoked token, a missing scope.
const REFUSED_WAIT: Duration = Duration::from_mins(1);

/// How often a post of unknown outcome was made; the suffix of its part name in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeliveryAttempt {
    /// Once.
    First,
    /// Again, marked, since the channel can't be read.
    Repeat,
    /// Both answers were lost.
    GivenUp,
    /// To the person directly, since the run has ended meanwhile and that must be told.
    Last,
}

impl DeliveryAttempt {
    const fn suffix(self) -> &'static str {
        match self {
            Self::First => "",
            Self::Repeat => "+repeat",
            Self::GivenUp => "+given-up",
            Self::Last => "+last",
        }
    }

    fn of(telling: &ThreadStatus, part: &str) -> Option<Self> {
        let suffix = telling.uncertain.as_deref()?.strip_prefix(part)?;
        [Self::First, Self::Repeat, Self::GivenUp, Self::Last]
            .into_iter()
            .find(|made| made.suffix() == suffix)
    }
}

/// One message on its way to people.
pub(super) struct Delivery<'a> {
    /// Who sends it.
    pub(super) parts: &'a NotifierParts,
    /// The run.
    pub(super) view: &'a RunView<'a>,
    /// The message.
    pub(super) desired: &'a DesiredMessage<'a>,
    /// What is remembered of the run.
    pub(super) memory: &'a mut Memory,
    /// The leader's epoch in which it is sent.
    pub(super) epoch: u64,
}

impl Delivery<'_> {
    /// Brings the message to people: posts it, or edits it where it was posted.
    pub(super) async fn bring(&mut self) -> Result<(), Next> {
        let telling = self.memory.telling.clone().unwrap_or_default();
        let ts = if self.desired.part == ROOT {
            telling.root_ts.clone()
        } else {
            telling.parts.get(&self.desired.part).cloned()
        };
        match ts {
            Some(ts) => {
                let asked_in = || self.view.run.spec.origin.channel.clone();
                let channel = telling.channel.unwrap_or_else(asked_in);
                self.edit(Posted { channel, ts }).await
            }
            None => self.post_once(telling).await,
        }
    }

    /// The term, as long as it allows for an act that the world can see.
    fn term(&mut self) -> Result<Term, Next> {
        let term = self.parts.term(self.epoch);
        term.ok_or_else(|| self.memory.pause(TERM_WAIT))
    }

    async fn message(&self) -> Message {
        self.parts.compose(self.view, self.desired, self.memory).await
    }

    async fn edit(&mut self, at: Posted) -> Result<(), Next> {
        let settled = self.desired.settled;
        if let Some(due) = self.memory.edit_due(settled).filter(|due| *due > Instant::now()) {
            return Err(Next::At(due));
        }
        self.parts
            .budget(|budget, now| budget.edit(settled, now))
            .map_err(|wait| Next::At(Instant::now() + wait))?;
        let message = self.message().await;
        let metadata = self.metadata("1");
        // A former leader's late edit would cover what the present one has told.
        let term = self.term()?;
        let update = failpoint::around(EDIT, self.parts.context.api.update(&at, &message, &metadata));
        let update = timeout(term.remaining(), update);
        let updated = update
            .await
            .unwrap_or_else(|elapsed| Err(ApiError::LostAnswer { source: elapsed.into() }));
        match updated {
            Ok(()) => {
                let now = Instant::now();
                self.memory.edited_at = Some(now);
                self.memory.note_sent(self.desired, now);
                Ok(())
            }
            Err(ApiError::Refused(Rejection::MessageGone(_))) if !self.memory.reposted => {
                // Somebody deleted it: once more, since the end of a run must be told.
                self.memory.reposted = true;
                if let Some(telling) = &mut self.memory.telling {
                    telling.root_ts = telling.root_ts.take().filter(|_| self.desired.part != ROOT);
                    telling.parts.remove(&self.desired.part);
                }
                Err(self.memory.pause(Duration::ZERO))
            }
            Err(ApiError::Refused(Rejection::MessageGone(_))) => {
                self.memory.note_sent(self.desired, Instant::now());
                Ok(())
            }
            Err(ApiError::RateLimited { after }) => {
                self.parts.block_edits(after);
                Err(Next::At(Instant::now() + after))
            }
            Err(error) => Err(self.trouble(&error)),
        }
    }

    /// Posts, after a look at the channel where an earlier post may have arrived.
    async fn post_once(&mut self, telling: ThreadStatus) -> Result<(), Next> {
        let (mut channel, mut thread) = place(self.view, self.desired, self.memory, &telling);
        let made = match DeliveryAttempt::of(&telling, &self.desired.part) {
            None => DeliveryAttempt::First,
            // Recorded by us, and then the term was too short: nothing was posted.
            Some(before) if self.memory.unmade => before,
            Some(before) => match self.look(&channel, thread.as_deref()).await {
                Ok(Some(ts)) => return self.adopt(Posted { channel, ts }).await,
                Ok(None) => DeliveryAttempt::First,
                Err(ApiError::Refused(_)) => match before {
                    DeliveryAttempt::First => DeliveryAttempt::Repeat,
                    DeliveryAttempt::Repeat | DeliveryAttempt::GivenUp if self.desired.settled => DeliveryAttempt::Last,
                    DeliveryAttempt::Repeat | DeliveryAttempt::GivenUp | DeliveryAttempt::Last => {
                        return self.give_up(before).await;
                    }
                },
                Err(error) => return Err(self.trouble(&error)),
            },
        };
        if made == DeliveryAttempt::Last {
            (channel, thread) = (self.view.run.spec.requester.user.clone(), None);
        }
        self.parts
            .budget(|budget, now| budget.post(&channel, now))
            .map_err(|wait| Next::At(Instant::now() + wait))?;
        let mut message = self.message().await;
        match made {
            DeliveryAttempt::First | DeliveryAttempt::GivenUp => {}
            DeliveryAttempt::Repeat => message = repeated(message),
            // Never a third one in the channel: the person gets it.
            DeliveryAttempt::Last => message = invitation(message, &self.view.run.spec.origin.channel),
        }
        self.term()?;
        let uncertain = format!("{}{}", self.desired.part, made.suffix());
        self.memory.unmade = true;
        self.record(|telling| telling.uncertain = Some(uncertain)).await?;
        let term = self.term()?;
        self.memory.unmade = false;
        let metadata = self.metadata(made.suffix());
        let posted = self.post_within(term, &channel, thread.as_deref(), &message, &metadata);
        match posted.await {
            Ok(posted) => self.adopt_sent(posted).await,
            Err(error) => Err(self.after_post(&channel, &error)),
        }
    }

    /// A post that can't outlive the term: what is cut off is uncertain, and the next leader looks for it.
    async fn post_within(
        &self,
        term: Term,
        channel: &str,
        thread: Option<&str>,
        message: &Message,
        metadata: &Metadata,
    ) -> Result<Posted, ApiError> {
        let post = self.parts.context.api.post(channel, thread, message, Some(metadata));
        timeout(term.remaining(), failpoint::around(POST, post))
            .await
            .unwrap_or_else(|elapsed| Err(ApiError::LostAnswer { source: elapsed.into() }))
    }

    /// Looks for an earlier post of this part.
    async fn look(&self, channel: &str, thread: Option<&str>) -> Result<Option<String>, ApiError> {
        let seen = self.parts.context.api.seen(channel, thread).await?;
        Ok(seen
            .into_iter()
            .find(|seen| seen.metadata.run == self.view.name.as_str() && seen.metadata.part == self.desired.part)
            .map(|seen| seen.ts))
    }

    /// A post was found again: its content may be old, so it is edited next.
    async fn adopt(&mut self, posted: Posted) -> Result<(), Next> {
        self.keep(posted).await?;
        Err(self.memory.pause(Duration::ZERO))
    }

    async fn adopt_sent(&mut self, posted: Posted) -> Result<(), Next> {
        self.memory.note_sent(self.desired, Instant::now());
        self.keep(posted).await
    }

    async fn keep(&mut self, posted: Posted) -> Result<(), Next> {
        let sent = self.memory.sent.clone();
        let part = self.desired.part.clone();
        let keep = |telling: &mut ThreadStatus| {
            let again = DeliveryAttempt::of(telling, &part).is_some_and(|made| made != DeliveryAttempt::First);
            if again && !telling.repeated.contains(&part) {
                telling.repeated.push(part.clone());
            }
            telling.uncertain = None;
            telling.error = None;
            telling.sent = sent;
            if part == ROOT {
                telling.channel = Some(posted.channel);
                telling.root_ts = Some(posted.ts);
            } else {
                telling.parts.insert(part, posted.ts);
            }
        };
        self.record(keep).await
    }

    /// Two answers were lost and the channel can't be read: a third message would be worse than none.
    async fn give_up(&mut self, before: DeliveryAttempt) -> Result<(), Next> {
        self.memory.note_sent(self.desired, Instant::now());
        let given_up = if before == DeliveryAttempt::Last {
            DeliveryAttempt::Last
        } else {
            DeliveryAttempt::GivenUp
        };
        let uncertain = format!("{}{}", self.desired.part, given_up.suffix());
        tracing::error!(
            run.id = self.view.name.as_str(),
            "Slack lost both answers to a post; whether people see it is not known"
        );
        self.record(|telling| {
            telling.uncertain = Some(uncertain);
            telling.error = Some(
                "Slack lost the answers to both posts; without a history scope they can't be looked for".to_owned(),
            );
        })
        .await
    }

    /// Writes the record, and keeps it in memory once written. In memory it stays as it was where the write fails, except
    /// that a post that was made is never forgotten.
    async fn record(&mut self, change: impl FnOnce(&mut ThreadStatus)) -> Result<(), Next> {
        let mut telling = self.memory.telling.clone().unwrap_or_default();
        change(&mut telling);
        let ended = telling.root_ts.is_some();
        let written = self.parts.record(self.view.name, &telling, false, self.epoch).await;
        if written.is_ok() || ended {
            self.memory.telling = Some(telling);
        }
        written.map_err(|error| after_record(self.view.name, &error, self.memory))
    }

    /// What a failed post leads to. Where nothing was posted, it is certain again.
    fn after_post(&mut self, channel: &str, error: &ApiError) -> Next {
        if error.is_uncertain() {
            return self.trouble(error);
        }
        if let Some(telling) = &mut self.memory.telling {
            telling.uncertain = None;
        }
        match error {
            ApiError::RateLimited { after } => {
                self.parts.block_posts(channel, *after);
                Next::At(Instant::now() + *after)
            }
            ApiError::Refused(Rejection::NotInChannel | Rejection::ChannelNotFound | Rejection::ChannelClosed(_))
                if !self.memory.direct =>
            {
                self.memory.direct = true;
                self.memory.pause(Duration::ZERO)
            }
            ApiError::Refused(Rejection::MessageGone(_)) if !self.memory.unthreaded => {
                self.memory.unthreaded = true;
                self.memory.pause(Duration::ZERO)
            }
            error => self.trouble(error),
        }
    }

    fn metadata(&self, generation: &str) -> Metadata {
        Metadata {
            run: self.view.name.as_str().to_owned(),
            part: self.desired.part.clone(),
            generation: generation.trim_start_matches('+').to_owned(),
        }
    }

    /// A failure that time, plain text or an operator ends.
    fn trouble(&mut self, error: &ApiError) -> Next {
        if matches!(error, ApiError::Refused(Rejection::Blocks(_))) && !self.memory.plain {
            warn(
                self.view.name,
                error,
                "Slack refuses the blocks of a message; it goes as plain text",
            );
            self.memory.plain = true;
            return self.memory.pause(Duration::ZERO);
        }
        warn(self.view.name, error, "people could not be told; it is tried again");
        self.memory.refused = error.is_permanent();
        let asked = error
            .retry_after()
            .or_else(|| error.is_permanent().then_some(REFUSED_WAIT));
        self.memory.later(asked)
    }
}

/// Channel and thread of a message.
fn place(
    view: &RunView<'_>,
    desired: &DesiredMessage<'_>,
    memory: &Memory,
    telling: &ThreadStatus,
) -> (String, Option<String>) {
    let origin = &view.run.spec.origin;
    if memory.direct || desired.part == DIRECT {
        return (view.run.spec.requester.user.clone(), None);
    }
    let channel = telling.channel.clone().unwrap_or_else(|| origin.channel.clone());
    let elsewhere = telling.channel.as_ref().is_some_and(|told| *told != origin.channel);
    let of_origin = origin.thread_ts.clone().filter(|_| !elsewhere && !memory.unthreaded);
    let thread = if desired.part == ROOT {
        of_origin
    } else {
        of_origin.or_else(|| telling.root_ts.clone())
    };
    (channel, thread)
}

//! One message to Slack: posted once, then edited in place.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{
    desk::Desk,
    memory::{Memory, Next},
    tell::{LEAST_TERM, TERM_WAIT, after_record, warn},
    wanted::{ROOT, Wanted},
};
use crate::{
    cluster::lease::Term,
    failpoint,
    retry::Permanence as _,
    runs::resource::Telling,
    slack::{
        api::{ApiError, Metadata, Posted, Rejection},
        views::{Message, RunView, repeated},
    },
};

/// A new message, among the actions of the bot.
pub(super) const POST: &str = "slack.post";
/// An edit of a message, among the actions of the bot.
pub(super) const EDIT: &str = "slack.edit";
/// The wait after a refusal that only an operator can end: a revoked token, a missing scope.
const REFUSED_WAIT: Duration = Duration::from_mins(1);

/// How often a post of unknown outcome was made; the suffix of its part name in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Try {
    /// Once.
    First,
    /// Again, marked, since the channel can't be read.
    Repeat,
    /// Both answers were lost.
    GivenUp,
    /// Once more, marked, since the run has ended meanwhile and that must be told.
    Last,
}

impl Try {
    const fn suffix(self) -> &'static str {
        match self {
            Self::First => "",
            Self::Repeat => "+repeat",
            Self::GivenUp => "+given-up",
            Self::Last => "+last",
        }
    }

    fn of(telling: &Telling, part: &str) -> Option<Self> {
        let suffix = telling.uncertain.as_deref()?.strip_prefix(part)?;
        [Self::First, Self::Repeat, Self::GivenUp, Self::Last]
            .into_iter()
            .find(|made| made.suffix() == suffix)
    }
}

impl Desk {
    /// Brings one message to people: posts it, or edits it where it was posted.
    pub(super) async fn bring(
        &self,
        view: &RunView<'_>,
        wanted: &Wanted<'_>,
        memory: &mut Memory,
        term: Term,
    ) -> Result<(), Next> {
        let telling = memory.telling.clone().unwrap_or_default();
        let ts = if wanted.part == ROOT {
            telling.root_ts.clone()
        } else {
            telling.parts.get(&wanted.part).cloned()
        };
        match ts {
            Some(ts) => {
                let channel = telling.channel.unwrap_or_else(|| view.run.spec.origin.channel.clone());
                self.edit(view, wanted, memory, term, Posted { channel, ts }).await
            }
            None => self.post_once(view, wanted, memory, term).await,
        }
    }

    async fn edit(
        &self,
        view: &RunView<'_>,
        wanted: &Wanted<'_>,
        memory: &mut Memory,
        term: Term,
        at: Posted,
    ) -> Result<(), Next> {
        if let Some(due) = memory.edit_due(wanted.settled).filter(|due| *due > Instant::now()) {
            return Err(Next::At(due));
        }
        self.budget(|budget, now| budget.edit(wanted.settled, now))
            .map_err(|wait| Next::At(Instant::now() + wait))?;
        let message = self.compose(view, wanted, memory).await;
        let metadata = metadata(view, wanted, "1");
        // A former leader's late edit would cover what the present one has told.
        if term.remaining() < LEAST_TERM {
            return Err(memory.pause(TERM_WAIT));
        }
        let update = failpoint::around(EDIT, self.context.api.update(&at, &message, &metadata));
        let update = timeout(term.remaining(), update);
        let updated = update
            .await
            .unwrap_or_else(|elapsed| Err(ApiError::LostAnswer { source: elapsed.into() }));
        match updated {
            Ok(()) => {
                let now = Instant::now();
                memory.edited_at = Some(now);
                memory.note_sent(wanted, now);
                Ok(())
            }
            Err(ApiError::Refused(Rejection::MessageGone(_))) if !memory.reposted => {
                // Somebody deleted it: once more, since the end of a run must be told.
                memory.reposted = true;
                if let Some(telling) = &mut memory.telling {
                    telling.root_ts = telling.root_ts.take().filter(|_| wanted.part != ROOT);
                    telling.parts.remove(&wanted.part);
                }
                Err(memory.pause(Duration::ZERO))
            }
            Err(ApiError::Refused(Rejection::MessageGone(_))) => {
                memory.note_sent(wanted, Instant::now());
                Ok(())
            }
            Err(ApiError::RateLimited { after }) => {
                self.block_edits(after);
                Err(Next::At(Instant::now() + after))
            }
            Err(error) => Err(trouble(view, memory, &error)),
        }
    }

    /// Posts, after a look at the channel where an earlier post may have arrived.
    async fn post_once(
        &self,
        view: &RunView<'_>,
        wanted: &Wanted<'_>,
        memory: &mut Memory,
        term: Term,
    ) -> Result<(), Next> {
        let telling = memory.telling.clone().unwrap_or_default();
        let (channel, thread) = place(view, wanted, memory, &telling);
        let made = match Try::of(&telling, &wanted.part) {
            None => Try::First,
            Some(before) => match self.look(view, wanted, &channel, thread.as_deref()).await {
                Ok(Some(ts)) => return self.adopt(view, wanted, memory, term, Posted { channel, ts }).await,
                Ok(None) => Try::First,
                Err(ApiError::Refused(_)) => match before {
                    Try::First => Try::Repeat,
                    Try::GivenUp if wanted.settled => Try::Last,
                    Try::Repeat | Try::GivenUp | Try::Last => {
                        return self.give_up(view, wanted, memory, term, before).await;
                    }
                },
                Err(error) => return Err(trouble(view, memory, &error)),
            },
        };
        self.budget(|budget, now| budget.post(&channel, now))
            .map_err(|wait| Next::At(Instant::now() + wait))?;
        let mut message = self.compose(view, wanted, memory).await;
        if made != Try::First {
            message = repeated(message);
        }
        let uncertain = format!("{}{}", wanted.part, made.suffix());
        self.record(view, memory, term, |telling| telling.uncertain = Some(uncertain))
            .await?;
        if term.remaining() < LEAST_TERM {
            return Err(memory.pause(TERM_WAIT));
        }
        let metadata = metadata(view, wanted, made.suffix());
        let posted = self.post_within(term, &channel, thread.as_deref(), &message, &metadata);
        match posted.await {
            Ok(posted) => self.adopt_sent(view, wanted, memory, term, posted).await,
            Err(error) => Err(self.after_post(view, memory, &channel, &error)),
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
        let post = self.context.api.post(channel, thread, message, Some(metadata));
        timeout(term.remaining(), failpoint::around(POST, post))
            .await
            .unwrap_or_else(|elapsed| Err(ApiError::LostAnswer { source: elapsed.into() }))
    }

    /// Looks for an earlier post of this part.
    async fn look(
        &self,
        view: &RunView<'_>,
        wanted: &Wanted<'_>,
        channel: &str,
        thread: Option<&str>,
    ) -> Result<Option<String>, ApiError> {
        let seen = self.context.api.seen(channel, thread).await?;
        Ok(seen
            .into_iter()
            .find(|seen| seen.metadata.run == view.name.as_str() && seen.metadata.part == wanted.part)
            .map(|seen| seen.ts))
    }

    /// A post was found again: its content may be old, so it is edited next.
    async fn adopt(
        &self,
        view: &RunView<'_>,
        wanted: &Wanted<'_>,
        memory: &mut Memory,
        term: Term,
        posted: Posted,
    ) -> Result<(), Next> {
        self.keep(view, wanted, memory, term, posted).await?;
        Err(memory.pause(Duration::ZERO))
    }

    async fn adopt_sent(
        &self,
        view: &RunView<'_>,
        wanted: &Wanted<'_>,
        memory: &mut Memory,
        term: Term,
        posted: Posted,
    ) -> Result<(), Next> {
        memory.note_sent(wanted, Instant::now());
        self.keep(view, wanted, memory, term, posted).await
    }

    async fn keep(
        &self,
        view: &RunView<'_>,
        wanted: &Wanted<'_>,
        memory: &mut Memory,
        term: Term,
        posted: Posted,
    ) -> Result<(), Next> {
        let sent = memory.sent.clone();
        let part = wanted.part.clone();
        let keep = |telling: &mut Telling| {
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
        self.record(view, memory, term, keep).await
    }

    /// Two answers were lost and the channel can't be read: a third message would be worse than none.
    async fn give_up(
        &self,
        view: &RunView<'_>,
        wanted: &Wanted<'_>,
        memory: &mut Memory,
        term: Term,
        before: Try,
    ) -> Result<(), Next> {
        memory.note_sent(wanted, Instant::now());
        let given_up = if before == Try::Last { Try::Last } else { Try::GivenUp };
        let uncertain = format!("{}{}", wanted.part, given_up.suffix());
        tracing::error!(
            run.id = view.name.as_str(),
            "Slack lost both answers to a post; whether people see it is not known"
        );
        self.record(view, memory, term, |telling| {
            telling.uncertain = Some(uncertain);
            telling.error = Some(
                "Slack lost the answers to both posts; without a history scope they can't be looked for".to_owned(),
            );
        })
        .await
    }

    /// Writes the record, and keeps it in memory once written. In memory it stays as it was where the write fails, except
    /// that a post that was made is never forgotten.
    async fn record(
        &self,
        view: &RunView<'_>,
        memory: &mut Memory,
        term: Term,
        change: impl FnOnce(&mut Telling),
    ) -> Result<(), Next> {
        let mut telling = memory.telling.clone().unwrap_or_default();
        change(&mut telling);
        let ended = telling.root_ts.is_some();
        let written = self
            .context
            .service
            .record_telling(view.name, telling.clone(), false, &term)
            .await;
        if written.is_ok() || ended {
            memory.telling = Some(telling);
        }
        written.map_err(|error| after_record(view.name, &error, memory))
    }

    /// What a failed post leads to. Where nothing was posted, it is certain again.
    fn after_post(&self, view: &RunView<'_>, memory: &mut Memory, channel: &str, error: &ApiError) -> Next {
        if error.is_uncertain() {
            return trouble(view, memory, error);
        }
        if let Some(telling) = &mut memory.telling {
            telling.uncertain = None;
        }
        match error {
            ApiError::RateLimited { after } => {
                self.block_posts(channel, *after);
                Next::At(Instant::now() + *after)
            }
            ApiError::Refused(Rejection::NotInChannel | Rejection::ChannelNotFound | Rejection::ChannelClosed(_))
                if !memory.direct =>
            {
                memory.direct = true;
                memory.pause(Duration::ZERO)
            }
            ApiError::Refused(Rejection::MessageGone(_)) if !memory.unthreaded => {
                memory.unthreaded = true;
                memory.pause(Duration::ZERO)
            }
            error => trouble(view, memory, error),
        }
    }
}

/// Channel and thread of a message.
fn place(view: &RunView<'_>, wanted: &Wanted<'_>, memory: &Memory, telling: &Telling) -> (String, Option<String>) {
    let origin = &view.run.spec.origin;
    if memory.direct {
        return (view.run.spec.requester.user.clone(), None);
    }
    let channel = telling.channel.clone().unwrap_or_else(|| origin.channel.clone());
    let elsewhere = telling.channel.as_ref().is_some_and(|told| *told != origin.channel);
    let of_origin = origin.thread_ts.clone().filter(|_| !elsewhere && !memory.unthreaded);
    let thread = if wanted.part == ROOT {
        of_origin
    } else {
        of_origin.or_else(|| telling.root_ts.clone())
    };
    (channel, thread)
}

fn metadata(view: &RunView<'_>, wanted: &Wanted<'_>, generation: &str) -> Metadata {
    Metadata {
        run: view.name.as_str().to_owned(),
        part: wanted.part.clone(),
        generation: generation.trim_start_matches('+').to_owned(),
    }
}

/// A failure that time, plain text or an operator ends.
fn trouble(view: &RunView<'_>, memory: &mut Memory, error: &ApiError) -> Next {
    if matches!(error, ApiError::Refused(Rejection::Blocks(_))) && !memory.plain {
        warn(
            view.name,
            error,
            "Slack refuses the blocks of a message; it goes as plain text",
        );
        memory.plain = true;
        return memory.pause(Duration::ZERO);
    }
    warn(view.name, error, "people could not be told; it is tried again");
    let asked = error
        .retry_after()
        .or_else(|| error.is_permanent().then_some(REFUSED_WAIT));
    memory.later(asked)
}

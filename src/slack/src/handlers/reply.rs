//! Answers on their way to one person or thread.

use std::time::Duration;

use diagbot_api::requester::Requester;
use diagbot_base::retry::{Backoff, Permanence as _};
use diagbot_runs::service::PauseOutcome;
use futures::future::BoxFuture;
use secrecy::SecretString;

use super::Handlers;
use crate::{
    api::{ApiError, Rejection},
    views::{Message, answers},
};

/// What a look-up may take before the acknowledgement goes without its result; Slack waits 3 s.
pub(super) const ACK_BUDGET: Duration = Duration::from_millis(1_500);
/// Times that an answer is tried.
const ATTEMPTS: u32 = 4;

/// What became of a text.
pub(super) enum Outcome {
    /// This is the answer.
    Say(Message),
    /// A run is recorded and tells for itself; the message is for who must get an answer.
    Recorded(Message),
    /// The answer takes a call or two.
    Slow {
        /// If it takes too long.
        meanwhile: Message,
        /// Gives the answer.
        work: BoxFuture<'static, Message>,
    },
    /// Whether the request is recorded is not known; the work finds out.
    Uncertain {
        /// Said at once.
        meanwhile: Message,
        /// Says which.
        work: BoxFuture<'static, Message>,
    },
}

/// Where answers go.
#[derive(Debug, Clone)]
pub(super) enum Actor {
    /// Only this person sees them.
    Person {
        /// Works without membership of the channel, five times within 30 minutes; kept in memory only.
        response_url: Option<SecretString>,
        /// Channel; empty in a form.
        channel: String,
        /// The person.
        user: String,
    },
    /// Everybody in the thread sees them.
    Thread {
        /// Channel.
        channel: String,
        /// Its first message.
        thread_ts: String,
    },
}

impl Handlers {
    /// Says it, by the next best way where one fails, and as plain text where Slack refuses its blocks. A failure of all is logged: the person sees nothing then.
    pub(super) async fn say(&self, actor: &Actor, message: &Message) {
        let mut request_context = self.say_once(actor, message).await;
        if matches!(request_context, Err(ApiError::Refused(Rejection::Blocks(_)))) {
            request_context = self.say_once(actor, &message.plain()).await;
        }
        if let Err(error) = request_context {
            tracing::warn!(
                error = %diagbot_base::telemetry::Chain(&error),
                "an answer did not reach its person"
            );
        }
    }

    /// Tells a channel that captures were paused or are allowed again, and by whom; says whether everybody there heard it.
    /// Threads of the runs that are stopped are told by whoever leads.
    pub(super) async fn announce(&self, channel: &str, outcome: &PauseOutcome, by: &Requester) -> bool {
        let Some(message) = answers::announced(outcome, by) else {
            return true;
        };
        let api = &self.0.context.api;
        let posted = tried(|| async { api.post(channel, None, &message, None).await.map(|_| ()) }).await;
        if let Err(error) = &posted {
            tracing::warn!(
                slack.channel = channel,
                error = %diagbot_base::telemetry::Chain(error),
                "a pause could not be announced"
            );
        }
        posted.is_ok()
    }

    async fn say_once(&self, actor: &Actor, message: &Message) -> Result<(), ApiError> {
        match actor {
            Actor::Person {
                response_url,
                channel,
                user,
            } => self.say_privately(response_url.as_ref(), channel, user, message).await,
            Actor::Thread { channel, thread_ts } => {
                let api = &self.0.context.api;
                tried(|| async { api.post(channel, Some(thread_ts), message, None).await.map(|_| ()) }).await
            }
        }
    }

    async fn say_privately(
        &self,
        response_url: Option<&SecretString>,
        channel: &str,
        user: &str,
        message: &Message,
    ) -> Result<(), ApiError> {
        let api = &self.0.context.api;
        if let Some(url) = response_url {
            let mut body = message.ephemeral();
            body["replace_original"] = false.into();
            match tried(|| api.respond(url, &body)).await {
                blocks @ Err(ApiError::Refused(Rejection::Blocks(_))) => return blocks,
                Err(ApiError::Refused(_) | ApiError::NotSent { .. }) => {}
                outcome => return outcome,
            }
        }
        if !channel.is_empty() {
            match tried(|| api.post_ephemeral(channel, user, None, message)).await {
                blocks @ Err(ApiError::Refused(Rejection::Blocks(_))) => return blocks,
                Err(ApiError::Refused(_)) => {}
                outcome => return outcome,
            }
        }
        tried(|| async { api.post(user, None, message, None).await.map(|_| ()) }).await
    }
}

/// Tries again what surely did not happen; what may have happened is left at that, since a second answer is worse than none.
async fn tried<F, Fut>(mut call: F) -> Result<(), ApiError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), ApiError>>,
{
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    let mut tries = 1;
    loop {
        match call().await {
            Err(error @ (ApiError::RateLimited { .. } | ApiError::NotSent { .. })) if tries < ATTEMPTS => {
                backoff.wait(error.retry_after()).await;
            }
            outcome => return outcome,
        }
        tries += 1;
    }
}

//! What people do becomes requests: parse, rate limit, one create, then the acknowledgement. Runs on every replica.
//!
//! Owns acceptance and every answer that goes to one person. Never looks into a target cluster and never waits for anything
//! before the acknowledgement but the one create, whose budget is 1.5 s.

mod accept;
mod answer;
mod click;
mod form;
mod later;
mod reply;
mod schedule;
mod seen;

use std::sync::Arc;

use diagbot_api::{request_key::RequestKey, requester::Requester, run::Origin};
use futures::{FutureExt as _, future::BoxFuture};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::{
    later::Later,
    reply::{Actor, Outcome},
    seen::Seen,
};
use crate::{
    context::SlackContext,
    form::FormMemory,
    grammar,
    inbound::{Command, Inbound, Mention},
    socket::{self, Ack, Envelope, Handler, SocketHealth, SocketParts},
    views::{Message, answers},
};

/// Takes Slack's deliveries until `stop`.
pub async fn run(context: SlackContext, health: SocketHealth, stop: CancellationToken) {
    let (later, work) = later::queue();
    let config = Arc::clone(&context.config);
    let handlers = Handlers(Arc::new(HandlerState {
        context: context.clone(),
        later,
        health: health.clone(),
        seen: Seen::default(),
        stop: stop.clone(),
    }));
    let handler: Handler = Arc::new(move |envelope| {
        let handlers = handlers.clone();
        async move { handlers.take(envelope).await }.boxed()
    });
    let parts = SocketParts {
        api: context.api.clone(),
        handler,
        busy: answers::busy().ephemeral(),
        health,
        metrics: context.metrics.clone(),
        clock: context.clock.clone(),
    };
    tokio::join!(socket::run(&config, parts, stop.clone()), later::run(work, stop));
}

/// The front. Cheap to clone.
#[derive(Clone)]
struct Handlers(Arc<HandlerState>);

struct HandlerState {
    context: SlackContext,
    later: mpsc::Sender<Later>,
    health: SocketHealth,
    seen: Seen,
    stop: CancellationToken,
}

/// A text of a person and where it came from.
struct RequestContext<'a> {
    by: &'a Requester,
    origin: Origin,
    /// The thread that the text stands in.
    thread: Option<&'a str>,
    text: &'a str,
    key: RequestKey,
}

impl Handlers {
    /// Takes one delivery.
    async fn take(&self, envelope: Envelope) -> Ack {
        match Inbound::read(&envelope) {
            Inbound::Command(command) => self.command(command).await,
            Inbound::Mention(mention) => self.mention(mention).await,
            Inbound::Click(click) => self.click(click).await,
            Inbound::Shortcut(shortcut) => self.shortcut(shortcut),
            Inbound::Suggestion(act, typed) => self.suggest(&act, &typed).await,
            Inbound::FormChanged(act) => self.form_changed(act),
            Inbound::Submission(act) => self.submit(act).await,
            Inbound::Ignored => Ack::Plain,
            Inbound::Unknown(kind) => {
                tracing::warn!(kind, "Slack delivered something that we don't know");
                Ack::Plain
            }
        }
    }

    /// A slash command: the answer goes with the acknowledgement.
    async fn command(&self, command: Command) -> Ack {
        if command.text.trim().is_empty() {
            return self.form_command(command);
        }
        let request_context = RequestContext {
            by: &command.by,
            origin: Origin {
                channel: command.channel.clone(),
                ..Origin::default()
            },
            thread: None,
            text: &command.text,
            key: RequestKey::Command {
                team: command.by.team.clone(),
                trigger_id: command.trigger_id.clone(),
            },
        };
        let actor = Actor::Person {
            response_url: command.response_url.clone(),
            channel: command.channel.clone(),
            user: command.by.user.clone(),
        };
        let message = match self.answer(request_context).await {
            Outcome::Say(message) | Outcome::Recorded(message) => message,
            Outcome::Slow { meanwhile, work } => self.within_ack(meanwhile, work, actor).await,
            Outcome::Uncertain { meanwhile, work } => {
                self.afterwards(self.clone().say_result(actor, work));
                meanwhile
            }
        };
        Ack::With(message.ephemeral())
    }

    /// The command alone opens a form.
    fn form_command(&self, command: Command) -> Ack {
        if let Err(message) = self.look(&command.by) {
            return Ack::With(message.ephemeral());
        }
        let memory = FormMemory {
            channel: command.channel.clone(),
            ..FormMemory::default()
        };
        let actor = Actor::Person {
            response_url: command.response_url,
            channel: command.channel,
            user: command.by.user,
        };
        self.afterwards(self.opening(command.trigger_id, memory, actor));
        Ack::Plain
    }

    /// A mention: answered in its thread. A redelivered one is answered once by this process; a run is one in any case.
    async fn mention(&self, mention: Mention) -> Ack {
        let behind = grammar::behind_mention(&mention.text, mention.bot.as_deref());
        let request_context = RequestContext {
            by: &mention.by,
            origin: Origin {
                channel: mention.channel.clone(),
                thread_ts: mention.thread_ts.clone(),
                ..Origin::default()
            },
            thread: mention.thread_ts.as_deref(),
            text: behind,
            key: RequestKey::Event {
                event_id: mention.event_id.clone(),
            },
        };
        let repeated = self.0.seen.insert(&mention.event_id);
        let outcome = self.answer(request_context).await;
        // An event that is not acknowledged is delivered again, whatever becomes of this process meanwhile.
        let ack = match &outcome {
            Outcome::Uncertain { .. } => Ack::Withheld,
            _ => Ack::Plain,
        };
        if repeated {
            return ack;
        }
        let actor = Actor::Thread {
            channel: mention.channel,
            thread_ts: mention.thread_ts.unwrap_or(mention.ts),
        };
        match outcome {
            // The run's own message is the answer.
            Outcome::Recorded(_) => {}
            Outcome::Say(message) => self.say_later(actor, message),
            Outcome::Slow { work, .. } => self.afterwards(self.clone().say_result(actor, work)),
            Outcome::Uncertain { meanwhile, work } => {
                let handlers = self.clone();
                self.afterwards(
                    async move {
                        handlers.say(&actor, &meanwhile).await;
                        let message = work.await;
                        handlers.say(&actor, &message).await;
                    }
                    .boxed(),
                );
            }
        }
        ack
    }

    /// The message of `work` if it comes in time for the acknowledgement; else `meanwhile`, and the message follows.
    async fn within_ack(&self, meanwhile: Message, mut work: BoxFuture<'static, Message>, actor: Actor) -> Message {
        if let Ok(message) = tokio::time::timeout(reply::ACK_BUDGET, &mut work).await {
            return message;
        }
        self.afterwards(self.clone().say_result(actor, work));
        meanwhile
    }

    fn say_result(self, actor: Actor, work: BoxFuture<'static, Message>) -> Later {
        async move {
            let message = work.await;
            self.say(&actor, &message).await;
        }
        .boxed()
    }

    fn say_later(&self, actor: Actor, message: Message) {
        let handlers = self.clone();
        self.afterwards(async move { handlers.say(&actor, &message).await }.boxed());
    }

    /// Hands work over that goes on after the acknowledgement.
    fn afterwards(&self, work: Later) {
        if self.0.later.try_send(work).is_err() {
            tracing::error!("too much is under way: an answer to a person was dropped");
        }
    }
}

//! The form: opened by the command alone and by the shortcuts, answered while people type, submitted as a request like any
//! other.

use std::time::Duration;

use diagbot_api::{approval::Appeal, request_key::RequestKey, requester::Requester, run::Origin};
use diagbot_runs::{request::RunRequest, service::Sought};
use futures::FutureExt as _;
use serde_json::json;
use tokio::time::timeout;

use super::{
    Handlers,
    accept::Created,
    later::Later,
    reply::{Actor, Outcome},
};
use crate::{
    form::{CALLBACK, Faults, Filled, Form, FormMemory, MOST_FOUND, names_in, option_value},
    inbound::{FormAct, FormState, Shortcut},
    socket::Ack,
    views::{Message, answers, form},
};

/// What options may take; Slack waits 3 s, and people watch a spinner meanwhile.
const OFFER_BUDGET: Duration = Duration::from_millis(1_500);

impl Handlers {
    /// Opens a form after the acknowledgement. Where that fails the person gets help in words.
    pub(super) fn opening(&self, trigger_id: String, memory: FormMemory, actor: Actor) -> Later {
        let handlers = self.clone();
        async move {
            let context = &handlers.0.context;
            let defaults = context.config.defaults(&memory.channel);
            let opened = Form {
                memory,
                cluster: defaults.cluster.unwrap_or_else(|| context.home().to_owned()),
                diagnostic: None,
            };
            if let Err(error) = context.api.open_view(&trigger_id, &handlers.shown(&opened)).await {
                tracing::warn!(error = %diagbot_base::telemetry::Chain(&error), "a form could not be opened");
                handlers.say(&actor, &answers::help(&context.config.command)).await;
            }
        }
        .boxed()
    }

    /// A shortcut: a form, with the targets that the message names if it is one on a message.
    pub(super) fn shortcut(&self, shortcut: Shortcut) -> Ack {
        let actor = Actor::Person {
            response_url: shortcut.response_url.clone(),
            channel: shortcut.channel.clone(),
            user: shortcut.by.user.clone(),
        };
        if let Err(message) = self.look(&shortcut.by) {
            self.say_later(actor, message);
            return Ack::Plain;
        }
        let handlers = self.clone();
        let work = async move {
            let found = handlers.found_in(&shortcut).await;
            let memory = FormMemory {
                channel: shortcut.channel,
                thread_ts: shortcut.thread_ts,
                found,
            };
            handlers.opening(shortcut.trigger_id, memory, actor).await;
        };
        self.afterwards(work.boxed());
        Ack::Plain
    }

    /// Targets that a message names and that the person may see; none where that can't be told in time.
    async fn found_in(&self, shortcut: &Shortcut) -> Vec<String> {
        let context = &self.0.context;
        let names = names_in(&shortcut.message);
        if names.is_empty() {
            return Vec::new();
        }
        let cluster = context.config.defaults(&shortcut.channel).cluster;
        let cluster = cluster.as_deref().unwrap_or_else(|| context.home());
        let sought = Sought::Names(names);
        let offers = context
            .service
            .offers(&shortcut.by, &shortcut.channel, cluster, &sought);
        match timeout(OFFER_BUDGET, offers).await {
            Ok(Ok(found)) => found.iter().filter_map(option_value).take(MOST_FOUND).collect(),
            _ => Vec::new(),
        }
    }

    /// Options for what is typed so far. Any failure offers nothing; the target can still be typed as a command.
    pub(super) async fn suggest(&self, act: &FormAct, typed: &str) -> Ack {
        let context = &self.0.context;
        let shown = Form::read(&act.form, context.home());
        if self.look(&act.by).is_err() {
            return Ack::With(form::offers(&[]));
        }
        let sought = Sought::Part(typed.trim().to_ascii_lowercase());
        let offers = context
            .service
            .offers(&act.by, &shown.memory.channel, &shown.cluster, &sought);
        let found = match timeout(OFFER_BUDGET, offers).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(error = %diagbot_base::telemetry::Chain(&error), "names could not be offered");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        Ack::With(form::offers(&found))
    }

    /// Something was chosen: the form follows, with the fields of the chosen diagnostic.
    pub(super) fn form_changed(&self, act: FormAct) -> Ack {
        if act.form.callback != CALLBACK {
            return Ack::Plain;
        }
        let handlers = self.clone();
        let work = async move {
            let context = &handlers.0.context;
            let view = handlers.shown(&Form::read(&act.form, context.home()));
            if let Err(error) = context.api.update_view(&act.form.view, &act.form.hash, &view).await {
                // Closed meanwhile, or changed again: the later change brings its own update.
                tracing::debug!(error = %diagbot_base::telemetry::Chain(&error), "a form was not updated");
            }
        };
        self.afterwards(work.boxed());
        Ack::Plain
    }

    /// A submitted form is recorded before it closes; faults are shown at their fields.
    pub(super) async fn submit(&self, act: FormAct) -> Ack {
        if act.form.callback != CALLBACK {
            return Ack::Plain;
        }
        let context = &self.0.context;
        let submitted = Form::read(&act.form, context.home());
        let filled = match submitted.fill(&act.form, context.service.catalog()) {
            Ok(filled) => filled,
            Err(faults) => return refused(&faults),
        };
        let channel = submitted.memory.channel.clone();
        match self
            .create(self.request(&act.by, submitted.memory, filled, &act.form))
            .await
        {
            Created::Recorded(_) => Ack::Plain,
            Created::Answered(Outcome::Say(message) | Outcome::Recorded(message)) => instead(&message),
            Created::Answered(Outcome::Slow { meanwhile, work } | Outcome::Uncertain { meanwhile, work }) => {
                let actor = Actor::Person {
                    response_url: None,
                    channel,
                    user: act.by.user,
                };
                self.afterwards(self.clone().say_result(actor, work));
                instead(&meanwhile)
            }
        }
    }

    fn request(&self, by: &Requester, memory: FormMemory, filled: Filled, state: &FormState) -> RunRequest {
        // A global shortcut has no channel: the run is told to the person.
        let channel = Some(memory.channel).filter(|channel| !channel.is_empty());
        RunRequest {
            key: RequestKey::Form {
                team: by.team.clone(),
                view: state.view.clone(),
            },
            requester: by.clone(),
            origin: Origin {
                channel: channel.unwrap_or_else(|| by.user.clone()),
                thread_ts: memory.thread_ts,
                ..Origin::default()
            },
            diagnostic: filled.diagnostic,
            parameters: filled.parameters,
            target: filled.target,
            targets: None,
            armed_until: None,
            dry_run: false,
            confirmed: false,
            appeal: Appeal::default(),
            received_at: self.0.context.clock.now(),
        }
    }

    fn shown(&self, shown: &Form) -> serde_json::Value {
        let service = &self.0.context.service;
        let home = self.0.context.home();
        let others = service
            .clusters()
            .names()
            .map(ToString::to_string)
            .filter(|name| name != home);
        let clusters: Vec<String> = std::iter::once(home.to_owned()).chain(others).collect();
        form::form(shown, service.catalog(), &clusters)
    }
}

fn refused(faults: &Faults) -> Ack {
    Ack::With(json!({ "response_action": "errors", "errors": faults }))
}

fn instead(message: &Message) -> Ack {
    Ack::With(json!({ "response_action": "update", "view": form::closing(message) }))
}

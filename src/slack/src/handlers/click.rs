//! Buttons: looked up and decided at click time, for the person who clicks. One button of a run is one action, whoever
//! presses it how often; only who is denied leaves it to others.

use diagbot_api::{
    approval::Appeal,
    request_key::{RequestKey, RunName},
    requester::Requester,
    run::{Candidate, DiagnosticRun, Origin, Phase},
    target::{TargetKind, TargetRef},
};
use diagbot_runs::{request::RunRequest, service::ApprovalOutcome};
use futures::{FutureExt as _, future::BoxFuture};
use jiff::{SignedDuration, Timestamp};

use super::{
    Handlers,
    accept::Created,
    answer::failure,
    reply::{Actor, Outcome},
};
use crate::{
    button::{ATTEMPTS, Button},
    inbound::Click,
    socket::Ack,
    views::{Message, answers, bundle, links, schedule::SAVE},
};

/// How long offers are good: an incident is over by then, and its pods are others.
const OFFERED_FOR: SignedDuration = SignedDuration::from_hours(24);

impl Handlers {
    /// A click. Whatever it starts is recorded before the acknowledgement.
    pub(super) async fn click(&self, click: Click) -> Ack {
        let actor = Actor::Person {
            response_url: click.response_url.clone(),
            channel: click.channel.clone(),
            user: click.by.user.clone(),
        };
        for (action_id, value) in &click.actions {
            if action_id == SAVE {
                let work = self.save_schedule(value.clone(), click.by.clone());
                self.afterwards(self.clone().say_result(actor.clone(), work));
                continue;
            }
            let Some(button) = Button::parse(action_id, value) else {
                tracing::warn!("a click on something that is not one of our buttons");
                continue;
            };
            let looks = matches!(
                button,
                Button::Link { .. } | Button::Bundle { .. } | Button::Grant { .. }
            );
            if looks && let Err(message) = self.look(&click.by) {
                self.say_later(actor.clone(), message);
                continue;
            }
            match &button {
                Button::Cancel { run } => {
                    let work = self.cancelling(run.clone(), click.by.clone(), click.channel.clone());
                    self.afterwards(self.clone().say_result(actor.clone(), work));
                }
                Button::Link { run } => {
                    let work = self.linking(run.clone(), click.by.clone(), click.channel.clone());
                    self.afterwards(self.clone().say_result(actor.clone(), work));
                }
                Button::Bundle { run } => {
                    let work = self.bundling(run.clone(), click.by.clone(), click.channel.clone());
                    self.afterwards(self.clone().say_result(actor.clone(), work));
                }
                Button::Approve { run } | Button::Refuse { run } => {
                    let approved = matches!(button, Button::Approve { .. });
                    let work = self.approving(run.clone(), &click, approved);
                    self.afterwards(self.clone().say_result(actor.clone(), work));
                }
                Button::Grant { run } => {
                    let service = &self.0.context.service;
                    let message = match service.get(run) {
                        None => answers::button_over(run),
                        Some(found) => match service.grant(&found) {
                            Some(yaml) => answers::grant(run, &yaml),
                            None => answers::no_grant(run),
                        },
                    };
                    self.say_later(actor.clone(), message);
                }
                Button::Choose { .. }
                | Button::Take { .. }
                | Button::Confirm { .. }
                | Button::Again { .. }
                | Button::AskOwners { .. }
                | Button::Compare { .. } => {
                    self.start(&button, &click, actor.clone()).await;
                }
            }
        }
        Ack::Plain
    }

    /// A button that starts a run.
    async fn start(&self, button: &Button, click: &Click, actor: Actor) {
        let context = &self.0.context;
        let Some(run) = context.service.get(button.run()) else {
            return self.say_later(actor, answers::button_over(button.run()));
        };
        let (Some(target), Some(diagnostic)) = (target(button, &run), diagnostic(button, &run, context.clock.now()))
        else {
            return self.say_later(actor, answers::button_over(button.run()));
        };
        let request = RunRequest {
            key: self.attempt(button, &click.by),
            requester: click.by.clone(),
            origin: origin(&run, click),
            diagnostic,
            parameters: run.spec.parameters.clone(),
            target,
            targets: run
                .spec
                .targets
                .filter(|_| !matches!(button, Button::Choose { .. } | Button::Compare { .. })),
            armed_until: None,
            dry_run: run.spec.dry_run,
            // What was confirmed of one pod was not of another.
            confirmed: match button {
                Button::Confirm { .. } => true,
                Button::Compare { .. } => false,
                _ => run.spec.confirmed,
            },
            appeal: Appeal {
                ask_owners: matches!(button, Button::AskOwners { .. }),
                // A broken glass is a person's own word, and not a button's.
                break_glass: None,
            },
            received_at: context.clock.now(),
        };
        match self.create(request).await {
            Created::Recorded(accepted) if accepted.repeated => self.tell_who_was_first(&accepted.name, click, actor),
            // The new run's message in the thread is the answer.
            Created::Recorded(_) => {}
            Created::Answered(Outcome::Say(message) | Outcome::Recorded(message)) => self.say_later(actor, message),
            Created::Answered(Outcome::Slow { meanwhile, work } | Outcome::Uncertain { meanwhile, work }) => {
                let handlers = self.clone();
                let both = async move {
                    handlers.say(&actor, &meanwhile).await;
                    let message = work.await;
                    handlers.say(&actor, &message).await;
                };
                self.afterwards(both.boxed());
            }
        }
    }

    /// The key of a press: whoever presses how often, it is one request, unless all who pressed before were denied.
    fn attempt(&self, button: &Button, by: &Requester) -> RequestKey {
        let key = |attempt: usize| RequestKey::Action {
            run: button.run().clone(),
            button: button.attempt(attempt),
        };
        let is_used_up = |key: &RequestKey| {
            let former = self.0.context.service.get(&key.run_name());
            former.is_some_and(|former| former.spec.requester != *by && former.phase() == Phase::Denied)
        };
        let free = (0..ATTEMPTS).map(key).find(|key| !is_used_up(key));
        free.unwrap_or_else(|| key(0))
    }

    fn tell_who_was_first(&self, name: &RunName, click: &Click, actor: Actor) {
        let Some(first) = self.0.context.service.get(name) else {
            return;
        };
        // A redelivery of one's own click is nothing to tell; pressing again after one was denied is.
        if first.spec.requester != click.by || first.phase() == Phase::Denied {
            let message = answers::already_pressed(name, &first.spec.requester, first.spec.received_at.0);
            self.say_later(actor, message);
        }
    }

    /// What a second person says, reviewed for whoever pressed.
    fn approving(&self, run: RunName, click: &Click, approved: bool) -> BoxFuture<'static, Message> {
        let service = self.0.context.service.clone();
        let (by, channel) = (click.by.clone(), click.channel.clone());
        async move {
            match service.approval(&run, &by, &channel, approved).await {
                Ok(ApprovalOutcome::Said { approved }) => answers::said(&run, approved),
                Ok(ApprovalOutcome::SaidBefore(request_context)) => {
                    answers::said_before(&run, &request_context.by, request_context.approved, request_context.at)
                }
                Ok(ApprovalOutcome::Over(phase)) => answers::asked_no_more(&run, phase),
                Err(error) => failure(&run, &error),
            }
        }
        .boxed()
    }

    /// Fresh links, for the person who asks.
    fn linking(&self, run: RunName, by: Requester, channel: String) -> BoxFuture<'static, Message> {
        let service = self.0.context.service.clone();
        async move {
            let cluster = service
                .get(&run)
                .map(|found| found.place(&service.clusters().home().name).0)
                .unwrap_or_default();
            match service.links(&run, &by, &channel).await {
                Ok(found) => links(&run, &cluster, &found),
                Err(error) => failure(&run, &error),
            }
        }
        .boxed()
    }

    /// Everything as one archive, for the person who asks.
    fn bundling(&self, run: RunName, by: Requester, channel: String) -> BoxFuture<'static, Message> {
        let service = self.0.context.service.clone();
        async move {
            match service.bundle(&run, &by, &channel).await {
                Ok(made) => bundle(&run, &made),
                Err(error) => failure(&run, &error),
            }
        }
        .boxed()
    }
}

/// What a button runs on; none where the run has no such choice.
fn target(button: &Button, run: &DiagnosticRun) -> Option<TargetRef> {
    let candidates = run
        .status
        .as_ref()
        .map(|status| status.candidates.as_slice())
        .unwrap_or_default();
    match button {
        Button::Choose { index, .. } => candidates.get(*index).map(|candidate| chosen(run, candidate)),
        Button::Take { .. } => candidates.first().map(|candidate| chosen(run, candidate)),
        // Several targets have no candidate: the same are chosen again.
        Button::Confirm { .. } => candidates
            .first()
            .map(|candidate| chosen(run, candidate))
            .or_else(|| Some(run.spec.target.clone())),
        Button::Compare { .. } => {
            let captures = run.status.as_ref().map(|status| status.captures.as_slice());
            let looked_at = captures.unwrap_or_default().first()?.target.clone();
            Some(TargetRef {
                cluster: Some(looked_at.cluster),
                namespace: Some(looked_at.namespace),
                kind: Some(TargetKind::Pod),
                name: looked_at.pod,
                container: Some(looked_at.container).filter(|name| !name.is_empty()),
                healthy_replica: true,
                ..TargetRef::default()
            })
        }
        Button::Again { .. } | Button::AskOwners { .. } => Some(TargetRef {
            pod_uid: None,
            ..run.spec.target.clone()
        }),
        Button::Cancel { .. }
        | Button::Link { .. }
        | Button::Bundle { .. }
        | Button::Approve { .. }
        | Button::Refuse { .. }
        | Button::Grant { .. } => None,
    }
}

/// What a button takes; none where the run has no such offer, or has it no more.
fn diagnostic(button: &Button, run: &DiagnosticRun, now: Timestamp) -> Option<String> {
    let Button::Take { index, .. } = button else {
        return Some(run.diagnostic_name().to_owned());
    };
    if now.duration_since(run.spec.received_at.0) > OFFERED_FOR {
        return None;
    }
    let offers = run.status.as_ref().map(|status| status.offers.as_slice());
    Some(offers?.get(*index)?.diagnostic.clone())
}

fn chosen(run: &DiagnosticRun, candidate: &Candidate) -> TargetRef {
    let typed = &run.spec.target;
    TargetRef {
        cluster: typed.cluster.clone(),
        namespace: Some(candidate.namespace.clone()),
        kind: Some(TargetKind::Pod),
        name: candidate.pod.clone(),
        container: candidate.container.clone().or_else(|| typed.container.clone()),
        pod_uid: Some(candidate.pod_uid.clone()).filter(|uid| !uid.is_empty()),
        ..TargetRef::default()
    }
}

/// The thread of the message that was clicked.
fn origin(run: &DiagnosticRun, click: &Click) -> Origin {
    let told = run.status.as_ref().map(|status| &status.telling);
    let channel = if click.channel.is_empty() {
        told.and_then(|telling| telling.channel.clone())
            .unwrap_or_else(|| run.spec.origin.channel.clone())
    } else {
        click.channel.clone()
    };
    let root = told.and_then(|telling| telling.root_ts.clone());
    Origin {
        channel,
        thread_ts: click
            .thread_ts
            .clone()
            .or_else(|| run.spec.origin.thread_ts.clone())
            .or(root),
        ..Origin::default()
    }
}

//! Everything else that is typed: lists, help, states, cancelling.

use std::sync::Arc;

use diagbot_api::{
    request_key::{RequestKey, RunName},
    requester::Requester,
    run::DiagnosticRun,
    target::TargetRef,
};
use diagbot_catalog::Entry;
use diagbot_runs::service::{CancelOutcome, RunFilter, RunService, ServiceError};
use futures::{FutureExt as _, future::BoxFuture};

use super::{Handlers, RequestContext, reply::Outcome};
use crate::{
    context::SlackContext,
    grammar::{self, Place, Request},
    views::{Links, Message, RunView, answers},
};

/// Runs of a list; more don't fit a message.
const LISTED: usize = 20;
/// Runs that are told of where an id is the beginning of several.
const NAMED: usize = 10;

/// The run that a person means.
enum Meant {
    /// The thread's, or the person's latest.
    This(Arc<DiagnosticRun>),
    /// One that is called so, if the person may be told of one.
    Named(String),
}

impl Handlers {
    /// Answers a text.
    pub(super) async fn answer(&self, request_context: RequestContext<'_>) -> Outcome {
        let context = &self.0.context;
        let command = &context.config.command;
        let catalog = context.service.catalog();
        let request = match grammar::parse(request_context.text, catalog) {
            Ok(request) => request,
            Err(fault) => return self.fault(&fault),
        };
        let needs_records = matches!(
            request,
            Request::Status(_)
                | Request::Runs { .. }
                | Request::Cancel(_)
                | Request::Pause { .. }
                | Request::Schedule(_)
        );
        if needs_records && !context.service.ready() {
            return Outcome::Say(answers::starting());
        }
        // Runs count for themselves; what stops something is never counted.
        let looks = !matches!(request, Request::Run(_) | Request::Cancel(_) | Request::Pause { .. });
        if looks && let Err(message) = self.look(request_context.by) {
            return Outcome::Say(message);
        }
        match request {
            Request::Run(call) => self.run(call, request_context).await,
            Request::Schedule(call) => self.schedule(call, &request_context),
            Request::Health => self.health(),
            Request::List => Outcome::Say(answers::list(catalog, command)),
            Request::Help(name) => Outcome::Say(match name.and_then(|name| catalog.entry(&name)) {
                Some(Entry::Diagnostic(diagnostic)) => answers::help_one(diagnostic, command),
                Some(Entry::Runbook(runbook)) => answers::help_runbook(runbook, catalog, command),
                None => answers::help(command),
            }),
            Request::Status(id) => match self.meant(id, &request_context, false) {
                Ok(meant) => Outcome::Slow {
                    meanwhile: answers::looking(),
                    work: self.telling_status(meant, &request_context),
                },
                Err(message) => Outcome::Say(message),
            },
            Request::Runs { target, since } => Outcome::Slow {
                meanwhile: answers::looking(),
                work: self.listing(target, since, &request_context),
            },
            Request::Cancel(id) => match self.meant(id, &request_context, true) {
                Ok(meant) => Outcome::Slow {
                    meanwhile: match &meant {
                        Meant::This(run) => run
                            .name()
                            .map_or_else(answers::looking, |name| answers::cancel_pending(&name)),
                        // Whether there is one is not everybody's to know.
                        Meant::Named(_) => answers::looking(),
                    },
                    work: self.cancelling_seen(meant, &request_context),
                },
                Err(message) => Outcome::Say(message),
            },
            Request::Pause { stop, word, place } => Outcome::Slow {
                meanwhile: answers::looking(),
                work: self.switching(stop, word, place, &request_context),
            },
        }
    }

    /// Counts something that is only looked at; the error is the answer.
    pub(super) fn look(&self, person: &Requester) -> Result<(), Message> {
        let looked = self.0.context.service.look(person);
        looked.map_err(|reason| answers::explained(&reason))
    }

    /// Pauses a place, or allows captures there again.
    fn switching(
        &self,
        stop: bool,
        word: Option<String>,
        place: Place,
        request_context: &RequestContext<'_>,
    ) -> BoxFuture<'static, Message> {
        let (handlers, context) = (self.clone(), self.0.context.clone());
        let (by, channel) = (request_context.by.clone(), request_context.origin.channel.clone());
        async move {
            let service = &context.service;
            let scope = service.scope(word, place.cluster, place.namespace);
            let switched = if stop {
                service.pause(scope, &by, &channel).await
            } else {
                service.resume(scope, &by, &channel).await
            };
            match switched {
                Ok(outcome) => {
                    let heard = handlers.announce(&channel, &outcome, &by).await;
                    answers::switched(&outcome, heard, &context.config.command)
                }
                Err(ServiceError::Denied(reason)) => answers::not_switched(Some(&reason)),
                Err(error) => {
                    tracing::warn!(error = %diagbot_base::telemetry::Chain(&error), "a switch was not done");
                    answers::not_switched(None)
                }
            }
        }
        .boxed()
    }

    /// The run of that id; without an id the thread's, else the person's latest.
    fn meant(&self, id: Option<String>, request_context: &RequestContext<'_>, running: bool) -> Result<Meant, Message> {
        let context = &self.0.context;
        let command = &context.config.command;
        if let Some(id) = id {
            return Ok(Meant::Named(id));
        }
        let of_thread = request_context
            .thread
            .and_then(|ts| context.service.find_by_thread(&request_context.origin.channel, ts));
        let latest = || {
            let filter = RunFilter {
                requester: Some(request_context.by.clone()),
                running,
                most: Some(1),
                ..RunFilter::default()
            };
            context.service.list(&filter).into_iter().next()
        };
        let known = of_thread.or_else(latest).ok_or_else(|| answers::no_run(None, command));
        known.map(Meant::This)
    }

    /// A run's state. One that was named by its id is there only for those who may be told of it.
    fn telling_status(&self, meant: Meant, request_context: &RequestContext<'_>) -> BoxFuture<'static, Message> {
        let context = self.0.context.clone();
        let (by, channel) = (request_context.by.clone(), request_context.origin.channel.clone());
        let private = matches!(request_context.key, RequestKey::Command { .. });
        async move {
            let (name, run) = match seen(&context, meant, &by, &channel).await {
                Ok(seen) => seen,
                Err(message) => return message,
            };
            let audience = context.service.audience(&run).await;
            let own = private && run.spec.requester == by && audience.requester;
            let view = RunView {
                name: &name,
                run: &run,
                home: context.home(),
                successors: &[],
                compared: None,
                hidden: !(own || (audience.channel && channel == run.spec.origin.channel)),
            };
            view.root(Links::Withheld)
        }
        .boxed()
    }

    /// Earlier runs that the person may be told of.
    fn listing(
        &self,
        target: Option<TargetRef>,
        since: Option<jiff::SignedDuration>,
        request_context: &RequestContext<'_>,
    ) -> BoxFuture<'static, Message> {
        let context = self.0.context.clone();
        let (by, channel) = (request_context.by.clone(), request_context.origin.channel.clone());
        async move {
            let name = target.as_ref().map(|target| target.name.clone());
            let filter = RunFilter {
                target: name.filter(|name| !name.is_empty()),
                since: since.and_then(|since| context.clock.now().checked_sub(since).ok()),
                ..RunFilter::default()
            };
            let mut listed = context.service.list(&filter);
            listed.retain(|run| target.as_ref().is_none_or(|target| is_in(run, target, context.home())));
            let seen = context.service.told_of(listed, &by, &channel, LISTED + 1).await;
            let mut found: Vec<(RunName, Arc<DiagnosticRun>)> =
                seen.into_iter().filter_map(|run| Some((run.name()?, run))).collect();
            let more = found.len() > LISTED;
            found.truncate(LISTED);
            let views: Vec<RunView<'_>> = found
                .iter()
                .map(|(name, run)| RunView {
                    name,
                    run,
                    home: context.home(),
                    successors: &[],
                    compared: None,
                    hidden: true,
                })
                .collect();
            answers::runs(&views, more)
        }
        .boxed()
    }

    /// The same for a run that was named by its id: it is there only for those who may be told of it.
    fn cancelling_seen(&self, meant: Meant, request_context: &RequestContext<'_>) -> BoxFuture<'static, Message> {
        let context = self.0.context.clone();
        let (by, channel) = (request_context.by.clone(), request_context.origin.channel.clone());
        async move {
            match seen(&context, meant, &by, &channel).await {
                Ok((name, _)) => cancel(&context.service, &name, &by, &channel).await,
                Err(message) => message,
            }
        }
        .boxed()
    }

    /// Asks a run to stop, and tells what became of it.
    pub(super) fn cancelling(&self, run: RunName, by: Requester, channel: String) -> BoxFuture<'static, Message> {
        let service = self.0.context.service.clone();
        async move { cancel(&service, &run, &by, &channel).await }.boxed()
    }
}

/// The run that is meant; of those that are called so, the one that the person may be told of. The error is the answer.
async fn seen(
    context: &SlackContext,
    meant: Meant,
    by: &Requester,
    channel: &str,
) -> Result<(RunName, Arc<DiagnosticRun>), Message> {
    let (found, id) = match meant {
        Meant::This(run) => (vec![run], None),
        Meant::Named(id) => {
            let named = context.service.named(&id);
            (context.service.told_of(named, by, channel, NAMED).await, Some(id))
        }
    };
    let mut found: Vec<_> = found.into_iter().filter_map(|run| Some((run.name()?, run))).collect();
    if found.len() > 1 {
        let names: Vec<RunName> = found.into_iter().map(|(name, _)| name).collect();
        return Err(answers::several_runs(&names));
    }
    found
        .pop()
        .ok_or_else(|| answers::no_run(id.as_deref(), &context.config.command))
}

/// Whether a run is in the cluster and namespace that were named, if any were.
fn is_in(run: &DiagnosticRun, target: &TargetRef, home: &str) -> bool {
    let resolved = run.status.iter().flat_map(|status| &status.captures).next();
    let (cluster, namespace) = match resolved {
        Some(capture) => (capture.target.cluster.as_str(), Some(capture.target.namespace.as_str())),
        None => (
            run.spec.target.cluster.as_deref().unwrap_or(home),
            run.spec.target.namespace.as_deref(),
        ),
    };
    target.cluster.as_deref().is_none_or(|wanted| wanted == cluster)
        && target
            .namespace
            .as_deref()
            .is_none_or(|wanted| Some(wanted) == namespace)
}

async fn cancel(service: &RunService, run: &RunName, by: &Requester, channel: &str) -> Message {
    match service.cancel(run, by, channel).await {
        Ok(CancelOutcome::Asked) => answers::cancel_asked(run),
        Ok(CancelOutcome::AlreadyAsked { by, at }) => answers::cancel_asked_before(run, &by, at),
        Ok(CancelOutcome::AlreadyEnded(phase)) => answers::ended_before(run, phase),
        Err(error) => failure(run, &error),
    }
}

/// A failed service call in words; the chain goes to the log.
pub(super) fn failure(run: &RunName, error: &ServiceError) -> Message {
    match error {
        ServiceError::Denied(reason) => answers::failed(run, Some(reason)),
        ServiceError::NotFound => answers::button_over(run),
        error => {
            tracing::warn!(
                run.id = run.as_str(),
                error = %diagbot_base::telemetry::Chain(error),
                "what a person asked about a run did not succeed"
            );
            answers::failed(run, error.explanation().as_ref())
        }
    }
}

//! Everything else that is typed: lists, help, states, cancelling.

use std::sync::Arc;

use futures::{FutureExt as _, future::BoxFuture};

use super::{Front, Said, reply::Outcome};
use crate::{
    runs::{
        request::RunName,
        resource::{DiagnosticRun, Requester, TargetRef},
        service::{CancelOutcome, FindError, RunFilter, RunService, ServiceError},
    },
    slack::{
        grammar::{self, Request},
        views::{Links, Message, RunView, answers},
    },
};

/// Runs of a list; more don't fit a message.
const LISTED: usize = 20;

impl Front {
    /// Answers a text.
    pub(super) async fn answer(&self, said: Said<'_>) -> Outcome {
        let context = &self.0.context;
        let command = &context.config.command;
        let catalog = context.service.catalog();
        let request = match grammar::parse(said.text, catalog) {
            Ok(request) => request,
            Err(fault) => return self.fault(&fault),
        };
        let needs_records = matches!(request, Request::Status(_) | Request::Runs { .. } | Request::Cancel(_));
        if needs_records && !context.service.ready() {
            return Outcome::Say(answers::starting());
        }
        match request {
            Request::Run(call) => self.run(call, said).await,
            Request::List => Outcome::Say(answers::list(catalog, command)),
            Request::Help(name) => Outcome::Say(match name.and_then(|name| catalog.get(&name)) {
                Some(diagnostic) => answers::help_one(diagnostic, command),
                None => answers::help(command),
            }),
            Request::Status(id) => Outcome::Say(match self.meant(id.as_deref(), &said, false) {
                Ok(run) => self.status(&run),
                Err(message) => message,
            }),
            Request::Runs { target, since } => Outcome::Say(self.runs(target.as_ref(), since)),
            Request::Cancel(id) => match self.meant(id.as_deref(), &said, true).map(|run| run.name()) {
                Ok(Some(name)) => Outcome::Slow {
                    meanwhile: answers::cancel_pending(&name),
                    work: self.cancelling(name, said.by.clone()),
                },
                Ok(None) => Outcome::Say(answers::no_run(None, command)),
                Err(message) => Outcome::Say(message),
            },
        }
    }

    /// The run of that id; without an id the thread's, else the person's latest.
    fn meant(&self, id: Option<&str>, said: &Said<'_>, running: bool) -> Result<Arc<DiagnosticRun>, Message> {
        let context = &self.0.context;
        let command = &context.config.command;
        if let Some(id) = id {
            return context.service.find(id).map_err(|error| match error {
                FindError::None => answers::no_run(Some(id), command),
                FindError::Several(names) => answers::several_runs(&names),
            });
        }
        let of_thread = said
            .thread
            .and_then(|ts| context.service.find_by_thread(&said.origin.channel, ts));
        let latest = || {
            let filter = RunFilter {
                requester: Some(said.by.clone()),
                running,
                most: Some(1),
                ..RunFilter::default()
            };
            context.service.list(&filter).into_iter().next()
        };
        of_thread.or_else(latest).ok_or_else(|| answers::no_run(None, command))
    }

    fn status(&self, run: &DiagnosticRun) -> Message {
        let Some(name) = run.name() else {
            return answers::no_run(None, &self.0.context.config.command);
        };
        let view = RunView {
            name: &name,
            run,
            home: self.0.context.home(),
            successor: None,
        };
        view.root(Links::Withheld)
    }

    fn runs(&self, target: Option<&TargetRef>, since: Option<jiff::SignedDuration>) -> Message {
        let context = &self.0.context;
        let filter = RunFilter {
            target: target.map(|target| target.name.clone()).filter(|name| !name.is_empty()),
            since: since.and_then(|since| context.clock.now().checked_sub(since).ok()),
            ..RunFilter::default()
        };
        let mut found: Vec<(RunName, Arc<DiagnosticRun>)> = context
            .service
            .list(&filter)
            .into_iter()
            .filter(|run| target.is_none_or(|target| is_in(run, target, context.home())))
            .filter_map(|run| Some((run.name()?, run)))
            .take(LISTED + 1)
            .collect();
        let more = found.len() > LISTED;
        found.truncate(LISTED);
        let views: Vec<RunView<'_>> = found
            .iter()
            .map(|(name, run)| RunView {
                name,
                run,
                home: context.home(),
                successor: None,
            })
            .collect();
        answers::runs(&views, more)
    }

    /// Asks a run to stop, and tells what became of it.
    pub(super) fn cancelling(&self, run: RunName, by: Requester) -> BoxFuture<'static, Message> {
        let service = self.0.context.service.clone();
        async move { cancel(&service, &run, &by).await }.boxed()
    }
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

async fn cancel(service: &RunService, run: &RunName, by: &Requester) -> Message {
    match service.cancel(run, by).await {
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
                error = %crate::telemetry::Chain(error),
                "what a person asked about a run did not succeed"
            );
            answers::failed(run, None)
        }
    }
}

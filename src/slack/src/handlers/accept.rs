//! Requests that become runs: one create, then the answer.

use diagbot_api::{
    approval::Appeal,
    request_key::RunName,
    run::{DiagnosticRun, OFFER},
    target::{TargetKind, TargetRef},
};
use diagbot_base::telemetry::metrics::Outcome as Word;
use diagbot_runs::{
    reason::Reason,
    request::RunRequest,
    service::{AcceptError, Accepted, RunFilter},
};
use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};

use super::{Handlers, RequestContext, reply::Outcome};
use crate::{
    grammar::{Fault, RunCall},
    views::answers,
};

/// Most runs that wait for a restart: each looks at its target every few seconds.
const MOST_ARMED: usize = 50;

/// What a create came to.
pub(super) enum Created {
    /// The run is recorded.
    Recorded(Accepted),
    /// Nothing was recorded; or it is not known. The person gets this.
    Answered(Outcome),
}

impl Handlers {
    /// A typed diagnostic.
    pub(super) async fn run(&self, call: RunCall, request_context: RequestContext<'_>) -> Outcome {
        let context = &self.0.context;
        let defaults = context.config.defaults(&request_context.origin.channel);
        let implied = request_context
            .thread
            .filter(|_| call.target.is_none())
            .and_then(|ts| context.service.find_by_thread(&request_context.origin.channel, ts))
            .map(|run| target_of(&run));
        let target = match call.target(implied, &defaults) {
            Ok(target) => target,
            Err(fault) => return self.fault(&fault),
        };
        if call.armed_for_s.is_some() && self.armed() >= MOST_ARMED {
            let reason = Reason::TooManyArmed { most: MOST_ARMED };
            return Outcome::Say(answers::rejected(&request_context.key.run_name(), &reason.explain()));
        }
        let known = call.diagnostic == OFFER || context.service.catalog().entry(&call.typed.to_lowercase()).is_some();
        let what = format!("{} {target}", call.diagnostic);
        let request = RunRequest {
            key: request_context.key,
            requester: request_context.by.clone(),
            origin: request_context.origin,
            diagnostic: call.typed.to_lowercase(),
            parameters: call.parameters,
            target,
            targets: call.targets,
            armed_until: call.armed_for_s.map(|seconds| later(context.clock.now(), seconds)),
            dry_run: call.dry_run,
            confirmed: false,
            appeal: Appeal {
                ask_owners: false,
                break_glass: call.break_glass,
            },
            received_at: context.clock.now(),
        };
        match self.create(request).await {
            Created::Recorded(accepted) => {
                let completed = (!known).then_some((call.typed.as_str(), call.diagnostic.as_str()));
                Outcome::Recorded(answers::accepted(&accepted.name, &what, completed))
            }
            Created::Answered(outcome) => outcome,
        }
    }

    /// Runs that wait for a restart.
    fn armed(&self) -> usize {
        let filter = RunFilter {
            running: true,
            ..RunFilter::default()
        };
        let running = self.0.context.service.list(&filter);
        running.iter().filter(|run| run.is_armed()).count()
    }

    /// The one create, with what is said of it.
    pub(super) async fn create(&self, request: RunRequest) -> Created {
        let context = &self.0.context;
        let name = request.name();
        match context.service.accept(request.clone()).await {
            Ok(accepted) => {
                self.count(if accepted.repeated { "repeated" } else { "created" });
                tracing::info!(
                    run.id = name.as_str(),
                    repeated = accepted.repeated,
                    "a request is recorded"
                );
                Created::Recorded(accepted)
            }
            Err(AcceptError::Unconfirmed { source, .. }) => {
                self.count("unconfirmed");
                tracing::warn!(
                    run.id = name.as_str(),
                    error = %diagbot_base::telemetry::Chain(&source),
                    "whether a request is recorded is not known yet"
                );
                Created::Answered(self.confirm(&name, request))
            }
            Err(error) => {
                self.count("rejected");
                Created::Answered(Outcome::Say(refusal(&name, &error)))
            }
        }
    }

    fn confirm(&self, name: &RunName, request: RunRequest) -> Outcome {
        let service = self.0.context.service.clone();
        let stop = self.0.stop.clone();
        let run = name.clone();
        Outcome::Uncertain {
            meanwhile: answers::unconfirmed(name),
            work: async move {
                match service.confirm(&run, request, &stop).await {
                    Ok(_) => answers::confirmed(&run),
                    Err(error) => refusal(&run, &error),
                }
            }
            .boxed(),
        }
    }

    /// A text that is no request.
    pub(super) fn fault(&self, fault: &Fault) -> Outcome {
        Outcome::Say(answers::fault(fault, &self.0.context.config.command))
    }

    fn count(&self, outcome: &'static str) {
        self.0.context.metrics.requests.get_or_create(&Word { outcome }).inc();
    }
}

fn later(time: Timestamp, seconds: u32) -> Timestamp {
    time.saturating_add(SignedDuration::from_secs(i64::from(seconds)))
        .unwrap_or(Timestamp::MAX)
}

fn refusal(name: &RunName, error: &AcceptError) -> crate::views::Message {
    if let AcceptError::Rejected(reason) = error {
        return answers::rejected(name, reason);
    }
    tracing::error!(
        run.id = name.as_str(),
        error = %diagbot_base::telemetry::Chain(error),
        "a request could not be recorded"
    );
    match error {
        // A create of ours may have been carried out, or still be.
        AcceptError::Unconfirmed { .. } | AcceptError::GivenUp { .. } => answers::given_up(name),
        _ => answers::not_recorded(name),
    }
}

/// What "the same target" means in a run's thread: the pod by name, or what was typed where none was found.
fn target_of(run: &DiagnosticRun) -> TargetRef {
    let captures = run.status.iter().flat_map(|status| &status.captures);
    match captures.into_iter().next() {
        Some(capture) => TargetRef {
            cluster: Some(capture.target.cluster.clone()),
            namespace: Some(capture.target.namespace.clone()),
            kind: Some(TargetKind::Pod),
            name: capture.target.pod.clone(),
            container: Some(capture.target.container.clone()),
            ..TargetRef::default()
        },
        None => TargetRef {
            pod_uid: None,
            ..run.spec.target.clone()
        },
    }
}

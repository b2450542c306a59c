//! Performs one action of the plan. Every action is repeatable: reads change nothing, writes carry a resourceVersion or a
//! name that follows from the run, and no call outlasts the leader's term.

mod consent;
mod survey;

pub(super) use survey::pod_site;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use diagbot_catalog::Sensitivity;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::SignedDuration;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{
    access::{AccessError, Decision, Question, Verb},
    captures::resource::{ANNOTATION_CANCEL, DiagnosticCapture, ended},
    cluster::{
        CallError, Cluster, condition, deadline,
        lease::Term,
        resolve::{self, Found, LookUpError, Visible},
    },
    failpoint,
    record::{self, SinkAway},
    runs::{
        plan::{Action, PATIENCE},
        reason::Reason,
        resource::{DiagnosticRun, Phase, RunStatus},
        service::RunService,
        survey::Survey,
    },
    telemetry::metrics::{Metrics, Outcome},
};

/// Longest wait for one call to the home cluster.
const CALL: Duration = Duration::from_secs(5);
/// How long the record's store is waited for before sensitive evidence is refused.
const RECORD_PATIENCE: SignedDuration = SignedDuration::from_secs(5);
/// Access reviews at a time.
const PARALLEL: usize = 8;
/// Most namespaces that one look-up reviews; further ones count as not visible.
const REVIEWED: usize = 32;

/// What came of an action.
#[derive(Debug)]
pub(super) enum Done {
    /// The run as written.
    Written(Box<DiagnosticRun>),
    /// The target was looked up.
    Target(Result<Found, Reason>),
    /// The review was answered.
    Reviewed(Result<Vec<Decision>, Reason>),
    /// The targets and their places were looked at.
    Surveyed(Result<Survey, Reason>),
    /// The capture exists.
    Capture(Box<DiagnosticCapture>),
    /// The API server refused the capture for good.
    CaptureRefused {
        /// Its name.
        capture: String,
        /// The answer.
        answer: String,
    },
    /// Captures were asked to stop.
    Cancelled(Vec<DiagnosticCapture>),
    /// Somebody wrote first, or the run is gone: look again.
    Stale,
}

/// Why an action was not done. It is tried again, later, by whoever leads then.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActError {
    /// The term is over, or a newer leader has written.
    #[error("this replica does not lead any more")]
    NotLeading,
    /// A cluster gave no answer.
    #[error("{doing}")]
    Call {
        /// What was tried.
        doing: &'static str,
        /// Its answer.
        #[source]
        source: CallError,
    },
    /// The review got no answer.
    #[error("review the access")]
    Review(#[source] AccessError),
    /// The record's store is away.
    #[error("keep the record")]
    Record(#[source] SinkAway),
}

/// Performs actions within one term.
pub(super) struct Actor<'a> {
    pub(super) service: &'a RunService,
    pub(super) captures: &'a Api<DiagnosticCapture>,
    pub(super) metrics: &'a Metrics,
    pub(super) term: Term,
}

impl Actor<'_> {
    /// Performs `action` for `run`. [`Action::Wait`] is nobody's to perform and changes nothing.
    pub(super) async fn perform(&self, run: &DiagnosticRun, action: Action) -> Result<Done, ActError> {
        if self.term.remaining().is_zero() {
            return Err(ActError::NotLeading);
        }
        failpoint::around(action.name(), self.dispatch(run, action)).await
    }

    async fn dispatch(&self, run: &DiagnosticRun, action: Action) -> Result<Done, ActError> {
        match action {
            Action::FindTarget {
                cluster,
                diagnostic,
                most,
                siblings,
            } => Box::pin(self.find_target(run, &cluster, &diagnostic, most, siblings)).await,
            Action::Review {
                cluster,
                namespace,
                diagnostics,
            } => Box::pin(self.review(run, &cluster, &namespace, &diagnostics)).await,
            Action::Survey(question) => Box::pin(self.survey(run, &question)).await,
            Action::Record(status) => self.record(run, *status).await,
            Action::CreateCapture(capture) => self.create_capture(*capture).await,
            Action::CancelCaptures(names) => self.cancel_captures(names).await,
            Action::Wait(_) => Ok(Done::Stale),
        }
    }

    /// No call may end after the term.
    fn limit(&self) -> Duration {
        CALL.min(self.term.remaining())
    }

    /// Whether the person can be left waiting while a cluster is asked again.
    fn patient(&self, run: &DiagnosticRun) -> bool {
        self.waited(run) < PATIENCE
    }

    fn waited(&self, run: &DiagnosticRun) -> SignedDuration {
        self.service.now().duration_since(run.spec.received_at.0)
    }

    async fn find_target(
        &self,
        run: &DiagnosticRun,
        cluster: &str,
        diagnostic: &str,
        most: usize,
        siblings: bool,
    ) -> Result<Done, ActError> {
        let Some(known) = self.service.clusters().get(cluster) else {
            let known = self.service.clusters().names().map(ToString::to_string).collect();
            return Ok(Done::Target(Err(Reason::UnknownCluster {
                typed: cluster.to_owned(),
                known,
            })));
        };
        let visible = async |namespaces| self.visible(run, known, diagnostic, namespaces).await;
        let find = async {
            let mut found = resolve::find(known, &run.spec.target, most, visible).await?;
            if let (true, [only]) = (siblings, found.pods.as_slice()) {
                found.siblings = resolve::siblings(known, only).await?;
            }
            Ok(found)
        };
        let (found, ()) = tokio::join!(find, Box::pin(self.review_ahead(run, known, diagnostic)));
        let error = match found {
            Ok(found) => return Ok(Done::Target(Ok(found))),
            Err(LookUpError::Visible(error)) => return self.denial(run, error).map(|reason| Done::Target(Err(reason))),
            Err(LookUpError::Call(error)) => error,
        };
        if error.is_forbidden() {
            return Ok(Done::Target(Err(Reason::BotForbidden {
                cluster: cluster.to_owned(),
                what: match &run.spec.target.namespace {
                    Some(namespace) => format!("list pods in namespace `{namespace}`"),
                    None => "list pods in all namespaces".to_owned(),
                },
            })));
        }
        if error.is_transient() && self.patient(run) {
            return Err(ActError::Call {
                doing: "look up the target",
                source: error,
            });
        }
        Ok(Done::Target(Err(Reason::ClusterUnavailable {
            cluster: cluster.to_owned(),
            answer: answer(&error),
        })))
    }

    async fn ask_ahead(
        &self,
        run: &DiagnosticRun,
        cluster: &Cluster,
        namespace: &str,
        diagnostic: &str,
    ) -> Result<(), AccessError> {
        let channel = run.spec.origin.channel.as_str();
        let access = self.service.access();
        let reading = Question {
            cluster,
            namespace,
            verb: Verb::Read,
            diagnostic,
        };
        let may_run = self.ask(
            run,
            Question {
                verb: Verb::Run,
                ..reading
            },
        );
        let may_read = self.ask(run, reading);
        let of_channel = async {
            if channel.starts_with(['C', 'G']) {
                access.review_channel(reading, channel).await?;
            }
            Ok(())
        };
        tokio::try_join!(may_run, may_read, of_channel).map(|_| ())
    }

    /// Where the person named the namespace, the review that follows is asked beside the look-up; its answer is remembered
    /// for seconds, and one that failed is asked again when it counts.
    async fn review_ahead(&self, run: &DiagnosticRun, cluster: &Cluster, diagnostic: &str) {
        if let Some(namespace) = &run.spec.target.namespace
            && !diagnostic.is_empty()
            && let Err(error) = Box::pin(self.ask_ahead(run, cluster, namespace, diagnostic)).await
        {
            tracing::debug!(error = %crate::telemetry::Chain(&error), "the review is asked again");
        }
    }

    /// The namespaces that the person may be told about: with the verb `list`, or with `run` for this diagnostic.
    async fn visible(
        &self,
        run: &DiagnosticRun,
        cluster: &Cluster,
        diagnostic: &str,
        namespaces: BTreeSet<String>,
    ) -> Result<Visible, AccessError> {
        let reviews = namespaces.into_iter().take(REVIEWED).map(|namespace| async move {
            for (verb, diagnostic) in [(Verb::List, ""), (Verb::Run, diagnostic)] {
                let question = Question {
                    cluster,
                    namespace: &namespace,
                    verb,
                    diagnostic,
                };
                if self.ask(run, question).await?.allowed {
                    return Ok(Some(namespace));
                }
            }
            Ok(None)
        });
        let seen: Vec<Result<Option<String>, AccessError>> =
            stream::iter(reviews).buffer_unordered(PARALLEL).collect().await;
        let seen: Vec<Option<String>> = seen.into_iter().collect::<Result<_, _>>()?;
        Ok(Visible::Only(seen.into_iter().flatten().collect()))
    }

    /// One decision a diagnostic, in order.
    async fn review(
        &self,
        run: &DiagnosticRun,
        cluster: &str,
        namespace: &str,
        diagnostics: &[String],
    ) -> Result<Done, ActError> {
        let Some(known) = self.service.clusters().get(cluster) else {
            return Ok(Done::Reviewed(Err(Reason::ReviewFailed {
                what: format!("the cluster {cluster} is not configured any more"),
            })));
        };
        let running = |diagnostic| Question {
            cluster: known,
            namespace,
            verb: Verb::Run,
            diagnostic,
        };
        let asked = diagnostics
            .iter()
            .map(|name| self.ask(run, running(name.as_str())))
            .collect::<Vec<_>>();
        let answers: Result<Vec<Decision>, AccessError> = stream::iter(asked).buffered(PARALLEL).try_collect().await;
        let decisions = match answers {
            Ok(decisions) => decisions,
            Err(error) => return Ok(Done::Reviewed(Err(self.denial(run, error)?))),
        };
        for (decision, diagnostic) in decisions.iter().zip(diagnostics) {
            self.record_decision(run, decision, Verb::Run, (cluster, namespace), diagnostic);
        }
        for diagnostic in diagnostics {
            if let Some(away) = self.check_record(run, diagnostic)? {
                return Ok(Done::Reviewed(Err(away)));
            }
        }
        Ok(Done::Reviewed(Ok(decisions)))
    }

    fn record_decision(
        &self,
        run: &DiagnosticRun,
        decision: &Decision,
        verb: Verb,
        (cluster, namespace): (&str, &str),
        diagnostic: &str,
    ) {
        self.service.recorder().add(record::Event::Decision {
            run: run.metadata.name.clone().unwrap_or_default(),
            person: decision.user.clone(),
            verb: verb.as_str().to_owned(),
            diagnostic: diagnostic.to_owned(),
            cluster: cluster.to_owned(),
            namespace: namespace.to_owned(),
            allowed: decision.allowed,
            reason: decision.authorizer_reason.clone(),
        });
    }

    /// What nobody could account for later is not begun. For a moment the record's store is waited for.
    fn check_record(&self, run: &DiagnosticRun, diagnostic: &str) -> Result<Option<Reason>, ActError> {
        let known = self.service.catalog().get(diagnostic);
        let sensitive = known.is_none_or(|d| d.sensitivity == Sensitivity::Sensitive);
        match self.service.recorder().room_for(sensitive) {
            Ok(()) => Ok(None),
            Err(away) if self.waited(run) < RECORD_PATIENCE => Err(ActError::Record(away)),
            Err(_) => Ok(Some(Reason::RecordAway)),
        }
    }

    /// The reason to deny that follows from a failed review. For a moment it is asked again instead.
    fn denial(&self, run: &DiagnosticRun, error: AccessError) -> Result<Reason, ActError> {
        match error {
            AccessError::Identity(error) => Ok(Reason::IdentityRefused(error)),
            error if self.patient(run) => Err(ActError::Review(error)),
            error => {
                tracing::warn!(
                    error = %crate::telemetry::Chain(&error),
                    "the access review failed, so the run is denied"
                );
                Ok(Reason::ReviewFailed {
                    what: error.to_string(),
                })
            }
        }
    }

    async fn ask(&self, run: &DiagnosticRun, question: Question<'_>) -> Result<Decision, AccessError> {
        let channel = Some(run.spec.origin.channel.as_str());
        self.service
            .access()
            .review(question, &run.spec.requester, channel)
            .await
    }

    /// A crash before the write leaves the former status, and the plan comes to the same; a crash after it loses nothing.
    async fn record(&self, run: &DiagnosticRun, mut status: RunStatus) -> Result<Done, ActError> {
        if status.epoch > self.term.epoch {
            return Err(ActError::NotLeading);
        }
        status.epoch = self.term.epoch;
        let mut run = run.clone();
        let name = run.metadata.name.clone().unwrap_or_default();
        for event in consent::said(&run, &status) {
            self.service.recorder().add(event);
        }
        let held = self.service.recorder().held(&name);
        if !held.is_empty() {
            status.unrecorded = held;
        }
        if status.phase.is_final() {
            let complete = status.phase == Phase::Succeeded;
            let end = ended(complete, status.phase.as_str(), status.reason.as_ref());
            let condition = end.condition(run.metadata.generation, self.service.now());
            condition::set(&mut status.conditions, condition);
        }
        run.status = Some(status);
        let params = PostParams::default();
        match deadline(self.limit(), self.service.api().replace_status(&name, &params, &run)).await {
            Ok(written) => {
                self.record_end(&written);
                Ok(Done::Written(Box::new(written)))
            }
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(Done::Stale),
            Err(source) => Err(ActError::Call {
                doing: "write the run's status",
                source,
            }),
        }
    }

    fn record_end(&self, run: &DiagnosticRun) {
        if !run.phase().is_final() {
            return;
        }
        let outcome = run.phase().as_str();
        self.metrics.runs_finished.get_or_create(&Outcome { outcome }).inc();
        let reason = run.status.as_ref().and_then(|status| status.reason.as_ref());
        self.service.recorder().add(record::Event::Ended {
            run: run.metadata.name.clone().unwrap_or_default(),
            person: run.spec.requester.user_name(),
            phase: run.phase().as_str().to_owned(),
            reason: reason.map(|reason| reason.code.clone()).unwrap_or_default(),
        });
    }

    /// A crash after the create is found by the name, which follows from the run.
    async fn create_capture(&self, capture: DiagnosticCapture) -> Result<Done, ActError> {
        let name = capture.metadata.name.clone().unwrap_or_default();
        let params = PostParams::default();
        match deadline(self.limit(), self.captures.create(&params, &capture)).await {
            Ok(created) => Ok(Done::Capture(Box::new(created))),
            Err(error) if error.is_conflict() => self.existing(&capture, name).await,
            Err(error) if error.is_transient() => Err(ActError::Call {
                doing: "make the capture",
                source: error,
            }),
            Err(error) => Ok(Done::CaptureRefused {
                capture: name,
                answer: answer(&error),
            }),
        }
    }

    async fn existing(&self, capture: &DiagnosticCapture, name: String) -> Result<Done, ActError> {
        let found = self.capture(&name).await?;
        let ours = |found: &DiagnosticCapture| found.metadata.owner_references == capture.metadata.owner_references;
        match found {
            Some(found) if ours(&found) && found.spec == capture.spec => Ok(Done::Capture(Box::new(found))),
            Some(_) => Ok(Done::CaptureRefused {
                answer: "another object has its name".to_owned(),
                capture: name,
            }),
            None => Ok(Done::Stale),
        }
    }

    /// The capture as the API server has it.
    pub(super) async fn capture(&self, name: &str) -> Result<Option<DiagnosticCapture>, ActError> {
        deadline(self.limit(), self.captures.get_opt(name))
            .await
            .map_err(|source| ActError::Call {
                doing: "read the capture",
                source,
            })
    }

    async fn cancel_captures(&self, names: Vec<String>) -> Result<Done, ActError> {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { ANNOTATION_CANCEL: "true" } } }));
        let mut patched = Vec::new();
        for name in names {
            match deadline(
                self.limit(),
                self.captures.patch(&name, &PatchParams::default(), &patch),
            )
            .await
            {
                Ok(capture) => patched.push(capture),
                Err(error) if error.is_not_found() => {}
                Err(source) => {
                    return Err(ActError::Call {
                        doing: "ask the capture to stop",
                        source,
                    });
                }
            }
        }
        Ok(Done::Cancelled(patched))
    }
}

/// An answer of an API server in a few words; the chain is in the log.
pub(super) fn answer(error: &CallError) -> String {
    match error.status() {
        Some(status) if !status.message.is_empty() => status.message.clone(),
        Some(status) => format!("{} {}", status.code, status.reason),
        None => error.to_string(),
    }
}

/// Facts that actions gathered within one look at a run.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) target: Option<Result<Found, Reason>>,
    pub(super) review: Option<Result<Vec<Decision>, Reason>>,
    pub(super) survey: Option<Result<Survey, Reason>>,
    pub(super) refused: Option<(String, String)>,
    pub(super) captures: Vec<Arc<DiagnosticCapture>>,
}

impl Gathered {
    /// Takes a capture's newest version.
    pub(super) fn take(&mut self, capture: DiagnosticCapture) {
        self.captures
            .retain(|known| known.metadata.name != capture.metadata.name);
        self.captures.push(Arc::new(capture));
    }
}

//! One run without a bot: the caller's own rights, this process's memory. The same plan and captures as in the bot; what the
//! bot asks of others is answered here from what the caller may do.
//!
//! Never reviews on behalf of anybody: what the caller may not do, the cluster itself refuses, and it is asked before
//! anything starts. Owners' labels let the *bot* in, so they are not asked for; what must never happen stays so.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use diagbot_api::{
    approval::Audience,
    capture::{ANNOTATION_CANCEL, DiagnosticCapture},
    decision::Decision,
    phase::{Event, IllegalTransition},
    requester::Requester,
    run::{CancelRequest, DiagnosticRun, Phase, RunStatus},
};
use diagbot_base::{clock::Clock, retry};
use diagbot_captures::{CapturesContext, local::Alone};
use diagbot_catalog::{Catalog, Method, policy::ENABLED_LABEL};
use diagbot_cluster::{
    CallError, Cluster, deadline,
    resolve::{self, LookUpError, Visible},
};
use k8s_openapi::{
    api::core::v1::{EphemeralContainer, Namespace},
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use kube::Api;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    access::own::{self, Right},
    act::{Observed, answer, pod_site},
    admission::BudgetConfig,
    plan::{Action, Facts, PreflightQuestion, plan},
    preflight::{Preflight, TargetSnapshot},
    reason::Reason,
    request::RunRequest,
};

/// Longest wait for one call.
const CALL: Duration = Duration::from_secs(10);
/// What reading a pod's record takes.
const TO_READ: [Right; 1] = [Right::on_pods("get", "")];
/// What a container beside the target takes: to follow the pod, to add, to hear, to tell and to fetch.
const TO_CAPTURE: [Right; 7] = [
    Right::on_pods("get", ""),
    Right::on_pods("list", ""),
    Right::on_pods("watch", ""),
    Right::on_pods("patch", "ephemeralcontainers"),
    Right::on_pods("get", "log"),
    Right::on_pods("get", "attach"),
    Right::on_pods("get", "exec"),
];
/// What it takes besides from [`CREATE_SINCE`] on.
const TO_CREATE: [Right; 2] = [Right::on_pods("create", "attach"), Right::on_pods("create", "exec")];
/// The minor version of Kubernetes 1 from which attach and exec over a WebSocket take `create` too.
const CREATE_SINCE: u32 = 35;

/// What a run works with.
pub struct AloneParts {
    /// The caller's cluster.
    pub cluster: Cluster,
    /// The allowlist.
    pub catalog: Arc<Catalog>,
    /// What captures work with; their agent's image is the run's.
    pub captures: CapturesContext,
    /// The time.
    pub clock: Clock,
}

/// Runs a request until it is over. `tell` gets every change; `stop` asks the pods to stop, which is waited for.
pub async fn run(
    parts: AloneParts,
    request: &RunRequest,
    tell: &watch::Sender<DiagnosticRun>,
    stop: &CancellationToken,
) -> Result<DiagnosticRun, IllegalTransition> {
    let mut session = Session::new(parts, request);
    while session.step(stop).await? {
        tell.send_replace(session.run.clone());
    }
    Ok(session.run)
}

/// What a request would add to pods: each target with its container, none where nothing is added. An error is the run that
/// would end before.
pub async fn preview(
    parts: AloneParts,
    request: &RunRequest,
) -> Result<Vec<(DiagnosticCapture, Option<EphemeralContainer>)>, Box<DiagnosticRun>> {
    let mut session = Session::new(parts, request);
    let mut shown = Vec::new();
    loop {
        match session.next() {
            Ok(Action::CreateCapture(capture)) => {
                let capture = session.made(*capture);
                match session.captures.preview(&capture).await {
                    Ok(container) => shown.push((capture.clone(), container)),
                    Err(reason) => {
                        session.run.status.get_or_insert_default().reason = Some(reason);
                        return Err(Box::new(session.run));
                    }
                }
                session.observed.take(capture);
            }
            Ok(Action::Wait(_)) | Err(_) if shown.is_empty() => return Err(Box::new(session.run)),
            Ok(action) if shown.is_empty() => {
                if session.perform(action).await.is_err() {
                    return Err(Box::new(session.run));
                }
            }
            // Everything that would be made was shown.
            _ => return Ok(shown),
        }
    }
}

struct Session {
    parts: AloneParts,
    captures: Alone,
    run: DiagnosticRun,
    observed: Observed,
    clusters: [String; 1],
}

impl Session {
    fn new(parts: AloneParts, request: &RunRequest) -> Self {
        let mut run = DiagnosticRun::new(request.name().as_str(), request.spec());
        run.metadata.uid = Some(identity());
        Self {
            captures: Alone::new(parts.captures.clone()),
            clusters: [parts.cluster.name.to_string()],
            run,
            observed: Observed::default(),
            parts,
        }
    }

    /// Does the next thing; false when there is none.
    async fn step(&mut self, stop: &CancellationToken) -> Result<bool, IllegalTransition> {
        if stop.is_cancelled() {
            self.ask_to_stop();
        }
        for capture in self.captures.all() {
            self.observed.take(DiagnosticCapture::clone(&capture));
        }
        let until = match self.next()? {
            Action::Wait(None) => return Ok(false),
            Action::Wait(Some(until)) => until,
            action => {
                self.perform(action).await?;
                return Ok(true);
            }
        };
        let wait = until.duration_since(self.parts.clock.now());
        tokio::select! {
            () = self.captures.changed() => {}
            () = stop.cancelled(), if self.run.cancel_request().is_none() => {}
            () = retry::pause(Duration::try_from(wait).unwrap_or_default()) => {}
        }
        if self.run.phase() == Phase::Capturing {
            // What is launched after a wait is reviewed again.
            self.observed.review = None;
            self.observed.preflight = None;
        }
        Ok(true)
    }

    fn next(&self) -> Result<Action, IllegalTransition> {
        plan(&Facts {
            run: &self.run,
            captures: &self.observed.captures,
            refused: None,
            catalog: &self.parts.catalog,
            agent_image: &self.parts.captures.config.image,
            clusters: &self.clusters,
            target: self.observed.target.as_ref(),
            review: self.observed.review.as_ref(),
            preflight: self.observed.preflight.as_ref(),
            pauses: &[],
            budgets: &BudgetConfig::default(),
            uses: &[],
            slots: usize::MAX,
            now: self.parts.clock.now(),
        })
    }

    async fn perform(&mut self, action: Action) -> Result<(), IllegalTransition> {
        match action {
            Action::FindTarget { most, siblings, .. } => self.observed.target = Some(self.find(most, siblings).await),
            Action::Review {
                namespace, diagnostics, ..
            } => self.observed.review = Some(self.review(&namespace, &diagnostics).await),
            Action::Preflight(question) => self.observed.preflight = Some(self.preflight(&question).await),
            Action::Record(status) => self.record(*status)?,
            Action::CreateCapture(capture) => {
                let capture = self.made(*capture);
                self.captures.begin(capture);
            }
            Action::CancelCaptures(names) => {
                for name in names {
                    self.captures.cancel(&name).await;
                }
            }
            Action::Wait(_) => {}
        }
        Ok(())
    }

    /// Records a status. Where the plan would wait for a second person there is none to wait for.
    fn record(&mut self, mut status: RunStatus) -> Result<(), IllegalTransition> {
        if status.phase == Phase::AwaitingApproval {
            status.phase = status.phase.next(Event::Denied)?;
            let why = status.approval.take().map(|approval| approval.why).unwrap_or_default();
            status.reason = Some(Reason::NobodyToAgree { why }.explain());
            status.captures.clear();
        }
        self.run.status = Some(status);
        Ok(())
    }

    /// A capture as the API server would have made it.
    fn made(&self, mut capture: DiagnosticCapture) -> DiagnosticCapture {
        capture.metadata.uid = Some(identity());
        capture.metadata.creation_timestamp = Some(Time(self.parts.clock.now()));
        capture
    }

    fn ask_to_stop(&mut self) {
        let asked = CancelRequest {
            by: self.run.spec.requester.clone(),
            at: self.parts.clock.now(),
        };
        let annotations = self.run.metadata.annotations.get_or_insert_default();
        annotations
            .entry(ANNOTATION_CANCEL.to_owned())
            .or_insert_with(|| serde_json::to_string(&asked).expect("a request to stop is plain data"));
    }

    async fn find(&self, most: usize, siblings: bool) -> Result<resolve::Found, Reason> {
        let target = &self.run.spec.target;
        let all = |_: BTreeSet<String>| async { Ok::<_, Infallible>(Visible::All) };
        let found = async {
            let mut found = resolve::find(&self.parts.cluster, target, most, all).await?;
            if let (true, [only]) = (siblings, found.pods.as_slice()) {
                found.siblings = resolve::siblings(&self.parts.cluster, only).await?;
            }
            Ok(found)
        };
        match found.await {
            Ok(found) => Ok(found),
            Err(LookUpError::Call(error)) if error.is_forbidden() => {
                let namespace = target.namespace.clone().unwrap_or_default();
                Err(self.forbidden(namespace, &[Right::on_pods("get", ""), Right::on_pods("list", "")]))
            }
            Err(LookUpError::Call(error)) => Err(self.unavailable(&error)),
            Err(LookUpError::Visible(never)) => match never {},
        }
    }

    /// Whether the caller's account may do everything that it takes, as far as the cluster tells.
    async fn review(&self, namespace: &str, diagnostics: &[String]) -> Result<Vec<Decision>, Reason> {
        let by_agent = diagnostics
            .iter()
            .filter_map(|name| self.parts.catalog.get(name))
            .any(|diagnostic| diagnostic.method == Method::Ephemeral);
        let mut rights = if by_agent {
            TO_CAPTURE.to_vec()
        } else {
            TO_READ.to_vec()
        };
        if by_agent && self.takes_create().await {
            rights.extend(TO_CREATE);
        }
        match own::missing(&self.parts.cluster, namespace, &rights).await {
            Ok(missing) if missing.is_empty() => {}
            Ok(missing) => return Err(self.forbidden(namespace.to_owned(), &missing)),
            // Who may not even ask finds out by trying.
            Err(error) if error.is_forbidden() || error.is_not_found() => {}
            Err(error) => return Err(self.unavailable(&error)),
        }
        let own = |diagnostic: &String| Decision {
            allowed: true,
            user: self.run.spec.requester.user_name(),
            groups: Vec::new(),
            authorizer_reason: "the caller's own rights".to_owned(),
            diagnostic: diagnostic.clone(),
            at: MicroTime(self.parts.clock.now()),
        };
        Ok(diagnostics.iter().map(own).collect())
    }

    /// Whether attach and exec take `create`; assumed not where the version is not told.
    async fn takes_create(&self) -> bool {
        let version = deadline(CALL, self.parts.cluster.client.apiserver_version()).await;
        let minor = version.ok().map(|version| version.minor).unwrap_or_default();
        let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().is_ok_and(|minor| minor >= CREATE_SINCE)
    }

    async fn preflight(&self, question: &PreflightQuestion) -> Result<Preflight, Reason> {
        let mut snapshots = Vec::new();
        for target in &question.targets {
            let looked = pod_site(&self.parts.cluster, target, question.count_workload, CALL).await;
            let snapshot = looked.map_err(|(_, error)| {
                if error.is_forbidden() {
                    self.forbidden(target.namespace.clone(), &[Right::on_pods("list", "")])
                } else {
                    self.unavailable(&error)
                }
            })?;
            snapshots.push(TargetSnapshot {
                annotations: self.annotations(&target.namespace).await,
                // By the label the owners agree to the bot's rights. The caller brings their own.
                labels: [(ENABLED_LABEL.to_owned(), "true".to_owned())].into(),
                ..snapshot
            });
        }
        Ok(Preflight {
            snapshots,
            audience: Audience {
                channel: false,
                requester: true,
            },
            ..Preflight::default()
        })
    }

    /// What the namespace's owners ask for; who may not read their namespace can't know.
    async fn annotations(&self, namespace: &str) -> std::collections::BTreeMap<String, String> {
        let namespaces: Api<Namespace> = Api::all(self.parts.cluster.client.clone());
        let found = deadline(CALL, namespaces.get(namespace)).await.ok();
        found
            .and_then(|namespace| namespace.metadata.annotations)
            .unwrap_or_default()
    }

    fn forbidden(&self, namespace: String, rights: &[Right]) -> Reason {
        Reason::CallerForbidden {
            namespace,
            cluster: self.parts.cluster.name.to_string(),
            rights: rights.iter().map(ToString::to_string).collect(),
        }
    }

    fn unavailable(&self, error: &CallError) -> Reason {
        Reason::ClusterUnavailable {
            cluster: self.parts.cluster.name.to_string(),
            answer: answer(error),
        }
    }
}

/// A name for an object that no API server names.
fn identity() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Who asks, as the cluster knows them.
pub async fn caller(cluster: &Cluster) -> Result<Requester, CallError> {
    match own::user(cluster).await {
        Ok(user) => Ok(Requester::caller(&user)),
        // An API server that does not tell knows them all the same.
        Err(error) if error.is_not_found() || error.is_forbidden() => Ok(Requester::caller("unnamed")),
        Err(error) => Err(error),
    }
}

//! The schedules on record: what fronts may do with them, and what the scheduler records. The rules of cron are checked
//! before anything is kept; whether the owner may is reviewed at each firing, and once before saving.

use std::{collections::BTreeSet, sync::Arc};

use diagbot_api::{
    decision::Verb,
    request_key::RunName,
    requester::Requester,
    schedule::{ANNOTATION_DRAFT, DiagnosticSchedule, ScheduleSpec, ScheduleStatus},
    target::TargetRef,
};
use diagbot_catalog::Entry;
use diagbot_cluster::{CallError, deadline};
use futures::Stream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};

use super::{CALL, RunService, ServiceError};
use crate::{access::Question, reason::Reason};

/// The schedules. Borrowed from the service.
#[derive(Clone, Copy)]
pub struct Schedules<'a>(&'a RunService);

impl RunService {
    /// The schedules on record.
    pub fn schedules(&self) -> Schedules<'_> {
        Schedules(self)
    }

    /// Removes a finished run; its captures go with it.
    pub async fn forget(&self, run: &RunName) -> Result<(), ServiceError> {
        let params = DeleteParams::background();
        match deadline(CALL, self.0.api.delete(run.as_str(), &params)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(source) => Err(call("forget the run", source)),
        }
    }
}

impl Schedules<'_> {
    /// Every schedule, by name.
    pub fn all(&self) -> Vec<Arc<DiagnosticSchedule>> {
        let mut all = self.0.0.schedules.all();
        all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        all
    }

    /// The schedule of that name.
    pub fn get(&self, name: &str) -> Option<Arc<DiagnosticSchedule>> {
        self.0.0.schedules.get(self.0.0.parts.clusters.namespace(), name)
    }

    /// Wake-ups.
    pub fn changes(&self) -> impl Stream<Item = Arc<DiagnosticSchedule>> + Send + use<> {
        self.0.0.schedules.changes()
    }

    /// Whether the schedules were read once.
    pub fn ready(&self) -> bool {
        self.0.0.schedules.ready()
    }

    /// Keeps a draft, which its owner confirms, in the place of a former draft of theirs; none: the name is taken.
    pub async fn draft(&self, name: &str, spec: ScheduleSpec) -> Result<Option<DiagnosticSchedule>, ServiceError> {
        self.may(Verb::Run, &spec, &spec.owner, &spec.channel).await?;
        let mut schedule = DiagnosticSchedule::new(name, spec);
        schedule.metadata = ObjectMeta {
            namespace: Some(self.0.0.parts.clusters.namespace().to_owned()),
            annotations: Some([(ANNOTATION_DRAFT.to_owned(), "true".to_owned())].into()),
            ..schedule.metadata
        };
        if let Some(kept) = self.keep(&schedule).await? {
            return Ok(Some(kept));
        }
        let former = deadline(CALL, self.api().get_opt(name)).await;
        let former = former.map_err(|source| call("read the schedule", source))?;
        if let Some(former) = former.filter(|former| former.is_draft() && former.spec.owner == schedule.spec.owner) {
            self.forget(&former).await?;
            return self.keep(&schedule).await;
        }
        Ok(None)
    }

    /// None: there is one of that name.
    async fn keep(&self, schedule: &DiagnosticSchedule) -> Result<Option<DiagnosticSchedule>, ServiceError> {
        match deadline(CALL, self.api().create(&PostParams::default(), schedule)).await {
            Ok(kept) => Ok(Some(kept)),
            Err(error) if error.is_conflict() => Ok(None),
            Err(source) => Err(call("keep the schedule", source)),
        }
    }

    /// Confirms a draft by the UID that a button carries. Only its owner may.
    pub async fn confirm(&self, uid: &str, by: &Requester) -> Result<Arc<DiagnosticSchedule>, ServiceError> {
        let found = deadline(CALL, self.api().list(&kube::api::ListParams::default())).await;
        let found = found.map_err(|source| call("read the schedules", source))?;
        let mut all = found.items.into_iter();
        let schedule = all.find(|schedule| schedule.metadata.uid.as_deref() == Some(uid));
        let schedule = schedule.ok_or(ServiceError::NotFound)?;
        if schedule.spec.owner != *by {
            return Err(ServiceError::Denied(Reason::NotYours.explain()));
        }
        let patch = json!({ "metadata": { "annotations": { ANNOTATION_DRAFT: null } } });
        self.patch(&schedule, patch).await.map(Arc::new)
    }

    /// Pauses or resumes. The owner may, and who may cancel there; a private channel's right counts where it is asked in
    /// that channel.
    pub async fn suspend(&self, name: &str, suspend: bool, by: &Requester, channel: &str) -> Result<(), ServiceError> {
        let schedule = self.owned(name, by, channel).await?;
        self.patch(&schedule, json!({ "spec": { "suspend": suspend } }))
            .await
            .map(|_| ())
    }

    /// Deletes. The owner may, and who may cancel there; a private channel's right counts where it is asked in that channel.
    pub async fn delete(&self, name: &str, by: &Requester, channel: &str) -> Result<(), ServiceError> {
        let schedule = self.owned(name, by, channel).await?;
        self.forget(&schedule).await
    }

    /// Deletes this very schedule.
    pub async fn forget(&self, schedule: &DiagnosticSchedule) -> Result<(), ServiceError> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: schedule.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let name = schedule.metadata.name.clone().unwrap_or_default();
        match deadline(CALL, self.api().delete(&name, &params)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(source) => Err(call("delete the schedule", source)),
        }
    }

    /// Records a status over the very version that was looked at.
    pub async fn record(
        &self,
        schedule: &DiagnosticSchedule,
        status: ScheduleStatus,
    ) -> Result<DiagnosticSchedule, ServiceError> {
        let mut schedule = schedule.clone();
        schedule.status = Some(status);
        let name = schedule.metadata.name.clone().unwrap_or_default();
        let written = deadline(
            CALL,
            self.api().replace_status(&name, &PostParams::default(), &schedule),
        )
        .await;
        written.map_err(|source| match source {
            source if source.is_not_found() => ServiceError::NotFound,
            source if source.is_conflict() => ServiceError::Contended,
            source => call("record the schedule's state", source),
        })
    }

    /// The schedule of that name, where the person may change it. The channel is the one they ask in: what they are told
    /// of the schedule's own channel is not theirs.
    async fn owned(&self, name: &str, by: &Requester, channel: &str) -> Result<DiagnosticSchedule, ServiceError> {
        let found = deadline(CALL, self.api().get_opt(name)).await;
        let found = found.map_err(|source| call("read the schedule", source))?;
        let schedule = found.ok_or(ServiceError::NotFound)?;
        if schedule.spec.owner != *by {
            let told = vec![Arc::new(schedule.clone())];
            if self.0.schedules_told_of(told, by, channel).await.is_empty() {
                return Err(ServiceError::NotFound);
            }
            self.may(Verb::Cancel, &schedule.spec, by, channel).await?;
        }
        Ok(schedule)
    }

    async fn patch(&self, schedule: &DiagnosticSchedule, patch: Value) -> Result<DiagnosticSchedule, ServiceError> {
        let name = schedule.metadata.name.clone().unwrap_or_default();
        let params = PatchParams::default();
        let patched = deadline(CALL, self.api().patch(&name, &params, &Patch::Merge(patch))).await;
        patched.map_err(|source| match source {
            source if source.is_not_found() => ServiceError::NotFound,
            source => call("change the schedule", source),
        })
    }

    /// Names of all the diagnostics that a schedule's runs take.
    pub(super) fn takes(self, spec: &ScheduleSpec) -> BTreeSet<String> {
        match self.0.catalog().entry(&spec.diagnostic) {
            Some(Entry::Runbook(runbook)) => runbook.steps.iter().map(|step| step.diagnostic.to_string()).collect(),
            _ => [spec.diagnostic.clone()].into(),
        }
    }

    async fn may(&self, verb: Verb, spec: &ScheduleSpec, by: &Requester, channel: &str) -> Result<(), ServiceError> {
        let service = self.0;
        let TargetRef { cluster, namespace, .. } = &spec.target;
        let cluster = cluster.as_deref().unwrap_or(service.clusters().home().name.as_str());
        let known = service.clusters().get(cluster).ok_or_else(|| {
            let known = service.clusters().names().map(ToString::to_string).collect();
            let typed = cluster.to_owned();
            ServiceError::Denied(Reason::UnknownCluster { typed, known }.explain())
        })?;
        let namespace = namespace.clone().unwrap_or_default();
        for diagnostic in self.takes(spec) {
            let question = Question {
                cluster: known,
                namespace: &namespace,
                verb,
                diagnostic: &diagnostic,
            };
            let decision = service.access().review(question, by, Some(channel)).await?;
            if !decision.allowed {
                let reason = Reason::not_allowed(verb, &decision, (cluster, &namespace));
                return Err(ServiceError::Denied(reason.explain()));
            }
        }
        Ok(())
    }

    fn api(self) -> Api<DiagnosticSchedule> {
        let clusters = &self.0.0.parts.clusters;
        Api::namespaced(clusters.home().client.clone(), clusters.namespace())
    }
}

fn call(doing: &'static str, source: CallError) -> ServiceError {
    ServiceError::Call { doing, source }
}

//! The off-switch, by people: pausing a place and allowing captures there again. Takes the verb `cancel` for everything there.

use diagbot_api::{
    decision::Verb,
    pause::{DiagnosticPause, Pause, PauseSpec, Scope},
    requester::Requester,
};
use diagbot_audit::Event;
use diagbot_cluster::deadline;
use kube::api::{DeleteParams, ObjectMeta, PostParams};

use super::{CALL, RunService, ServiceError};
use crate::{access::Question, reason::Reason};

/// What became of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PauseOutcome {
    /// It is on now.
    Paused(Scope),
    /// It was on before.
    PausedBefore(Pause),
    /// It is off now.
    Resumed(Scope),
    /// It was not on.
    NotPaused(Scope),
}

impl RunService {
    /// The pauses on record.
    pub fn pauses(&self) -> Vec<Pause> {
        self.0.pauses.all().iter().map(|object| Pause::of(object)).collect()
    }

    /// The place that a person means: a cluster by its name, else a namespace; nothing is everywhere.
    pub fn scope(&self, word: Option<String>, cluster: Option<String>, namespace: Option<String>) -> Scope {
        let is_cluster = |word: &String| self.clusters().get(word).is_some();
        let home = || self.clusters().home().name.to_string();
        let (of_cluster, of_namespace) = match word {
            Some(word) if is_cluster(&word) => (Some(word), None),
            word => (None, word),
        };
        let namespace = namespace.or(of_namespace);
        let cluster = cluster.or(of_cluster).or_else(|| namespace.as_ref().map(|_| home()));
        Scope { cluster, namespace }
    }

    /// Stops new captures at a place and those that run there.
    pub async fn pause(&self, place: Scope, by: &Requester, channel: &str) -> Result<PauseOutcome, ServiceError> {
        self.may_switch(&place, by, channel).await?;
        let spec = PauseSpec {
            place: place.clone(),
            by: by.clone(),
            at: k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(self.now()),
        };
        let mut object = DiagnosticPause::new(&place.object_name(), spec);
        object.metadata = ObjectMeta {
            namespace: Some(self.clusters().namespace().to_owned()),
            ..object.metadata
        };
        let params = PostParams::default();
        match deadline(CALL, self.0.pause_api.create(&params, &object)).await {
            Ok(_) => {
                self.record_switch(&place, &by.user_name(), true);
                tracing::warn!(place = place.words(), by = by.user_name(), "captures are paused");
                Ok(PauseOutcome::Paused(place))
            }
            Err(error) if error.is_conflict() => Ok(PauseOutcome::PausedBefore(self.standing(&place, &object))),
            Err(source) => Err(ServiceError::Call {
                doing: "record the pause",
                source,
            }),
        }
    }

    /// Allows captures at a place again; pauses of other places stay.
    pub async fn resume(&self, place: Scope, by: &Requester, channel: &str) -> Result<PauseOutcome, ServiceError> {
        self.may_switch(&place, by, channel).await?;
        let params = DeleteParams::default();
        match deadline(CALL, self.0.pause_api.delete(&place.object_name(), &params)).await {
            Ok(_) => {
                self.record_switch(&place, &by.user_name(), false);
                tracing::warn!(place = place.words(), by = by.user_name(), "captures are allowed again");
                Ok(PauseOutcome::Resumed(place))
            }
            Err(error) if error.is_not_found() => Ok(PauseOutcome::NotPaused(place)),
            Err(source) => Err(ServiceError::Call {
                doing: "remove the pause",
                source,
            }),
        }
    }

    /// Puts a switch on record, with who switched it.
    pub(crate) fn record_switch(&self, place: &Scope, person: &str, paused: bool) {
        self.audit_log().add(Event::Pause {
            person: person.to_owned(),
            scope: place.to_string(),
            paused,
        });
    }

    fn standing(&self, place: &Scope, asked: &DiagnosticPause) -> Pause {
        let mut standing = self.pauses().into_iter();
        let known = standing.find(|pause| pause.place == *place);
        known.unwrap_or_else(|| Pause::of(asked))
    }

    async fn may_switch(&self, place: &Scope, by: &Requester, channel: &str) -> Result<(), ServiceError> {
        let names: Vec<String> = match &place.cluster {
            Some(cluster) => vec![cluster.clone()],
            None => self.clusters().names().map(ToString::to_string).collect(),
        };
        let namespace = place.namespace.as_deref().unwrap_or_default();
        for cluster in names {
            let Some(known) = self.clusters().get(&cluster) else {
                let known = self.clusters().names().map(ToString::to_string).collect();
                let reason = Reason::UnknownCluster { typed: cluster, known };
                return Err(ServiceError::Denied(reason.explain()));
            };
            let switching = Question {
                cluster: known,
                namespace,
                verb: Verb::Cancel,
                diagnostic: "",
            };
            let review = self.access().review(switching, by, Some(channel));
            let decision = review.await?;
            self.audit_log().add(Event::Decision {
                run: String::new(),
                person: decision.user.clone(),
                verb: Verb::Cancel.as_str().to_owned(),
                diagnostic: String::new(),
                cluster,
                namespace: namespace.to_owned(),
                allowed: decision.allowed,
                reason: decision.authorizer_reason.clone(),
            });
            if !decision.allowed {
                let reason = Reason::MayNotSwitch {
                    place: place.words(),
                    user: decision.user,
                };
                return Err(ServiceError::Denied(reason.explain()));
            }
        }
        Ok(())
    }
}

//! Recording what people were told. Written beside the controller's own writes: the status is read again on every conflict.

use diagbot_api::{
    condition,
    request_key::RunName,
    run::{CONDITION_REPORTED, RunStatus, ThreadStatus},
};
use diagbot_base::failpoint;
use diagbot_cluster::{deadline, lease::Term};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::PostParams;

use super::{CALL, RECORD_TELLING, RunService, ServiceError};

/// Writes that may meet another's write before we give up.
const ATTEMPTS: u32 = 8;

impl RunService {
    /// What people were told, as the API server has it: a new leader asks before it tells on.
    pub async fn telling(&self, run: &RunName) -> Result<ThreadStatus, ServiceError> {
        let found = self.fresh(run).await?;
        Ok(found.status.map(|status| status.telling).unwrap_or_default())
    }

    /// Records what people were told, and whether that is the run's present state. Only a leader may.
    pub async fn record_telling(
        &self,
        run: &RunName,
        telling: ThreadStatus,
        reported: bool,
        term: &Term,
    ) -> Result<(), ServiceError> {
        failpoint::around(RECORD_TELLING, self.write_telling(run, telling, reported, term)).await
    }

    async fn write_telling(
        &self,
        run: &RunName,
        telling: ThreadStatus,
        reported: bool,
        term: &Term,
    ) -> Result<(), ServiceError> {
        for _ in 0..ATTEMPTS {
            let mut found = self.fresh(run).await?;
            Self::check_term(&found, term)?;
            let now = Time(self.now());
            let status = found.status.get_or_insert_default();
            status.telling = telling.clone();
            status.epoch = term.epoch;
            set_reported(status, reported, found.metadata.generation, now);
            let params = PostParams::default();
            match deadline(CALL, self.0.api.replace_status(run.as_str(), &params, &found)).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_conflict() => {}
                Err(error) if error.is_not_found() => return Err(ServiceError::NotFound),
                Err(source) => {
                    return Err(ServiceError::Call {
                        doing: "record what people were told",
                        source,
                    });
                }
            }
        }
        Err(ServiceError::Contended)
    }
}

fn set_reported(status: &mut RunStatus, reported: bool, generation: Option<i64>, now: Time) {
    let word = if reported { "True" } else { "False" };
    let told = Condition {
        type_: CONDITION_REPORTED.to_owned(),
        status: word.to_owned(),
        reason: if reported { "Told" } else { "Pending" }.to_owned(),
        message: status.telling.error.clone().unwrap_or_default(),
        observed_generation: generation,
        last_transition_time: now,
    };
    condition::set(&mut status.conditions, told);
}

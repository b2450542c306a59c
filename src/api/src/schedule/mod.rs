//! `DiagnosticSchedule`: what is captured again and again, as a custom resource. Field names and policies are CronJob's
//! (<https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/>), with runs in the place of jobs.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod series;
pub mod times;

use self::series::Series;
use crate::{
    requester::Requester,
    run::{DiagnosticRun, KeyKind, Selection},
    target::TargetRef,
};

/// Annotation: nobody has confirmed the schedule yet.
pub const ANNOTATION_DRAFT: &str = "diagbot.dev/draft";

/// What is captured when, and in whose name.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "diagbot.dev",
    version = "v1alpha1",
    kind = "DiagnosticSchedule",
    plural = "diagnosticschedules",
    shortname = "dsched",
    namespaced,
    status = "ScheduleStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Schedule","type":"string","jsonPath":".spec.schedule"}"#,
    printcolumn = r#"{"name":"Time zone","type":"string","jsonPath":".spec.timeZone"}"#,
    printcolumn = r#"{"name":"Suspend","type":"boolean","jsonPath":".spec.suspend"}"#,
    printcolumn = r#"{"name":"Last","type":"date","jsonPath":".status.lastScheduleTime"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleSpec {
    /// Cron text of five fields, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    pub schedule: String,
    /// Time zone of the tz database; UTC unless given.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// What happens while the run before is still under way.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// How late a run may start; without it the latest missed one starts however late it is.
    #[serde(default)]
    pub starting_deadline_seconds: Option<i64>,
    /// Nothing starts.
    #[serde(default)]
    pub suspend: bool,
    /// Which snapshots stay on record, however old; the rest goes 3 hours after it was asked for. Runs that took something are
    /// then not counted by the history limits. What was stored goes by the store's own rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
    /// Successful runs that are kept on record, for 3 days at most. Default: 3.
    #[serde(default = "three")]
    pub successful_runs_history_limit: u32,
    /// Other finished runs that are kept on record, for 3 days at most. Default: 3.
    #[serde(default = "three")]
    pub failed_runs_history_limit: u32,
    /// The target.
    pub target: TargetRef,
    /// Which of the pods that fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Selection>,
    /// Diagnostic or runbook.
    pub diagnostic: String,
    /// Its parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Channel (`C…`) whose thread tells of failures and findings.
    pub channel: String,
    /// In whose name it runs: this person's rights are reviewed at each firing.
    pub owner: Requester,
}

/// What happens while the run before is still under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// Both run.
    #[default]
    Allow,
    /// The new one is missed.
    Forbid,
    /// The former is cancelled.
    Replace,
}

/// How far a schedule is. Written by the leader alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleStatus {
    /// The latest due instant that was started.
    #[serde(default)]
    pub last_schedule_time: Option<MicroTime>,
    /// The latest due instant that was started or missed: what is due up to then is settled.
    #[serde(default)]
    pub settled_until: Option<MicroTime>,
    /// Due instants that were missed: too late, or forbidden by the run before.
    #[serde(default)]
    pub missed: u64,
    /// The schedule's thread in its channel, once something was told.
    #[serde(default)]
    pub thread_ts: Option<String>,
    /// Why nothing starts: cron text that never fires, say.
    #[serde(default)]
    pub message: Option<String>,
}

const fn three() -> u32 {
    3
}

impl ScheduleSpec {
    /// The time zone; UTC where there is none of that name.
    pub fn zone(&self) -> TimeZone {
        let named = self.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok());
        named.unwrap_or(TimeZone::UTC)
    }
}

impl DiagnosticSchedule {
    /// Whether somebody still has to confirm it.
    pub fn is_draft(&self) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        annotations.is_some_and(|all| all.contains_key(ANNOTATION_DRAFT))
    }

    /// Whether it made that run.
    pub fn made(&self, run: &DiagnosticRun) -> bool {
        let key = &run.spec.key;
        let uid = self.metadata.uid.as_deref().unwrap_or_default();
        key.kind == KeyKind::Schedule
            && serde_json::from_str::<[String; 2]>(&key.id).is_ok_and(|[made_by, _]| made_by == uid && !uid.is_empty())
    }
}

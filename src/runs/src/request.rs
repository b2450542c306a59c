//! A request before it is a run: parsed, and small enough to be recorded.

use std::collections::BTreeMap;

use diagbot_api::{
    approval::Appeal,
    request_key::{RequestKey, RunName},
    requester::Requester,
    run::{Origin, RunSpec, Selection},
    target::TargetRef,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::reason::Reason;

/// A request, parsed and not yet recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRequest {
    /// What made it.
    pub key: RequestKey,
    /// Who asked.
    pub requester: Requester,
    /// Where to answer.
    pub origin: Origin,
    /// The diagnostic or runbook as typed.
    pub diagnostic: String,
    /// Parameters as typed.
    pub parameters: BTreeMap<String, String>,
    /// The target as typed.
    pub target: TargetRef,
    /// Which of the pods that fit; none: what the runbook says, else exactly one must be meant.
    pub targets: Option<Selection>,
    /// Begins only once the target was restarted; until then at the latest.
    pub armed_until: Option<Timestamp>,
    /// Only tell what would happen.
    pub dry_run: bool,
    /// The person has confirmed the impact.
    pub confirmed: bool,
    /// What the person appeals to where their own right does not suffice.
    pub appeal: Appeal,
    /// When it reached us.
    pub received_at: Timestamp,
}

/// Longest text of a request's part, in bytes: no real name or value comes near.
const LONGEST_WORD: usize = 253;
/// Longest value of a parameter, in bytes.
const LONGEST_VALUE: usize = 1024;
/// Most parameters.
const MOST_PARAMETERS: usize = 32;

impl RunRequest {
    /// Checks that the record stays small, whatever a front lets through.
    pub fn check(&self) -> Result<(), Reason> {
        let target = &self.target;
        let words = [
            ("The diagnostic's name", Some(&self.diagnostic)),
            ("The target's name", Some(&target.name)),
            ("The cluster's name", target.cluster.as_ref()),
            ("The namespace's name", target.namespace.as_ref()),
            ("The container's name", target.container.as_ref()),
        ];
        at_most(
            "The label selector",
            target.selector.as_ref().map_or(0, String::len),
            LONGEST_VALUE,
        )?;
        for (part, word) in words {
            at_most(part, word.map_or(0, String::len), LONGEST_WORD)?;
        }
        let why = self.appeal.break_glass.as_ref();
        at_most("The reason", why.map_or(0, String::len), LONGEST_VALUE)?;
        at_most("The list of parameters", self.parameters.len(), MOST_PARAMETERS)?;
        for (name, value) in &self.parameters {
            at_most("A parameter's name", name.len(), LONGEST_WORD)?;
            at_most("A parameter's value", value.len(), LONGEST_VALUE)?;
        }
        Ok(())
    }

    /// The name of the run that this request is.
    pub fn name(&self) -> RunName {
        self.key.run_name()
    }

    /// The spec of that run.
    pub fn spec(&self) -> RunSpec {
        RunSpec {
            key: self.key.record(),
            requester: self.requester.clone(),
            origin: self.origin.clone(),
            diagnostic: self.diagnostic.clone(),
            parameters: self.parameters.clone(),
            target: self.target.clone(),
            targets: self.targets,
            armed_until: self.armed_until.map(MicroTime),
            dry_run: self.dry_run,
            confirmed: self.confirmed,
            appeal: self.appeal.clone(),
            received_at: MicroTime(self.received_at),
        }
    }
}

fn at_most(part: &'static str, length: usize, most: usize) -> Result<(), Reason> {
    if length <= most {
        Ok(())
    } else {
        Err(Reason::RequestTooLarge { part, most })
    }
}

//! The approval of a second person: when it takes one, what it covers, and when it is void. Pure.

use diagbot_api::{
    approval::{ANNOTATION_APPROVAL, Approval, Verdict, VerdictRequest},
    phase::{Event, IllegalTransition},
    run::RunStatus,
};
use diagbot_catalog::diagnostic::Approval as Demand;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{Action, Facts, START_WINDOW, later, right::refusal, spec};
use crate::{preflight::Preflight, reason::Reason};

/// How long a second person has: later the evidence is of another moment.
pub(super) const APPROVAL_WINDOW: SignedDuration = SignedDuration::from_mins(15);

impl Facts<'_> {
    /// Why it takes a second person; none where it does not.
    pub(super) fn demand(&self, status: &RunStatus, preflight: &Preflight) -> Option<String> {
        let diagnostics = status.diagnostics();
        let mut names = diagnostics.iter();
        let everywhere = names.find(|name| self.catalog.get(name).is_some_and(|d| d.approval == Demand::Required));
        if let Some(name) = everywhere {
            return Some(format!("`{name}` takes two people wherever it runs"));
        }
        // Owners can name a runbook as well as what it takes.
        let called = status.diagnostic.as_deref().unwrap_or_default();
        for (capture, snapshot) in status.captures.iter().zip(&preflight.snapshots) {
            let asked = snapshot.annotations.get(ANNOTATION_APPROVAL).map_or("", String::as_str);
            let mut words = asked.split(',').map(str::trim);
            let meant = words.find(|word| *word == "all" || *word == called || diagnostics.contains(word));
            if let Some(word) = meant {
                let name = if word == "all" { called } else { word };
                return Some(format!(
                    "the owners of the namespace `{}` want two people for `{name}`",
                    capture.target.namespace
                ));
            }
        }
        None
    }

    /// What an approval given now would cover.
    pub(super) fn approval(&self, status: &RunStatus, why: String) -> Approval {
        Approval {
            why,
            asked_at: MicroTime(self.now),
            expires_at: MicroTime(later(self.now, APPROVAL_WINDOW)),
            targets: status.captures.iter().map(|capture| capture.target.clone()).collect(),
            parameters: status.parameters.clone(),
            steps: status.steps.clone(),
            catalog_sha256: self.catalog.sha256(),
            images: self.images(status),
            verdict: None,
        }
    }

    fn images(&self, status: &RunStatus) -> Vec<String> {
        let diagnostics = status.diagnostics();
        let known = diagnostics.iter().filter_map(|name| self.catalog.get(name));
        known.map(|diagnostic| spec::image(self, diagnostic)).collect()
    }

    /// What is no more as it was when the approval was asked for.
    fn changed(&self, approval: &Approval, status: &RunStatus, preflight: &Preflight) -> Option<String> {
        if let Some(change) = self.changed_terms(approval, status) {
            return Some(change);
        }
        let mut snapshots = approval.targets.iter().zip(&preflight.snapshots);
        snapshots.find_map(|(target, snapshot)| {
            let change = snapshot.change(target)?;
            Some(format!("`{}/{}` {change}", target.namespace, target.pod))
        })
    }

    /// What is no more as it was when the approval was asked for, the targets themselves aside.
    pub(super) fn changed_terms(&self, approval: &Approval, status: &RunStatus) -> Option<String> {
        if approval.catalog_sha256 != self.catalog.sha256() {
            return Some("the allowlist has changed".to_owned());
        }
        if approval.images != self.images(status) {
            return Some("the image has changed".to_owned());
        }
        let targets = status.captures.iter().map(|capture| &capture.target);
        let same = approval.parameters == status.parameters && approval.steps == status.steps;
        if !same || !approval.targets.iter().eq(targets) {
            return Some("the request has changed".to_owned());
        }
        None
    }
}

/// AwaitingApproval: what a second person said, once it is reviewed; then everything as before a launch, once more.
pub(super) fn follow(facts: &Facts<'_>, mut status: RunStatus) -> Result<Action, IllegalTransition> {
    let Some(approval) = status.approval.clone() else {
        return facts.end(
            status,
            Event::Refused,
            &Reason::ApprovalVoid {
                change: "its record is gone".to_owned(),
            },
        );
    };
    let Some(said) = facts.run.verdict_request() else {
        if facts.now >= approval.expires_at.0 {
            let minutes = APPROVAL_WINDOW.as_mins();
            return facts.end(status, Event::Expired, &Reason::ApprovalExpired { minutes });
        }
        return Ok(Action::Wait(Some(approval.expires_at.0)));
    };
    let late = said.at >= approval.expires_at.0;
    if late {
        let minutes = APPROVAL_WINDOW.as_mins();
        return facts.end(status, Event::Expired, &Reason::ApprovalExpired { minutes });
    }
    // Said in time, and then nobody led for too long: what was agreed to is of another moment.
    if facts.now > later(said.at, START_WINDOW) {
        let minutes = START_WINDOW.as_mins();
        return facts.end(status, Event::Expired, &Reason::NotStarted { minutes });
    }
    let Some(preflight) = facts.preflight else {
        return Ok(Action::Preflight(Box::new(facts.question(&status))));
    };
    let preflight = match preflight {
        Ok(preflight) => preflight,
        Err(reason) => return facts.end(status, refusal(reason), reason),
    };
    let decision = preflight.approver.as_ref();
    let user = decision.map_or_else(|| said.by.user_name(), |decision| decision.user.clone());
    let Some(decision) = decision.filter(|d| d.allowed && said.by != facts.run.spec.requester) else {
        return facts.end(status, Event::Denied, &Reason::ApproverMayNot { user });
    };
    status.approval = Some(Approval {
        verdict: Some(Verdict {
            by: said.by.clone(),
            approved: said.approved,
            at: MicroTime(said.at),
            decision: Some(decision.clone()),
        }),
        ..approval.clone()
    });
    if !said.approved {
        return refuse(facts, status, &said);
    }
    if let Some(change) = facts.changed(&approval, &status, preflight) {
        return facts.end(status, Event::Refused, &Reason::ApprovalVoid { change });
    }
    super::admit::admit(facts, status, preflight)
}

fn refuse(facts: &Facts<'_>, status: RunStatus, said: &VerdictRequest) -> Result<Action, IllegalTransition> {
    let by = said.by.user_name();
    facts.end(status, Event::Denied, &Reason::ApprovalRefused { by })
}

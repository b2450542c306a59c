//! A second person's approval, break-glass and denied permissions, in words.

use diagbot_api::run::{DiagnosticRun, Phase, RunStatus};

use super::{
    escape::{line, moment, prose},
    words::person,
};

/// What stands in a run's message about approval and break-glass, a paragraph each.
pub(super) fn words(run: &DiagnosticRun, status: &RunStatus) -> Vec<String> {
    let mut all = Vec::new();
    if let (Some(reason), Some(decision)) = (&run.spec.appeal.break_glass, &status.break_glass)
        && decision.allowed
    {
        all.push(format!(
            ":rotating_light: *Break-glass* by {}, without a second person. Reason: {}",
            person(&run.spec.requester),
            line(reason)
        ));
    }
    let Some(approval) = &status.approval else { return all };
    match &approval.verdict {
        Some(said) => {
            let word = if said.approved { "Approved" } else { "Not approved" };
            all.push(format!("*{word}* by {}, {}", person(&said.by), moment(said.at.0)));
        }
        None if status.phase == Phase::AwaitingApproval => all.push(format!(
            "*It takes a second person:* {}. Whoever has the verb `approve` there, other than {}, can agree until {}. It \
             covers this pod and container, these parameters, this image and this allowlist, and nothing else.",
            prose(&approval.why),
            person(&run.spec.requester),
            moment(approval.expires_at.0)
        )),
        None => {}
    }
    all
}

/// Whether the run was denied for want of a permission that somebody could give.
pub(super) fn can_be_granted(status: &RunStatus) -> bool {
    let missing = status.decision.as_ref().is_some_and(|decision| !decision.allowed);
    status.phase == Phase::Denied && missing
}

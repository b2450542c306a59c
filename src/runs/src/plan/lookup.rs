//! Where a run looks for its target, and what was found there.

use diagbot_api::{
    phase::IllegalTransition,
    run::{RunStatus, Selection},
};
use diagbot_cluster::resolve::Found;

use super::{Action, Facts, armed, diagnostic, fanout, right::refusal};
use crate::reason::Reason;

/// The target's cluster, the home cluster unless one is named; a reason where no target is.
pub(super) fn place(facts: &Facts<'_>) -> Result<String, Reason> {
    let target = &facts.run.spec.target;
    if target.name.is_empty() && target.selector.is_none() {
        return Err(Reason::NoTarget);
    }
    match &facts.run.spec.target.cluster {
        None => Ok(facts.clusters.first().cloned().unwrap_or_default()),
        Some(typed) if facts.clusters.contains(typed) => Ok(typed.clone()),
        Some(typed) => Err(Reason::UnknownCluster {
            typed: typed.clone(),
            known: facts.clusters.to_vec(),
        }),
    }
}

/// What the look-up found; or what to do instead. Without a choice, any diagnostic could be meant.
pub(super) fn look_up<'a>(
    facts: &Facts<'a>,
    status: &RunStatus,
    cluster: &str,
    wanted: Option<(&diagnostic::Choice<'_>, Option<Selection>)>,
) -> Result<Result<&'a Found, Action>, IllegalTransition> {
    match facts.target {
        None => {
            let (choice, selection) = wanted.unzip();
            let any = choice.and_then(|choice| choice.steps.first());
            Ok(Err(Action::FindTarget {
                cluster: cluster.to_owned(),
                diagnostic: any.map(|step| step.diagnostic.name.to_string()).unwrap_or_default(),
                most: if facts.run.spec.armed_until.is_some() {
                    armed::MOST_PODS
                } else {
                    fanout::reach(selection.flatten())
                },
                siblings: choice.is_some_and(diagnostic::Choice::healthy_control)
                    || facts.run.spec.target.healthy_replica,
            }))
        }
        Some(Err(reason)) => facts.end(status.clone(), refusal(reason), reason).map(Err),
        Some(Ok(found)) => Ok(Ok(found)),
    }
}

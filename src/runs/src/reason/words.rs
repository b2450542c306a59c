//! The words for people: what happened, and what to do. Decides nothing.

use std::fmt::Write as _;

use super::{Reason, shown};
use crate::admission::OverBudget;

impl Reason {
    /// What happened, and what to do.
    pub(super) fn words(&self) -> (String, String) {
        match self {
            Self::RequestTooLarge { part, most } => (
                format!("{part} is too long."),
                format!("At most {most} are taken; shorten it."),
            ),
            Self::TooManyRequests { seconds } => (
                "Too many requests at a time.".to_owned(),
                format!("Ask again in {seconds} s."),
            ),
            Self::UnknownDiagnostic { typed, near } => (
                format!("There is no diagnostic or runbook `{}`.", shown(typed)),
                suggest(near, "`list` shows them all."),
            ),
            Self::SeveralDiagnostics { typed, fitting } => (
                format!("`{}` is the beginning of several diagnostics.", shown(typed)),
                format!("Say which: {}.", names(fitting)),
            ),
            Self::BadParameters { faults, known } => (
                format!("The parameters don't fit: {}.", faults.join("; ")),
                if known.is_empty() {
                    "This diagnostic takes no parameters.".to_owned()
                } else {
                    format!("It takes {}.", names(known))
                },
            ),
            Self::NoTarget => (
                "No target was named, and this channel has no default.".to_owned(),
                "Name a pod or workload, as `namespace/pod`.".to_owned(),
            ),
            Self::UnknownCluster { typed, known } => (
                format!("There is no cluster `{}`.", shown(typed)),
                format!("Known are {}.", names(known)),
            ),
            Self::UnknownTarget { typed, place, near } => (
                format!(
                    "Nothing called `{}` was found {place}, as far as you may see.",
                    shown(typed)
                ),
                suggest(
                    near,
                    "Check the name and the namespace (`-n`); if both are right, ask the owners of the namespace to let you use it.",
                ),
            ),
            Self::SeveralTargets { typed, count } => (
                format!("`{}` fits {count} targets.", shown(typed)),
                "Choose one of them, type its whole name, or add `--all`, or `--max n` for the sickest n.".to_owned(),
            ),
            Self::TooManyTargets { typed, count, most } => (
                format!("`{}` fits {count} targets; one run takes at most {most}.", shown(typed)),
                format!("Narrow it down with `-n` or `-l`, or take the sickest ones with `--max {most}`."),
            ),
            Self::SeveralNamespaces { typed, namespaces } => (
                format!(
                    "`{}` fits targets of several namespaces: {}.",
                    shown(typed),
                    names(namespaces)
                ),
                "Name the one that you mean with `-n`.".to_owned(),
            ),
            Self::NothingToTake { target } => (
                format!("No step of the runbook fits the state of `{target}`."),
                format!("`pod-report {target}` works in every state."),
            ),
            Self::NoHealthyReplica { target } => (
                format!("No other replica of `{}` is ready.", shown(target)),
                "There is nothing to compare with until one is.".to_owned(),
            ),
            Self::NothingToBundle => (
                "There are no two files of this run that you may read.".to_owned(),
                "“Send me a link” gives what there is.".to_owned(),
            ),
            Self::BundleTooLong { bytes, most } => (
                format!(
                    "Together the files have {} MiB; a bundle holds {} MiB.",
                    bytes >> 20,
                    most >> 20
                ),
                "“Send me a link” gives them one by one.".to_owned(),
            ),
            Self::BundlesBusy => (
                "Other bundles are being made just now.".to_owned(),
                "Press the button again in a minute.".to_owned(),
            ),
            Self::SeveralContainers { pod, containers } => (
                format!("`{pod}` has several containers and names no default."),
                format!("Choose one with `-c`: {}.", names(containers)),
            ),
            Self::UnknownContainer { typed, pod, containers } => (
                format!("`{pod}` has no container `{}`.", shown(typed)),
                format!("It has {}.", names(containers)),
            ),
            Self::TargetReplaced { pod } => (
                format!("`{pod}` is another pod now than the one that was chosen."),
                "Ask again; the new pod can be chosen by its name.".to_owned(),
            ),
            Self::TargetNotRunning { target, state } => (
                format!("`{target}` {}, so nothing can be started beside it.", shown(state)),
                format!("`pod-report {target}` works for it: manifest, events, states and the logs of the last run."),
            ),
            Self::TargetUnsupported { target, state } => (
                format!(
                    "`{target}` {}, and Kubernetes starts no ephemeral container there.",
                    shown(state)
                ),
                format!("`pod-report {target}` works for it: manifest, events, states and logs."),
            ),
            Self::HostProcesses { target } => (
                format!(
                    "`{target}` shares the processes of its node (`hostPID`), so that those of other pods would be in reach, \
                     and captures are never taken there."
                ),
                format!("`pod-report {target}` works for it: manifest, events, states and logs."),
            ),
            Self::ConfirmationNeeded {
                diagnostic,
                target,
                impact,
            } => (
                format!("`{diagnostic}` {impact}, and the target `{target}` was completed from what you typed."),
                "Confirm that this is the target you mean.".to_owned(),
            ),
            Self::ClusterUnavailable { cluster, answer } => (
                format!("The cluster `{cluster}` could not be asked: {}.", shown(answer)),
                "Try again in a minute; nothing was started.".to_owned(),
            ),
            Self::BotForbidden { cluster, what } => (
                format!("diagbot itself may not {what} in the cluster `{cluster}`."),
                "Name the namespace with `-n`, or ask the cluster's owners to grant it.".to_owned(),
            ),
            Self::CallerForbidden {
                namespace,
                cluster,
                rights,
            } => (
                format!(
                    "Your account may not {} in namespace `{namespace}` of `{cluster}`.",
                    names(rights)
                ),
                format!(
                    "Ask the owners of the namespace to grant that (`kubectl auth can-i {} -n {namespace}` tells when they have); nothing was started.",
                    rights.first().map_or("", String::as_str)
                ),
            ),
            Self::NeverRestarted { typed } => (
                format!(
                    "`{}` was not restarted in the time that it was waited for; nothing was captured.",
                    shown(typed)
                ),
                "Arm it again if it is still wanted; `--for` says for how long.".to_owned(),
            ),
            Self::TooManyToWaitFor { typed, count, most } => (
                format!(
                    "`{}` has {count} pods, and restarts of at most {most} are waited for.",
                    shown(typed)
                ),
                "Arm it for one pod, or name a smaller workload.".to_owned(),
            ),
            Self::TooManyArmed { most } => (
                format!("{most} runs wait for a restart already, and no more may."),
                "`runs` shows them, and `cancel` ends one.".to_owned(),
            ),
            Self::NobodyToAgree { why } => (
                format!("It takes a second person: {}.", shown(why)),
                "Ask the bot in a channel, where somebody can agree.".to_owned(),
            ),
            Self::NotYours => (
                "This schedule is somebody else's.".to_owned(),
                "Ask its owner, or add one of your own.".to_owned(),
            ),
            Self::NotAllowed {
                verb,
                diagnostic,
                namespace,
                cluster,
                user,
            } => (
                format!(
                    "You may not `{verb}` the diagnostic `{diagnostic}` in namespace `{namespace}` of `{cluster}`."
                ),
                format!(
                    "Ask the owners of the namespace for the verb `{verb}` on `diagnostics.diagbot.dev` for the user `{user}` or one of your groups."
                ),
            ),
            Self::IdentityRefused(error) => (
                format!("You may not use diagbot: {error}."),
                "Ask a full member of this workspace.".to_owned(),
            ),
            Self::ReviewFailed { what } => (
                format!("Your permission could not be checked: {}.", shown(what)),
                "Without an answer the request is denied; ask again in a minute.".to_owned(),
            ),
            Self::RecordAway => (
                "What is done here can't be recorded now: the record's store does not answer.".to_owned(),
                "Sensitive evidence is taken only on record; ask again later, or ask those who run the bot.".to_owned(),
            ),
            Self::NamespaceNotEnabled { namespace, cluster } => (
                format!("The namespace `{namespace}` of `{cluster}` does not take part."),
                format!("Its owners opt in with `kubectl label namespace {namespace} diagbot.dev/enabled=true`."),
            ),
            Self::NeverThere { namespace } => (
                format!("Captures are never taken in the namespace `{namespace}`."),
                "Ask the people who run the cluster; no permission changes this.".to_owned(),
            ),
            Self::Paused { place, by } => (
                format!(
                    "diagbot is paused for {place}, by `{}`; nothing is captured there.",
                    shown(by)
                ),
                "Ask who paused it; `resume`, or the removal of the label, allows captures again.".to_owned(),
            ),
            Self::OverBudget(over) => over_budget(over),
            Self::ApprovalExpired { minutes } => (
                format!("Nobody agreed within {minutes} minutes."),
                "Ask again while somebody with the verb `approve` is there.".to_owned(),
            ),
            Self::ApprovalRefused { by } => (
                format!("`{}` did not agree.", shown(by)),
                "Talk to them; a new request can be made at any time.".to_owned(),
            ),
            Self::ApprovalVoid { change } => (
                format!("What was agreed to is void: {change}."),
                "Ask again: an approval covers one pod, one container, one image and one allowlist.".to_owned(),
            ),
            Self::ApproverMayNot { user } => (
                format!(
                    "The approval of `{}` does not count: that person may not `approve` this, or asked for it.",
                    shown(user)
                ),
                "Ask again, and let somebody with the verb `approve` agree.".to_owned(),
            ),
            Self::OwnRequest => (
                "Nobody agrees to their own request.".to_owned(),
                "Let somebody else with the verb `approve` agree.".to_owned(),
            ),
            Self::MayNotSwitch { place, user } => (
                format!("You may not pause or resume captures for {place}."),
                format!(
                    "It takes the verb `cancel` on all `diagnostics.diagbot.dev` there, for `{user}` or one of your groups."
                ),
            ),
            Self::BreakGlassUnheard => (
                "Break-glass is announced to others, and nobody but you and the bot would read it here.".to_owned(),
                "Use it in a channel that the bot is in, with at least one other member, or ask without `--break-glass`."
                    .to_owned(),
            ),
            Self::BreakGlassNotAllowed {
                diagnostic,
                wildcard,
                user,
            } => (
                if *wildcard {
                    format!(
                        "Your right to `break-glass` for `{diagnostic}` comes from a wildcard, which does not count."
                    )
                } else {
                    format!("You may not `break-glass` for `{diagnostic}`.")
                },
                format!(
                    "It takes a rule with the verb `break-glass`, the resource `diagnostics` and the resource name \
                     `{diagnostic}`, each written out, for `{user}` or one of your groups. Without it: ask without \
                     `--break-glass`, and let somebody agree."
                ),
            ),
            Self::CaptureRefused { answer } => (
                format!("The API server refused the capture: {}.", shown(answer)),
                "Show this to the cluster's owners.".to_owned(),
            ),
            Self::CaptureVanished { capture } => (
                format!("The capture `{capture}` was deleted by somebody else before it ended."),
                "Ask again; it is never started a second time by itself.".to_owned(),
            ),
            Self::NotStarted { minutes } => (
                format!("Nothing had started {minutes} minutes after the request."),
                "Ask again if the evidence is still wanted.".to_owned(),
            ),
            Self::RunTimedOut => (
                "The run took longer than it may and was stopped.".to_owned(),
                "What was captured until then is listed; ask again for the rest.".to_owned(),
            ),
        }
    }
}

/// What the budgets say, and how long to wait.
fn over_budget(over: &OverBudget) -> (String, String) {
    let later = "Ask again when one of them has ended; `runs` shows them.".to_owned();
    let captures = |number: usize| if number == 1 { "capture" } else { "captures" };
    match over {
        OverBudget::Concurrent { group, most } => (
            format!(
                "{most} {} of this {group} {} already, and no more may at a time.",
                captures(*most),
                if *most == 1 { "runs" } else { "run" }
            ),
            later,
        ),
        OverBudget::Hourly { group, most, minutes } => (
            format!(
                "{most} {} of this {group} {} begun within an hour, and no more may be.",
                captures(*most),
                if *most == 1 { "was" } else { "were" }
            ),
            format!(
                "Ask again in {minutes} {}.",
                if *minutes == 1 { "minute" } else { "minutes" }
            ),
        ),
        OverBudget::PodPaused { pod } => (
            format!("Another capture makes `{pod}` stand still, and two never do at a time."),
            "Ask again when it has ended; `runs` shows it.".to_owned(),
        ),
        OverBudget::ReplicasPaused { most, of } => (
            format!("{most} of the workload's {of} replicas may stand still at a time, and as many do."),
            later,
        ),
        OverBudget::Containers { pod, most } => (
            format!(
                "`{pod}` holds {most} ephemeral containers, and no more may be added: they stay until the pod goes."
            ),
            "Choose another pod of the workload, or ask again when this one was replaced.".to_owned(),
        ),
    }
}

fn names(names: &[String]) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        let _ = write!(text, "{}`{}`", if index == 0 { "" } else { ", " }, shown(name));
    }
    text
}

fn suggest(near: &[String], otherwise: &str) -> String {
    if near.is_empty() {
        otherwise.to_owned()
    } else {
        format!("Did you mean {}? {otherwise}", names(near))
    }
}

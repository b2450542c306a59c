//! Why a run ends without evidence, in words for people. Owns every such text of the runs: what happened, and what to do.

use std::fmt::Write as _;

use crate::{access::IdentityError, admission::OverBudget, captures::resource::Explanation};

/// Longest piece of foreign text that a message repeats.
const SHOWN_CHARACTERS: usize = 80;

/// Why a run is refused, denied, expired or failed. Closed: the variant's name is the code that metrics and tests use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A part of the request is longer than any real one.
    RequestTooLarge {
        /// Which part.
        part: &'static str,
        /// Longest length in bytes, or largest number.
        most: usize,
    },
    /// The person or the channel asks too often.
    TooManyRequests {
        /// When the next one is taken, in seconds.
        seconds: u64,
    },
    /// The catalog has no such diagnostic.
    UnknownDiagnostic {
        /// As typed.
        typed: String,
        /// Words that are near.
        near: Vec<String>,
    },
    /// A prefix of several diagnostics.
    SeveralDiagnostics {
        /// As typed.
        typed: String,
        /// Canonical names.
        fitting: Vec<String>,
    },
    /// Parameters don't fit; each fault in words.
    BadParameters {
        /// The faults.
        faults: Vec<String>,
        /// Parameters that exist.
        known: Vec<String>,
    },
    /// No target was named, and the channel has no default.
    NoTarget,
    /// There is no such cluster.
    UnknownCluster {
        /// As typed.
        typed: String,
        /// Clusters that exist.
        known: Vec<String>,
    },
    /// Nothing of that name.
    UnknownTarget {
        /// As typed.
        typed: String,
        /// Where was looked: `in namespace shop`, `in any namespace`.
        place: String,
        /// Names that are near, and that the person may see.
        near: Vec<String>,
    },
    /// Several targets fit; they are offered as buttons.
    SeveralTargets {
        /// As typed.
        typed: String,
        /// How many fit.
        count: usize,
    },
    /// More targets than one run may have.
    TooManyTargets {
        /// As typed.
        typed: String,
        /// How many fit.
        count: usize,
        /// Most that a run may have.
        most: usize,
    },
    /// All of them are meant, and they are of several namespaces.
    SeveralNamespaces {
        /// As typed.
        typed: String,
        /// Some of them.
        namespaces: Vec<String>,
    },
    /// No step of the runbook fits the target's state.
    NothingToTake {
        /// `shop/checkout-…`
        target: String,
    },
    /// No replica of the pod is ready.
    NoHealthyReplica {
        /// `shop/checkout-…`
        target: String,
    },
    /// A run has no two artifacts that this person may read.
    NothingToBundle,
    /// The artifacts are longer than an archive may be.
    BundleTooLong {
        /// Together.
        bytes: u64,
        /// Most.
        most: u64,
    },
    /// As many archives are being made as may.
    BundlesBusy,
    /// Several containers fit; they are offered as buttons.
    SeveralContainers {
        /// Pod.
        pod: String,
        /// Containers.
        containers: Vec<String>,
    },
    /// No such container.
    UnknownContainer {
        /// As typed.
        typed: String,
        /// Pod.
        pod: String,
        /// Containers that it has.
        containers: Vec<String>,
    },
    /// A pinned pod was replaced by another of the same name.
    TargetReplaced {
        /// Pod.
        pod: String,
    },
    /// The pod or container does not run, so nothing can be started beside it.
    TargetNotRunning {
        /// `shop/checkout-…`
        target: String,
        /// How it is: `is waiting: CrashLoopBackOff`.
        state: String,
    },
    /// Kubernetes allows no ephemeral container there.
    TargetUnsupported {
        /// `shop/checkout-…`
        target: String,
        /// Why: `is a static pod`.
        state: String,
    },
    /// A guess would be acted on with an impact: a person must confirm it.
    ConfirmationNeeded {
        /// The diagnostic.
        diagnostic: String,
        /// What was completed: `checkout-7d9f8b6c5-x2x4z`.
        target: String,
        /// The impact in words.
        impact: &'static str,
    },
    /// The target cluster could not be asked.
    ClusterUnavailable {
        /// The cluster.
        cluster: String,
        /// What it answered, in short.
        answer: String,
    },
    /// The bot's own account may not look there.
    BotForbidden {
        /// The cluster.
        cluster: String,
        /// What it may not do: `list pods in any namespace`.
        what: String,
    },
    /// Who comes with a kubeconfig may not do what it takes.
    CallerForbidden {
        /// Namespace.
        namespace: String,
        /// Cluster.
        cluster: String,
        /// What is missing: `patch pods/ephemeralcontainers`.
        rights: Vec<String>,
    },
    /// Nothing was restarted while it was waited for.
    NeverRestarted {
        /// As typed.
        typed: String,
    },
    /// More pods than one run waits for.
    TooManyToWaitFor {
        /// As typed.
        typed: String,
        /// How many fit.
        count: usize,
        /// How many may.
        most: usize,
    },
    /// As many runs wait for a restart as may.
    TooManyArmed {
        /// How many may.
        most: usize,
    },
    /// A second person must agree, and there is none where it was asked.
    NobodyToAgree {
        /// Why it takes one.
        why: String,
    },
    /// Only who made it may do that.
    NotYours,
    /// The cluster's permissions say no.
    NotAllowed {
        /// Verb.
        verb: &'static str,
        /// The diagnostic.
        diagnostic: String,
        /// Namespace.
        namespace: String,
        /// Cluster.
        cluster: String,
        /// The Kubernetes user that was reviewed.
        user: String,
    },
    /// The account may do nothing here at all.
    IdentityRefused(IdentityError),
    /// The permission could not be checked.
    ReviewFailed {
        /// What failed, in short.
        what: String,
    },
    /// The record's store does not answer, and this may not be done without a record.
    RecordAway,
    /// The namespace does not take part.
    NamespaceNotEnabled {
        /// Namespace.
        namespace: String,
        /// Cluster.
        cluster: String,
    },
    /// Captures are never taken in that namespace.
    NeverThere {
        /// Namespace.
        namespace: String,
    },
    /// The off-switch is on.
    Paused {
        /// Where, in words.
        place: String,
        /// Who switched it.
        by: String,
    },
    /// More than the budgets give.
    OverBudget(OverBudget),
    /// Nobody consented in time.
    ApprovalExpired {
        /// How long people had, in minutes.
        minutes: i64,
    },
    /// A second person said no.
    ApprovalRefused {
        /// Who.
        by: String,
    },
    /// What was consented to is no more what would be done.
    ApprovalVoid {
        /// What changed.
        change: String,
    },
    /// Whoever consented may not.
    ApproverMayNot {
        /// The Kubernetes user that was reviewed.
        user: String,
    },
    /// Nobody consents to their own request.
    OwnRequest,
    /// The person may not switch captures on or off there.
    MayNotSwitch {
        /// Where, in words.
        place: String,
        /// The Kubernetes user that was reviewed.
        user: String,
    },
    /// Nobody would hear of a broken glass there.
    BreakGlassUnheard,
    /// The person may not break the glass.
    BreakGlassNotAllowed {
        /// Diagnostic.
        diagnostic: String,
        /// Only a wildcard gives it.
        wildcard: bool,
        /// The Kubernetes user that was reviewed.
        user: String,
    },
    /// The API server or an admission policy refused the capture.
    CaptureRefused {
        /// What it answered.
        answer: String,
    },
    /// A capture that had been made is gone.
    CaptureVanished {
        /// Its name.
        capture: String,
    },
    /// Nothing had started in time.
    NotStarted {
        /// How long, in minutes.
        minutes: i64,
    },
    /// The run took longer than it may.
    RunTimedOut,
}

impl Reason {
    /// The code: the variant's name.
    pub fn code(&self) -> String {
        let debug = format!("{self:?}");
        let end = debug.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(debug.len());
        debug[..end].to_owned()
    }

    /// What happened and what to do.
    pub fn explain(&self) -> Explanation {
        let (message, remedy) = self.words();
        Explanation {
            code: self.code(),
            message,
            remedy,
        }
    }

    fn words(&self) -> (String, String) {
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
                "Ask again: a consent covers one pod, one container, one image and one allowlist.".to_owned(),
            ),
            Self::ApproverMayNot { user } => (
                format!(
                    "The consent of `{}` does not count: that person may not `approve` this, or asked for it.",
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
                "Break-glass is announced, and nobody would hear it in a direct message.".to_owned(),
                "Use it in a channel.".to_owned(),
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
    match over {
        OverBudget::Concurrent { group, most } => (
            format!("{most} captures of this {group} run already, and no more may at a time."),
            later,
        ),
        OverBudget::Hourly { group, most, minutes } => (
            format!("{most} captures of this {group} were begun within an hour, and no more may be."),
            format!("Ask again in {minutes} minutes."),
        ),
        OverBudget::PodPaused { pod } => (
            format!("Another capture makes `{pod}` stand still, and two never do at a time."),
            later,
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

/// Foreign text as it may be repeated: no control or direction characters, no backticks, one line, short.
pub fn shown(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !c.is_control() && !is_invisible(*c) && *c != '`')
        .take(SHOWN_CHARACTERS)
        .collect();
    if text.chars().count() > SHOWN_CHARACTERS {
        shown.push('…');
    }
    shown.trim().trim_end_matches('.').to_owned()
}

/// Characters that change the direction or vanish: they make a text look like another.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_the_variant_and_hostile_text_is_tamed() {
        let reason = Reason::UnknownDiagnostic {
            typed: format!("`<!channel>\u{202e}\n{}", "x".repeat(40_000)),
            near: vec!["jstack".into()],
        };
        let explanation = reason.explain();
        assert_eq!(explanation.code, "UnknownDiagnostic");
        assert!(explanation.message.len() < 200, "{}", explanation.message);
        assert!(!explanation.message.contains(['\u{202e}', '\n']));
        assert_eq!(explanation.message.matches('`').count(), 2);
        assert!(explanation.remedy.starts_with("Did you mean `jstack`?"));
        assert_eq!(Reason::NoTarget.code(), "NoTarget");
        assert_eq!(Reason::IdentityRefused(IdentityError::Guest).code(), "IdentityRefused");
    }
}

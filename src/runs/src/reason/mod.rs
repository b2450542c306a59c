//! Why a run ends without evidence: the closed list, its codes, and how foreign text may be repeated. The words are in `words`.

mod words;

use diagbot_api::{
    capture::Explanation,
    decision::{Decision, Verb},
};
use diagbot_wire::text;

use crate::{access::IdentityError, admission::OverBudget};

/// Longest piece of foreign text that a message repeats.
const SHOWN_CHARACTERS: usize = 80;

/// Why a run is refused, denied, expired or failed. Closed. A variant's name is its code, unless `strum(serialize)` says
/// otherwise: codes are public and never change.
#[derive(Debug, Clone, PartialEq, Eq, strum::IntoStaticStr, strum::VariantNames)]
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
    /// The pod shares the processes of its node: those of other pods would be in reach.
    HostProcesses {
        /// `shop/node-agent-…`
        target: String,
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
    /// Nobody but the person and the bot would read there that break-glass is used.
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
    /// The cluster's answer, where it is no.
    pub fn not_allowed(verb: Verb, decision: &Decision, (cluster, namespace): (&str, &str)) -> Self {
        Self::NotAllowed {
            verb: verb.as_str(),
            diagnostic: decision.diagnostic.clone(),
            namespace: namespace.to_owned(),
            cluster: cluster.to_owned(),
            user: decision.user.clone(),
        }
    }

    /// The code that metrics, alerts and people use.
    pub fn code(&self) -> &'static str {
        self.into()
    }

    /// What happened and what to do.
    pub fn explain(&self) -> Explanation {
        let (message, remedy) = self.words();
        Explanation {
            code: self.code().to_owned(),
            message,
            remedy,
        }
    }
}

/// Foreign text as it may be repeated: no control or direction characters, no backticks, one line, short.
pub fn shown(text: &str) -> String {
    text::quotable(text, SHOWN_CHARACTERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_never_change() {
        let codes = "RequestTooLarge TooManyRequests UnknownDiagnostic SeveralDiagnostics BadParameters NoTarget \
            UnknownCluster UnknownTarget SeveralTargets TooManyTargets SeveralNamespaces NothingToTake NoHealthyReplica \
            NothingToBundle BundleTooLong BundlesBusy SeveralContainers UnknownContainer TargetReplaced TargetNotRunning \
            TargetUnsupported HostProcesses ConfirmationNeeded ClusterUnavailable BotForbidden CallerForbidden \
            NeverRestarted TooManyToWaitFor TooManyArmed NobodyToAgree NotYours NotAllowed IdentityRefused ReviewFailed \
            RecordAway NamespaceNotEnabled NeverThere Paused OverBudget ApprovalExpired ApprovalRefused ApprovalVoid \
            ApproverMayNot OwnRequest MayNotSwitch BreakGlassUnheard BreakGlassNotAllowed CaptureRefused \
            CaptureVanished NotStarted RunTimedOut";
        assert_eq!(<Reason as strum::VariantNames>::VARIANTS.join(" "), codes);
    }

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

//! Faults of the cluster: its API server, its node, its rules, and pods that end. Never the wrong process; what happened is
//! said, and what can still be had.

use std::time::Duration;

use diagbot_api::run::Phase;
use diagbot_sandbox::{
    installation::Plan,
    kubernetes::{Fault, FaultKind},
    wait,
};
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

use crate::{
    product::{LEDGER, Product, Told, pull_fault},
    tools::{agent_of, go_on, processes, seconds_of_our_own, signal, tool, until_processes},
};

/// The agent's image, as faults of the node name it.
const AGENT: &str = "registry.sandbox/diagbot-agent";
/// Longest time in which a process must have begun or ended.
const SOON: Duration = Duration::from_secs(15);

/// Longest capture whose tool has a minute: what its start, its upload and its end may take, and the proof of a stop.
const A_CAPTURE: Duration = Duration::from_mins(16);

/// Reasons of a pod that goes, by whichever is seen first: it is being deleted, or it is gone.
pub(crate) const GOES: [&str; 2] = ["PodTerminating", "PodGone"];

/// The same of a container that is restarted: it does not run, or is another one.
pub(crate) const RESTARTS: [&str; 2] = ["TargetNotRunning", "TargetReplaced"];

/// A plan in which several runs in a row don't wait for Slack's pace.
fn quick() -> Plan {
    let mut plan = Plan::default();
    plan.slack.rate_limited = false;
    plan
}

impl Product {
    /// Restarts the API server, and returns when it answers again.
    async fn restart_api_server(&self, away: Duration) {
        self.installation.kubernetes().restart(away);
        let runs = self.installation.runs();
        wait::until(SOON, "the API server answers", || async {
            Ok(runs.list_metadata(&ListParams::default()).await.ok().map(|_| ()))
        })
        .await
        .unwrap();
    }

    fn cluster_faults(&self, faults: &[(FaultKind, &str, &str)]) {
        for (kind, verb, resource) in faults {
            self.installation.kubernetes().arm(Fault::of(*kind).on(verb, resource));
        }
    }

    fn assert_nothing_left(&self, told: &Told, what: &str) {
        assert_eq!(told.run.phase(), Phase::Failed, "{what}: {}", told.text());
        assert!(
            told.run.status.as_ref().unwrap().captures[0].artifacts.is_empty(),
            "{what}"
        );
        assert!(self.open_uploads().is_empty(), "{what}: {:?}", self.open_uploads());
        let left = self.objects().into_iter().filter(|key| !key.ends_with("result.json"));
        assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_api_server_answers_meanwhile_the_evidence_is_taken_once() {
    use FaultKind::{
        Conflict, Gone, InternalError, KubeletGone, LogCut, LogSilent, StreamReset, StreamSilent, Timeout,
        TooManyRequests, Unavailable, WatchCloses,
    };
    let product = Product::with(quick()).await;
    let rounds = [
        vec![
            // Answers are remembered for seconds: the first run asks.
            (Timeout, "create", "subjectaccessreviews"),
            (Conflict, "update", "diagnosticruns/status"),
            (Conflict, "update", "diagnosticcaptures/status"),
            (Conflict, "patch", "pods/ephemeralcontainers"),
            (Gone, "watch", "pods"),
            // A watch that is open meets it when it is taken up again.
            (Gone, "watch", "diagnosticcaptures"),
            (WatchCloses, "watch", "diagnosticcaptures"),
        ],
        vec![
            (Unavailable, "create", "diagnosticcaptures"),
            (Unavailable, "patch", "pods/ephemeralcontainers"),
            (TooManyRequests, "get", "pods"),
            (TooManyRequests, "list", "pods"),
            (InternalError, "update", "diagnosticruns/status"),
            (WatchCloses, "watch", "diagnosticruns"),
            (WatchCloses, "watch", "diagnosticcaptures"),
        ],
        vec![
            (KubeletGone, "get", "pods/log"),
            (KubeletGone, "get", "pods/attach"),
            (LogCut { after_bytes: 100 }, "get", "pods/log"),
            (StreamReset { after_bytes: 0 }, "get", "pods/attach"),
        ],
        vec![
            (LogSilent { after_bytes: 0 }, "get", "pods/log"),
            (StreamSilent { after_bytes: 0 }, "get", "pods/attach"),
        ],
    ];
    for (before, faults) in rounds.iter().enumerate() {
        product.cluster_faults(faults);
        let told = product.runs("process ledger").await;
        assert_eq!(told.run.phase(), Phase::Succeeded, "{faults:?}: {}", told.text());
        told.downloads().await;
        assert_eq!(product.ephemeral(LEDGER).await.len(), before + 1, "{faults:?}");
        assert_eq!(product.objects().len(), 3 * (before + 1), "{faults:?}");
        product.cluster_faults_struck(&format!("{faults:?}")).await;
    }
    assert!(product.open_uploads().is_empty(), "{:?}", product.open_uploads());
    assert_eq!(product.public().await.len(), rounds.len());
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_go_quiet_are_noticed() {
    let product = Product::with(quick()).await;
    let quiet = FaultKind::WatchQuiet;
    product.cluster_faults(&[
        (quiet, "watch", "diagnosticruns"),
        (quiet, "watch", "diagnosticcaptures"),
        (quiet, "watch", "pods"),
    ]);
    let told = product.runs("process ledger").await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    told.downloads().await;
    assert_eq!(product.ephemeral(LEDGER).await.len(), 1);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_restarts_in_the_middle_is_waited_for() {
    let mut plan = quick();
    let seconds = seconds_of_our_own("3");
    let argv = ["timeout", "--foreground", "86020", "sleep", &seconds];
    plan.diagnostics.push(tool("slow", &argv, "1m", "1MiB"));
    let product = Product::with(plan).await;
    let id = product.asks("slow ledger").await;
    until_processes(&format!("sleep {seconds}"), 2, SOON).await;
    product.restart_api_server(Duration::from_secs(2)).await;
    let told = product.ended(&id).await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    told.downloads().await;
    assert_eq!(product.ephemeral(LEDGER).await.len(), 1);
    assert_eq!(product.public().await.len(), 1);
    // Before anything has begun it is waited for, too.
    product.installation.kubernetes().restart(Duration::from_millis(1_200));
    let typed = json!({ "user": "ada", "channel": "incidents", "text": "/diag process ledger" });
    product.people.act("command", typed).await;
    product.restart_api_server(Duration::ZERO).await;
    let message = product.people.reads("incidents", "*process* of").await;
    let root = message.iter().find(|m| m.text.contains("*process* of")).unwrap();
    let footer = root.text.split("· run ").last().unwrap_or_default();
    let told = product.ended(&crate::product::run_in(footer).unwrap()).await;
    told.downloads().await;
    assert_eq!(product.recorded().await, 2);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_clusters_rules_refuse_is_told_in_their_words_with_what_can_be_had() {
    let product = Product::with(quick()).await;
    for (kind, code, cause, words) in [
        (
            FaultKind::PolicyDenies,
            "Admission",
            "A policy of the cluster refused the container",
            "are not allowed here",
        ),
        (
            FaultKind::PodSecurityDenies,
            "PodSecurity",
            "Pod Security level",
            "violates PodSecurity",
        ),
    ] {
        product.cluster_faults(&[(kind, "patch", "pods/ephemeralcontainers")]);
        let told = product.runs("process ledger").await;
        told.explains_as(code, cause);
        told.says(&[words, "pod-report"]);
        product.assert_nothing_left(&told, cause);
        assert!(product.ephemeral(LEDGER).await.is_empty());
    }
    let report = product.runs("pod-report ledger").await;
    assert!(report.downloads().await.contains(LEDGER), "what can be had can be had");
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_never_starts_is_given_up_in_time_and_told_why() {
    let cases = [
        (
            "IfNotPresent",
            FaultKind::SlowPull { millis: 60_000 },
            "NotStarted",
            "did not start in time",
        ),
        (
            "Never",
            FaultKind::PullFails,
            "ImageAbsent",
            "is not on the node and must not be pulled",
        ),
    ];
    // Side by side: each waits most of its time.
    let told = cases.map(async |(pull, fault, code, cause)| {
        let mut plan = quick();
        plan.kubernetes.faults.push(pull_fault(fault, AGENT, u32::MAX));
        plan.config = json!({ "agent": { "launchLimitS": 4, "pullPolicy": pull } });
        let product = Product::with(plan).await;
        let told = product.runs("process ledger").await;
        told.explains_as(code, cause);
        product.assert_nothing_left(&told, cause);
        product.stop().await;
    });
    join_all(told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ends_or_is_another_one_is_never_looked_at() {
    // The bot may look while the former pod is gone and its namesake not there yet.
    let cases: [(&str, &[(&str, &str)]); 3] = [
        (
            "same name",
            &[
                ("PodReplaced", "Another pod has this name now"),
                ("PodGone", "The pod is gone"),
            ],
        ),
        ("evict", &[("PodNotRunning", "The pod does not run")]),
        (
            "delete",
            &[
                ("PodTerminating", "The pod is being deleted"),
                ("PodGone", "The pod is gone"),
            ],
        ),
    ];
    let told = cases.map(async |(action, answers)| {
        let mut plan = quick();
        let slow = FaultKind::SlowPull { millis: 4_000 };
        plan.kubernetes.faults.push(pull_fault(slow, AGENT, 1));
        let product = Product::with(plan).await;
        let id = product.asks("process ledger").await;
        product.people.reads("incidents", "ulling").await;
        if action == "same name" {
            replace_by_namesake(&product).await;
        } else {
            product.operate(LEDGER, action).await;
        }
        let told = product.ended(&id).await;
        let answer = answers.iter().find(|(code, _)| *code == told.code());
        let (_, cause) = answer.unwrap_or_else(|| panic!("{action}: {}: {}", told.code(), told.text()));
        told.explains(cause);
        product.assert_nothing_left(&told, action);
        product.stop().await;
    });
    join_all(told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ends_in_the_middle_of_a_capture_takes_the_tool_along_and_is_told() {
    let cases: [(&str, &[&str], &str, &str); 3] = [
        ("restart", &RESTARTS, "The container ", "86021"),
        ("evict", &["PodNotRunning"], "The pod does not run", "86022"),
        ("replace", &GOES, "The pod is", "86023"),
    ];
    let told = cases.map(async |(action, codes, cause, seconds)| {
        let seconds = seconds_of_our_own(seconds);
        let line = format!("sleep {seconds}");
        let mut plan = quick();
        let argv = ["timeout", "--foreground", &seconds, "sleep", &seconds];
        plan.diagnostics.push(tool("stall", &argv, "5m", "1MiB"));
        let product = Product::with(plan).await;
        let id = product.asks("stall ledger").await;
        until_processes(&line, 2, SOON).await;
        product.operate(LEDGER, action).await;
        let told = product.ended(&id).await;
        assert!(
            codes.contains(&told.code()),
            "{action}: {}: {}",
            told.code(),
            told.text()
        );
        told.explains(cause);
        product.assert_nothing_left(&told, action);
        until_processes(&line, 0, SOON).await;
        product.stop().await;
    });
    join_all(told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_is_gone_for_good_costs_no_evidence_that_the_pod_can_still_send_and_nothing_unproven_is_said() {
    tokio::join!(kubelet_gone(), node_gone(Stopped::ByAPerson));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: .ci/long runs it"]
async fn a_node_that_is_gone_for_good_ends_its_capture_at_the_deadline() {
    node_gone(Stopped::ByItsDeadline).await;
}

/// What ends a run whose node is gone.
#[derive(Clone, Copy)]
enum Stopped {
    ByAPerson,
    ByItsDeadline,
}

impl Product {
    /// The node's kubelet answers nothing more, and what it had under way breaks.
    async fn kubelet_goes(&self) {
        for resource in ["pods/log", "pods/attach", "pods/exec"] {
            let gone = Fault::of(FaultKind::KubeletGone).on("get", resource).times(u32::MAX);
            self.installation.kubernetes().arm(gone);
        }
        self.restart_api_server(Duration::ZERO).await;
    }

    /// Somebody has waited long enough and stops the run.
    async fn cancelled(&self, id: &str) -> Told {
        let messages = self.people.reads("incidents", "State: *capturing*").await;
        let root = messages.iter().find(|m| m.by_bot && !m.ephemeral).unwrap();
        self.people.click("ada", "incidents", &root.ts, "Cancel").await;
        self.ended(id).await
    }
}

/// The agent goes on alone, and its result is found in the store.
async fn kubelet_gone() {
    let mut plan = quick();
    let seconds = seconds_of_our_own("3");
    let argv = ["timeout", "--foreground", "86024", "sleep", &seconds];
    plan.diagnostics.push(tool("slow", &argv, "10s", "1MiB"));
    let product = Product::with(plan).await;
    let id = product.asks("slow ledger").await;
    until_processes(&format!("sleep {seconds}"), 2, SOON).await;
    product.kubelet_goes().await;
    wait::until(SOON, "the agent has put its result into the store", || async {
        Ok(product
            .objects()
            .iter()
            .any(|key| key.ends_with("result.json"))
            .then_some(()))
    })
    .await
    .unwrap();
    let told = product.ended(&id).await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    told.downloads().await;
    assert_eq!(product.ephemeral(LEDGER).await.len(), 1);
    assert!(product.open_uploads().is_empty(), "{:?}", product.open_uploads());
    product.stop().await;
}

/// The agent is gone with the node, and nobody says so.
async fn node_gone(stopped: Stopped) {
    let mut plan = quick();
    let seconds = seconds_of_our_own("86025");
    let line = format!("sleep {seconds}");
    let argv = ["timeout", "--foreground", &seconds, "sleep", &seconds];
    plan.diagnostics.push(tool("stall", &argv, "1m", "1MiB"));
    let product = Product::with(plan).await;
    let id = product.asks("stall ledger").await;
    until_processes(&line, 2, SOON).await;
    let tools = processes(&line);
    let agent = agent_of(&line);
    signal("-STOP", agent).await;
    product.kubelet_goes().await;
    let (told, phase, code) = match stopped {
        Stopped::ByAPerson => (product.cancelled(&id).await, Phase::Failed, "CancelUnproven"),
        Stopped::ByItsDeadline => {
            wait::until(A_CAPTURE, "the run has ended", || async {
                let run = product.installation.runs().list(&ListParams::default()).await?.items;
                Ok(run.iter().any(|run| run.phase().is_final()).then_some(()))
            })
            .await
            .unwrap();
            (product.ended(&id).await, Phase::TimedOut, "CancelUnproven")
        }
    };
    assert_eq!(told.run.phase(), phase, "{}", told.text());
    told.explains_as(code, "that it did is not proven");
    assert_eq!(processes(&line), tools, "it was not proven, and it was not so");
    assert!(product.open_uploads().is_empty(), "{:?}", product.open_uploads());
    assert_eq!(product.public().await.len(), 1);
    // It has no word of the cancel, and would keep its own deadline.
    go_on(agent).await;
    product.stop().await;
}

/// The pod goes at once, and a stranger takes its name.
async fn replace_by_namesake(product: &Product) {
    let pods = product.pods();
    let mut namesake = pods.get(LEDGER).await.unwrap();
    let labels = namesake.labels().clone();
    pods.delete(LEDGER, &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    wait::until(SOON, "the pod is gone", || async {
        Ok(pods.get_opt(LEDGER).await?.is_none().then_some(()))
    })
    .await
    .unwrap();
    namesake.metadata = ObjectMeta {
        name: Some(LEDGER.to_owned()),
        namespace: Some("shop".to_owned()),
        labels: Some(labels),
        ..ObjectMeta::default()
    };
    namesake.status = None;
    if let Some(spec) = &mut namesake.spec {
        spec.ephemeral_containers = None;
    }
    let mut manifest = serde_json::to_value(&namesake).unwrap();
    manifest["apiVersion"] = json!("v1");
    manifest["kind"] = json!("Pod");
    product.installation.kubernetes().add(manifest).unwrap();
}

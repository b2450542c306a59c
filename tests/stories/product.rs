//! The whole product as people meet it: they type, click and read in the local Slack; the store and the records can be looked at.

#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use diagbot_api::run::DiagnosticRun;
use diagbot_sandbox::{
    installation::{Installation, Plan},
    kubernetes::{Fault, FaultKind},
    people::fetch,
    wait,
};
use http::StatusCode;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::slack::people::{Message, People};

/// The pod of the workload `ledger`.
pub(crate) const LEDGER: &str = "ledger-6c7d5b9f4-q8w2k";
/// The pod of the workload `billing`, which crashes again and again.
pub(crate) const BILLING: &str = "billing-5f6b8c7d9-m4n7p";
/// Part of the keys with which the bot tries the store when it starts.
const PROBE: &str = "/_probe/";
/// Part of the keys of the record.
const RECORD: &str = "/record/";
/// Longest wait for anything; a dead leader is replaced after 15 s.
pub(crate) const LONGEST: Duration = Duration::from_secs(45);
/// What each target of a large run may take besides, on a machine that does other things too.
const A_TARGET: Duration = Duration::from_millis(500);

fn is_told(run: &DiagnosticRun) -> bool {
    let status = run.status.as_ref();
    status.is_some_and(|s| s.phase.is_final() && s.telling.final_at.is_some())
}

/// An installation and its people.
pub(crate) struct Product {
    pub(crate) installation: Installation,
    pub(crate) people: People,
}

/// A run that has ended, and its message.
pub(crate) struct Told {
    pub(crate) id: String,
    pub(crate) run: DiagnosticRun,
    pub(crate) root: Message,
}

impl Product {
    /// Starts everything but the JVM, which would take both processors for seconds.
    pub(crate) async fn start() -> Self {
        Self::with(Plan::default()).await
    }

    /// The same, arranged otherwise.
    pub(crate) async fn with(mut plan: Plan) -> Self {
        plan.kubernetes
            .faults
            .push(pull_fault(FaultKind::PullFails, "registry.sandbox/checkout", u32::MAX));
        Self::with_jvm(plan).await
    }

    /// Starts everything.
    pub(crate) async fn with_jvm(mut plan: Plan) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_sandbox-under-test"));
        plan.kubernetes.program = Some(program.to_owned());
        // `.ci/run` plays some stories with the agent of a former release.
        plan.kubernetes.agent = std::env::var_os("DIAGBOT_FORMER_AGENT").map(PathBuf::from);
        let installation = Installation::start_with(program, &plan).await.unwrap();
        let people = People::of(installation.addresses().page);
        let product = Self { installation, people };
        product.pod_runs(LEDGER).await;
        product
    }

    pub(crate) async fn stop(self) {
        self.installation.stop().await.unwrap();
    }

    /// Types `/diag …` as ada in #incidents; gives what only she sees.
    pub(crate) async fn types(&self, text: &str) -> String {
        self.people.command("ada", "incidents", text).await
    }

    /// Types a command that starts a run; gives the run's short id.
    pub(crate) async fn asks(&self, text: &str) -> String {
        let answer = self.types(text).await;
        run_in(&answer).unwrap_or_else(|| panic!("no run for {text:?}: {answer}"))
    }

    /// Types a command and waits until its end is told.
    pub(crate) async fn runs(&self, text: &str) -> Told {
        self.ended(&self.asks(text).await).await
    }

    /// Mentions the bot in #incidents, in a thread if one is given.
    pub(crate) async fn mentions(&self, text: &str, thread: Option<&str>) -> String {
        let mut body = json!({ "user": "ada", "channel": "incidents", "text": format!("@diag {text}") });
        if let Some(ts) = thread {
            body["thread_ts"] = json!(ts);
        }
        let sent = self.people.act("message", body).await;
        sent["ts"].as_str().unwrap().to_owned()
    }

    /// The run of that short id, once it is as wanted.
    pub(crate) async fn run(&self, id: &str, what: &str, wanted: impl Fn(&DiagnosticRun) -> bool) -> DiagnosticRun {
        self.run_within(LONGEST, id, what, wanted).await
    }

    async fn run_within(
        &self,
        longest: Duration,
        id: &str,
        what: &str,
        wanted: impl Fn(&DiagnosticRun) -> bool,
    ) -> DiagnosticRun {
        let (prefix, runs) = (format!("d-{}", id[2..].replace('-', "")), self.installation.runs());
        let (prefix, runs, wanted) = (&prefix, &runs, &wanted);
        wait::until(longest, what, || async move {
            let all = runs.list(&ListParams::default()).await?;
            let found = all
                .into_iter()
                .find(|run| run.metadata.name.as_ref().is_some_and(|n| n.starts_with(prefix)));
            Ok(found.filter(wanted))
        })
        .await
        .unwrap()
    }

    /// Waits until the run has ended and its end was told, in exactly one message in #incidents.
    pub(crate) async fn ended(&self, id: &str) -> Told {
        self.ended_in(id, "incidents").await
    }

    /// The same of a run with many targets.
    pub(crate) async fn ended_of(&self, id: &str, targets: u32) -> Told {
        self.run_within(LONGEST + A_TARGET * targets, id, "the run's end is told", is_told)
            .await;
        self.ended(id).await
    }

    pub(crate) async fn ended_in(&self, id: &str, channel: &str) -> Told {
        let run = self.run(id, "the run's end is told", is_told).await;
        let roots: Vec<Message> = self
            .messages(channel)
            .await
            .into_iter()
            .filter(|m| m.by_bot && !m.ephemeral && m.text.contains(&format!("· run `{id}`")))
            .collect();
        let [root] = &roots[..] else {
            panic!("one message, not {roots:#?}")
        };
        Told {
            id: id.to_owned(),
            run,
            root: root.clone(),
        }
    }

    /// The run that a button or mention started: the newest whose message stands in the thread and holds `text`.
    pub(crate) async fn ended_in_thread(&self, thread: &str, text: &str) -> Told {
        let marked =
            |m: &Message| m.thread_ts.as_deref() == Some(thread) && m.text.contains(text) && m.text.contains("· run `");
        let message = wait::until(LONGEST, "the run's message stands in the thread", || async {
            Ok(self.messages("incidents").await.into_iter().rfind(|m| marked(m)))
        })
        .await
        .unwrap();
        let footer = message.text.split("· run ").last().unwrap_or_default();
        let told = self.ended(&run_in(footer).unwrap()).await;
        assert_eq!(told.root.thread_ts.as_deref(), Some(thread));
        told
    }

    /// Every message of a channel.
    pub(crate) async fn messages(&self, channel: &str) -> Vec<Message> {
        self.people.reads(channel, "").await
    }

    /// What everybody in #incidents got from the bot.
    pub(crate) async fn public(&self) -> Vec<Message> {
        let all = self.messages("incidents").await;
        all.into_iter().filter(|m| m.by_bot && !m.ephemeral).collect()
    }

    /// The pods of `shop`, as the cluster's administrator.
    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.installation.runs().into_client(), "shop")
    }

    /// How many runs are on record.
    pub(crate) async fn recorded(&self) -> usize {
        let all = self.installation.runs().list(&ListParams::default()).await;
        all.unwrap().items.len()
    }

    /// Names of the ephemeral containers that were ever added to a pod.
    pub(crate) async fn ephemeral(&self, pod: &str) -> Vec<String> {
        let spec = self.pods().get(pod).await.unwrap().spec.unwrap();
        spec.ephemeral_containers
            .into_iter()
            .flatten()
            .map(|c| c.name)
            .collect()
    }

    pub(crate) async fn pod_runs(&self, pod: &str) {
        self.pod(pod, "the pod runs", |status| status.ready).await;
    }

    /// Adds the pods `<set>-0`, … of a StatefulSet.
    pub(crate) fn add_stateful(&self, set: &str, replicas: usize, containers: &Value) {
        for n in 0..replicas {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": format!("{set}-{n}"), "namespace": "shop",
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "StatefulSet", "name": set, "uid": format!("uid-of-{set}"),
                        "controller": true,
                    }],
                },
                "spec": { "containers": containers },
            });
            self.installation.kubernetes().add(pod).unwrap();
        }
    }

    /// Every armed fault of the API server strikes; those of pulling an image are arranged for the whole story.
    pub(crate) async fn cluster_faults_struck(&self, what: &str) {
        let armed = || {
            let armed = self.installation.kubernetes().armed();
            armed.into_iter().filter(|fault| fault.verb.as_deref() != Some("pull"))
        };
        let struck = wait::until(LONGEST, "every fault of the API server has struck", || async {
            Ok((armed().count() == 0).then_some(()))
        });
        let outcome = struck.await;
        assert!(
            outcome.is_ok(),
            "{what}: never struck: {:?}",
            armed().collect::<Vec<_>>()
        );
    }

    /// Waits until there is no such pod.
    pub(crate) async fn gone(&self, pod: &str) {
        let pods = &self.pods();
        wait::until(LONGEST, "the pod is gone", || async move {
            let found = pods.get_opt(pod).await?;
            Ok(found.is_none().then_some(()))
        })
        .await
        .unwrap();
    }

    /// Waits until the pod's container waits for this reason.
    pub(crate) async fn pod_waits(&self, pod: &str, reason: &str) {
        let waits = |status: &ContainerStatus| {
            let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
            waiting.and_then(|waiting| waiting.reason.as_deref()) == Some(reason)
        };
        self.pod(pod, "the container waits", waits).await;
    }

    async fn pod(&self, pod: &str, what: &str, wanted: impl Fn(&ContainerStatus) -> bool) {
        let (pods, wanted) = (&self.pods(), &wanted);
        wait::until(LONGEST, what, || async move {
            let status = pods.get(pod).await?.status.unwrap_or_default();
            let fits = status.container_statuses.iter().flatten().any(wanted);
            Ok(fits.then_some(()))
        })
        .await
        .unwrap();
    }

    /// What an operator does to a pod of `shop`: `delete`, `replace`, `evict`, `restart`.
    pub(crate) async fn operate(&self, pod: &str, action: &str) {
        let url = format!(
            "{}/sandbox/pods/shop/{pod}/{action}",
            self.installation.addresses().kubernetes
        );
        post(&url).await;
    }

    /// Keys of the objects in the store, without those of the bot's own probe.
    pub(crate) fn objects(&self) -> Vec<String> {
        let root = self.installation.store_folder().join("evidence/objects");
        let mut keys: Vec<String> = files(&root)
            .iter()
            .filter(|file| file.ends_with("object.json"))
            .filter_map(|file| file.parent()?.parent()?.strip_prefix(&root).ok())
            .map(|key| key.to_string_lossy().trim_end_matches(",v").to_owned())
            .filter(|key| !key.contains(PROBE) && !key.contains(RECORD))
            .collect();
        keys.sort();
        // Written again, after an answer that was lost, an object has a further version.
        keys.dedup();
        keys
    }

    /// Content of one object of the store.
    pub(crate) fn object(&self, key: &str) -> Vec<u8> {
        object_in(&self.installation.store_folder(), key, None)
    }

    /// Records of uploads that were opened and neither completed nor given up.
    pub(crate) fn open_uploads(&self) -> Vec<PathBuf> {
        let all = files(&self.installation.store_folder().join("evidence/uploads"));
        let cache = all.into_iter().filter(|file| file.ends_with("upload.json"));
        // A record that vanishes meanwhile is no open upload.
        let open = |file: &PathBuf| fs::read_to_string(file).is_ok_and(|record| !record.contains(PROBE));
        cache.filter(open).collect()
    }
}

impl Told {
    pub(crate) fn text(&self) -> &str {
        &self.root.text
    }

    /// Everything in `wanted` stands in the message.
    pub(crate) fn says(&self, wanted: &[&str]) {
        for text in wanted {
            assert!(self.text().contains(text), "{text:?} is missing: {}", self.text());
        }
    }

    /// The code of the reason that the run ended with.
    pub(crate) fn code(&self) -> &str {
        let reason = self.run.status.as_ref().unwrap().reason.as_ref();
        &reason.unwrap_or_else(|| panic!("no reason: {}", self.text())).code
    }

    /// A failure or refusal is told once, with its cause, what to do, and the run's id.
    pub(crate) fn explains(&self, cause: &str) {
        self.says(&[cause, "What to do:", &self.id]);
        let reason = self.run.status.as_ref().unwrap().reason.clone().unwrap();
        assert!(!reason.remedy.is_empty(), "{reason:?}");
        assert_eq!(self.text().matches("What to do:").count(), 1, "{}", self.text());
    }

    /// The same, with the reason of that code.
    pub(crate) fn explains_as(&self, code: &str, cause: &str) {
        assert_eq!(self.code(), code, "{}", self.text());
        self.explains(cause);
    }

    /// Opens the run's link as a reader would; size and digest are those told.
    pub(crate) async fn downloads(&self) -> String {
        let body = open(&link_in(self.text()).unwrap_or_else(|| panic!("no link: {}", self.text()))).await;
        let artifact = &self.run.status.as_ref().unwrap().captures[0].artifacts[0];
        assert_eq!(hex::encode(Sha256::digest(&body)), artifact.sha256);
        assert_eq!(body.len() as u64, artifact.size_bytes);
        self.says(&[&artifact.sha256, "store-checked", "the link ends"]);
        String::from_utf8(body.to_vec()).unwrap()
    }
}

/// A fault of pulling an image.
pub(crate) fn pull_fault(kind: FaultKind, image: &str, count: u32) -> Fault {
    Fault {
        verb: Some("pull".to_owned()),
        name: Some(image.to_owned()),
        count,
        ..Fault::of(kind)
    }
}

/// Posts nothing to an address that must take it.
pub(crate) async fn post(url: &str) {
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let request = http::Request::post(url)
        .body(http_body_util::Full::new(Bytes::new()))
        .unwrap();
    assert_eq!(client.request(request).await.unwrap().status(), StatusCode::OK);
}

/// Body behind a link that must open.
pub(crate) async fn open(url: &str) -> Bytes {
    let (status, body) = fetch(url).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    body
}

/// The first short id of a run in a text: `` `d-abc-def` ``.
pub(crate) fn run_in(text: &str) -> Option<String> {
    let id = text
        .split('`')
        .find(|word| word.len() == 9 && word.starts_with("d-") && word.as_bytes()[5] == b'-')?;
    Some(id.to_owned())
}

/// The first link in a message's plain text: `Download name (URL)`.
pub(crate) fn link_in(text: &str) -> Option<String> {
    let url = text.split_once("Download ")?.1.split_once('(')?.1.split_once(')')?.0;
    Some(url.to_owned())
}

/// JSON of an object.
pub(crate) fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Content of one object of the store in that folder: of one version, or of the only one.
pub(crate) fn object_in(store: &Path, key: &str, version: Option<&str>) -> Vec<u8> {
    let versions = store.join(format!("evidence/objects/{key},v"));
    let parts = files(&versions.join(version.unwrap_or_default()));
    let parts = parts.into_iter().filter(|file| !file.ends_with("object.json"));
    parts.flat_map(|part| fs::read(part).unwrap()).collect()
}

/// Every file beneath a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all.sort();
    all
}

//! One installation on which bots die: what is asked of it, the death, the second life, and what must be true then.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context as _, bail, ensure};
use diagbot_api::{
    capture::CapturePhase,
    run::{DiagnosticRun, Phase},
};
use diagbot_sandbox::{
    installation::{Installation, Plan},
    kubernetes::FaultKind,
    wait,
};
use futures::future::{Either, select};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    product::{BILLING, Product, pull_fault},
    slack::people::People,
};

/// Longest wait for the end of one run.
const LONGEST: Duration = Duration::from_mins(1);
const AGENT: &str = "registry.sandbox/diagbot-agent";
/// Diagnostics that only these stories need: one that puts out six parts, and one that takes long.
const DIAGNOSTICS: [(&str, &str); 2] = [
    (
        "numbers.yaml",
        r#"name: numbers
summary: More bytes than the first URLs take
method: ephemeral
image: registry.sandbox/agent@sha256:1111111111111111111111111111111111111111111111111111111111111111
argv: ["seq", "1", "6000000"]
process: none
identity: target
deadline: 60s
limit: 64MiB
artifact: { name: numbers.txt, mediaType: text/plain; charset=utf-8, output: binary }
sensitivity: normal
impact: none
"#,
    ),
    (
        "sleeper.yaml",
        r#"name: sleeper
summary: A tool that takes its time
method: ephemeral
image: registry.sandbox/agent@sha256:1111111111111111111111111111111111111111111111111111111111111111
argv: ["sleep", "50"]
process: none
identity: target
deadline: 60s
limit: 1MiB
artifact: { name: sleep.txt, mediaType: text/plain; charset=utf-8, output: text }
sensitivity: normal
impact: none
"#,
    ),
];
/// Ada may run everything in `shop`, these two as well.
const RIGHTS: &str = r#"apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: ada-runs-everything, namespace: shop }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: diagbot-runner }
subjects:
  - { apiGroup: rbac.authorization.k8s.io, kind: Group, name: "slack:email:ada@example.com" }
"#;

/// In what a bot dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// A small report.
    Plain,
    /// The agent's image takes some seconds to arrive.
    SlowImage,
    /// An artifact of many parts.
    ManyParts,
    /// The pod can't reach the store.
    Relayed,
    /// The bot's own report.
    Report,
    /// Ada stops it.
    Cancelled,
    /// The pod is replaced under a running tool.
    PodReplaced,
}

impl Scene {
    fn command(self) -> String {
        match self {
            Self::Plain | Self::SlowImage | Self::Relayed => "process ledger".to_owned(),
            Self::ManyParts => "numbers ledger".to_owned(),
            Self::Report => format!("pod-report {BILLING}"),
            Self::Cancelled | Self::PodReplaced => "sleeper ledger".to_owned(),
        }
    }

    fn end(self) -> Phase {
        match self {
            Self::Cancelled => Phase::Cancelled,
            Self::PodReplaced => Phase::Failed,
            _ => Phase::Succeeded,
        }
    }
}

/// What there was before a run.
struct Before {
    runs: BTreeSet<String>,
    messages: usize,
    /// The ledger's pod.
    pod: String,
}

/// One installation.
pub(crate) struct Stage {
    product: Product,
    _catalog: TempDir,
}

impl Stage {
    pub(crate) async fn start(out_of_reach: bool) -> Self {
        let catalog = catalog();
        let mut plan = Plan {
            config: json!({
                "catalog": { "folder": catalog.path() },
                "rates": { "personPerMinute": 10_000, "channelPerMinute": 10_000, "commandPerMinute": 10_000, "looksPerMinute": 10_000 },
            }),
            ..Plan::default()
        };
        if out_of_reach {
            plan.config["store"] = json!({ "endpointForPods": "http://127.0.0.1:1" });
        }
        plan.kubernetes.manifests.push(RIGHTS.to_owned());
        Self {
            product: Product::with(plan).await,
            _catalog: catalog,
        }
    }

    pub(crate) async fn end(self) {
        self.product.stop().await;
    }

    /// One run in which the bot dies there; tells how it ended.
    pub(crate) async fn dies_at(&mut self, failpoint: &str, scene: Scene) -> anyhow::Result<String> {
        let before = self.look().await?;
        if scene == Scene::SlowImage {
            let slow = FaultKind::SlowPull { millis: 3_000 };
            self.product.installation.kubernetes().arm(pull_fault(slow, AGENT, 1));
        }
        self.product.installation.arm_failpoint(0, failpoint)?;
        let (runs, kubernetes) = (
            self.product.installation.runs(),
            self.product.installation.addresses().kubernetes,
        );
        let armed = self.product.installation.failpoint_file(0);
        let Product { installation, people } = &mut self.product;
        let drive = Box::pin(drive(people, &runs, (&kubernetes, &before.pod), &before.runs, scene));
        let death = Box::pin(second_life(installation));
        let run = match select(drive, death).await {
            // What is told may be told before the new bot takes commands.
            Either::Left((run, death)) => {
                let run = run?;
                if armed.exists() {
                    std::fs::remove_file(armed)?;
                    bail!("the bot never came by");
                }
                death.await?;
                run
            }
            Either::Right((reborn, drive)) => {
                reborn?;
                drive.await?
            }
        };
        self.check(&run, scene, &before).await
    }

    /// What must be true of the one run.
    async fn check(&self, run: &DiagnosticRun, scene: Scene, before: &Before) -> anyhow::Result<String> {
        let name = run.metadata.name.clone().unwrap_or_default();
        let now = names(&self.product.installation.runs()).await?;
        let new: Vec<&String> = now.difference(&before.runs).collect();
        ensure!(new.len() == 1, "one command became {new:?}");
        ensure!(
            run.phase() == scene.end(),
            "it ended {:?}: {:?}",
            run.phase(),
            run.status.as_ref().map(|s| (&s.reason, &s.captures))
        );
        let messages = self.product.public().await.len() - before.messages;
        ensure!(messages == 1, "{messages} messages");
        let told = self.product.ended(&short(&name)).await;
        ensure!(!told.text().contains("State: *running*"), "not told: {}", told.text());
        let open = self.product.open_uploads();
        ensure!(open.is_empty(), "open uploads: {open:?}");
        let pod = self.product.pods().get_opt(&before.pod).await?;
        let containers = pod.and_then(|pod| pod.spec?.ephemeral_containers).unwrap_or_default();
        let ours = containers.iter().filter(|c| c.name.contains(&name[2..])).count();
        let wanted = usize::from(!matches!(scene, Scene::Report | Scene::PodReplaced));
        ensure!(ours == wanted, "{ours} containers");
        if scene.end() == Phase::Succeeded {
            told.downloads().await;
        }
        let cache = self.product.objects().iter().filter(|k| k.contains(&name)).count();
        Ok(format!(
            "died, then {}: 1 run, {ours} container(s), {cache} object(s), 1 message, 0 open uploads",
            run.phase().as_str()
        ))
    }

    /// The ledger's pod, once it runs.
    async fn ledger(&self) -> anyhow::Result<String> {
        let (pods, ledger) = (&self.product.pods(), &ListParams::default().labels("app=ledger"));
        wait::until(LONGEST, "the ledger runs", || async move {
            let ready = |pod: &Pod| {
                let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
                statuses.into_iter().any(|s| s.ready)
            };
            let pod = pods.list(ledger).await?.items.into_iter().find(ready);
            Ok(pod.and_then(|pod| pod.metadata.name))
        })
        .await
    }

    /// What there is before a run.
    async fn look(&self) -> anyhow::Result<Before> {
        let runs = names(&self.product.installation.runs()).await?;
        Ok(Before {
            // An empty channel would be waited for.
            messages: if runs.is_empty() {
                0
            } else {
                self.product.public().await.len()
            },
            runs,
            pod: self.ledger().await?,
        })
    }
}

/// Ada's part: she types, and stops it where the scene wants that. Returns the run once its end is told.
async fn drive(
    people: &People,
    runs: &Api<DiagnosticRun>,
    (kubernetes, pod): (&str, &str),
    before: &BTreeSet<String>,
    scene: Scene,
) -> anyhow::Result<DiagnosticRun> {
    types(people, &scene.command()).await;
    if matches!(scene, Scene::Cancelled | Scene::PodReplaced) {
        let run = new_run(runs, before, "the tool runs", |run| {
            let captures = run.status.iter().flat_map(|status| &status.captures);
            run.phase().is_final() || captures.into_iter().any(|c| c.phase == CapturePhase::Running)
        })
        .await?;
        let name = run.metadata.name.unwrap_or_default();
        if scene == Scene::Cancelled {
            cancel(people, runs, &name).await?;
        } else {
            let url = format!("{kubernetes}/sandbox/pods/shop/{pod}/replace");
            crate::product::post(&url).await;
        }
    }
    new_run(runs, before, "the run's end is told", |run| {
        let status = run.status.as_ref();
        status.is_some_and(|s| s.phase.is_final() && s.telling.final_at.is_some())
    })
    .await
}

/// Asks to stop it until somebody hears that: the bot may be dead meanwhile.
async fn cancel(people: &People, runs: &Api<DiagnosticRun>, name: &str) -> anyhow::Result<()> {
    let text = format!("cancel {}", short(name));
    wait::until(LONGEST, "the wish to stop is recorded", || async {
        types(people, &text).await;
        let run = runs.get(name).await?;
        Ok((run.cancel_request().is_some() || run.phase().is_final()).then_some(()))
    })
    .await
}

/// Types as ada in #incidents; a bot that dies does not answer.
async fn types(people: &People, text: &str) {
    let body = json!({ "user": "ada", "channel": "incidents", "text": format!("/diag {text}") });
    people.act("command", body).await;
}

/// Waits for the death, and for the next life. The lease is the dead one's: its expiry is another story, so an operator
/// gives it up.
async fn second_life(installation: &mut Installation) -> anyhow::Result<()> {
    loop {
        if installation.bot_has_ended(0)? {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let leases: Api<Lease> = Api::namespaced(installation.runs().into_client(), "diagbot");
    let released = Patch::Merge(json!({ "spec": { "holderIdentity": "" } }));
    leases
        .patch("diagbot-leader", &PatchParams::default(), &released)
        .await
        .context("give up the dead leader's lease")?;
    installation.start_bot(0)?;
    installation.wait_until_ready().await
}

async fn names(runs: &Api<DiagnosticRun>) -> anyhow::Result<BTreeSet<String>> {
    let all = runs.list(&ListParams::default()).await?;
    Ok(all.items.into_iter().filter_map(|run| run.metadata.name).collect())
}

/// Waits until a run that is new is as wanted.
async fn new_run(
    runs: &Api<DiagnosticRun>,
    before: &BTreeSet<String>,
    what: &str,
    wanted: impl Fn(&DiagnosticRun) -> bool,
) -> anyhow::Result<DiagnosticRun> {
    let wanted = &wanted;
    wait::until(LONGEST, what, || async move {
        let all = runs.list(&ListParams::default()).await?;
        let is_new = |run: &DiagnosticRun| run.metadata.name.as_ref().is_some_and(|name| !before.contains(name));
        Ok(all.items.into_iter().find(|run| is_new(run) && wanted(run)))
    })
    .await
}

/// As people say it: `d-abc-def`.
fn short(name: &str) -> String {
    format!("{}-{}", &name[..5], &name[5..8])
}

/// The shipped catalog and what these stories need.
pub(crate) fn catalog() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../commands");
    std::fs::create_dir(folder.path().join("runbooks")).unwrap();
    for part in ["", "runbooks"] {
        for entry in std::fs::read_dir(shipped.join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "yaml") {
                let copy = folder.path().join(part).join(path.file_name().unwrap());
                std::fs::copy(&path, copy).unwrap();
            }
        }
    }
    for (name, text) in DIAGNOSTICS {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

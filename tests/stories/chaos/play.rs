//! Plays a script on one installation: people type, things break, replicas that die are started again. Then everything is
//! mended, and all that was accepted must come to its end.

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::ensure;
use diagbot_api::{capture::CapturePhase, run::DiagnosticRun};
use diagbot_sandbox::{
    installation::{Installation, Plan, Signal},
    kubernetes::KubernetesConfig,
    people::People,
    slack::SlackConfig,
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};

use super::{
    check::{self, Verdict},
    script::{PODS, REPLICAS, Scene, Script, Strike, What},
};
use crate::crash;

/// After the last thing that broke, everything must have been told by then. A leader is replaced within 30 s, and a watch
/// that went quiet is noticed as late.
const SETTLE: Duration = Duration::from_mins(3);
/// Between two looks at the replicas.
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait for an answer of the API server to ourselves.
const ANSWER: Duration = Duration::from_secs(10);
/// Rooms that people type in.
pub(crate) const ROOMS: usize = 4;

/// What became of one command, as far as the person knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nobody was there: Slack says that it failed.
    Nobody,
    /// Not acknowledged in time: Slack delivers it again.
    Nothing,
    /// Acknowledged, with this text.
    Answer(String),
}

/// A command that was typed.
#[derive(Debug, Clone)]
pub(crate) struct Typed {
    pub(crate) person: usize,
    pub(crate) what: What,
    pub(crate) pod: usize,
    pub(crate) heard: Heard,
}

/// Plays one seed; the verdict, or why it could not be played.
pub(crate) async fn play(script: &Script) -> anyhow::Result<Verdict> {
    let mut stage = Stage::start(script).await?;
    let typed = stage.perform(&script.scenes).await?;
    stage.mend().await?;
    let mended = Timestamp::now();
    let runs = stage.settle(&typed).await?;
    let scene = check::Scene::read(script, &stage.installation, mended).await?;
    let verdict = check::check(&scene, &typed, &runs, &stage.diary).await?;
    stage.installation.stop().await?;
    Ok(verdict)
}

/// An installation, and what was done to it.
pub(super) struct Stage {
    pub(super) installation: Installation,
    people: People,
    paused: [Option<Instant>; REPLICAS],
    begun: Instant,
    diary: String,
    _catalog: tempfile::TempDir,
}

impl Stage {
    pub(super) async fn start(script: &Script) -> anyhow::Result<Self> {
        let catalog = crash::catalog();
        let program = Path::new(env!("CARGO_BIN_EXE_sandbox-under-test"));
        let mut config = json!({
            "catalog": { "folder": catalog.path() },
            "rates": { "personPerMinute": 10_000, "channelPerMinute": 10_000, "commandPerMinute": 10_000, "looksPerMinute": 10_000 },
        });
        if script.relay {
            config["store"] = json!({ "endpointForPods": "http://127.0.0.1:1" });
        }
        let mut slack = SlackConfig {
            crowd: script.commands,
            rooms: ROOMS,
            ..SlackConfig::default()
        };
        if !script.history {
            slack.scopes.retain(|scope| !scope.ends_with(":history"));
        }
        let plan = Plan {
            replicas: REPLICAS,
            slack,
            kubernetes: KubernetesConfig {
                program: Some(program.to_owned()),
                without_workloads: true,
                manifests: manifests(script.commands),
                ..KubernetesConfig::default()
            },
            store_faults: Some(Vec::new()),
            config,
            ..Plan::default()
        };
        let installation = Installation::start_with(program, &plan).await?;
        let pods: Api<Pod> = Api::namespaced(installation.runs().into_client(), "shop");
        diagbot_sandbox::wait::until(Duration::from_mins(1), "the pods run", || async {
            let all = pods.list(&ListParams::default()).await?.items;
            let ready = |pod: &&Pod| {
                let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
                statuses.into_iter().any(|s| s.ready)
            };
            Ok((all.iter().filter(ready).count() == PODS).then_some(()))
        })
        .await?;
        Ok(Self {
            people: installation.people().clone(),
            installation,
            paused: [None; REPLICAS],
            begun: Instant::now(),
            diary: String::new(),
            _catalog: catalog,
        })
    }

    /// Scene after scene; meanwhile people wait for answers, and replicas that have died are started again.
    pub(super) async fn perform(&mut self, scenes: &[(Duration, Scene)]) -> anyhow::Result<Vec<Typed>> {
        let mut answers = FuturesUnordered::new();
        let mut typed = Vec::new();
        let mut scenes = scenes.iter();
        let mut next = scenes.next();
        let mut due = Instant::now();
        while next.is_some() || !answers.is_empty() {
            if let Some((_, scene)) = next.filter(|_| due <= Instant::now()) {
                match scene {
                    Scene::Types { person, what, pod } => {
                        self.note(&format!("p{person:03} types {what:?} at pod {pod}"));
                        answers.push(types(
                            self.people.clone(),
                            self.installation.runs(),
                            *person,
                            *what,
                            *pod,
                        ));
                    }
                    Scene::Strikes(strike) => self.strike(strike).await?,
                }
                next = scenes.next();
                due = Instant::now() + next.map_or(Duration::ZERO, |(pause, _)| *pause);
            }
            let pause = due
                .saturating_duration_since(Instant::now())
                .clamp(Duration::from_millis(1), LOOK);
            tokio::select! {
                Some(answer) = answers.next(), if !answers.is_empty() => typed.push(answer?),
                () = tokio::time::sleep(pause) => {}
            }
            self.tend()?;
        }
        Ok(typed)
    }

    /// As a kubelet: what has ended is started; what was paused goes on in time.
    fn tend(&mut self) -> anyhow::Result<()> {
        for replica in 0..REPLICAS {
            if self.installation.bot_has_ended(replica)? {
                self.paused[replica] = None;
                self.note(&format!("replica {replica} is started again"));
                self.installation.start_bot(replica)?;
            }
            if self.paused[replica].is_some_and(|until| until <= Instant::now()) {
                self.paused[replica] = None;
                self.note(&format!("replica {replica} goes on"));
                self.installation.signal_bot(replica, Signal::CONT)?;
            }
        }
        Ok(())
    }

    async fn strike(&mut self, strike: &Strike) -> anyhow::Result<()> {
        self.note(&format!("{strike:?}"));
        match strike {
            Strike::Kubernetes(fault) => self.installation.kubernetes().arm(fault.clone()),
            Strike::ApiServerRestarts(away) => self.installation.kubernetes().restart(*away),
            Strike::Slack(fault) => {
                self.people.fault(fault).await?;
            }
            Strike::Socket(what, body) => {
                self.people.post(&format!("/people/{what}"), body).await?;
            }
            Strike::Store(fault) => {
                if let Some(proxy) = self.installation.store_proxy() {
                    proxy.arm(fault.clone());
                }
            }
            Strike::Kill(replica) => self.installation.signal_bot(*replica, Signal::KILL)?,
            Strike::Stop(replica) => self.installation.signal_bot(*replica, Signal::TERM)?,
            Strike::Pause(replica, pause) => {
                self.paused[*replica] = Some(Instant::now() + *pause);
                self.installation.signal_bot(*replica, Signal::STOP)?;
            }
            Strike::DiesAt(replica, failpoint) => self.installation.arm_failpoint(*replica, failpoint)?,
        }
        Ok(())
    }

    /// Nothing breaks any more.
    async fn mend(&mut self) -> anyhow::Result<()> {
        self.note("everything is mended");
        self.people.fault(&json!({ "kind": "none" })).await?;
        self.installation.kubernetes().disarm();
        if let Some(proxy) = self.installation.store_proxy() {
            proxy.disarm();
        }
        for replica in 0..REPLICAS {
            std::fs::remove_file(self.installation.failpoint_file(replica)).ok();
            if self.paused[replica].take().is_some() {
                self.installation.signal_bot(replica, Signal::CONT)?;
            }
        }
        Ok(())
    }

    /// Waits until everything that was accepted is told to its end.
    pub(super) async fn settle(&mut self, typed: &[Typed]) -> anyhow::Result<Vec<DiagnosticRun>> {
        let end = Instant::now() + SETTLE;
        loop {
            self.tend()?;
            let all = list(&self.installation.runs()).await?;
            let unsettled = |run: &&DiagnosticRun| {
                let status = run.status.as_ref();
                !status.is_some_and(|s| s.phase.is_final() && s.telling.final_at.is_some())
            };
            let waiting: Vec<String> = all.iter().filter(unsettled).map(describe).collect();
            let missing = check::missing(typed, &all);
            if waiting.is_empty() && missing.is_empty() {
                self.note("all is told");
                return Ok(all);
            }
            ensure!(
                Instant::now() < end,
                "after {} s still stuck: {waiting:?}; without a run: {missing:?}\n{}",
                SETTLE.as_secs(),
                self.diary
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    fn note(&mut self, what: &str) {
        let _ = writeln!(self.diary, "{:7.2} s  {what}", self.begun.elapsed().as_secs_f32());
    }
}

fn describe(run: &DiagnosticRun) -> String {
    let captures = run.status.iter().flat_map(|status| &status.captures);
    let captures: Vec<CapturePhase> = captures.map(|c| c.phase).collect();
    let name = run.metadata.name.as_deref().unwrap_or_default();
    format!(
        "{name} {:?} {captures:?} {:?}",
        run.phase(),
        run.status.as_ref().map(|s| &s.telling)
    )
}

/// Types as one of the crowd, and asks to stop what is to be stopped.
async fn types(
    people: People,
    runs: Api<DiagnosticRun>,
    person: usize,
    what: What,
    pod: usize,
) -> anyhow::Result<Typed> {
    let (name, room) = (format!("p{person:03}"), room(person));
    let text = match what {
        What::Process => "process",
        What::Sockets => "sockets",
        What::Report => "pod-report",
        What::Stopped => "sleeper",
        What::Numbers => "numbers",
    };
    let heard = heard(
        &people
            .command(&name, &room, &format!("/diag {text} chaos-{pod}"))
            .await?,
    );
    if what == What::Stopped && heard != Heard::Nobody {
        stop(&people, &runs, &name, &room, person).await?;
    }
    Ok(Typed {
        person,
        what,
        pod,
        heard,
    })
}

/// Types `cancel` until it is recorded, or there is nothing to stop.
async fn stop(people: &People, runs: &Api<DiagnosticRun>, name: &str, room: &str, person: usize) -> anyhow::Result<()> {
    let user = user(person);
    for _ in 0..20 {
        // A run that was delivered again may come late.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Some(run) = list(runs)
            .await?
            .into_iter()
            .find(|run| run.spec.requester.user == user)
        else {
            continue;
        };
        if run.cancel_request().is_some() || run.phase().is_final() {
            return Ok(());
        }
        people.command(name, room, "/diag cancel").await?;
    }
    Ok(())
}

/// Every run, also while the API server is away.
async fn list(runs: &Api<DiagnosticRun>) -> anyhow::Result<Vec<DiagnosticRun>> {
    let limit = Duration::from_secs(30);
    diagbot_sandbox::wait::until(limit, "the runs are listed", || async {
        let params = ListParams::default();
        // The faults strike this call as any other.
        let listed = tokio::time::timeout(ANSWER, runs.list(&params)).await;
        Ok(listed.ok().and_then(Result::ok).map(|list| list.items))
    })
    .await
}

fn heard(answer: &Value) -> Heard {
    if answer["delivered"] == true {
        Heard::Answer(answer["ack"].to_string())
    } else if answer["error"] == "dispatch_failed" {
        Heard::Nobody
    } else {
        Heard::Nothing
    }
}

/// The Slack id of the n-th person.
pub(crate) fn user(person: usize) -> String {
    format!("U0CROWD{person:03}")
}

/// Where the n-th person types.
pub(crate) fn room(person: usize) -> String {
    format!("room-{:02}", person % ROOMS)
}

/// The pods, and everybody's right to run everything in the shop.
fn manifests(people: usize) -> Vec<String> {
    let person = |n| json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("slack:T0DIAG0001:{}", user(n)) });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": "crowd", "namespace": "shop" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "diagbot-runner" },
        "subjects": (0..people).map(person).collect::<Vec<_>>(),
    });
    let pod = |n| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": format!("chaos-{n}"), "namespace": "shop" },
            "spec": {
                "securityContext": { "runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000 },
                "containers": [{ "name": "ledger", "image": "registry.sandbox/ledger:1" }],
            },
        })
        .to_string()
    };
    std::iter::once(binding.to_string()).chain((0..PODS).map(pod)).collect()
}

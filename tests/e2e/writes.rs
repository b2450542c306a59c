//! Each write that the bot's RBAC allows, played with a token of the bot's own behind the installed fence: none of them is
//! refused. Bodies are those that the bot itself wrote before, under another name, and its own types; what can be is a dry run,
//! which authorization and admission judge as the write itself.
//!
//! The list is complete by comparison with `deploy/base/rbac-*.yaml`, with a cluster and without.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, bail, ensure};
use diagbot_api::{
    capture::{ANNOTATION_CANCEL, DiagnosticCapture},
    pause::DiagnosticPause,
    requester::Requester,
    run::{CancelRequest, DiagnosticRun, Phase},
    schedule::DiagnosticSchedule,
};
use diagbot_sandbox::{people::Button, wait::until};
use k8s_openapi::api::{
    authorization::v1::SubjectAccessReview,
    coordination::v1::Lease,
    core::v1::{Event, Pod},
};
use kube::{
    Api, Client, Resource,
    api::{AttachParams, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    installation::{CHANNEL, Installation, PERSON, RUN_DEADLINE, repository},
    outcome::is_told,
};

/// API group, resource, verb.
type Write = (&'static str, &'static str, &'static str);

const DIAGBOT: &str = "diagbot.dev";
/// Every write; a container is added before its streams are opened.
const PLAYS: [Write; 20] = [
    (DIAGBOT, "diagnosticruns", "create"),
    (DIAGBOT, "diagnosticruns", "patch"),
    (DIAGBOT, "diagnosticruns", "delete"),
    (DIAGBOT, "diagnosticruns/status", "update"),
    (DIAGBOT, "diagnosticcaptures", "create"),
    (DIAGBOT, "diagnosticcaptures", "patch"),
    (DIAGBOT, "diagnosticcaptures/status", "update"),
    (DIAGBOT, "diagnosticschedules", "create"),
    (DIAGBOT, "diagnosticschedules", "patch"),
    (DIAGBOT, "diagnosticschedules", "delete"),
    (DIAGBOT, "diagnosticschedules/status", "update"),
    (DIAGBOT, "diagnosticpauses", "create"),
    (DIAGBOT, "diagnosticpauses", "delete"),
    ("coordination.k8s.io", "leases", "create"),
    ("coordination.k8s.io", "leases", "update"),
    ("", "events", "create"),
    ("", "pods/ephemeralcontainers", "patch"),
    ("", "pods/attach", "create"),
    ("", "pods/exec", "create"),
    ("authorization.k8s.io", "subjectaccessreviews", "create"),
];
/// Verbs that change nothing; whatever else a rule names is a write.
const READS: [&str; 3] = ["get", "list", "watch"];
/// Files of the bot's rights, and all of them.
const RIGHTS: [&str; 2] = ["rbac-home.yaml", "rbac-targets.yaml"];

/// The pod that was captured before.
const POD: &str = "checkout";
/// A container as the bot adds it, which waits for a ticket that never comes.
const CONTAINER: &str = "diag-0123456789abcdef-1-1";
/// Name of a run that does not exist.
const RUN: &str = "d-aaaaaaaaaaaaaaaa";
const SCHEDULE: &str = "nightly";
/// The bot renews and records meanwhile: a write over an older version is tried again.
const ATTEMPTS: usize = 5;

/// What the bot's rules allow beyond reading: each group, resource and verb.
fn granted() -> anyhow::Result<BTreeSet<(String, String, String)>> {
    let mut writes = BTreeSet::new();
    for file in RIGHTS {
        let path = repository().join("deploy/base").join(file);
        let text = std::fs::read_to_string(path).with_context(|| format!("read {file}"))?;
        for document in serde_saphyr::from_multiple::<Value>(&text).with_context(|| format!("parse {file}"))? {
            for rule in document["rules"].as_array().into_iter().flatten() {
                writes.extend(writes_of(rule)?);
            }
        }
    }
    Ok(writes)
}

/// The writes of one rule: every combination of its groups, resources and verbs.
fn writes_of(rule: &Value) -> anyhow::Result<Vec<(String, String, String)>> {
    let words = |field: &str| -> anyhow::Result<Vec<String>> {
        let words = rule[field]
            .as_array()
            .with_context(|| format!("{rule} names no {field}"))?;
        Ok(words.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    };
    let (groups, resources, verbs) = (words("apiGroups")?, words("resources")?, words("verbs")?);
    let mut writes = Vec::new();
    for group in &groups {
        for resource in &resources {
            for verb in verbs.iter().filter(|verb| !READS.contains(&verb.as_str())) {
                writes.push((group.clone(), resource.clone(), verb.clone()));
            }
        }
    }
    Ok(writes)
}

#[test]
fn every_write_that_the_rbac_allows_has_a_play() -> anyhow::Result<()> {
    let base = std::fs::read_dir(repository().join("deploy/base")).context("list deploy/base")?;
    let names = base.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let files: BTreeSet<String> = names.filter(|name| name.starts_with("rbac-")).collect();
    ensure!(files == RIGHTS.map(str::to_owned).into(), "{files:?}");
    let played: BTreeSet<_> = PLAYS.map(|(g, r, v)| (g.to_owned(), r.to_owned(), v.to_owned())).into();
    let granted = granted()?;
    let unplayed: Vec<_> = granted.difference(&played).collect();
    let needless: Vec<_> = played.difference(&granted).collect();
    ensure!(unplayed.is_empty(), "allowed and never played: {unplayed:?}");
    ensure!(needless.is_empty(), "played and not allowed: {needless:?}");
    Ok(())
}

/// Plays every write. The bot, its RBAC and its fence stand; [`POD`] was captured.
pub(crate) async fn admitted(installation: &Installation, client: Client) -> anyhow::Result<()> {
    let outcome = installation.ask("process", POD).await?;
    outcome.must_be(Phase::Succeeded)?;
    schedule_is_kept(installation).await?;
    told(installation, &format!("pause {}", installation.target), "Paused").await?;
    let bot = Bot {
        client,
        admin: installation.client.clone(),
        home: installation.home.clone(),
        target: installation.target.clone(),
        run: outcome.run.metadata.name.clone().context("the run has a name")?,
    };
    let mut played = BTreeSet::new();
    for write in PLAYS {
        let (group, resource, verb) = write;
        Box::pin(bot.play_patiently(write))
            .await
            .with_context(|| format!("{verb} {resource} of {group:?} is refused"))?;
        eprintln!("  admitted: {verb} {resource}");
        played.insert((group.to_owned(), resource.to_owned(), verb.to_owned()));
    }
    ensure!(played == granted()?, "played {played:?}, allowed {:?}", granted()?);
    bot.is_not_the_administrator().await?;

    // What people ask for goes the same way, by the bot itself.
    let resume = format!("resume {}", installation.target);
    told(installation, &resume, "Resumed").await?;
    for (what, answer) in [
        ("pause", "is paused"),
        ("resume", "is resumed"),
        ("delete", "is deleted"),
    ] {
        told(installation, &format!("schedule {what} {SCHEDULE}"), answer).await?;
    }
    Ok(())
}

/// Adds a schedule and saves it: the bot keeps a draft, and confirms it.
async fn schedule_is_kept(installation: &Installation) -> anyhow::Result<()> {
    let people = &installation.people;
    let line = format!(
        "schedule add {SCHEDULE} \"0 3 1 1 *\" process {}/pod/{POD}",
        installation.target
    );
    told(installation, &line, "Not saved yet").await?;
    let draft = until(RUN_DEADLINE, "the draft is shown", async || {
        let messages = people.read(CHANNEL).await?;
        Ok(messages
            .into_iter()
            .rfind(|m| m.plain.join("\n").contains("Not saved yet")))
    })
    .await?;
    people.click(PERSON, CHANNEL, &draft.ts, Button::Label("Save")).await?;
    until(RUN_DEADLINE, "the schedule is saved", async || {
        let messages = people.read(CHANNEL).await?;
        Ok(messages
            .iter()
            .any(|m| m.plain.join("\n").starts_with("Saved:"))
            .then_some(()))
    })
    .await
}

/// Types a command, and waits until a further message holds these words: the answer may come at once or later.
async fn told(installation: &Installation, line: &str, words: &str) -> anyhow::Result<()> {
    let people = &installation.people;
    let holding = async || -> anyhow::Result<usize> {
        let messages = people.read(CHANNEL).await?;
        Ok(messages.iter().filter(|m| m.plain.join("\n").contains(words)).count())
    };
    let before = holding().await?;
    let answer = people.command(PERSON, CHANNEL, &format!("/diag {line}")).await?;
    ensure!(
        answer["delivered"] == json!(true),
        "`{line}` was not delivered: {answer}"
    );
    until(RUN_DEADLINE, words, async || {
        Ok((holding().await? > before).then_some(()))
    })
    .await
    .with_context(|| format!("`{line}` was answered at once: {answer}"))?;
    eprintln!("  `{line}`: {words}");
    Ok(())
}

/// A token of the bot, and where it is used.
struct Bot {
    client: Client,
    /// Reads what a play starts from.
    admin: Client,
    home: String,
    target: String,
    /// A run that has ended and was told.
    run: String,
}

impl Bot {
    async fn play_patiently(&self, write: Write) -> anyhow::Result<()> {
        for _ in 1..ATTEMPTS {
            match self.play(write).await {
                Err(error) if is_conflict(&error) => {}
                answer => return answer,
            }
        }
        self.play(write).await
    }

    async fn play(&self, write: Write) -> anyhow::Result<()> {
        match write {
            (DIAGBOT, resource, verb) => self.play_record(resource, verb).await,
            ("coordination.k8s.io", "leases", verb) => self.play_lease(verb).await,
            ("", "events", "create") => self.play_event().await,
            ("", "pods/ephemeralcontainers", "patch") => self.add_container().await,
            ("", "pods/attach", "create") => self.attach().await,
            ("", "pods/exec", "create") => self.exec().await,
            ("authorization.k8s.io", "subjectaccessreviews", "create") => self.review().await,
            unknown => bail!("{unknown:?} has no play"),
        }
    }

    async fn play_record(&self, resource: &str, verb: &str) -> anyhow::Result<()> {
        let runs: Api<DiagnosticRun> = self.at_home();
        let captures: Api<DiagnosticCapture> = self.at_home();
        let schedules: Api<DiagnosticSchedule> = self.at_home();
        let pauses: Api<DiagnosticPause> = self.at_home();
        match (resource, verb) {
            ("diagnosticruns", "create") => drop(runs.create(&dry(), &renamed(self.run().await?, RUN)).await?),
            ("diagnosticruns", "patch") => drop(runs.patch(&self.run, &dry_patch(), &self.cancel().await?).await?),
            ("diagnosticruns", "delete") => drop(runs.delete(&self.run, &dry_delete()).await?),
            ("diagnosticruns/status", "update") => {
                runs.replace_status(&self.run, &dry(), &self.run().await?).await?;
            }
            ("diagnosticcaptures", "create") => {
                let capture = renamed(self.capture().await?.0, &format!("{RUN}-0"));
                captures.create(&dry(), &capture).await?;
            }
            ("diagnosticcaptures", "patch") => {
                let patch = Patch::Merge(json!({ "metadata": { "annotations": { ANNOTATION_CANCEL: "true" } } }));
                captures.patch(&self.capture().await?.1, &dry_patch(), &patch).await?;
            }
            ("diagnosticcaptures/status", "update") => {
                let (capture, name) = self.capture().await?;
                captures.replace_status(&name, &dry(), &capture).await?;
            }
            ("diagnosticschedules", "create") => {
                let schedule = renamed(self.schedule().await?, "weekly");
                schedules.create(&dry(), &schedule).await?;
            }
            ("diagnosticschedules", "patch") => {
                let patch = Patch::Merge(json!({ "spec": { "suspend": true } }));
                let patched = schedules.patch(SCHEDULE, &dry_patch(), &patch).await?;
                ensure!(patched.spec.suspend, "the schedule goes on");
            }
            ("diagnosticschedules", "delete") => drop(schedules.delete(SCHEDULE, &dry_delete()).await?),
            ("diagnosticschedules/status", "update") => {
                let mut schedule = self.schedule().await?;
                schedule.status = Some(schedule.status.unwrap_or_default());
                schedules.replace_status(SCHEDULE, &dry(), &schedule).await?;
            }
            ("diagnosticpauses", "create") => {
                let pause = renamed(self.pause().await?.0, "everywhere");
                pauses.create(&dry(), &pause).await?;
            }
            ("diagnosticpauses", "delete") => drop(pauses.delete(&self.pause().await?.1, &dry_delete()).await?),
            unknown => bail!("{unknown:?} has no play"),
        }
        Ok(())
    }

    async fn play_lease(&self, verb: &str) -> anyhow::Result<()> {
        let leases: Api<Lease> = self.at_home();
        for name in ["diagbot-leader", "diagbot-record"] {
            let lease = self.read_home::<Lease>(name).await?;
            match verb {
                "create" => drop(leases.create(&dry(), &renamed(lease, &format!("{name}-again"))).await?),
                "update" => drop(leases.replace(name, &dry(), &lease).await?),
                unknown => bail!("{unknown} of leases has no play"),
            }
        }
        Ok(())
    }

    /// The Event that the bot wrote of the capture, again.
    async fn play_event(&self) -> anyhow::Result<()> {
        let written: Api<Event> = Api::namespaced(self.admin.clone(), &self.target);
        let own = |event: &Event| {
            let component = event.source.as_ref().and_then(|source| source.component.as_deref());
            component == Some("diagbot")
        };
        let event = until(RUN_DEADLINE, "the bot has written an Event", async || {
            Ok(written.list(&ListParams::default()).await?.items.into_iter().find(own))
        })
        .await?;
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.target);
        events.create(&dry(), &renamed(event, &format!("{RUN}-0"))).await?;
        Ok(())
    }

    /// The container of the last capture again: for real, since the streams need one that runs.
    async fn add_container(&self) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), &self.target);
        let spec = pods.get(POD).await?.spec.unwrap_or_default();
        let mut container = spec
            .ephemeral_containers
            .unwrap_or_default()
            .pop()
            .context("a capture was taken")?;
        CONTAINER.clone_into(&mut container.name);
        let patch = Patch::Strategic(json!({ "spec": { "ephemeralContainers": [container] } }));
        self.pods()
            .patch_ephemeral_containers(POD, &PatchParams::default(), &patch)
            .await?;
        let limit = Duration::from_secs(30);
        until(limit, "the agent waits for its ticket", async || {
            let status = pods.get(POD).await?.status.unwrap_or_default();
            let mut statuses = status.ephemeral_container_statuses.into_iter().flatten();
            let own = statuses.find(|status| status.name == CONTAINER);
            let state = own.and_then(|status| status.state).unwrap_or_default();
            Ok(state.running.map(|_| ()))
        })
        .await
    }

    /// As for control lines; an answer is the API server's and the kubelet's consent.
    async fn attach(&self) -> anyhow::Result<()> {
        let params = AttachParams::default()
            .container(CONTAINER)
            .stdin(true)
            .stdout(false)
            .stderr(false);
        let mut process = self.pods().attach(POD, &params).await?;
        process.stdin().context("the agent's input is open")?;
        Ok(())
    }

    /// As the relay does; nothing is staged there.
    async fn exec(&self) -> anyhow::Result<()> {
        let params = AttachParams::default()
            .container(CONTAINER)
            .stdin(false)
            .stdout(true)
            .stderr(true);
        let command = ["/diagbot-agent", "cat", "--step=0", "--from=0"];
        self.pods().exec(POD, command, &params).await?;
        Ok(())
    }

    async fn review(&self) -> anyhow::Result<()> {
        let review: SubjectAccessReview = serde_json::from_value(json!({ "spec": {
            "user": "slack:T0:U0", "groups": ["slack:usergroup:S0"],
            "resourceAttributes": { "group": DIAGBOT, "resource": "diagnostics", "name": "process",
                "namespace": self.target, "verb": "run" },
        }}))?;
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await?;
        ensure!(answer.status.is_some_and(|status| !status.allowed), "a stranger may");
        Ok(())
    }

    /// The plays above prove nothing with a token that may everything.
    async fn is_not_the_administrator(&self) -> anyhow::Result<()> {
        let captures: Api<DiagnosticCapture> = self.at_home();
        let deleted = captures.delete(&self.capture().await?.1, &dry_delete()).await;
        let said = deleted.err().map(anyhow::Error::from);
        let said = said.map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(said.contains("cannot delete resource"), "a capture was deleted: {said}");
        Ok(())
    }

    async fn run(&self) -> anyhow::Result<DiagnosticRun> {
        let run = self.read_home::<DiagnosticRun>(&self.run).await?;
        ensure!(is_told(&run), "the run has not ended");
        Ok(run)
    }

    /// The capture of the run, and its name.
    async fn capture(&self) -> anyhow::Result<(DiagnosticCapture, String)> {
        let captures: Api<DiagnosticCapture> = Api::namespaced(self.admin.clone(), &self.home);
        let all = captures.list(&ListParams::default()).await?.items;
        let capture = all.into_iter().find(|capture| capture.spec.run == self.run);
        named(capture.context("the run has a capture")?)
    }

    async fn schedule(&self) -> anyhow::Result<DiagnosticSchedule> {
        self.read_home(SCHEDULE).await
    }

    /// The pause of the target's namespace, and its name.
    async fn pause(&self) -> anyhow::Result<(DiagnosticPause, String)> {
        let pauses: Api<DiagnosticPause> = Api::namespaced(self.admin.clone(), &self.home);
        let pause = pauses.list(&ListParams::default()).await?.items.pop();
        named(pause.context("the namespace is paused")?)
    }

    /// The person's wish to stop the run.
    async fn cancel(&self) -> anyhow::Result<Patch<Value>> {
        let run = self.run().await?;
        let by = Requester {
            team: "T0".to_owned(),
            user: "U0".to_owned(),
        };
        let request = serde_json::to_string(&CancelRequest {
            by,
            at: jiff::Timestamp::now(),
        })?;
        Ok(Patch::Merge(json!({ "metadata": {
            "resourceVersion": run.metadata.resource_version,
            "annotations": { ANNOTATION_CANCEL: request },
        }})))
    }

    fn at_home<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.home)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.target)
    }

    async fn read_home<K>(&self, name: &str) -> anyhow::Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.admin.clone(), &self.home);
        api.get(name).await.with_context(|| format!("read {name}"))
    }
}

/// The same object as somebody makes it anew, under another name.
fn renamed<K: Resource>(mut object: K, name: &str) -> K {
    let former = std::mem::take(object.meta_mut());
    *object.meta_mut() = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: former.namespace,
        labels: former.labels,
        annotations: former.annotations,
        owner_references: former.owner_references,
        ..ObjectMeta::default()
    };
    object
}

fn named<K: Resource>(object: K) -> anyhow::Result<(K, String)> {
    let name = object.meta().name.clone().context("the object has a name")?;
    Ok((object, name))
}

fn is_conflict(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 409)
}

fn dry() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

fn dry_patch() -> PatchParams {
    PatchParams {
        dry_run: true,
        ..PatchParams::default()
    }
}

fn dry_delete() -> DeleteParams {
    DeleteParams {
        dry_run: true,
        ..DeleteParams::default()
    }
}

//! The table of who may what (`tests/data/rules.yaml`), and how it is held against a place: the sandbox or a real cluster.
//!
//! Owns the table and what its rows mean. It never arranges a place: that has pods, a bot and people already.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use diagbot_api::{
    capture::Explanation,
    request_key::RequestKey,
    run::{CONDITION_REPORTED, DiagnosticRun, Phase},
};
use diagbot_sandbox::{
    people::{Button, Message, People},
    wait::until,
};
use k8s_openapi::api::{
    core::v1::Namespace,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

const TABLE: &str = include_str!("../data/rules.yaml");
/// The binding by which the bot itself works in a namespace.
const BOTS_OWN: &str = "diagbot-target";
/// Longest wait for a run's end, and for a change of a namespace to be seen.
const LONGEST: Duration = Duration::from_mins(1);

/// Where the table is held.
pub struct Place {
    /// The cluster's administrator.
    pub client: Client,
    /// The people of the local Slack.
    pub people: People,
    /// The bot's namespace.
    pub home: String,
    /// The namespace of the pod; bindings in it but the bot's own are removed.
    pub namespace: String,
    /// A pod that runs.
    pub pod: String,
    /// The cluster's name in the bot's configuration.
    pub cluster: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    objects: Vec<Value>,
    rows: Vec<Row>,
}

/// One rule: what is arranged, who types what, and what comes of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    rule: String,
    /// What is changed about the pod's namespace for this row.
    #[serde(default)]
    namespace: Marks,
    /// What is changed about the bot's namespace for this row.
    #[serde(default)]
    home: Marks,
    person: String,
    #[serde(default = "incidents")]
    channel: String,
    /// What stands behind `/diag`.
    types: String,
    /// Answered at once with these words, and no run.
    #[serde(default)]
    answers: Vec<String>,
    /// What is pressed while a second person is waited for.
    #[serde(default)]
    clicks: Vec<Click>,
    phase: Option<Phase>,
    /// Word for word.
    reason: Option<Explanation>,
    #[serde(default)]
    says: Vec<String>,
    #[serde(default)]
    never: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Marks {
    labels: BTreeMap<String, Option<String>>,
    annotations: BTreeMap<String, Option<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Click {
    person: String,
    button: String,
    /// What only the person who pressed reads then.
    reads: Option<String>,
}

fn incidents() -> String {
    "incidents".to_owned()
}

impl Marks {
    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// Holds every row against the place; gives one line a row. The first one that does not hold is the error.
pub async fn hold(place: &Place) -> anyhow::Result<Vec<String>> {
    let table = place.table()?;
    place.bind(table.objects).await?;
    let mut lines = Vec::new();
    let mut changed = false;
    for row in &table.rows {
        let held = place.holds(row, changed).await;
        lines.push(held.with_context(|| format!("{:?}: {}: {}", row.rule, row.person, row.types))?);
        changed = !row.namespace.is_empty() || !row.home.is_empty();
    }
    Ok(lines)
}

impl Place {
    fn table(&self) -> anyhow::Result<Table> {
        let names = [
            ("{namespace}", &self.namespace),
            ("{home}", &self.home),
            ("{pod}", &self.pod),
            ("{cluster}", &self.cluster),
        ];
        let fill = |text: String, (mark, name): &(&str, &String)| text.replace(mark, name);
        let text = names.iter().fold(TABLE.to_owned(), fill);
        serde_saphyr::from_str(&text).context("read the table of rules")
    }

    /// Replaces what is bound in the namespace by the table's objects.
    async fn bind(&self, objects: Vec<Value>) -> anyhow::Result<()> {
        let bindings: Api<RoleBinding> = Api::namespaced(self.client.clone(), &self.namespace);
        for binding in bindings.list(&ListParams::default()).await?.items {
            let name = binding.metadata.name.unwrap_or_default();
            if name != BOTS_OWN {
                bindings.delete(&name, &DeleteParams::default()).await?;
            }
        }
        let roles: Api<Role> = Api::namespaced(self.client.clone(), &self.namespace);
        for object in objects {
            match object["kind"].as_str() {
                Some("Role") => make(&roles, object).await?,
                Some("RoleBinding") => make(&bindings, object).await?,
                other => bail!("the table has an object of kind {other:?}"),
            }
        }
        Ok(())
    }

    /// Holds one row; again and again where something was changed just before, until that is seen.
    async fn holds(&self, row: &Row, changed: bool) -> anyhow::Result<String> {
        let former = [
            self.mark(&self.namespace, &row.namespace).await?,
            self.mark(&self.home, &row.home).await?,
        ];
        let settles = changed || !row.namespace.is_empty() || !row.home.is_empty();
        let end = Instant::now() + LONGEST;
        let held = loop {
            match self.once(row).await {
                Err(_) if settles && Instant::now() < end => {}
                held => break held,
            }
        };
        for (namespace, marks) in [&self.namespace, &self.home].into_iter().zip(&former) {
            self.mark(namespace, marks).await?;
        }
        held
    }

    async fn once(&self, row: &Row) -> anyhow::Result<String> {
        let line = format!("/diag {}", row.types);
        let typed = self.people.command(&row.person, &row.channel, &line).await?;
        ensure!(typed["delivered"] == json!(true), "it was not delivered: {typed}");
        if !row.answers.is_empty() {
            let answer = typed["ack"]["text"].as_str().unwrap_or_default();
            for words in &row.answers {
                ensure!(answer.contains(words), "{words:?} is missing: {answer}");
            }
            return Ok(told(row, "answered", &row.answers[0]));
        }
        let run = self.run_of(&typed).await?;
        if !row.clicks.is_empty() {
            self.click(row, &run).await?;
        }
        self.ends(row, &run).await
    }

    /// Name of the run that a command becomes.
    async fn run_of(&self, typed: &Value) -> anyhow::Result<String> {
        let directory = self.people.get("/people").await?;
        let text = |value: &Value| {
            value
                .as_str()
                .map(str::to_owned)
                .context("a command has a team and a trigger")
        };
        let (team, trigger_id) = (text(&directory["team"])?, text(&typed["trigger_id"])?);
        Ok(RequestKey::Command { team, trigger_id }.run_name().as_str().to_owned())
    }

    async fn run_until(
        &self,
        run: &str,
        what: &str,
        wanted: impl Fn(&DiagnosticRun) -> bool,
    ) -> anyhow::Result<DiagnosticRun> {
        let runs: Api<DiagnosticRun> = Api::namespaced(self.client.clone(), &self.home);
        until(LONGEST, what, async || Ok(runs.get_opt(run).await?.filter(&wanted))).await
    }

    /// Presses what the row has pressed, once a second person is asked for.
    async fn click(&self, row: &Row, run: &str) -> anyhow::Result<()> {
        let asked = |run: &DiagnosticRun| {
            let status = run.status.clone().unwrap_or_default();
            let asked = status.phase == Phase::AwaitingApproval && status.telling.root_ts.is_some();
            asked || status.phase.is_final()
        };
        let found = self.run_until(run, "a second person is asked for", asked).await?;
        let phase = found.phase();
        ensure!(phase == Phase::AwaitingApproval, "nobody was asked: {phase:?}");
        let message = found
            .status
            .and_then(|status| status.telling.root_ts)
            .unwrap_or_default();
        for click in &row.clicks {
            let words = click.reads.as_deref().unwrap_or_default();
            let before = self.read_alone(&row.channel, words).await?;
            let button = Button::Label(&click.button);
            self.people.click(&click.person, &row.channel, &message, button).await?;
            if click.reads.is_some() {
                let what = format!("{} reads {words:?}", click.person);
                until(LONGEST, &what, async || {
                    Ok((self.read_alone(&row.channel, words).await? > before).then_some(()))
                })
                .await?;
            }
        }
        Ok(())
    }

    /// How many messages to one person alone hold the words.
    async fn read_alone(&self, channel: &str, words: &str) -> anyhow::Result<usize> {
        let messages = self.people.read(channel).await?;
        let alone = messages.iter().filter(|m| m.ephemeral_to.is_some());
        Ok(alone.filter(|m| text(m).contains(words)).count())
    }

    /// Compares what became of the run, and what people read, with the row.
    async fn ends(&self, row: &Row, run: &str) -> anyhow::Result<String> {
        let is_told = |run: &DiagnosticRun| {
            let conditions = run.status.iter().flat_map(|status| &status.conditions);
            let told = conditions
                .into_iter()
                .any(|c| c.type_ == CONDITION_REPORTED && c.status == "True");
            told && run.phase().is_final()
        };
        let found = self.run_until(run, "the run has ended and was told", is_told).await?;
        let messages = self.people.read(&row.channel).await?;
        let of_run = messages
            .iter()
            .filter(|m| m.metadata["event_payload"]["run"] == json!(run));
        let read: Vec<String> = of_run.map(text).collect();
        let read = read.join("\n");
        ensure!(Some(found.phase()) == row.phase, "{:?}: {read}", found.phase());
        let reason = found.status.and_then(|status| status.reason);
        if let Some(wanted) = &row.reason {
            ensure!(reason.as_ref() == Some(wanted), "{reason:?} instead of {wanted:?}");
            for words in [&wanted.message, &wanted.remedy] {
                ensure!(read.contains(words), "{words:?} is not told: {read}");
            }
        }
        for words in &row.says {
            ensure!(read.contains(words), "{words:?} is missing: {read}");
        }
        for words in &row.never {
            ensure!(!read.contains(words), "{words:?} is told: {read}");
        }
        let what = found_words(reason.as_ref(), row);
        Ok(told(row, row.phase.unwrap_or_default().as_str(), what))
    }

    /// Changes a namespace; gives what puts it back.
    async fn mark(&self, namespace: &str, marks: &Marks) -> anyhow::Result<Marks> {
        if marks.is_empty() {
            return Ok(Marks::default());
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let now = api.get(namespace).await?.metadata;
        let former = |wanted: &BTreeMap<String, Option<String>>, now: Option<BTreeMap<String, String>>| {
            let now = now.unwrap_or_default();
            wanted.keys().map(|key| (key.clone(), now.get(key).cloned())).collect()
        };
        let former = Marks {
            labels: former(&marks.labels, now.labels),
            annotations: former(&marks.annotations, now.annotations),
        };
        let patch = json!({ "metadata": { "labels": marks.labels, "annotations": marks.annotations } });
        api.patch(namespace, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(former)
    }
}

async fn make<K>(api: &Api<K>, object: Value) -> anyhow::Result<()>
where
    K: kube::Resource + Clone + serde::Serialize + DeserializeOwned + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).context("read an object of the table")?;
    api.create(&PostParams::default(), &object).await?;
    Ok(())
}

fn text(message: &Message) -> String {
    message.plain.join("\n")
}

fn found_words<'a>(reason: Option<&'a Explanation>, row: &'a Row) -> &'a str {
    let said = || row.says.first().map_or("", String::as_str);
    reason.map_or_else(said, |reason| &reason.message)
}

fn told(row: &Row, outcome: &str, words: &str) -> String {
    format!("{}: {outcome}: {} types {:?}: {words}", row.rule, row.person, row.types)
}

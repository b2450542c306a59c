//! Soak: the bot answers command after command, and does not grow.
//!
//! Eight hours of a busy team, compressed: a command every 300 ms instead of one a minute. What goes by the clock alone - the
//! age at which finished records are forgotten - can't be compressed; so after the first hour the records of the days before
//! are put there, as many as are kept, and from then on each new one makes the oldest go.

use std::fs;

use anyhow::Context as _;
use diagbot_api::capture::DiagnosticCapture;
use diagbot_runs::retention;
use diagbot_sandbox::installation::Installation;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{ListParams, ObjectMeta, PostParams},
};

use super::{
    play::Stage,
    say,
    script::{REPLICAS, Script},
};

/// One a minute in eight hours.
const COMMANDS: usize = 480;
/// Where the bot keeps its objects.
const NAMESPACE: &str = "diagbot";
/// Between two looks at the memory.
const ROUND: usize = 60;
/// Most growth from the first hour with all records, by commands, to the end, in percent.
const MOST_GROWTH: f64 = 10.0;
/// So long ago were the runs of the days before: longer than any must be kept.
const BEFORE: SignedDuration = SignedDuration::from_hours(5);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: .ci/long runs it"]
async fn a_day_of_commands_leaves_the_bot_as_small_as_it_was() {
    let script = Script::calm(COMMANDS);
    let mut stage = Stage::start(&script).await.unwrap();
    let mut sizes = Vec::new();
    for round in script.scenes.chunks(ROUND) {
        let typed = stage.perform(round).await.unwrap();
        stage.settle(&typed).await.unwrap();
        let size = largest_mib(&stage.installation.bot_pids(), "VmRSS:");
        let own = largest_mib(&stage.installation.bot_pids(), "RssAnon:");
        sizes.push(size);
        let commands = sizes.len() * ROUND;
        say(&format!(
            "after {commands} commands: {size:.1} MiB, {own:.1} of them not the program's own pages"
        ));
        if sizes.len() == 1 {
            remember(&mut stage.installation).await.unwrap();
        }
    }
    let growth = (sizes[sizes.len() - 1] / sizes[1] - 1.0) * 100.0;
    say(&format!("VmRSS of the larger replica grew by {growth:.1} %"));
    assert!(growth <= MOST_GROWTH, "{sizes:?}");
    stage.installation.stop().await.unwrap();
}

/// Copies of the finished runs with their captures, of days ago, until there are as many as are kept.
async fn remember(installation: &mut Installation) -> anyhow::Result<()> {
    for replica in 0..REPLICAS {
        installation.stop_bot(replica).await?;
    }
    let runs = installation.runs();
    let told = runs.list(&ListParams::default()).await?.items;
    let captures: Api<DiagnosticCapture> = Api::namespaced(runs.clone().into_client(), NAMESPACE);
    let taken = captures.list(&ListParams::default()).await?.items;
    let copies = retention::MOST.saturating_sub(told.len());
    for (number, run) in told.iter().cycle().take(copies).enumerate() {
        let name = format!("d-{number:016}");
        let mut old = run.clone();
        old.metadata = ObjectMeta {
            name: Some(name.clone()),
            labels: run.metadata.labels.clone(),
            ..ObjectMeta::default()
        };
        old.spec.received_at = earlier(&old.spec.received_at)?;
        let status = old.status.as_mut().context("it has ended")?;
        for entered in status.entered.values_mut() {
            *entered = earlier(entered)?;
        }
        let created = runs.create(&PostParams::default(), &old).await?;
        old.metadata
            .resource_version
            .clone_from(&created.metadata.resource_version);
        runs.replace_status(&name, &PostParams::default(), &old).await?;
        let of_the_run = taken.iter().filter_map(|capture| {
            let number = capture.metadata.name.as_ref()?.strip_prefix(&run.name_any())?;
            Some((capture, format!("{name}{number}")))
        });
        for (capture, name) in of_the_run {
            let mut old = capture.clone();
            old.metadata = ObjectMeta {
                name: Some(name.clone()),
                labels: capture.metadata.labels.clone(),
                owner_references: created.controller_owner_ref(&()).map(|owner| vec![owner]),
                ..ObjectMeta::default()
            };
            let created = captures.create(&PostParams::default(), &old).await?;
            old.metadata.resource_version = created.metadata.resource_version;
            captures.replace_status(&name, &PostParams::default(), &old).await?;
        }
    }
    for replica in 0..REPLICAS {
        installation.start_bot(replica)?;
    }
    installation.wait_until_ready().await
}

fn earlier(time: &MicroTime) -> anyhow::Result<MicroTime> {
    Ok(MicroTime(time.0.checked_sub(BEFORE)?))
}

/// A line of `/proc/<pid>/status` of the largest of these processes, in MiB.
fn largest_mib(pids: &[u32], what: &str) -> f64 {
    let kib = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap()
    };
    pids.iter().map(kib).fold(0.0, f64::max) / 1024.0
}

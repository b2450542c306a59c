//! Many people at once, and nobody at all: the bot on the sandbox.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::Context as _;
use diagbot_sandbox::{
    installation::{Installation, Plan},
    kubernetes::KubernetesConfig,
    slack::SlackConfig,
    wait::until,
};
use futures::future::join_all;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::{
    memory::{own_mib, peak_mib, resident_mib},
    table::Table,
};

/// People who ask.
const PEOPLE: usize = 200;
/// Channels they are in.
const ROOMS: usize = 20;
/// Pods that only exist.
const IDLE_PODS: usize = 500;
/// How long the bot is left alone before its memory counts as idle: two rounds of its lease and of its sweeps.
const REST: Duration = Duration::from_secs(10);

/// 200 commands of 200 people in 20 channels at once.
pub(crate) async fn commands_at_once(table: &mut Table) -> anyhow::Result<()> {
    let plan = Plan {
        slack: SlackConfig {
            crowd: PEOPLE,
            rooms: ROOMS,
            ..SlackConfig::default()
        },
        kubernetes: KubernetesConfig {
            manifests: vec![binding().to_string()],
            ..KubernetesConfig::default()
        },
        ..Plan::default()
    };
    let installation = start(&plan).await?;
    let people = installation.people();
    let asked = (0..PEOPLE).map(|n| async move {
        let (person, room) = (format!("p{n:03}"), format!("room-{:02}", n % ROOMS));
        people.command(&person, &room, "/diag pod-report ledger -n shop").await
    });
    let mut slowest_ms = 0.0_f64;
    let mut unheard = 0;
    for answer in join_all(asked).await {
        match answer {
            Ok(answer) if answer["delivered"] == json!(true) => {
                slowest_ms = slowest_ms.max(answer["ack_ms"].as_f64().unwrap_or(f64::INFINITY));
            }
            Ok(_) | Err(_) => unheard += 1,
        }
    }
    let runs = installation.runs();
    let recorded = until(Duration::from_secs(30), "every command has become a run", async || {
        let items = runs.list(&ListParams::default()).await.context("list the runs")?.items;
        Ok((items.len() >= PEOPLE - unheard).then_some(items))
    })
    .await?;
    let users: BTreeSet<_> = recorded.iter().map(|run| run.spec.requester.user.clone()).collect();
    table.at_most("200 commands at once: slowest ack", slowest_ms, 1000.0, "ms");
    table.at_most(
        "200 commands at once: not acknowledged",
        f64::from(unheard as u32),
        0.0,
        "",
    );
    table.at_least(
        "200 commands at once: people with a run",
        users.len() as f64,
        PEOPLE as f64,
        "",
    );
    let decided = until(Duration::from_mins(2), "every run has ended", async || {
        let items = runs.list(&ListParams::default()).await.context("list the runs")?.items;
        let ended = items
            .iter()
            .filter(|run| run.status.as_ref().is_some_and(|s| s.phase.is_final()));
        Ok((ended.count() >= recorded.len()).then_some(()))
    })
    .await;
    table.note(
        "200 commands at once: all runs ended",
        if decided.is_ok() { "yes" } else { "no, not within 2 min" },
    );
    bot_peak(&installation, "bot, 200 commands at once: VmHWM", table)?;
    installation.stop().await
}

/// Nobody asks, in a cluster of 500 pods.
pub(crate) async fn idle(table: &mut Table) -> anyhow::Result<()> {
    let installation = start(&Plan::default()).await?;
    installation
        .kubernetes()
        .add_idle_pods("shop", "idle", IDLE_PODS)
        .context("add the pods")?;
    // The measurement is of the time that passes, not of a condition that comes true.
    tokio::time::sleep(REST).await;
    let pid = bot(&installation)?;
    table.at_most("bot, idle beside 500 pods: VmRSS", resident_mib(pid)?, 32.0, "MiB");
    table.note("… of it not pages of the program", &format!("{:.1} MiB", own_mib(pid)?));
    installation.stop().await
}

fn bot_peak(installation: &Installation, what: &str, table: &mut Table) -> anyhow::Result<()> {
    let pid = bot(installation)?;
    table.at_most(what, peak_mib(pid)?, 64.0, "MiB");
    table.note(
        "… afterwards, not pages of the program",
        &format!("{:.1} MiB", own_mib(pid)?),
    );
    Ok(())
}

/// The process of the bot.
pub(crate) fn bot(installation: &Installation) -> anyhow::Result<u32> {
    installation.bot_pids().first().copied().context("a bot runs")
}

/// Lets everybody run everything in the shop.
fn binding() -> Value {
    let person = |n| json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("slack:T0DIAG0001:U0CROWD{n:03}") });
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": { "name": "crowd", "namespace": "shop" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "diagbot-runner" },
        "subjects": (0..PEOPLE).map(person).collect::<Vec<_>>(),
    })
}

/// Starts the sandbox with programs built as this one.
pub(crate) async fn start(plan: &Plan) -> anyhow::Result<Installation> {
    let program = Path::new(env!("CARGO_BIN_EXE_sandbox-under-test"));
    let plan = Plan {
        kubernetes: KubernetesConfig {
            program: Some(program.to_owned()),
            ..plan.kubernetes.clone()
        },
        ..plan.clone()
    };
    Installation::start_with(program, &plan).await
}

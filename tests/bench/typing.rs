//! Names offered while a person types, among 5,000 pods.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use diagbot_sandbox::{
    installation::{Installation, Plan},
    wait::until,
};
use serde_json::{Value, json};

use crate::{
    crowd::{bot, start},
    memory::own_mib,
    table::{Table, spread_ms},
};

/// Pods in the cluster.
const PODS: usize = 5_000;
/// What is typed, letter by letter as it would arrive: much that fits, little, nothing, and with a namespace.
const TYPED: [&str; 8] = [
    "",
    "i",
    "idle",
    "idle-49",
    "idle-4999",
    "shop/idle-4",
    "checkout",
    NOTHING,
];
/// What no name holds.
const NOTHING: &str = "nothing-such";
/// Times that all of it is typed.
const ROUNDS: usize = 10;

/// Types into the form's field for the target.
pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    // Faster than anybody types: how often one may look is not what is measured.
    let plan = Plan {
        config: json!({ "rates": { "looksPerMinute": 1_000_000 } }),
        ..Plan::default()
    };
    let installation = start(&plan).await?;
    let pid = bot(&installation)?;
    let view = form(&installation).await?;
    // The first answer loads what is loaded once.
    offered(&installation, &view, "ledger").await?;
    let before = own_mib(pid)?;
    installation
        .kubernetes()
        .add_idle_pods("shop", "idle", PODS)
        .context("add the pods")?;
    until(Duration::from_mins(1), "the last pod is offered", async || {
        let offers = offered(&installation, &view, &format!("idle-{}", PODS - 1)).await?;
        Ok((!offers.0.is_empty()).then_some(()))
    })
    .await?;
    table.at_most(
        "memory for one of 5,000 pods",
        (own_mib(pid)? - before) * 1024.0 * 1024.0 / PODS as f64,
        300.0,
        "bytes",
    );
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        for typed in TYPED {
            let (offers, took) = offered(&installation, &view, typed).await?;
            ensure!(
                offers.is_empty() == (typed == NOTHING),
                "{typed:?} was answered with {} names",
                offers.len()
            );
            times.push(took.as_secs_f64());
        }
    }
    let slowest = times.iter().copied().fold(0.0, f64::max);
    table.at_most("names among 5,000 pods, slowest answer", slowest * 1e3, 500.0, "ms");
    table.note("… answers", &spread_ms(&times));
    installation.stop().await
}

/// Opens the form and returns its id.
async fn form(installation: &Installation) -> anyhow::Result<Value> {
    let people = installation.people();
    people.command("ada", "incidents", "/diag").await?;
    until(Duration::from_secs(20), "the form is open", async || {
        let views = people.get("/people/views?user=ada").await?;
        let open = views["views"].as_array().and_then(|views| views.last());
        Ok(open.map(|open| open["view"]["id"].clone()).filter(Value::is_string))
    })
    .await
}

/// What is offered for a text, and how long that took.
async fn offered(installation: &Installation, view: &Value, typed: &str) -> anyhow::Result<(Vec<Value>, Duration)> {
    let body = json!({ "user": "ada", "view_id": view, "action_id": "target", "value": typed });
    let started = Instant::now();
    let answer = installation.people().post("/people/suggest", &body).await?;
    let took = started.elapsed();
    let options = answer["ack"]["options"].as_array().cloned();
    Ok((options.context("the bot offers names")?, took))
}

//! From the command to the link, on a real cluster, beside the same capture by hand in the same minutes.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use diagbot_api::run::Phase;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    by_hand,
    installation::{Installation, Variation, story},
    memory::{AgentWatch, peak_mib},
    outcome::Outcome,
    table::{Table, median, spread_ms},
    workload::Workload,
};

/// Captures of each kind.
const ROUNDS: usize = 12;

/// One capture's times, in seconds.
#[derive(Debug)]
struct Times {
    total: f64,
    container: f64,
    tool: f64,
    until_patch: f64,
    hello_to_tool: f64,
    tool_to_link: f64,
}

impl Times {
    /// What is neither the cluster's nor the tool's.
    fn added(&self) -> f64 {
        self.total - self.container - self.tool
    }
}

/// How long a pod is left alone between two captures: right after another one a kubelet takes up to a second longer to start
/// a container, which is neither ours nor what people meet who ask about a pod once.
const REST: Duration = Duration::from_millis(3500);

/// Thread dumps by the bot and by hand, in turn, of two JVMs of a kind, both at rest.
pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    story("bench-latency", Variation::default(), async |installation| {
        for pod in ["asked", "byhand"] {
            installation.start_pod(&Workload::checkout(pod, 32).user(1000)).await?;
            installation.wait_for_log(pod, "checkout ready").await?;
        }
        installation.start_bot().await?;
        let store = by_hand::store(installation).await?;
        let agents = AgentWatch::start();
        // The first of each pays for what is loaded once.
        installation.ask("jstack", "asked").await?;
        by_hand::take(installation, &store, "byhand").await?;
        let (mut times, mut hand) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            // Nor do people keep step with the kubelet's own rounds.
            tokio::time::sleep(REST.mul_f64(rand::random_range(1.0..1.3))).await;
            let outcome = installation.ask("jstack", "asked").await?;
            ensure!(
                outcome.phase() == Phase::Succeeded,
                "a capture failed: {}",
                outcome.text()
            );
            times.push(read(installation, &outcome).await?);
            hand.push(by_hand::take(installation, &store, "byhand").await?.as_secs_f64());
        }
        report(table, &times, &hand);
        table.at_most("bot, captures: VmHWM", peak_mib(installation.bot_pid()?)?, 64.0, "MiB");
        table.at_most("agent, thread dump: VmHWM", agents.peak_mib(), 24.0, "MiB");
        Ok(())
    })
    .await
}

fn report(table: &mut Table, times: &[Times], hand: &[f64]) {
    let of = |part: fn(&Times) -> f64| times.iter().map(part).collect::<Vec<_>>();
    let total = of(|t| t.total);
    table.at_most("added by us, median", median(&of(Times::added)) * 1e3, 300.0, "ms");
    table.note("… added by us", &spread_ms(&of(Times::added)));
    table.note("… envelope to patch", &spread_ms(&of(|t| t.until_patch)));
    table.note("… patch to hello (the cluster's)", &spread_ms(&of(|t| t.container)));
    table.note("… hello to tool start", &spread_ms(&of(|t| t.hello_to_tool)));
    table.note("… tool", &spread_ms(&of(|t| t.tool)));
    table.note("… tool end to link", &spread_ms(&of(|t| t.tool_to_link)));
    table.note("command to link", &spread_ms(&total));
    table.note("the same by hand", &spread_ms(hand));
    table.at_most(
        "command to link, as part of by hand",
        median(&total) / median(hand),
        0.5,
        "",
    );
}

async fn read(installation: &Installation, outcome: &Outcome) -> anyhow::Result<Times> {
    let status = outcome
        .captures
        .first()
        .and_then(|c| c.status.as_ref())
        .context("a capture ran")?;
    let from = outcome.run.spec.received_at.0;
    let moment = |name: &str| {
        let at = status
            .trace
            .get(name)
            .with_context(|| format!("the trace has no {name}"))?;
        anyhow::Ok(at.0.duration_since(from).as_secs_f64())
    };
    let log = installation.people.log().await?;
    let linked = first_call(&log, &outcome.artifact()?.key)?
        .duration_since(from)
        .as_secs_f64();
    let (patched, hello) = (moment("patched")?, moment("hello")?);
    let (began, ended) = (moment("toolStarted")?, moment("toolEnded")?);
    Ok(Times {
        total: linked,
        container: hello - patched,
        tool: ended - began,
        until_patch: patched,
        hello_to_tool: began - hello,
        tool_to_link: linked - ended,
    })
}

/// When the app first told somebody a link to that object.
fn first_call(log: &Value, key: &str) -> anyhow::Result<Timestamp> {
    let calls = log["calls"].as_array().context("there is a log of calls")?;
    let told = calls.iter().find(|call| call["args"].to_string().contains(key));
    let time = told
        .and_then(|call| call["time"].as_str())
        .context("nobody was told the link")?;
    time.parse().context("read the time of a call")
}

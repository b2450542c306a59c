//! Cancel and deadline: the tool in the pod ends with all that it started, nothing stays behind, and what is said is proven.

use std::time::Duration;

use diagbot_api::{capture::CapturePhase, run::Phase};

use crate::{
    product::{LEDGER, Product},
    tools::{agent_of, go_on, processes, seconds_of_our_own, signal, until_processes, with_tool},
};

/// Longest time in which a process must have ended.
const SOON: Duration = Duration::from_secs(10);

/// A tool and its child in one process group; no other process of the machine has such a line.
const HANGING: [&str; 4] = ["timeout", "--foreground", "86000", "sleep"];

fn hanging(seconds: &str) -> Vec<&str> {
    HANGING.into_iter().chain([seconds]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_the_tool_with_its_children_and_is_told_once_that_is_so() {
    let seconds = seconds_of_our_own("86001");
    let line = &format!("sleep {seconds}");
    let product = Product::with(with_tool("stall", &hanging(&seconds), "10m", "1MiB")).await;
    let id = product.asks("stall ledger").await;
    // The tool, and its child.
    until_processes(line, 2, SOON).await;
    let messages = product.people.reads("incidents", "State: *capturing*").await;
    let root = messages.iter().find(|m| m.by_bot && !m.ephemeral).unwrap().clone();
    product.people.click("ada", "incidents", &root.ts, "Cancel").await;
    let told = product.ended(&id).await;
    assert_eq!(processes(line), Vec::<u32>::new(), "told before it was so");
    assert_eq!(told.run.phase(), Phase::Cancelled, "{}", told.text());
    told.says(&["*cancelled* by @ada"]);
    assert_eq!(
        told.run.status.as_ref().unwrap().captures[0].phase,
        CapturePhase::Cancelled
    );
    assert!(product.open_uploads().is_empty(), "{:?}", product.open_uploads());
    assert!(
        product.objects().iter().all(|key| !key.ends_with("stall.txt")),
        "{:?}",
        product.objects()
    );
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_keeps_its_deadline_while_the_bot_is_away_and_a_cancel_that_nobody_confirms_is_not_called_done() {
    // Side by side: both wait most of their time.
    tokio::join!(bot_away(), cancel_unconfirmed());
}

async fn bot_away() {
    let seconds = seconds_of_our_own("86002");
    let line = &format!("sleep {seconds}");
    let mut product = Product::with(with_tool("stall", &hanging(&seconds), "4s", "1MiB")).await;
    let id = product.asks("stall ledger").await;
    until_processes(line, 2, SOON).await;
    product.installation.kill_bot(0).await.unwrap();
    until_processes(line, 0, SOON).await;
    product.installation.start_bot(0).unwrap();
    let told = product.ended(&id).await;
    assert_eq!(told.run.phase(), Phase::Failed, "{}", told.text());
    told.explains("the tool did not end in time");
    assert!(product.open_uploads().is_empty(), "{:?}", product.open_uploads());
    assert_eq!(product.ephemeral(LEDGER).await.len(), 1);
    assert_eq!(product.public().await.len(), 1);
    product.stop().await;
}

async fn cancel_unconfirmed() {
    let seconds = seconds_of_our_own("86003");
    let line = &format!("sleep {seconds}");
    let product = Product::with(with_tool("stall", &hanging(&seconds), "10m", "1MiB")).await;
    let id = product.asks("stall ledger").await;
    until_processes(line, 2, SOON).await;
    let messages = product.people.reads("incidents", "State: *capturing*").await;
    let root = messages.iter().find(|m| m.by_bot && !m.ephemeral).unwrap().clone();
    let agent = agent_of(line);
    signal("-STOP", agent).await;
    product.people.click("ada", "incidents", &root.ts, "Cancel").await;
    let told = product.ended(&id).await;
    told.explains("that it did is not proven");
    assert_eq!(told.run.phase(), Phase::Failed, "{}", told.text());
    assert_eq!(processes(line).len(), 2, "it was not proven, and it was not so");
    // It has the line, though: once it goes on it stops. (What had started it stood still with it.)
    go_on(agent).await;
    until_processes(line, 0, SOON).await;
    assert!(product.open_uploads().is_empty(), "{:?}", product.open_uploads());
    product.stop().await;
}

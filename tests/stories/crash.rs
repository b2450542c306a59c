//! Death anywhere: the bot dies at every failpoint of every action, is started again, and the run ends as it should.
//!
//! The failpoints are those of the bot itself ([`diagbot::cli::failpoints`]): an action that is new has to be come by here,
//! or the story fails.

mod stage;

use std::{
    collections::{BTreeSet, VecDeque},
    fmt::Write as _,
    sync::Mutex,
};

use futures::future::join_all;
pub(crate) use stage::catalog;
use stage::{Scene, Stage};

/// Bots at a time; each waits for its neighbours' processors more than for anything else.
const AT_A_TIME: usize = 4;

/// What is still to be tried.
type Queue = Mutex<VecDeque<(String, Scene)>>;

/// Actions that write no record of their own: their record is another action's, or the outcome is none.
const WITHOUT_RECORD: [&str; 14] = [
    "runs.accept",
    "runs.find-target",
    "runs.review",
    "runs.survey",
    "runs.record",
    "runs.create-capture",
    "runs.cancel-captures",
    "runs.record-telling",
    "slack.post",
    "slack.edit",
    "captures.add-container",
    "captures.look-closer",
    "captures.read-result",
    "captures.write-manifest",
];

/// In which story the bot comes by an action; none for what is never performed.
fn scene(action: &str) -> Option<Scene> {
    Some(match action {
        "runs.wait" => return None,
        "runs.cancel-captures" | "captures.send-cancel" | "captures.abort-uploads" => Scene::Cancelled,
        "captures.look-closer" | "captures.observe" => Scene::SlowImage,
        "captures.send-urls" => Scene::ManyParts,
        "captures.relay" | "captures.send-release" => Scene::Relayed,
        "captures.read-result" => Scene::PodReplaced,
        "captures.report" => Scene::Report,
        _ => Scene::Plain,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_dies_at_any_action_finishes_what_it_began_once() {
    let all = diagbot::cli::failpoints();
    let mut table = String::new();
    let mut queues: [VecDeque<(String, Scene)>; 2] = Default::default();
    for failpoint in &all {
        let (action, moment) = failpoint.split_once(':').unwrap();
        let Some(scene) = scene(action) else {
            let _ = writeln!(
                table,
                "{failpoint:<36} never performed: it is the plan's word for nothing"
            );
            continue;
        };
        if moment == "unrecorded" && WITHOUT_RECORD.contains(&action) {
            let _ = writeln!(table, "{failpoint:<36} writes no record");
            continue;
        }
        queues[usize::from(scene == Scene::Relayed)].push_back((failpoint.clone(), scene));
    }
    let [direct, relayed] = queues.map(Mutex::new);
    let direct = (0..AT_A_TIME).map(|_| play(&direct, false));
    let played = join_all(direct.chain([play(&relayed, true)])).await;
    let mut faults = BTreeSet::new();
    for (failpoint, outcome) in played.into_iter().flatten() {
        let line = match outcome {
            Ok(line) => line,
            Err(error) => {
                faults.insert(failpoint.clone());
                format!("FAULT: {error:#}")
            }
        };
        let _ = writeln!(table, "{failpoint:<36} {line}");
    }
    report(&table);
    assert!(
        faults.is_empty(),
        "{} of {} failpoints:\n{table}",
        faults.len(),
        all.len()
    );
}

/// Takes failpoint after failpoint, on one installation.
async fn play(queue: &Queue, out_of_reach: bool) -> Vec<(String, anyhow::Result<String>)> {
    let mut played = Vec::new();
    let mut stage = Stage::start(out_of_reach).await;
    loop {
        let next = queue.lock().unwrap().pop_front();
        let Some((failpoint, scene)) = next else { break };
        let outcome = stage.dies_at(&failpoint, scene).await;
        played.push((failpoint, outcome));
    }
    stage.end().await;
    played
}

#[expect(
    clippy::print_stdout,
    reason = "the table of failpoints is part of the story's result"
)]
fn report(table: &str) {
    let mut lines: Vec<&str> = table.lines().collect();
    lines.sort_unstable();
    println!("{}", lines.join("\n"));
}

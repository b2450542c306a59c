//! Hostile neighbours of the agent: nothing is read, nothing is forged. `DIAGBOT_NEIGHBOURS` says how many captures of ten
//! files are made on each way to the store: 2 unless set, 20 in `.ci/long`.
//!
//! Three programs look at every folder that they can reach, some thousand times a second: the target itself (the agent's user and process
//! namespace), a container of the agent's user with a process namespace of its own, and one that is root with the runtime's
//! default capabilities. A file in the pod's shared memory is the control: each of them must find that.

use diagbot_api::capture::CapturePhase;
use serde_json::{Value, json};

use super::{
    JDK,
    steps::Step,
    world::{Staging, World},
};

/// Steps of one capture; by turns a thread dump of some MiB and a report of some KiB.
const STEPS: usize = 10;
/// Captures on each way, unless `DIAGBOT_NEIGHBOURS` says so.
const CAPTURES: usize = 2;
/// Threads of the target: their dump does not fit into the agent's memory.
const THREADS: &str = "800";
/// What a neighbour says when it has found something.
const SUCCESSES: [&str; 6] = ["OPENED", "READ ", "SEEN", "DOOR", "SOCKET", "LISTED"];

fn container(name: &str, user: u32, words: &[&str]) -> Value {
    let start = format!(
        "cat > /tmp/Neighbour.java <<'END'\n{}\nEND\nexec java -Xmx128m -XX:+UseSerialGC /tmp/Neighbour.java {}",
        include_str!("Neighbour.java"),
        words.join(" ")
    );
    json!({
        "name": name, "image": JDK, "imagePullPolicy": "Never", "command": ["/bin/busybox", "sh", "-c", start],
        "securityContext": {"runAsUser": user, "runAsGroup": user},
        "startupProbe": {"periodSeconds": 1, "failureThreshold": 60,
                         "exec": {"command": ["/bin/busybox", "test", "-d", "/tmp/ready"]}},
    })
}

async fn nobody_gets_anything(store_out_of_reach: bool) {
    let captures = std::env::var("DIAGBOT_NEIGHBOURS").map_or(CAPTURES, |words| words.parse().expect("a number"));
    let world = World::start(Staging {
        store_out_of_reach,
        ..Staging::default()
    })
    .await;
    let containers = [
        container("app", 1000, &[THREADS]),
        container("peer", 1000, &[]),
        container("root", 0, &[]),
    ];
    let target = world
        .pod(
            "neighbours",
            json!({"terminationGracePeriodSeconds": 0, "containers": containers}),
        )
        .await;
    let steps: Vec<Step> = [Step::Jstack, Step::Process].into_iter().cycle().take(STEPS).collect();
    let (mut files, mut forged, mut large) = (0, 0, 0);
    for _ in 0..captures {
        let capture = world.ask(target.clone(), &steps).await;
        let status = world.end(&capture).await;
        assert_eq!(status.phase, CapturePhase::Succeeded, "{:?}", status.reason);
        for artifact in &status.artifacts {
            let text = String::from_utf8_lossy(&world.read(artifact).await).into_owned();
            files += 1;
            large += usize::from(text.len() > 1 << 20);
            forged +=
                usize::from(text.contains("FORGED") || !(text.contains("Full thread dump") || text.contains("PID")));
        }
    }
    let heap = world.ask(target, &[Step::HeapDump]).await;
    assert_eq!(world.end(&heap).await.phase, CapturePhase::Succeeded);

    let mut found = Vec::new();
    for neighbour in ["app", "peer", "root"] {
        let words = world.log("neighbours", neighbour).await;
        assert!(
            words.contains("control read"),
            "{neighbour} did not even find the control:\n{words}"
        );
        let successes = words
            .lines()
            .filter(|line| SUCCESSES.iter().any(|word| line.starts_with(word)));
        found.extend(successes.map(|line| format!("{neighbour}: {line}")));
    }
    let seen = world.log("neighbours", "app").await;
    assert!(seen.contains("agent seen"), "the target did not see the agent:\n{seen}");
    println!("{files} files, {large} of them over 1 MiB, {forged} forged; found: {found:#?}");
    assert_eq!((files, large), (STEPS * captures, STEPS * captures / 2));
    assert!(
        forged == 0 && found.is_empty(),
        "{forged} files are forged; the neighbours found {found:#?}"
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs cluster (KUBECONFIG)"]
async fn neighbours_get_nothing_on_the_direct_way() {
    nobody_gets_anything(false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs cluster (KUBECONFIG)"]
async fn neighbours_get_nothing_on_the_relays_way() {
    nobody_gets_anything(true).await;
}

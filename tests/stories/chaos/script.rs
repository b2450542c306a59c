//! What a seed means: who types what when, and what breaks when. Pure: the same seed is the same script.

use std::time::Duration;

use diagbot_sandbox::{
    kubernetes::{Fault as KubernetesFault, FaultKind as KubernetesKind},
    store::{Fault as StoreFault, FaultKind as StoreKind, Operation},
};
use rand::{Rng, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};

/// Pods that commands aim at.
pub(crate) const PODS: usize = 4;
/// Replicas of the bot.
pub(crate) const REPLICAS: usize = 2;
/// Between two things that happen, at most, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 700;
/// Between two commands where nothing breaks.
const CALM: Duration = Duration::from_millis(300);
/// Things that break for each command.
const STRIKES_PER_COMMAND: usize = 3;

/// One seed's story.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) commands: usize,
    /// The bot may read the channels that it posts to.
    pub(crate) history: bool,
    /// Pods can't reach the store.
    pub(crate) relay: bool,
    /// What happens, each after a pause.
    pub(crate) scenes: Vec<(Duration, Scene)>,
}

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum Scene {
    /// The n-th person types a diagnostic at a pod.
    Types { person: usize, what: What, pod: usize },
    /// Something breaks.
    Strikes(Strike),
}

/// What a person wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Process,
    Sockets,
    Report,
    /// A tool that takes long, and is stopped.
    Stopped,
    /// Many parts.
    Numbers,
}

/// Something that breaks.
#[derive(Debug, Clone)]
pub(crate) enum Strike {
    Kubernetes(KubernetesFault),
    ApiServerRestarts(Duration),
    /// Body of `POST /people/faults`.
    Slack(Value),
    /// Body of `POST /people/disconnect` or `outage`.
    Socket(&'static str, Value),
    Store(StoreFault),
    /// SIGKILL; the replica is started again at once, as the kubelet does.
    Kill(usize),
    /// SIGTERM; likewise.
    Stop(usize),
    /// SIGSTOP for so long.
    Pause(usize, Duration),
    /// The replica dies at a failpoint.
    DiesAt(usize, String),
}

impl Script {
    /// The story of a seed.
    pub(crate) fn of(seed: u64, commands: usize, failpoints: &[String]) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let relay = seed % 4 == 1;
        let mut scenes: Vec<Scene> = (0..commands)
            .map(|person| Scene::Types {
                person,
                what: what(&mut dice),
                pod: dice.random_range(0..PODS),
            })
            .collect();
        for _ in 0..commands * STRIKES_PER_COMMAND {
            let at = dice.random_range(0..=scenes.len());
            scenes.insert(at, Scene::Strikes(strike(&mut dice, failpoints, relay)));
        }
        let scenes = scenes.into_iter().map(|scene| {
            let pause = Duration::from_millis(dice.random_range(0..LONGEST_PAUSE_MS));
            (pause, scene)
        });
        Self {
            seed,
            commands,
            scenes: scenes.collect(),
            history: seed.is_multiple_of(2),
            relay,
        }
    }
}

impl Script {
    /// Small reports in quick succession, and nothing breaks.
    pub(crate) fn calm(commands: usize) -> Self {
        let types = |person: usize| Scene::Types {
            person,
            what: [What::Process, What::Sockets, What::Report][person % 3],
            pod: person % PODS,
        };
        Self {
            seed: 0,
            commands,
            history: true,
            relay: false,
            scenes: (0..commands).map(|person| (CALM, types(person))).collect(),
        }
    }
}

fn what(dice: &mut StdRng) -> What {
    *[
        What::Process,
        What::Process,
        What::Sockets,
        What::Sockets,
        What::Report,
        What::Stopped,
        What::Numbers,
    ]
    .choose(dice)
    .unwrap()
}

fn strike(dice: &mut StdRng, failpoints: &[String], relay: bool) -> Strike {
    let replica = dice.random_range(0..REPLICAS);
    match dice.random_range(0..100) {
        0..36 => Strike::Kubernetes(kubernetes(dice)),
        36..39 => Strike::ApiServerRestarts(Duration::from_millis(dice.random_range(200..3_000))),
        39..57 => Strike::Slack(slack(dice)),
        57..63 => socket(dice),
        63..82 => Strike::Store(store(dice, relay)),
        82..88 => Strike::Kill(replica),
        88..91 => Strike::Stop(replica),
        91..94 => Strike::Pause(replica, Duration::from_millis(dice.random_range(500..20_000))),
        _ => Strike::DiesAt(replica, failpoints.choose(dice).unwrap().clone()),
    }
}

fn kubernetes(dice: &mut StdRng) -> KubernetesFault {
    let request = [
        KubernetesKind::TooManyRequests,
        KubernetesKind::InternalError,
        KubernetesKind::Unavailable,
        KubernetesKind::Timeout,
        KubernetesKind::LostAnswer,
    ];
    let calls = [
        ("create", "diagnosticruns"),
        ("get", "diagnosticruns"),
        ("update", "diagnosticruns/status"),
        ("create", "diagnosticcaptures"),
        ("get", "diagnosticcaptures"),
        ("patch", "diagnosticcaptures"),
        ("update", "diagnosticcaptures/status"),
        ("patch", "pods/ephemeralcontainers"),
        ("get", "pods"),
        ("list", "pods"),
        ("create", "subjectaccessreviews"),
        ("get", "leases"),
        ("update", "leases"),
    ];
    let writes = ["diagnosticruns/status", "diagnosticcaptures/status", "leases"];
    let watches = ["pods", "diagnosticruns", "diagnosticcaptures"];
    let after_bytes = dice.random_range(0..2_000);
    let (kind, verb, resource) = match dice.random_range(0..10) {
        0..5 => {
            let (verb, resource) = *calls.choose(dice).unwrap();
            (*request.choose(dice).unwrap(), verb, resource)
        }
        5 => (KubernetesKind::Conflict, "update", *writes.choose(dice).unwrap()),
        6 => {
            let kinds = [
                KubernetesKind::WatchCloses,
                KubernetesKind::Gone,
                KubernetesKind::InternalError,
            ];
            (*kinds.choose(dice).unwrap(), "watch", *watches.choose(dice).unwrap())
        }
        7 => (KubernetesKind::WatchQuiet, "watch", "pods"),
        8 => (KubernetesKind::LogCut { after_bytes }, "get", "pods/log"),
        _ => {
            let kinds = [
                KubernetesKind::StreamReset { after_bytes: 0 },
                KubernetesKind::StreamEndsEarly { after_bytes: 0 },
                KubernetesKind::StreamReset { after_bytes },
                KubernetesKind::StreamSilent { after_bytes },
                KubernetesKind::InternalError,
            ];
            let streams = ["pods/attach", "pods/exec"];
            let kind = *kinds.choose(dice).unwrap();
            let mut fault = KubernetesFault::of(kind).times(dice.random_range(1..3));
            fault.resource = Some((*streams.choose(dice).unwrap()).to_owned());
            return fault;
        }
    };
    KubernetesFault::of(kind)
        .on(verb, resource)
        .times(dice.random_range(1..4))
}

fn slack(dice: &mut StdRng) -> Value {
    let methods = [
        "chat.postMessage",
        "chat.update",
        "conversations.history",
        "conversations.replies",
        "conversations.info",
        "users.info",
        "usergroups.list",
        "apps.connections.open",
        "response_url",
    ];
    let kinds = ["status_500", "rate_limited", "lost_answer", "timeout", "slow:700"];
    let envelopes = ["duplicate_same_envelope", "duplicate_new_envelope", "lost_ack"];
    let count = dice.random_range(1..4);
    if dice.random_ratio(1, 4) {
        return json!({ "method": "slash_commands", "kind": envelopes.choose(dice).unwrap(), "count": 1 });
    }
    json!({
        "method": methods.choose(dice).unwrap(), "kind": kinds.choose(dice).unwrap(), "count": count,
        "retry_after": dice.random_range(1..5),
    })
}

fn socket(dice: &mut StdRng) -> Strike {
    let count = dice.random_range(1..3);
    match dice.random_range(0..4) {
        0 => Strike::Socket("disconnect", json!({ "reason": "warning", "count": count })),
        1 => Strike::Socket("disconnect", json!({ "reason": "refresh_requested", "count": count })),
        2 => Strike::Socket("outage", json!({ "kind": "break", "count": count })),
        _ => Strike::Socket("outage", json!({ "kind": "half_open", "count": count })),
    }
}

fn store(dice: &mut StdRng, relay: bool) -> StoreFault {
    let operations = [
        Operation::OpenUpload,
        Operation::UploadPart,
        Operation::CompleteUpload,
        Operation::AbortUpload,
        Operation::ListParts,
        Operation::ListUploads,
        Operation::Put,
        Operation::Get,
        Operation::Head,
    ];
    let kinds = [
        StoreKind::Slow { millis: 700 },
        StoreKind::SlowDown,
        StoreKind::InternalError,
        StoreKind::Timeout,
        StoreKind::Broken,
        StoreKind::Cut {
            after_bytes: dice.random_range(0..300),
        },
        StoreKind::LostAnswer,
    ];
    match dice.random_range(0..12) {
        0 => return StoreFault::of(StoreKind::Corrupt).on(Operation::UploadPart),
        // Only what a pod puts has a URL that can expire.
        1 if !relay => {
            let fault = StoreFault::of(StoreKind::ExpiredUrl).on(Operation::UploadPart);
            return fault.of_key(["process.txt", "sockets.txt", "numbers.txt"].choose(dice).unwrap());
        }
        _ => {}
    }
    let kind = *kinds.choose(dice).unwrap();
    StoreFault::of(kind)
        .on(*operations.choose(dice).unwrap())
        .times(dice.random_range(1..4))
}

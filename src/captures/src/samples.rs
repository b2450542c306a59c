//! Values that the unit tests of this module share.

use diagbot_api::capture::{
    AgentIdentity, CaptureSpec, DiagnosticCapture, IdentitySource, PinnedTarget, StepMethod, StepSpec,
};
use diagbot_wire::{
    args::{OutputKind, ProcessSelector, StepArgs},
    control::PinnedProcess,
    digest::Digests,
    journal::{ChosenProcess, Hello},
    result::{ArtifactReport, StepOutcome, StepResult, Via},
};
use k8s_openapi::{
    api::core::v1::{EphemeralContainer, Pod},
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use serde_json::json;

use super::{
    config::{PullPolicy, SecretKey},
    container,
};

pub(super) fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

pub(super) fn secret() -> SecretKey {
    SecretKey::try_from(vec![7; 32]).expect("long enough")
}

pub(super) fn identity() -> AgentIdentity {
    AgentIdentity {
        uid: 1000,
        gid: Some(1000),
        source: IdentitySource::Status,
    }
}

pub(super) fn step(name: &str) -> StepSpec {
    let args = StepArgs {
        name: name.to_owned(),
        process: ProcessSelector::Jvm,
        output: OutputKind::Text,
        limit_bytes: 64 << 20,
        deadline_s: 60,
        after_s: 0,
        stop_on_error: false,
        argv: vec!["@jvm".to_owned(), "Thread.print".to_owned(), "-l".to_owned()],
    };
    StepSpec {
        diagnostic: name.to_owned(),
        method: StepMethod::Ephemeral,
        parameters: std::collections::BTreeMap::new(),
        step: args.render(),
        capabilities: Vec::new(),
        artifact: "threads.txt".to_owned(),
        media_type: "text/plain; charset=utf-8".to_owned(),
        sensitive: false,
        limit_bytes: 64 << 20,
        deadline_s: 60,
        optional: false,
    }
}

/// A capture of one step, created at second 0, with a deadline at second 300.
pub(super) fn capture() -> DiagnosticCapture {
    let mut capture = DiagnosticCapture::new(
        "d-0123456789abcdef-0",
        CaptureSpec {
            run: "d-0123456789abcdef".to_owned(),
            index: 0,
            target: PinnedTarget {
                cluster: "local".to_owned(),
                namespace: "shop".to_owned(),
                pod: "checkout-1".to_owned(),
                pod_uid: "uid-of-pod".to_owned(),
                container: "app".to_owned(),
                container_id: "containerd://aa".to_owned(),
                restart_count: 3,
                node: "n1".to_owned(),
            },
            steps: vec![step("jstack")],
            image: "diagbot-agent@sha256:1".to_owned(),
            requester: "slack:T1:U1".to_owned(),
            catalog_sha256: "c".to_owned(),
            deadline: MicroTime(at(300)),
        },
    );
    capture.metadata.uid = Some("uid-of-capture".to_owned());
    capture.metadata.creation_timestamp = Some(Time(at(0)));
    capture
}

/// The running target of [`capture`].
pub(super) fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "checkout-1", "namespace": "shop", "uid": "uid-of-pod"},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
        "status": {"phase": "Running", "containerStatuses": [{
            "name": "app", "image": "app", "imageID": "sha256:app", "containerID": "containerd://aa",
            "ready": true, "restartCount": 3,
            "state": {"running": {"startedAt": "2026-11-22T10:00:00Z"}},
            "user": {"linux": {"uid": 1000, "gid": 1000}},
        }]},
    }))
    .expect("a pod")
}

pub(super) fn container(capture: &DiagnosticCapture, attempt: u32) -> EphemeralContainer {
    container::build(
        capture,
        &pod(),
        attempt,
        &identity(),
        PullPolicy::IfNotPresent,
        &secret(),
    )
    .expect("a sound capture")
}

pub(super) fn hello() -> Hello {
    Hello {
        version: diagbot_wire::VERSION,
        capture: "d-0123456789abcdef-0".to_owned(),
        uid: 1000,
        gid: 1000,
        processes: vec![ChosenProcess {
            pinned: PinnedProcess {
                step: 0,
                pid: 1,
                start_time: 99,
            },
            uid: 1000,
            gid: 1000,
            comm: "java".to_owned(),
            container_id: "aa".to_owned(),
        }],
        unmatched: Vec::new(),
    }
}

pub(super) fn step_result() -> StepResult {
    StepResult {
        step: 0,
        artifact: Some(ArtifactReport {
            digests: Digests {
                size_bytes: 5,
                sha256: "s".to_owned(),
                crc64nvme: "c".to_owned(),
            },
            parts: 1,
            etag: "e-1".to_owned(),
            via: Via::Direct,
            suffix: String::new(),
            preview: "first line".to_owned(),
            findings: Vec::new(),
            note: String::new(),
            redaction: None,
        }),
        outcome: StepOutcome::Done,
        started_ms: 1_000,
        ended_ms: 2_000,
    }
}

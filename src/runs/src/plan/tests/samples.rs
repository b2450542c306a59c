//! A small world for tests of the plan: runs, pods, a catalog, and a loop that answers the plan's questions.

use std::sync::Arc;

use diagbot_api::{
    approval::{ANNOTATION_VERDICT, Appeal, Audience, VerdictRequest},
    capture::{ANNOTATION_CANCEL, CapturePhase, CaptureStatus, DiagnosticCapture},
    decision::Decision,
    pause::Pause,
    request_key::RequestKey,
    requester::Requester,
    run::{CancelRequest, DiagnosticRun, Origin, RunSpec, RunStatus},
    target,
};
use diagbot_catalog::{Catalog, load::Allowances};
use diagbot_cluster::resolve::{Found, How};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::MicroTime};
use serde_json::json;

use crate::{
    admission::{BudgetConfig, Use},
    plan::{Action, Facts, plan},
    preflight::{Preflight, TargetSnapshot},
    reason::Reason,
    request::RunRequest,
};

pub(crate) const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

pub(crate) fn ada() -> Requester {
    Requester {
        team: "T1".into(),
        user: "U1".into(),
    }
}

/// `jstack shop/checkout-1`, changed.
pub(crate) fn run(change: impl FnOnce(&mut RunSpec)) -> DiagnosticRun {
    let request = RunRequest {
        key: RequestKey::Cli { id: "1".into() },
        requester: ada(),
        origin: Origin::default(),
        diagnostic: "jstack".into(),
        parameters: [].into(),
        target: target::parse("shop/checkout-1").unwrap(),
        targets: None,
        armed_until: None,
        dry_run: false,
        confirmed: false,
        appeal: Appeal::default(),
        received_at: NOW,
    };
    let mut spec = request.spec();
    change(&mut spec);
    let mut run = DiagnosticRun::new(request.name().as_str(), spec);
    run.metadata.uid = Some("run-uid".into());
    run.metadata.namespace = Some("diagbot".into());
    run
}

pub(crate) fn catalog() -> Catalog {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../commands");
    let names = [
        "jstack.yaml",
        "heap-dump.yaml",
        "heap-histogram.yaml",
        "pod-report.yaml",
        "process.yaml",
        "sockets.yaml",
        "runbooks/first-response.yaml",
        "runbooks/slow-network.yaml",
    ];
    let files = names.map(|name| {
        let text = std::fs::read_to_string(format!("{folder}/{name}")).expect("it is shipped");
        (name.to_owned(), text)
    });
    let allowances = Allowances { unpinned_images: true };
    Catalog::parse(&files, allowances).expect("the shipped catalog is sound")
}

pub(crate) fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-of-{name}")},
        "spec": {"nodeName": "n1", "containers": [{"name": "app"}]},
        "status": {"phase": "Running", "containerStatuses": [{
            "name": "app", "containerID": "containerd://c1", "restartCount": 2, "ready": true, "image": "i",
            "imageID": "d", "state": {"running": {}}
        }]}
    }))
    .unwrap()
}

pub(crate) fn found(how: How, names: &[&str]) -> Found {
    Found {
        how,
        pods: names.iter().map(|name| pod(name)).collect(),
        count: names.len(),
        near: Vec::new(),
        siblings: Vec::new(),
    }
}

pub(crate) fn allowed(allowed: bool) -> Decision {
    Decision {
        allowed,
        user: "slack:T1:U1".into(),
        groups: vec![],
        authorizer_reason: String::new(),
        diagnostic: String::new(),
        at: MicroTime(NOW),
    }
}

/// The target of [`run`] as it was pinned, in a namespace that takes part.
pub(crate) fn surveyed() -> Preflight {
    Preflight {
        snapshots: vec![TargetSnapshot {
            labels: [("diagbot.dev/enabled".to_owned(), "true".to_owned())].into(),
            pod_uid: Some("uid-of-checkout-1".into()),
            container_id: "containerd://c1".into(),
            siblings: ["uid-of-checkout-1", "uid-of-checkout-2"].map(str::to_owned).into(),
            ..TargetSnapshot::default()
        }],
        audience: Audience {
            channel: true,
            requester: true,
        },
        break_glass: None,
        members: None,
        approver: Some(allowed(true)),
    }
}

/// A world in which the plan's questions have answers and its acts have effects.
pub(crate) struct World {
    pub(crate) run: DiagnosticRun,
    pub(crate) captures: Vec<Arc<DiagnosticCapture>>,
    pub(crate) target: Result<Found, Reason>,
    pub(crate) review: Result<Vec<Decision>, Reason>,
    pub(crate) preflight: Result<Preflight, Reason>,
    pub(crate) pauses: Vec<Pause>,
    pub(crate) uses: Vec<Use>,
    pub(crate) slots: usize,
    pub(crate) agent_image: &'static str,
    pub(crate) catalog: Catalog,
    pub(crate) refused: Option<(String, String)>,
    pub(crate) now: Timestamp,
    pub(crate) acts: Vec<Action>,
}

impl World {
    pub(crate) fn new(run: DiagnosticRun) -> Self {
        Self {
            run,
            captures: Vec::new(),
            target: Ok(found(How::Exact, &["checkout-1"])),
            review: Ok(vec![allowed(true)]),
            preflight: Ok(surveyed()),
            pauses: Vec::new(),
            uses: Vec::new(),
            slots: usize::MAX,
            agent_image: "agent@sha256:0",
            catalog: catalog(),
            refused: None,
            now: NOW,
            acts: Vec::new(),
        }
    }

    /// One decision, with the answers given so far.
    fn decide(&self, answered: (bool, bool), surveyed: bool) -> Action {
        let clusters = ["local".to_owned(), "eu".to_owned()];
        let facts = Facts {
            run: &self.run,
            captures: &self.captures,
            refused: self.refused.as_ref(),
            catalog: &self.catalog,
            agent_image: self.agent_image,
            clusters: &clusters,
            target: Some(&self.target).filter(|_| answered.0),
            review: Some(&self.review).filter(|_| answered.1),
            preflight: Some(&self.preflight).filter(|_| surveyed),
            pauses: &self.pauses,
            budgets: &BudgetConfig::default(),
            uses: &self.uses,
            slots: self.slots,
            now: self.now,
        };
        plan(&facts).expect("the plan makes legal transitions only")
    }

    /// Lets the plan go on until it waits; the status then.
    pub(crate) fn settle(&mut self) -> RunStatus {
        let mut answered = (false, false);
        let mut surveyed = false;
        for _ in 0..20 {
            let action = self.decide(answered, surveyed);
            self.acts.push(action.clone());
            match action {
                Action::FindTarget { .. } => answered.0 = true,
                Action::Review { .. } => {
                    answered.1 = true;
                    for decision in self.review.iter_mut().flatten() {
                        decision.at = MicroTime(self.now);
                    }
                }
                Action::Preflight(question) => {
                    surveyed = true;
                    // Further targets are like the first.
                    if let Ok(preflight) = &mut self.preflight {
                        let first = preflight.snapshots.first().cloned().unwrap_or_default();
                        preflight.snapshots.resize(question.targets.len(), first);
                    }
                }
                Action::Record(status) => self.run.status = Some(*status),
                Action::CreateCapture(mut capture) => {
                    capture.metadata.uid = Some("capture-uid".into());
                    self.captures.push(Arc::from(capture));
                }
                Action::CancelCaptures(names) => {
                    for name in names {
                        self.change(&name, |capture| {
                            let annotations = capture.metadata.annotations.get_or_insert_default();
                            annotations.insert(ANNOTATION_CANCEL.into(), "true".into());
                        });
                    }
                }
                Action::Wait(_) => return self.run.status.clone().unwrap_or_default(),
            }
        }
        panic!("the plan does not come to rest: {:?}", self.acts);
    }

    fn change(&mut self, name: &str, change: impl Fn(&mut DiagnosticCapture)) {
        for capture in &mut self.captures {
            if capture.metadata.name.as_deref() == Some(name) {
                change(Arc::make_mut(capture));
            }
        }
    }

    /// What the captures' controller reports.
    pub(crate) fn report(&mut self, change: impl Fn(&mut CaptureStatus)) {
        for capture in &mut self.captures {
            change(Arc::make_mut(capture).status.get_or_insert_default());
        }
    }

    pub(crate) fn report_phase(&mut self, phase: CapturePhase) {
        self.report(|status| status.phase = phase);
    }

    pub(crate) fn cancel(&mut self) {
        let request = CancelRequest { by: ada(), at: NOW };
        let text = serde_json::to_string(&request).unwrap();
        let annotations = self.run.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION_CANCEL.into(), text);
    }

    /// A second person says something.
    pub(crate) fn say(&mut self, by: &str, approved: bool) {
        let request = VerdictRequest {
            by: Requester {
                team: "T1".into(),
                user: by.into(),
            },
            approved,
            at: self.now,
            channel: "C1".into(),
        };
        let text = serde_json::to_string(&request).unwrap();
        let annotations = self.run.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION_VERDICT.into(), text);
    }

    pub(crate) fn made(&self) -> usize {
        self.acts
            .iter()
            .filter(|act| matches!(act, Action::CreateCapture(_)))
            .count()
    }
}

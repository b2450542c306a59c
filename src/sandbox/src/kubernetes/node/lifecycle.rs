//! The life of one container: pull, create, run, end, and again.
//!
//! Owns the order of a kubelet's steps, their states and events, and the back-off. One task a container.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Slot,
    container::{Run, Start, StartError},
    events::{Weight, record},
    identity::identity_of,
    image::Image,
    isolation::Isolation,
    launch::{self, Launch, Place as Where, SEARCH_PATH},
    status::{self, Place, Section},
};
use crate::kubernetes::{
    cluster::Cluster,
    faults::{FaultKind, Occasion},
    pod::list,
    store::{now, text},
};

/// From the accepted container to its process on an idle pod, less what the start itself takes: 0.17 s were measured.
const START_LATENCY: Duration = Duration::from_millis(110);
/// From the end of a process to its status: up to 1 s were measured, half of that at the median.
const NOTICE_LATENCY: Duration = Duration::from_millis(250);
/// First pause of a kubelet's back-off; doubled each time.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// Longest pause of a kubelet's back-off.
const BACKOFF_LONGEST: Duration = Duration::from_mins(5);

/// A container to be run.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) cluster: Arc<Cluster>,
    pub(super) place: Place,
    /// The pod as it was when the container was taken up: its spec does not change, but for more ephemeral containers.
    pub(super) pod: Arc<Value>,
    pub(super) spec: Value,
    pub(super) slot: Arc<Slot>,
}

/// Why a life goes no further.
enum Over {
    /// The pod or the server is being ended.
    Stopped,
    /// Nothing more will happen to this container.
    Settled,
}

/// Lives it.
pub(super) async fn live(life: Life) {
    // Both ends are ordinary ones.
    let _over = life.run().await;
}

impl Life {
    fn stop(&self) -> &CancellationToken {
        &self.slot.stop
    }

    fn waits(&self, reason: &str, message: &str) {
        status::write(&self.cluster, &self.place, status::waiting(reason, message), None);
    }

    fn event(&self, weight: Weight, reason: &str, message: &str) {
        record(&self.cluster, &self.place, weight, reason, message);
    }

    async fn pause(&self, duration: Duration) -> Result<(), Over> {
        tokio::select! {
            () = self.stop().cancelled() => Err(Over::Stopped),
            () = sleep(duration) => Ok(()),
        }
    }

    async fn run(&self) -> Result<(), Over> {
        self.waits("ContainerCreating", "");
        let image = self.pull().await?;
        if image == Image::Idle {
            status::write(&self.cluster, &self.place, status::running(&now()), None);
            return Err(Over::Settled);
        }
        self.pause(START_LATENCY).await?;
        let mut backoff = Duration::ZERO;
        loop {
            let run = self.start(image).await?;
            let begun = Instant::now();
            let started = now();
            status::write(&self.cluster, &self.place, status::running(&started), Some(&run));
            let code = tokio::select! {
                () = self.stop().cancelled() => return Err(Over::Stopped),
                code = run.ended() => code,
            };
            self.pause(NOTICE_LATENCY).await?;
            status::write(
                &self.cluster,
                &self.place,
                status::terminated(&run, code, &started),
                Some(&run),
            );
            if !self.restarts_after(code) {
                return Err(Over::Settled);
            }
            // A kubelet restarts at once the first time, and forgets its back-off after ten good minutes.
            let disturbed = run.disturbed.load(Ordering::Relaxed);
            if disturbed || begun.elapsed() > Duration::from_mins(10) {
                backoff = Duration::ZERO;
            }
            if !backoff.is_zero() {
                self.back_off(backoff).await?;
            }
            backoff = if disturbed {
                Duration::ZERO
            } else {
                (backoff * 2).clamp(BACKOFF_FIRST, BACKOFF_LONGEST)
            };
        }
    }

    fn restarts_after(&self, code: i32) -> bool {
        let policy = text(&self.pod["spec"]["restartPolicy"]);
        self.place.section == Section::Regular && (policy == "Always" || (policy == "OnFailure" && code != 0))
    }

    async fn back_off(&self, pause: Duration) -> Result<(), Over> {
        let pod = format!(
            "{}_{}({})",
            self.place.pod.name, self.place.pod.namespace, self.place.uid
        );
        let message = format!(
            "back-off {} restarting failed container={} pod={pod}",
            go_duration(pause),
            self.place.name
        );
        self.waits("CrashLoopBackOff", &message);
        let message = format!("Back-off restarting failed container {} in pod {pod}", self.place.name);
        self.event(Weight::Warning, "BackOff", &message);
        self.pause(pause).await
    }

    /// Pulls until the image is there; the states and events of each failed try.
    async fn pull(&self) -> Result<Image, Over> {
        let reference = &self.place.image;
        let occasion = Occasion {
            verb: "pull",
            resource: "images",
            name: reference,
        };
        let mut backoff = BACKOFF_FIRST;
        loop {
            let begun = Instant::now();
            let slow = |kind| matches!(kind, FaultKind::SlowPull { .. });
            let slow = self.cluster.faults.take(occasion, slow);
            let present = slow.is_none() && text(&self.spec["imagePullPolicy"]) != "Always";
            if let Some(FaultKind::SlowPull { millis }) = slow {
                self.event(Weight::Normal, "Pulling", &format!("Pulling image {reference:?}"));
                self.pause(Duration::from_millis(millis)).await?;
            }
            let broken = self
                .cluster
                .faults
                .take(occasion, |kind| kind == FaultKind::PullFails)
                .is_some();
            match Image::of_reference(reference) {
                Some(image) if !broken => {
                    self.pulled(present, begun);
                    return Ok(image);
                }
                _ => {}
            }
            if text(&self.spec["imagePullPolicy"]) == "Never" {
                let message = format!("Container image {reference:?} is not present with pull policy of Never");
                self.event(Weight::Warning, "ErrImageNeverPull", &message);
                self.event(Weight::Warning, "Failed", "Error: ErrImageNeverPull");
                self.waits("ErrImageNeverPull", &message);
                return Err(Over::Settled);
            }
            self.pull_failed(backoff).await?;
            backoff = (backoff * 2).min(BACKOFF_LONGEST);
        }
    }

    fn pulled(&self, present: bool, begun: Instant) {
        let reference = &self.place.image;
        if present {
            let message =
                format!("Container image {reference:?} already present on machine and can be accessed by the pod");
            self.event(Weight::Normal, "Pulled", &message);
        } else {
            let took = begun.elapsed().as_millis();
            let message = format!(
                "Successfully pulled image {reference:?} in {took}ms ({took}ms including waiting). Image size: 7340032 bytes."
            );
            self.event(Weight::Normal, "Pulled", &message);
        }
    }

    async fn pull_failed(&self, backoff: Duration) -> Result<(), Over> {
        let reference = &self.place.image;
        let why = format!(
            "failed to pull and unpack image {reference:?}: failed to resolve reference {reference:?}: {reference}: not found"
        );
        self.event(Weight::Normal, "Pulling", &format!("Pulling image {reference:?}"));
        self.pause(Duration::from_millis(200)).await?;
        self.event(
            Weight::Warning,
            "Failed",
            &format!("Failed to pull image {reference:?}: {why}"),
        );
        self.event(Weight::Warning, "Failed", "Error: ErrImagePull");
        self.waits("ErrImagePull", &why);
        self.pause(Duration::from_secs(1)).await?;
        let message = format!("Back-off pulling image {reference:?}: ErrImagePull: {why}");
        self.event(
            Weight::Normal,
            "BackOff",
            &format!("Back-off pulling image {reference:?}"),
        );
        self.event(Weight::Warning, "Failed", "Error: ImagePullBackOff");
        self.waits("ImagePullBackOff", &message);
        self.pause(backoff).await
    }

    /// Creates and starts the container; a failure is told, and tried again for regular containers.
    async fn start(&self, image: Image) -> Result<Arc<Run>, Over> {
        loop {
            let started = tokio::select! {
                () = self.stop().cancelled() => return Err(Over::Stopped),
                started = self.try_start(image) => started,
            };
            match started {
                Ok(run) => {
                    self.event(Weight::Normal, "Created", "Container created");
                    self.event(Weight::Normal, "Started", "Container started");
                    self.slot.began(&self.cluster.node, &run);
                    return Ok(run);
                }
                Err(refusal) => {
                    self.refused(&refusal);
                    if self.place.section == Section::Ephemeral {
                        return Err(Over::Settled);
                    }
                    self.pause(BACKOFF_FIRST).await?;
                }
            }
        }
    }

    fn refused(&self, refusal: &Refusal) {
        match refusal {
            Refusal::Config(message) => self.waits("CreateContainerConfigError", message),
            Refusal::Create(message) => self.waits("CreateContainerError", message),
            Refusal::Start(message) => {
                self.event(Weight::Normal, "Created", "Container created");
                status::write_start_error(&self.cluster, &self.place, message);
            }
            // Measured: the status stays ContainerCreating, only the event tells.
            Refusal::Target(_) => {}
        }
        self.event(Weight::Warning, "Failed", &format!("Error: {}", refusal.message()));
    }

    async fn try_start(&self, image: Image) -> Result<Arc<Run>, Refusal> {
        let node = &self.cluster.node;
        let identity = identity_of(&self.pod, &self.spec, image);
        self.check_non_root(identity.uid)?;
        let identity = node.effective(identity);
        let place = self.namespaces()?;
        let state = node
            .room_for(&self.place.uid, &self.place.name)
            .map_err(|e| Refusal::create(&e))?;
        let mut binds = self.volumes().map_err(|e| Refusal::create(&e))?;
        if image == Image::Checkout {
            let classes = node.checkout_classes().await.map_err(|e| Refusal::create(&e))?;
            binds.push((classes, "/app".to_owned()));
        }
        let isolated = node.isolation() != Isolation::Shared;
        let mut argv = image.argv(node.agents(), &words(&self.spec["command"]), &words(&self.spec["args"]));
        if !isolated && let Some((there, _)) = binds.iter().find(|(_, here)| here == "/app") {
            for word in argv.iter_mut().filter(|w| *w == "/app") {
                *word = there.to_string_lossy().into_owned();
            }
        }
        let launch = Launch {
            root: isolated.then_some(state),
            node_mounts: launch::mount_namespace().map_err(|e| Refusal::create(&e))?,
            program: (node.program_of(image).to_owned(), image.program().to_owned()),
            binds,
            read_only_root: self.spec["securityContext"]["readOnlyRootFilesystem"] == true,
            identity,
            take_identity: node.isolation() == Isolation::Namespaces,
            working_dir: text(&self.spec["workingDir"]).to_owned(),
            argv,
        };
        Run::start(Start {
            isolation: node.isolation(),
            spawner: &node.spawner,
            tasks: &self.cluster.tasks,
            program: &node.program,
            place,
            launch,
            image,
            env: self.env(),
            stdin: self.spec["stdin"] == true,
            stdin_once: self.spec["stdinOnce"] == true,
        })
        .await
        .map_err(|error| match error {
            StartError::Refused(message) => Refusal::Start(message),
            StartError::Io(error) => Refusal::create(&error),
        })
    }

    /// The kubelet's check of `runAsNonRoot`. Where uids can't be chosen, none is root's: see [`super::Node::effective`].
    fn check_non_root(&self, uid: u32) -> Result<(), Refusal> {
        let contexts = [&self.spec["securityContext"], &self.pod["spec"]["securityContext"]];
        let non_root = contexts.iter().find_map(|c| c["runAsNonRoot"].as_bool());
        if non_root != Some(true) || uid != 0 || self.cluster.node.isolation() != Isolation::Namespaces {
            return Ok(());
        }
        let chosen = contexts.iter().any(|c| c["runAsUser"].is_u64());
        let why = if chosen {
            "container's runAsUser breaks non-root policy"
        } else {
            "container has runAsNonRoot and image will run as root"
        };
        let Place { pod, uid, name, .. } = &self.place;
        Err(Refusal::Config(format!(
            "{why} (pod: \"{}_{}({uid})\", container: {name})",
            pod.name, pod.namespace
        )))
    }

    /// Where the process goes: beside the target for an ephemeral container that names one, beside the pod's first
    /// container under `shareProcessNamespace`, else by itself.
    fn namespaces(&self) -> Result<Where, Refusal> {
        let shared = self.pod["spec"]["shareProcessNamespace"] == true;
        let target = match text(&self.spec["targetContainerName"]) {
            "" if shared => text(&self.pod["spec"]["containers"][0]["name"]),
            target => target,
        };
        if target.is_empty() || target == self.place.name {
            return Ok(Where::New);
        }
        let current = self
            .cluster
            .node
            .slot(&self.place.uid, target)
            .and_then(|slot| slot.current());
        match current {
            Some(run) if run.running() => Ok(Where::Beside(run.pid)),
            other => {
                let id = other.map_or_else(String::new, |run| run.id.clone());
                let message = format!(
                    "failed to generate container \"{}\" spec: failed to generate spec opts: invalid target container: \
                     container {id:?} is not running - in state CONTAINER_EXITED",
                    hex::encode(rand::random::<[u8; 32]>())
                );
                Err(Refusal::Target(message))
            }
        }
    }

    /// emptyDir volumes as directories of the node; other kinds of volumes are left out.
    fn volumes(&self) -> std::io::Result<Vec<(PathBuf, String)>> {
        let volumes = list(&self.pod["spec"]["volumes"]);
        let mut binds = Vec::new();
        for mount in list(&self.spec["volumeMounts"]) {
            let name = text(&mount["name"]);
            if volumes.iter().any(|v| v["name"] == name && !v["emptyDir"].is_null()) {
                let directory = self.cluster.node.volume(&self.place.uid, name)?;
                binds.push((directory, text(&mount["mountPath"]).to_owned()));
            }
        }
        Ok(binds)
    }

    fn env(&self) -> BTreeMap<String, String> {
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), SEARCH_PATH.to_owned()),
            ("HOSTNAME".to_owned(), self.place.pod.name.clone()),
        ]);
        for entry in list(&self.spec["env"]) {
            if let Some(value) = entry["value"].as_str() {
                env.insert(text(&entry["name"]).to_owned(), value.to_owned());
            }
        }
        env
    }
}

/// A container that is not created or not started, in the runtime's words.
enum Refusal {
    /// Its spec can't be had.
    Config(String),
    /// It can't be created.
    Create(String),
    /// It was created, and its process can't be started.
    Start(String),
    /// The container whose processes it should see does not run.
    Target(String),
}

impl Refusal {
    fn create(error: &std::io::Error) -> Self {
        Self::Create(error.to_string())
    }

    fn message(&self) -> &str {
        match self {
            Self::Config(message) | Self::Create(message) | Self::Start(message) | Self::Target(message) => message,
        }
    }
}

fn words(value: &Value) -> Vec<String> {
    list(value).iter().map(|w| text(w).to_owned()).collect()
}

/// As Go prints a duration of whole seconds: `10s`, `1m20s`.
fn go_duration(duration: Duration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

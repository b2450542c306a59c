//! The node: takes up the pods that it finds in the store and runs their containers as real processes.
//!
//! Owns the pods' containers, their directories and the programs that they are made from. Never answers a client.
//!
//! # Design notes
//! * Level-triggered, as a kubelet: each change of a pod leads to one look at the whole pod ([`Node::take_up`]).
//! * An ephemeral container joins its target's PID namespace, with a root and a `/proc` of its own; see [`launch`] for how.

mod container;
mod events;
mod identity;
mod image;
mod init;
mod isolation;
mod journal;
mod launch;
mod lifecycle;
mod status;
mod termination;
mod workload;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub(super) use container::{Output, Run, exit_code};
use events::{Weight, record_of_pod};
use image::{Agents, Image};
pub use init::container_init;
use isolation::Isolation;
pub(super) use journal::Segment;
use launch::{Identity, Place as Where, Spawner};
use rustix::process::Signal;
use serde_json::{Value, json};
use status::{Place, Section};
use tempfile::TempDir;
pub(super) use termination::Disturbance;
use termination::{end_pod, replace};
use tokio::{process::Command, sync::OnceCell};
use tokio_util::sync::CancellationToken;
pub use workload::workload;

use super::{
    cluster::Cluster,
    kind,
    pod::list,
    seed::NODE,
    store::{Change, Key, now, text},
};

/// Scheme of container IDs.
pub(super) const ID_PREFIX: &str = "sandbox://";
/// The node of one sandbox cluster.
#[derive(Debug)]
pub(super) struct Node {
    program: PathBuf,
    agent: Option<PathBuf>,
    isolation: Isolation,
    spawner: Spawner,
    directory: TempDir,
    classes: OnceCell<PathBuf>,
    pods: Mutex<Pods>,
}

#[derive(Debug, Default)]
struct Pods {
    /// Containers taken up, by pod UID and container name.
    slots: BTreeMap<(String, String), Arc<Slot>>,
    /// Runs whose log can still be asked for, by their ID.
    runs: BTreeMap<String, Arc<Run>>,
    /// UIDs of pods that are being ended.
    ending: BTreeSet<String>,
}

/// One container of one pod.
#[derive(Debug)]
struct Slot {
    stop: CancellationToken,
    runs: Mutex<Vec<Arc<Run>>>,
}

impl Slot {
    fn current(&self) -> Option<Arc<Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    /// Notes a run that has begun. The log of the one before it is kept, older ones go.
    fn began(&self, node: &Node, run: &Arc<Run>) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.push(Arc::clone(run));
        // Who ends the pod cancels first and then kills what is noted: one of the two sees this run.
        if self.stop.is_cancelled() {
            run.signal(Signal::KILL);
        }
        let forgotten = if runs.len() > 2 { Some(runs.remove(0)) } else { None };
        drop(runs);
        let mut pods = node.lock();
        pods.runs.insert(run.id.clone(), Arc::clone(run));
        if let Some(forgotten) = forgotten {
            pods.runs.remove(&forgotten.id);
        }
    }
}

impl Node {
    pub(super) fn new(program: PathBuf, agent: Option<PathBuf>) -> io::Result<Self> {
        Ok(Self {
            program,
            agent,
            isolation: Isolation::probe(),
            spawner: Spawner::new()?,
            directory: tempfile::Builder::new().prefix("diagbot-node-").tempdir()?,
            classes: OnceCell::new(),
            pods: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// The file behind an image's program.
    fn program_of(&self, image: Image) -> &Path {
        match &self.agent {
            Some(agent) if image == Image::Agent => agent,
            _ => &self.program,
        }
    }

    fn agents(&self) -> Agents {
        if self.agent.is_some() {
            Agents::Alone
        } else {
            Agents::MultiCall
        }
    }

    /// Ends the thread that starts processes.
    pub(super) fn close(&self) {
        self.spawner.close();
    }

    /// The run with this `containerID`.
    pub(super) fn run_of(&self, container_id: &str) -> Option<Arc<Run>> {
        self.lock().runs.get(container_id.strip_prefix(ID_PREFIX)?).cloned()
    }

    /// The run of a pod's container that is alive now.
    pub(super) fn running(&self, uid: &str, container: &str) -> Option<Arc<Run>> {
        self.slot(uid, container)?.current().filter(|run| run.running())
    }

    fn slot(&self, uid: &str, container: &str) -> Option<Arc<Slot>> {
        self.lock().slots.get(&(uid.to_owned(), container.to_owned())).cloned()
    }

    /// A command inside a running container, not yet started; or the runtime's words for why it can't be.
    pub(super) fn exec(&self, run: &Run, argv: &[String]) -> Result<Command, String> {
        let mut argv = run.image.translate(argv, self.agents());
        let program = argv.first().cloned().unwrap_or_default();
        if self.isolation == Isolation::Shared {
            if let Some(first) = argv.first_mut().filter(|first| *first == run.image.program()) {
                *first = self.program_of(run.image).to_string_lossy().into_owned();
            }
        } else if !launch::has_program(&PathBuf::from(format!("/proc/{}/root", run.pid)), &program) {
            return Err(format!(
                "failed to exec in container: failed to start exec {:?}: OCI runtime exec failed: exec failed: unable to \
                 start container process: exec: {program:?}: {}",
                hex::encode(rand::random::<[u8; 32]>()),
                launch::why_not_found(&program)
            ));
        }
        let inner = launch::as_identity(&run.identity, self.isolation == Isolation::Namespaces, &argv);
        Ok(launch::command(
            self.isolation,
            Where::Inside(run.pid),
            &inner,
            &run.env,
        ))
    }

    /// Starts what [`Self::exec`] made.
    pub(super) async fn spawn(&self, command: Command) -> io::Result<tokio::process::Child> {
        self.spawner.spawn(command).await
    }

    /// Whom a container really runs as, where the machine does not let us choose; told in the status as it is.
    fn effective(&self, wanted: Identity) -> Identity {
        let (uid, gid) = match self.isolation {
            Isolation::Namespaces => return wanted,
            Isolation::UserNamespaces => (0, 0),
            Isolation::Shared => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        };
        Identity { uid, gid, ..wanted }
    }

    fn room_for(&self, uid: &str, container: &str) -> io::Result<PathBuf> {
        let parent = self.directory.path().join(uid).join(container);
        fs::create_dir_all(&parent)?;
        Ok(tempfile::Builder::new().prefix("root-").tempdir_in(parent)?.keep())
    }

    fn volume(&self, uid: &str, name: &str) -> io::Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let directory = self.directory.path().join(uid).join("volumes").join(name);
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))?;
        Ok(directory)
    }

    /// The directory with the classes of `checkout`, compiled once.
    async fn checkout_classes(&self) -> io::Result<PathBuf> {
        self.classes
            .get_or_try_init(|| workload::compile_checkout(self.directory.path()))
            .await
            .cloned()
    }

    /// Looks at one pod and starts, or ends, what it asks for.
    fn take_up(&self, cluster: &Arc<Cluster>, pod: &Arc<Value>) {
        let key = Key::new(
            &kind::POD,
            text(&pod["metadata"]["namespace"]),
            text(&pod["metadata"]["name"]),
        );
        let uid = text(&pod["metadata"]["uid"]).to_owned();
        if text(&pod["spec"]["nodeName"]).is_empty() {
            return schedule(cluster, &key, &uid);
        }
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            if self.lock().ending.insert(uid.clone()) {
                let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(30);
                cluster
                    .tasks
                    .spawn(end_pod(Arc::clone(cluster), key, uid, Duration::from_secs(grace)));
            }
            return;
        }
        let phase = text(&pod["status"]["phase"]);
        for section in [Section::Regular, Section::Ephemeral] {
            // The kubelet starts ephemeral containers in running pods only; elsewhere they stay without a status.
            let takes = if section == Section::Regular {
                !is_over(phase)
            } else {
                phase == "Running"
            };
            for spec in list(&pod["spec"][section.spec_field()]).iter().filter(|_| takes) {
                self.take_up_container(cluster, pod, &key, &uid, section, spec);
            }
        }
    }

    fn take_up_container(
        &self,
        cluster: &Arc<Cluster>,
        pod: &Arc<Value>,
        key: &Key,
        uid: &str,
        section: Section,
        spec: &Value,
    ) {
        let name = text(&spec["name"]).to_owned();
        let slot = {
            let mut pods = self.lock();
            if pods.ending.contains(uid) || pods.slots.contains_key(&(uid.to_owned(), name.clone())) {
                return;
            }
            let slot = Arc::new(Slot {
                stop: cluster.stop.child_token(),
                runs: Mutex::default(),
            });
            pods.slots.insert((uid.to_owned(), name.clone()), Arc::clone(&slot));
            slot
        };
        let place = Place {
            pod: key.clone(),
            uid: uid.to_owned(),
            section,
            name,
            image: text(&spec["image"]).to_owned(),
        };
        cluster.tasks.spawn(lifecycle::live(lifecycle::Life {
            cluster: Arc::clone(cluster),
            place,
            pod: Arc::clone(pod),
            spec: spec.clone(),
            slot,
        }));
    }

    /// Ends the containers of a pod at once, and forgets them; their logs go with them.
    fn abandon(&self, uid: &str) {
        let mut pods = self.lock();
        pods.ending.insert(uid.to_owned());
        let of_pod = |key: &(String, String)| key.0 == uid;
        let slots: Vec<Arc<Slot>> = pods
            .slots
            .iter()
            .filter(|(k, _)| of_pod(k))
            .map(|(_, s)| Arc::clone(s))
            .collect();
        pods.slots.retain(|key, _| !of_pod(key));
        for slot in slots {
            slot.stop.cancel();
            for run in slot.runs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                run.signal(Signal::KILL);
                pods.runs.remove(&run.id);
            }
        }
    }

    fn runs_of_pod(&self, uid: &str) -> Vec<Arc<Run>> {
        let pods = self.lock();
        pods.slots
            .iter()
            .filter(|(key, _)| key.0 == uid)
            .filter_map(|(_, slot)| slot.current())
            .collect()
    }
}

fn is_over(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// Follows the pods until the server stops, then ends every process.
pub(super) async fn run(cluster: Arc<Cluster>) {
    let mut changes = cluster.store.subscribe();
    let (mut revision, pods) = cluster.store.list(&kind::POD, None);
    for pod in &pods {
        cluster.node.take_up(&cluster, pod);
    }
    loop {
        changes.mark_unchanged();
        revision = match cluster.store.changes_since(&kind::POD, None, revision) {
            Ok((reached, entries)) => {
                for entry in entries {
                    if entry.change == Change::Deleted {
                        cluster.node.abandon(text(&entry.object["metadata"]["uid"]));
                        replace(&cluster, &entry.object);
                    } else {
                        cluster.node.take_up(&cluster, &entry.object);
                    }
                }
                reached
            }
            Err(error) => {
                tracing::debug!(%error, "the sandbox's node lists the pods anew");
                let (reached, pods) = cluster.store.list(&kind::POD, None);
                for pod in &pods {
                    cluster.node.take_up(&cluster, pod);
                }
                reached
            }
        };
        tokio::select! {
            () = cluster.stop.cancelled() => break,
            changed = changes.changed() => if changed.is_err() { break },
        }
    }
    let uids: BTreeSet<String> = cluster.node.lock().slots.keys().map(|(uid, _)| uid.clone()).collect();
    for uid in uids {
        cluster.node.abandon(&uid);
    }
}

fn schedule(cluster: &Cluster, key: &Key, uid: &str) {
    let scheduled = cluster.store.update(key, |pod| {
        let mut pod = pod.clone();
        pod["spec"]["nodeName"] = json!(NODE);
        let status = &mut pod["status"];
        status["hostIP"] = json!("127.0.0.1");
        status["hostIPs"] = json!([{ "ip": "127.0.0.1" }]);
        status["podIP"] = json!("127.0.0.1");
        status["podIPs"] = json!([{ "ip": "127.0.0.1" }]);
        status["startTime"] = json!(now());
        Ok(pod)
    });
    if scheduled.is_ok() {
        let message = format!("Successfully assigned {}/{} to {NODE}", key.namespace, key.name);
        record_of_pod(cluster, key, uid, "", Weight::Normal, "Scheduled", &message);
    }
}

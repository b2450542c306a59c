//! One capture, pursued until it is over: gathers facts, asks the plan, starts what it names, and waits for news.
//!
//! # Design notes
//! What is under way is known by the action's key, so that the plan may name an action again and again. An action that
//! failed and may succeed later waits out its backoff; its trouble is shown to people meanwhile. Nothing here survives a
//! restart, and nothing needs to.

mod apply;

use std::{
    collections::{HashMap, HashSet},
    mem::Discriminant,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use diagbot_api::capture::IdentitySource;
use diagbot_base::retry::Backoff;
use diagbot_wire::control as keys;
use futures::future::OptionFuture;
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    act::{self, ActError, Outcome, TaskContext},
    container,
    control::Control,
    explain::{self, Refusal},
    identity::ImageUsers,
    launch::ContainerView,
    log::{self, LogItem},
    plan::{self, Action, AttemptFacts, Facts, Fault, LogState, Plan, PodFact},
    pods,
};

/// Log lines between the reader and us; a full queue slows the reader.
const LOG_QUEUE: usize = 64;
/// An action of a capture whose deadline has passed this long ago, and which still fails, is given up.
const LAST_GRACE_S: i64 = 600;
/// Longest sleep without news: guards against a plan that waits for nothing.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

type Key = (Discriminant<Action>, u16);
type Done = (Action, Result<Outcome, ActError>);

/// What is learnt about images, shared by all tasks of the process.
pub(super) type SharedImageUsers = Arc<Mutex<ImageUsers>>;

/// The task of one capture.
pub(super) struct CaptureTask {
    scene: Arc<TaskContext>,
    facts: Facts,
    image_users: SharedImageUsers,
    pod: watch::Receiver<PodFact>,
    jobs: JoinSet<Done>,
    under_way: HashSet<Key>,
    delays: HashMap<Key, (Backoff, Instant)>,
    reader: Option<Reader>,
    warmed: Option<u32>,
    streams: JoinSet<()>,
    finishing: bool,
    over: bool,
}

/// The reader of the attempt's log.
struct Reader {
    lines: mpsc::Receiver<LogItem>,
    container_over: Arc<AtomicBool>,
    task: AbortHandle,
}

/// Pursues a capture until it is over, is no longer ours, or `stop`.
pub(super) async fn drive(scene: Arc<TaskContext>, image_users: SharedImageUsers, stop: CancellationToken) {
    let (tell, pod) = watch::channel(PodFact::Unknown);
    let mut streams = JoinSet::new();
    let target = scene.status_writer.current().spec.target.pod.clone();
    streams.spawn(pods::watch(scene.streaming_pods(), target, tell));
    let known = image_users.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut facts = Facts::new(
        scene.status_writer.current(),
        scene.now(),
        scene.context.config.launch_limit_s,
        Arc::new(known),
    );
    facts.direct = scene.context.store.direct().is_some();
    let mut task = CaptureTask {
        scene,
        facts,
        image_users,
        pod,
        jobs: JoinSet::new(),
        under_way: HashSet::new(),
        delays: HashMap::new(),
        reader: None,
        warmed: None,
        streams,
        finishing: false,
        over: false,
    };
    task.run(&stop).await;
}

impl CaptureTask {
    async fn run(&mut self, stop: &CancellationToken) {
        let mut object = self.scene.status_writer.watch();
        while !self.over {
            self.refresh().await;
            let next = plan::plan(&self.facts);
            if next.over {
                return self.hear_the_end().await;
            }
            self.follow(&next);
            let wake = self.start(&next);
            tokio::select! {
                () = stop.cancelled() => return,
                _ = object.changed() => {}
                Ok(()) = self.pod.changed() => self.facts.pod = self.pod.borrow_and_update().clone(),
                Some(Some(item)) = OptionFuture::from(self.reader.as_mut().map(|r| r.lines.recv())) => self.heard(item),
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => match done {
                    Ok((action, outcome)) => self.done(&action, outcome),
                    Err(error) => {
                        tracing::error!(error = %error, "an action of a capture panicked; the capture is looked at anew");
                        return;
                    }
                },
                () = tokio::time::sleep(wake) => {}
            }
        }
    }

    /// The watch may tell of the end before the answer to its write does: that answer is waited for.
    async fn hear_the_end(&mut self) {
        while self.finishing
            && let Some(Ok((action, outcome))) = self.jobs.join_next().await
        {
            self.done(&action, outcome);
        }
    }

    /// Takes the newest facts.
    async fn refresh(&mut self) {
        self.facts.now = self.scene.now();
        self.facts.capture = self.scene.status_writer.current();
        self.facts.relayed_bytes = self.scene.relayed_bytes.load(Ordering::Relaxed);
        if self.pod.has_changed().unwrap_or(false) {
            self.facts.pod = self.pod.borrow_and_update().clone();
        }
        self.build_container();
        self.prepare_control().await;
        if let Some(reader) = &self.reader {
            let ended =
                matches!(self.facts.view(), ContainerView::Terminated { .. }) || self.facts.pinned_pod().is_none();
            reader.container_over.store(ended, Ordering::Release);
        }
    }

    /// The container that the recorded attempt wants.
    fn build_container(&mut self) {
        let attempt = self.facts.attempt_number();
        let identity = self.facts.recorded(|s| s.identity);
        let (None, Some(identity), PodFact::Seen(pod)) = (&self.facts.attempt.wanted, identity, &self.facts.pod) else {
            return;
        };
        let context = &self.scene.context;
        let pull = context.config.pull_policy;
        match container::build(&self.facts.capture, pod, attempt, &identity, pull, &context.secret) {
            Ok(wanted) => self.facts.attempt.wanted = Some(Arc::new(wanted)),
            Err(error) => {
                let explanation = explain::refusal(Refusal::Invalid, &error.to_string());
                self.facts.faults.insert(Fault::StatusWriter, explanation);
            }
        }
    }

    async fn prepare_control(&mut self) {
        let attempt = self.facts.attempt_number();
        let Some(container) = self.facts.recorded(|s| s.container.clone()) else {
            return;
        };
        if self.warmed == Some(attempt) {
            return;
        }
        self.warmed = Some(attempt);
        let pod = self.facts.spec().target.pod.clone();
        let control = Control::new(self.scene.streaming_pods(), pod, container);
        *self.scene.control.write().await = Some(Arc::new(control));
    }

    /// Starts what the plan names and is not under way; returns how long to sleep.
    fn start(&mut self, next: &Plan) -> Duration {
        let now = Instant::now();
        let mut sleep = LONGEST_SLEEP;
        if let Some(at) = next.wake_at {
            let wait = at.duration_since(self.facts.now).unsigned_abs();
            sleep = sleep.min(wait.max(Duration::from_millis(1)));
        }
        for action in &next.actions {
            let key = key(action);
            // An upload that is being opened is on no record yet, and whoever keeps an artifact may be describing it: the end
            // waits, so that nothing is forgotten or done twice.
            let ends = matches!(action, Action::AbortUploads | Action::WriteManifest | Action::Finish(_));
            if self.under_way.contains(&key) || ends && self.keeps() {
                continue;
            }
            if let Some((_, not_before)) = self.delays.get(&key)
                && *not_before > now
            {
                sleep = sleep.min(*not_before - now);
                continue;
            }
            self.finishing |= matches!(action, Action::Finish(_));
            self.under_way.insert(key);
            let (scene, facts, action) = (Arc::clone(&self.scene), self.facts.clone(), action.clone());
            self.jobs.spawn(async move {
                let outcome = act::perform(&scene, &facts, &action).await;
                (action, outcome)
            });
        }
        sleep
    }

    /// Whether uploads are being opened or artifacts kept.
    fn keeps(&self) -> bool {
        let step = 0;
        let kinds = [
            Action::OpenUploads,
            Action::Relay { step },
            Action::Complete { step },
            Action::Report { step },
        ]
        .map(|action| key(&action).0);
        self.under_way.iter().any(|(kind, _)| kinds.contains(kind))
    }

    /// Streams: the log while there is something to hear, the way to the agent while there may be something to say.
    fn follow(&mut self, next: &Plan) {
        let Some(name) = self.facts.recorded(|s| s.container.clone()) else {
            return;
        };
        if next.follow && self.reader.is_none() {
            let (sender, lines) = mpsc::channel(LOG_QUEUE);
            let container_over = Arc::new(AtomicBool::new(matches!(
                self.facts.view(),
                ContainerView::Terminated { .. }
            )));
            let over = Arc::clone(&container_over);
            let (pods, pod) = (self.scene.streaming_pods(), self.facts.spec().target.pod.clone());
            let task = self
                .streams
                .spawn(async move { log::follow(pods, pod, name, &over, sender).await });
            self.reader = Some(Reader {
                lines,
                container_over,
                task,
            });
            if next.control {
                let scene = Arc::clone(&self.scene);
                self.streams.spawn(async move {
                    let control = scene.control.read().await.clone();
                    if let Some(control) = control {
                        control.warm().await;
                    }
                });
            }
        }
    }

    /// Takes what the reader passed on, and all that is waiting behind it.
    fn heard(&mut self, first: LogItem) {
        let uid = self.facts.capture.metadata.uid.clone().unwrap_or_default();
        let key = keys::journal_key(self.scene.context.secret.expose(), &uid, self.facts.attempt_number());
        let mut item = Some(first);
        while let Some(heard) = item {
            match heard {
                LogItem::Line(line) => {
                    let knew = self.facts.attempt.journal.hello.is_some();
                    self.facts.attempt.heard_at = Some(self.scene.now());
                    let rejected = self.facts.attempt.journal.rejected();
                    self.facts.attempt.journal.take(&line, &key);
                    let strangers = self.facts.attempt.journal.rejected() - rejected;
                    self.scene.context.metrics.journal_rejected.inc_by(strangers);
                    if !knew && self.facts.attempt.journal.hello.is_some() {
                        self.moment("hello");
                    }
                }
                LogItem::Complete => self.facts.attempt.log = LogState::Complete,
                LogItem::Lost => self.facts.attempt.log = LogState::Lost,
            }
            item = self.reader.as_mut().and_then(|r| r.lines.try_recv().ok());
        }
        self.learn();
    }

    /// Remembers the user of the target's image, once the agent has found that it fits.
    fn learn(&mut self) {
        let guessed = self
            .facts
            .recorded(|s| s.identity)
            .is_some_and(|i| matches!(i.source, IdentitySource::Hello | IdentitySource::Look));
        let journal = &self.facts.attempt.journal;
        let (true, true, Some(hello)) = (guessed, journal.started, &journal.hello) else {
            return;
        };
        let (Some(pod), Some(process)) = (
            self.facts.pinned_pod(),
            plan::chosen(&self.facts, hello).first().copied(),
        ) else {
            return;
        };
        let target = &self.facts.spec().target.container;
        if let Some(status) = super::identity::container_status(pod, target) {
            self.image_users.lock().unwrap_or_else(PoisonError::into_inner).learn(
                &status.image_id,
                i64::from(process.uid),
                i64::from(process.gid),
            );
        }
    }

    fn moment(&mut self, name: &'static str) {
        let now = self.scene.now();
        self.facts.trace.entry(name).or_insert(now);
    }

    /// A new attempt begins with nothing known.
    fn begin_anew(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.task.abort();
        }
        self.facts.attempt = AttemptFacts::default();
        self.facts.trace.clear();
        self.facts.trouble = None;
    }
}

/// What makes two actions the same.
fn key(action: &Action) -> Key {
    let step = match action {
        Action::SendUrls { step, .. }
        | Action::Relay { step }
        | Action::SendRelease { step }
        | Action::Complete { step }
        | Action::Report { step } => *step,
        _ => 0,
    };
    (std::mem::discriminant(action), step)
}

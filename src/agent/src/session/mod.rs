//! The life of the agent: hello, ticket, steps, result, end. One path, whatever happens: whoever reads the journal always
//! finds an end line, unless the container itself was killed.

mod delivery;

use std::{process::ExitCode, rc::Rc, time::Duration};

use delivery::Delivery;
use diagbot_analysis::redact::{RuleError, Rules};
use diagbot_wire::{
    VERSION,
    args::{AgentArgs, StepArgs},
    control::{CancelReason, PinnedProcess, Ticket},
    digest::sha256_hex,
    journal::{ChosenProcess, Event, Hello},
    result::{CaptureResult, Failure, SignedResult, StepOutcome, StepResult},
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cleanup::Cleanup,
    clock::now_ms,
    hotspot::Signalled,
    inbox::{self, Contents, Inbox},
    journal::Journal,
    process::{ProcFs, Process, choose},
    relay::{self, Staged},
    step,
    step_context::{Context, StepError},
};

/// Longest wait for a JVM that still writes a dump that nobody wants any more: within the half minute that a kubelet leaves
/// by default between SIGTERM and SIGKILL.
const WRITERS_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for the store once told to stop. With the writers' deadline before it, it stays below the 30 s after which
/// the bot takes a stop for unproven.
const STOPPED_PATIENCE: Duration = Duration::from_secs(10);

/// Processes that the introduction names at most, where there are no more steps: they fit on one line.
const MOST_NAMED: usize = 30;

/// What the parts of a session share.
pub(crate) struct Session<'a> {
    args: &'a AgentArgs,
    proc_fs: ProcFs,
    /// The processes that fit each step, as they were at the start: one of each container.
    processes: Vec<Vec<Process>>,
    journal: Journal,
    inbox: Rc<Inbox>,
    cleanup: Cleanup,
    signalled: Signalled,
    staged: Staged,
    /// Why the bot can't fetch files from here.
    no_relay: Option<String>,
}

/// Runs the agent from hello to end.
pub(crate) async fn run(args: &AgentArgs) -> ExitCode {
    let lines = match inbox::lines_of_stdin() {
        Ok(lines) => lines,
        Err(error) => return crate::complain(&format!("read standard input: {error}")),
    };
    let inbox = Rc::new(Inbox::new(&args.nonce_sha256));
    let proc_fs = ProcFs::system();
    let own_pid = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    let all = proc_fs.all();
    // Without a door, only the relay is lost.
    let (door, no_relay) = match relay::open() {
        Ok(door) => (Some(door), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let session = Session {
        args,
        processes: args
            .steps
            .iter()
            .map(|step| choose(&all, step.process, own_pid, &proc_fs))
            .collect(),
        proc_fs,
        journal: Journal::new(std::io::stdout()),
        inbox: Rc::clone(&inbox),
        cleanup: Cleanup::default(),
        signalled: Signalled::default(),
        staged: Staged::default(),
        no_relay,
    };
    let serving = async {
        match &door {
            Some(door) => relay::serve(door, &session.staged).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = session.live() => ExitCode::SUCCESS,
        () = inbox.pump(lines) => ExitCode::FAILURE,
        () = serving => ExitCode::FAILURE,
        () = cancel_in_time(&inbox, Duration::from_secs(args.deadline_s.into())) => ExitCode::FAILURE,
    }
}

/// Turns SIGTERM and the hard deadline into cancellation; never returns, since the session still has to end in order.
async fn cancel_in_time(inbox: &Inbox, deadline: Duration) {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminated => inbox.cancel(CancelReason::Requested),
        () = tokio::time::sleep(deadline) => inbox.cancel(CancelReason::Deadline),
    }
    std::future::pending::<()>().await;
}

impl Session<'_> {
    async fn live(&self) {
        self.hello();
        let wait = Duration::from_secs(self.args.wait_s.into());
        let ticket = tokio::select! {
            ticket = self.inbox.wait(Contents::take_ticket) => Some(ticket),
            _ = self.inbox.wait(|contents| contents.cancelled()) => None,
            () = tokio::time::sleep(wait) => None,
        };
        match ticket {
            Some(ticket) => self.work(ticket).await,
            // Nobody came, or changed their mind: nothing was touched.
            None => self.end("", false, true),
        }
    }

    fn hello(&self) {
        let named = |step: u16, process: &Process| ChosenProcess {
            pinned: PinnedProcess {
                step,
                pid: process.pid,
                start_time: process.start_time,
            },
            uid: process.uid,
            gid: process.gid,
            comm: process.comm.chars().take(64).collect(),
            container_id: process.container_id.clone(),
        };
        let wants_one = |step: &StepArgs| step.process != diagbot_wire::args::ProcessSelector::None;
        let numbered = || (0_u16..).zip(&self.processes);
        let unmatched = numbered()
            .zip(&self.args.steps)
            .filter(|((_, fitting), step)| fitting.is_empty() && wants_one(step))
            .map(|((step, _), _)| step)
            .collect();
        // Every step's first before any step's second: what does not find room on the line is a further container's.
        let most = self.processes.iter().map(Vec::len).max().unwrap_or_default();
        let processes = (0..most)
            .flat_map(|rank| numbered().filter_map(move |(step, fitting)| Some(named(step, fitting.get(rank)?))))
            .take(self.processes.len().max(MOST_NAMED))
            .collect();
        self.journal.write(&Event::Hello(Hello {
            version: VERSION,
            capture: self.args.capture.clone(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            processes,
            unmatched,
        }));
    }

    async fn work(&self, mut ticket: Ticket) {
        let key = hex::decode(&ticket.journal_key).unwrap_or_default();
        self.journal.use_key(key.clone());
        let pinned: Vec<_> = ticket
            .processes
            .iter()
            .filter(|pinned| self.is_pinned(pinned))
            .cloned()
            .collect();
        self.journal.write(&Event::Started {
            processes: pinned.clone(),
        });
        let grants = std::mem::take(&mut ticket.grants);
        let direct: Vec<u16> = grants.iter().filter(|g| !g.urls.is_empty()).map(|g| g.step).collect();
        let url = grants.iter().find_map(|grant| grant.urls.first().cloned());
        self.inbox.add_grants(grants);
        let rules = rules_of(&ticket);
        let delivery = Delivery::new(self, &ticket, (direct, url), rules.as_ref().ok());
        let mut results = Vec::new();
        for (index, step) in (0_u16..).zip(&self.args.steps) {
            let result = match (self.stop_reason().await, unmet(&results, &self.args.steps)) {
                (Some(_), _) => ended(index, StepOutcome::Cancelled, None, now_ms()),
                (None, Some(outcome)) => ended(index, outcome, None, now_ms()),
                (None, None) => self.step(index, step, &pinned, &ticket, &rules, &delivery).await,
            };
            results.push(result.clone());
            self.journal.write(&Event::StepEnded { result });
        }
        let (removed, left) = self.cleanup.settle(WRITERS_DEADLINE).await;
        self.journal.write(&Event::CleanedUp { removed, left });
        let result = CaptureResult {
            version: VERSION,
            capture: self.args.capture.clone(),
            steps: results,
        };
        let sealed = SignedResult::seal(&result, &key);
        // A store that hangs must not keep back the proof that we stopped: the steps' ends are in the journal already.
        let stored = tokio::select! {
            stored = delivery.store_result(&sealed) => stored,
            () = self.patience_of_a_stop() => false,
        };
        self.end(
            &sha256_hex(sealed.body.as_bytes()),
            stored,
            self.stop_reason().await.is_some(),
        );
    }

    async fn step(
        &self,
        index: u16,
        step: &StepArgs,
        pinned: &[PinnedProcess],
        ticket: &Ticket,
        rules: &Result<Rules, RuleError>,
        delivery: &Delivery<'_>,
    ) -> StepResult {
        let pause = tokio::time::sleep(Duration::from_secs(step.after_s.into()));
        tokio::select! {
            () = pause => {}
            reason = self.inbox.wait(|contents| contents.cancelled()) => return stopped(index, reason, now_ms()),
        }
        let started_ms = now_ms();
        self.journal.write(&Event::StepStarted { step: index });
        let work = async {
            // Without its rules, text is not taken: the bot that sent them counts on them.
            let rules = rules
                .as_ref()
                .map_err(|error| StepError::new(Failure::Internal, format!("redaction: {error}")))?;
            let process = self.process_of(index, step, pinned)?;
            let context = Context {
                proc_fs: &self.proc_fs,
                process,
                cleanup: &self.cleanup,
                signalled: &self.signalled,
                room_bytes: ticket.room_bytes,
                rules,
                progress: &|captured| self.journal.progress(index, captured, 0, None),
            };
            step::run(step, &context).await
        };
        // Dropping the work stops the tool and removes what was written.
        let outcome = tokio::select! {
            outcome = work => outcome,
            reason = self.inbox.wait(|contents| contents.cancelled()) => return stopped(index, reason, started_ms),
        };
        let tool_ended_ms = now_ms();
        tokio::select! {
            result = delivery.deliver(index, step, outcome, started_ms, tool_ended_ms) => result,
            reason = self.inbox.wait(|contents| contents.cancelled()) => stopped(index, reason, started_ms),
        }
    }

    /// The step's process, if it is still the one that the ticket names.
    fn process_of(&self, index: u16, step: &StepArgs, pinned: &[PinnedProcess]) -> Result<Option<&Process>, StepError> {
        if step.process == diagbot_wire::args::ProcessSelector::None {
            return Ok(None);
        }
        let fitting = self.processes.get(usize::from(index)).map_or(&[][..], Vec::as_slice);
        if fitting.is_empty() {
            let text = format!("it looks for `{}`", step.process.as_str());
            return Err(StepError::new(Failure::NoSuchProcess, text));
        }
        let named = |process: &&Process| {
            let same =
                |p: &PinnedProcess| p.step == index && p.pid == process.pid && p.start_time == process.start_time;
            pinned.iter().any(same)
        };
        let chosen = fitting.iter().find(named);
        let Some(process) = chosen.filter(|process| process.is_still_there(&self.proc_fs)) else {
            return Err(StepError::new(
                Failure::TargetReplaced,
                "the process is no longer the one that was chosen",
            ));
        };
        Ok(Some(process))
    }

    fn is_pinned(&self, pinned: &PinnedProcess) -> bool {
        self.proc_fs
            .read(pinned.pid)
            .is_some_and(|now| now.start_time == pinned.start_time)
    }

    /// Ends a while after we were told to stop.
    async fn patience_of_a_stop(&self) {
        self.inbox.wait(|contents| contents.cancelled()).await;
        tokio::time::sleep(STOPPED_PATIENCE).await;
    }

    async fn stop_reason(&self) -> Option<CancelReason> {
        let looking = self.inbox.wait(|contents| Some(contents.cancelled()));
        looking.await
    }

    fn end(&self, result_sha256: &str, result_stored: bool, cancelled: bool) {
        self.journal.write(&Event::End {
            result_sha256: result_sha256.to_owned(),
            result_stored,
            cancelled,
        });
    }
}

/// How the next step ends unbegun, where an earlier one failed that was needed.
fn unmet(results: &[StepResult], steps: &[StepArgs]) -> Option<StepOutcome> {
    let failed = |(result, step): &(&StepResult, &StepArgs)| {
        step.stop_on_error && matches!(result.outcome, StepOutcome::Failed { .. } | StepOutcome::Cancelled)
    };
    let (_, step) = results.iter().zip(steps).find(failed)?;
    Some(StepOutcome::Failed {
        failure: Failure::NotReached,
        detail: format!("{} failed", step.name),
    })
}

fn rules_of(ticket: &Ticket) -> Result<Rules, RuleError> {
    let rules = ticket.redaction.iter();
    Rules::new(rules.map(|rule| (rule.name.as_str(), rule.pattern.as_str(), rule.until.as_deref())))
}

fn stopped(step: u16, reason: CancelReason, started_ms: u64) -> StepResult {
    let outcome = match reason {
        CancelReason::Deadline => StepOutcome::Failed {
            failure: Failure::TimedOut,
            detail: "the capture's time is over".to_owned(),
        },
        _ => StepOutcome::Cancelled,
    };
    ended(step, outcome, None, started_ms)
}

fn ended(
    step: u16,
    outcome: StepOutcome,
    artifact: Option<diagbot_wire::result::ArtifactReport>,
    started_ms: u64,
) -> StepResult {
    StepResult {
        step,
        artifact,
        outcome,
        started_ms,
        ended_ms: now_ms(),
    }
}

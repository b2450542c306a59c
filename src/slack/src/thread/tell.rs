//! One look at one run: the difference between what people should see and what they were told.

use std::time::Duration;

use diagbot_api::{approval::Audience, request_key::RunName, run::DiagnosticRun};
use diagbot_runs::service::{ArtifactLink, ServiceError};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{
    deliver::Delivery,
    desired::{COUNTED, DIRECT, DesiredMessage, SUCCESSOR, desired, mark},
    memory::{Memory, Next},
    parts::{NotifierParts, compared, successors},
};
use crate::views::{Links, Message, RunView, invitation, repeated};

/// When to look again after a term that was too short: it is renewed by then, or another leads.
pub(super) const TERM_WAIT: Duration = Duration::from_secs(2);

impl NotifierParts {
    /// Looks at a run and sends what is due. Never sends more than one message of it at a time.
    pub(super) async fn tell(&self, name: &RunName, mut memory: Memory, epoch: u64) -> (Memory, Next) {
        memory.not_before = None;
        let Some(run) = self.context.service.get(name) else {
            // Its record is gone, and with it the reason to tell.
            return (memory, Next::Done);
        };
        if run.spec.origin.channel.is_empty() && run.spec.requester.team.is_empty() {
            // Nobody in Slack asked.
            return (memory, Next::Done);
        }
        if memory.telling.is_none() {
            match self.context.service.telling(name).await {
                Ok(telling) => {
                    memory.sent.clone_from(&telling.sent);
                    memory.telling = Some(telling);
                }
                Err(ServiceError::NotFound) => return (memory, Next::Done),
                Err(error) => {
                    warn(name, &error, "what people were told can't be read");
                    let next = memory.later(None);
                    return (memory, next);
                }
            }
        }
        let next = self.send_due(name, &run, &mut memory, epoch).await;
        (memory, next)
    }

    async fn send_due(&self, name: &RunName, run: &DiagnosticRun, memory: &mut Memory, epoch: u64) -> Next {
        let next = successors(&self.context, run);
        let sick = compared(&self.context, run);
        let audience = self.context.service.audience(run).await;
        let view = RunView {
            name,
            run,
            home: self.context.home(),
            successors: &next,
            compared: sick.as_deref(),
            hidden: hidden(run, audience, memory),
        };
        for desired in desired(&view, audience) {
            if memory.sent.get(&desired.part) == Some(&desired.digest) {
                continue;
            }
            let mut delivery = Delivery {
                parts: self,
                view: &view,
                desired: &desired,
                memory,
                epoch,
            };
            // In order: a part that must wait holds up those behind it, so that at most one post is ever uncertain.
            if let Err(next) = delivery.bring().await {
                return next;
            }
        }
        if !run.phase().is_final() {
            return Next::Idle;
        }
        self.close(&view, memory, epoch).await
    }

    /// Records that everything was told.
    async fn close(&self, view: &RunView<'_>, memory: &mut Memory, epoch: u64) -> Next {
        let mut telling = memory.telling.clone().unwrap_or_default();
        telling.sent.clone_from(&memory.sent);
        if let Some(mark) = mark(view.run, view.successors) {
            telling.sent.insert(SUCCESSOR.to_owned(), mark);
        }
        if view.run.alerts() > 0 {
            telling.sent.insert(COUNTED.to_owned(), view.run.alerts().to_string());
        }
        let now = self.context.clock.now();
        let first = telling.final_at.is_none();
        telling.final_at.get_or_insert(MicroTime(now));
        match self.record(view.name, &telling, true, epoch).await {
            Ok(()) => {
                if let Some(seconds) = seconds_to_evidence(view.run, now).filter(|_| first) {
                    self.context.metrics.link_seconds.observe(seconds);
                }
                memory.telling = Some(telling);
                Next::Done
            }
            Err(error) => after_record(view.name, &error, memory),
        }
    }

    /// The message with links, signed now: for everybody who reads the channel, so none to sensitive artifacts.
    pub(super) async fn compose(&self, view: &RunView<'_>, desired: &DesiredMessage<'_>, memory: &Memory) -> Message {
        let asked_in = &view.run.spec.origin.channel;
        let told_in = memory.telling.as_ref().and_then(|telling| telling.channel.as_ref());
        let mut links: Vec<ArtifactLink> = Vec::new();
        let direct = desired.part == DIRECT;
        if desired.settled && desired.linked && (direct || !view.hidden) {
            let place = async { direct || self.may_hold_links(told_in.unwrap_or(asked_in)).await };
            let sign = self.context.service.links_of(view.run);
            let (may_hold, signed) = tokio::join!(place, sign);
            match signed {
                Ok(signed) if may_hold => links = signed,
                Ok(_) => {}
                Err(error) => warn(view.name, &error, "no link could be signed; the button remains"),
            }
        }
        let mut message = if links.is_empty() {
            desired.message(view, Links::Withheld)
        } else {
            desired.message(view, Links::Signed(&links))
        };
        if !direct && (memory.direct || told_in.is_some_and(|channel| channel != asked_in)) {
            message = invitation(message, asked_in);
        }
        let again = memory.telling.as_ref().map(|telling| telling.repeated.as_slice());
        if again.is_some_and(|parts| parts.contains(&desired.part)) {
            message = repeated(message);
        }
        if memory.plain { message.plain() } else { message }
    }
}

/// From the request to its evidence; none where there is no evidence, or nobody waited for it.
fn seconds_to_evidence(run: &DiagnosticRun, now: Timestamp) -> Option<f64> {
    let waited_for = run.spec.armed_until.is_none() && !run.spec.requester.team.is_empty();
    let mut captures = run.status.iter().flat_map(|status| &status.captures);
    let has_evidence = captures.any(|capture| !capture.artifacts.is_empty());
    let seconds = now.duration_since(run.spec.received_at.0).as_secs_f64();
    (waited_for && has_evidence).then_some(seconds)
}

/// Whether the place where a run is told may see its state only: a channel without the right to read, or a person without.
fn hidden(run: &DiagnosticRun, audience: Audience, memory: &Memory) -> bool {
    let told_in = memory.telling.as_ref().and_then(|telling| telling.channel.as_deref());
    let place = told_in.unwrap_or(&run.spec.origin.channel);
    let to_person = memory.direct || !place.starts_with(['C', 'G']);
    if to_person {
        !audience.requester
    } else {
        !audience.channel
    }
}

/// What to do when a record could not be written.
pub(super) fn after_record(name: &RunName, error: &ServiceError, memory: &mut Memory) -> Next {
    match error {
        ServiceError::NotFound => Next::Done,
        ServiceError::NotLeading => memory.pause(TERM_WAIT),
        error => {
            warn(name, error, "what people were told could not be recorded");
            memory.later(None)
        }
    }
}

pub(super) fn warn(name: &RunName, error: &(dyn std::error::Error + 'static), what: &'static str) {
    tracing::warn!(run.id = name.as_str(), error, "{what}");
}

//! Control lines: the deciding check and the ticket, URLs, releases, cancels.

use diagbot_api::capture::{CapturePhase, Explanation};
use diagbot_artifacts::{SignedUrl, Store};
use diagbot_cluster::deadline;
use diagbot_wire::{
    control::{self, CancelReason, Command, ControlLine, Ticket},
    upload::{Grant, MAX_URLS_PER_LINE, part_count},
};
use futures::future::try_join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{ActError, CALL, Outcome, TaskContext, names};
use crate::{
    control::ControlError,
    explain::{self, Refusal},
    launch,
    plan::{Facts, Fault, chosen},
};

/// Number of the ticket's line: always the first, so that a repeated one is known as such.
const TICKET_SEQ: u64 = 1;
/// URLs of a step's first parts in the ticket; most artifacts need one.
const FIRST_URLS: u32 = 4;
/// The same for steps whose output may be longer than this.
const FIRST_URLS_OF_LONG: u32 = 16;
const LONG_BYTES: u64 = 1 << 30;

/// The deciding check and the ticket. Signing, recording and the look at the pod go side by side; the line leaves only when
/// the pod was still the pinned one.
pub(super) async fn send_ticket(scene: &TaskContext, f: &Facts) -> Result<Outcome, ActError> {
    let (unfit, ticket, ()) = tokio::try_join!(check_target(scene, f), ticket(scene, f), record_ticket(scene, f))?;
    if let Some(explanation) = unfit {
        return Ok(Outcome::Unfit(explanation));
    }
    send(
        scene,
        f,
        TICKET_SEQ,
        Command::Ticket(Box::new(ticket)),
        f.attempt.ticket_at.is_some(),
    )
    .await?;
    Ok(Outcome::TicketSent)
}

/// A fresh look at the pod: the same pod, container and restart count, and not on its way out.
async fn check_target(scene: &TaskContext, f: &Facts) -> Result<Option<Explanation>, ActError> {
    let target = &f.spec().target;
    match deadline(CALL, scene.pods().get(&target.pod)).await {
        Ok(pod) => Ok(launch::target_fault(&pod, target)),
        Err(error) if error.is_not_found() => Ok(Some(explain::refusal(Refusal::PodGone, &target.pod))),
        Err(error) => Err(ActError::of_call(Fault::Ticket, Refusal::Cluster, &error)),
    }
}

async fn record_ticket(scene: &TaskContext, f: &Facts) -> Result<(), ActError> {
    let now = scene.now();
    scene
        .write(f, |status| {
            status.ticket_sent_at.get_or_insert(MicroTime(now));
            status.control_seq = status.control_seq.max(TICKET_SEQ);
            status.phase = CapturePhase::Meeting;
        })
        .await?;
    Ok(())
}

async fn ticket(scene: &TaskContext, f: &Facts) -> Result<Ticket, ActError> {
    let direct = scene.context.store.direct();
    let trusted = scene.context.store.store();
    let uid = f.capture.metadata.uid.as_deref().unwrap_or_default();
    let attempt = f.attempt_number();
    let hello = f.attempt.journal.hello.as_ref();
    let grants = async {
        let Some(store) = direct else { return Ok(Vec::new()) };
        try_join_all(f.steps().map(|step| first_grant(store, f, step))).await
    };
    let result = async {
        let Some(store) = direct else { return Ok(None) };
        let put = store
            .presign_put(
                &scene.key(attempt, super::keep::RESULT_NAME),
                super::keep::MAX_RESULT_BYTES as u64,
            )
            .await
            .map_err(|error| ActError::of_store(Fault::Ticket, &error))?;
        Ok(Some(put))
    };
    let (grants, result) = tokio::try_join!(grants, result)?;
    let (result_url, result_headers) = match result {
        Some(put) => (Some(put.url.into_exposed()), put.headers),
        None => (None, Vec::new()),
    };
    Ok(Ticket {
        processes: hello
            .map(|hello| chosen(f, hello).into_iter().map(|p| p.pinned.clone()).collect())
            .unwrap_or_default(),
        journal_key: hex::encode(control::journal_key(scene.secret(), uid, attempt)),
        grants,
        result_url,
        result_headers,
        store_ca_pem: trusted.and_then(Store::ca_pem_for_pods).map(str::to_owned),
        proxy: trusted.and_then(Store::proxy_for_pods).map(str::to_owned),
        room_bytes: f
            .pinned_pod()
            .and_then(|pod| launch::room_bytes(pod, &f.spec().target.container)),
        redaction: scene.context.config.redaction.rules(),
    })
}

async fn first_grant(store: &Store, f: &Facts, step: u16) -> Result<Grant, ActError> {
    let limit_bytes = f.spec().steps[usize::from(step)].limit_bytes;
    let steps = u32::try_from(f.spec().steps.len()).unwrap_or(u32::MAX);
    let wanted = if limit_bytes > LONG_BYTES {
        FIRST_URLS_OF_LONG
    } else {
        FIRST_URLS
    };
    let fair = (MAX_URLS_PER_LINE as u32 / steps.max(1)).max(1);
    grant(store, f, step, 1, wanted.min(fair)).await
}

async fn grant(store: &Store, f: &Facts, step: u16, first_part: u32, most: u32) -> Result<Grant, ActError> {
    let upload = f.upload(step).ok_or_else(|| not_open(step))?;
    let limit_bytes = f.spec().steps[usize::from(step)].limit_bytes;
    // One part more than the limit fills: an artifact cut at the limit may carry a note about that.
    let parts = part_count(limit_bytes, upload.part_size_bytes).saturating_add(1);
    let count = most.min(parts.saturating_sub(first_part).saturating_add(1)).max(1);
    let (key, id) = names(upload)?;
    let signed = store
        .presign_parts(&key, &id, first_part, count, upload.part_size_bytes)
        .await
        .map_err(|error| ActError::of_store(Fault::Ticket, &error))?;
    Ok(Grant {
        step,
        part_size_bytes: upload.part_size_bytes,
        first_part,
        urls: signed.urls.into_iter().map(SignedUrl::into_exposed).collect(),
        expires_at_ms: u64::try_from(signed.expires_at.as_millisecond()).unwrap_or_default(),
    })
}

fn not_open(step: u16) -> ActError {
    ActError::Never(
        Fault::Artifact(step),
        explain::refusal(Refusal::Invalid, "a step has no upload"),
    )
}

/// More, or renewed, URLs.
pub(super) async fn send_urls(scene: &TaskContext, f: &Facts, step: u16, from_part: u32) -> Result<Outcome, ActError> {
    let again = f.attempt.urls_at.contains_key(&step);
    // An agent that was given no URLs asks for none.
    let store = scene.context.store.direct().ok_or_else(|| not_open(step))?;
    let grant = grant(store, f, step, from_part, MAX_URLS_PER_LINE as u32).await?;
    let seq = next_number(scene, f).await?;
    send(scene, f, seq, Command::Urls { grant }, again).await?;
    Ok(Outcome::Sent)
}

/// The staged file can go.
pub(super) async fn send_release(scene: &TaskContext, f: &Facts, step: u16) -> Result<Outcome, ActError> {
    let seq = next_number(scene, f).await?;
    let again = f.attempt.released_at.contains_key(&step);
    send(scene, f, seq, Command::Release { step }, again).await?;
    Ok(Outcome::Sent)
}

/// Stop. One that could not be sent counts as tried: the plan repeats it, and does not wait for it for ever.
pub(super) async fn send_cancel(scene: &TaskContext, f: &Facts, reason: CancelReason) -> Result<Outcome, ActError> {
    let seq = next_number(scene, f).await?;
    let again = f.attempt.cancelled_at.is_some();
    if let Err(error) = send(scene, f, seq, Command::Cancel { reason }, again).await {
        tracing::info!(error = %error, "the agent could not be told to stop yet");
    }
    Ok(Outcome::Sent)
}

/// A number that no line of this attempt has had. Recorded before it is used.
async fn next_number(scene: &TaskContext, f: &Facts) -> Result<u64, ActError> {
    let _one_at_a_time = scene.numbers.lock().await;
    let used = scene
        .status_writer
        .current()
        .status
        .as_ref()
        .map_or(0, |s| s.control_seq);
    let next = used.max(TICKET_SEQ) + 1;
    scene
        .write(f, |status| status.control_seq = status.control_seq.max(next))
        .await?;
    Ok(next)
}

async fn send(scene: &TaskContext, f: &Facts, seq: u64, command: Command, again: bool) -> Result<(), ActError> {
    let uid = f.capture.metadata.uid.as_deref().unwrap_or_default();
    let line = ControlLine {
        seq,
        nonce: hex::encode(control::nonce(scene.secret(), uid, f.attempt_number())),
        command,
    };
    scene.status_writer.check_term()?;
    let control = scene.control.read().await.clone();
    let Some(control) = control else {
        return Err(later("there is no way to the agent yet"));
    };
    match control.send(&line, again).await {
        Ok(()) => Ok(()),
        // The API server's refusal is for good; that a container can't be found may be a matter of milliseconds.
        Err(ControlError::Attach(error)) if error.is_forbidden() => {
            Err(ActError::of_call(Fault::Ticket, Refusal::AgentDeaf, &error))
        }
        Err(error) => {
            tracing::debug!(error = %diagbot_base::telemetry::Chain(&error), "a control line was not sent");
            Err(later("attaching to the agent does not work yet"))
        }
    }
}

fn later(what: &str) -> ActError {
    ActError::Later {
        what: what.to_owned(),
        after: None,
    }
}

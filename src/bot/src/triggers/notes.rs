//! Notes on PagerDuty's incidents: what was captured and where it is, once a run has ended. While this process leads.
//!
//! Owns that an incident has one note for each run: the incident's notes are read before one is written, since a post whose
//! answer was lost can't be told from one that never arrived. Links to normal artifacts only.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use diagbot_api::{
    capture::CapturePhase,
    request_key::RunName,
    run::{DiagnosticRun, Phase},
};
use diagbot_runs::{
    reason::shown,
    service::{ArtifactLink, RunFilter, RunService},
};
use futures::StreamExt as _;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    config::{From, NotesConfig, TriggersConfig},
    pagerduty::is_incident,
    secrets::{self, SecretsError},
};

/// Longest wait for an answer of PagerDuty.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const ANSWER_BYTES: usize = 4 << 20;
/// Between looks at what has no note yet.
const TICK: Duration = Duration::from_secs(10);
/// Least that must be left of a term for a note.
const LEAST_TERM: Duration = Duration::from_secs(11);
/// A note is no longer tried after so many failures; the thread has everything.
const MOST_FAILURES: u32 = 60;
/// Most links in a note.
const MOST_LINKS: usize = 10;

/// Why there is no note.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// No answer.
    #[error("PagerDuty gave no answer")]
    Lost(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An answer that is no success.
    #[error("PagerDuty answered {0}")]
    Refused(StatusCode),
    /// The answer is not what is documented.
    #[error("PagerDuty's answer can't be read")]
    Unread(#[source] serde_json::Error),
    /// The key can't be read.
    #[error("the key of PagerDuty's API can't be had")]
    Key(#[source] SecretsError),
}

impl NoteError {
    /// Nothing that is tried again could change it. A key that is refused may be exchanged meanwhile.
    fn is_permanent(&self) -> bool {
        const PASSING: [StatusCode; 3] = [
            StatusCode::UNAUTHORIZED,
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::REQUEST_TIMEOUT,
        ];
        matches!(self, Self::Refused(status) if status.is_client_error() && !PASSING.contains(status))
    }
}

/// Writes notes for the sources that have a place for them.
pub struct Notes {
    service: RunService,
    desks: BTreeMap<String, Desk>,
    failures: BTreeMap<RunName, u32>,
    done: BTreeSet<RunName>,
}

/// One source's way into PagerDuty. The key is read for each note, so that it can be exchanged while the process runs.
struct Desk {
    base: String,
    token_file: PathBuf,
    from: HeaderValue,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Why notes can't be written at all.
#[derive(Debug, thiserror::Error)]
pub enum NotesError {
    /// The token can't be read.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// No TLS can be had.
    #[error("set up TLS")]
    Tls(#[source] std::io::Error),
    /// The address is not a valid header value.
    #[error("`from` is not a valid e-mail address")]
    From,
}

impl Notes {
    /// Reads the keys once, so that one that is missing is told at the start.
    pub fn new(config: &TriggersConfig, service: RunService) -> Result<Self, NotesError> {
        let mut desks = BTreeMap::new();
        for source in &config.sources {
            if let From::Pagerduty(pagerduty) = &source.from
                && let Some(notes) = &pagerduty.notes
            {
                desks.insert(source.name.clone(), Desk::new(notes)?);
            }
        }
        Ok(Self {
            service,
            desks,
            failures: BTreeMap::new(),
            done: BTreeSet::new(),
        })
    }

    /// Writes notes until `stop`, while this process leads.
    pub async fn run(mut self, stop: CancellationToken) {
        if self.desks.is_empty() {
            return stop.cancelled().await;
        }
        let mut changes = std::pin::pin!(self.service.changes());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due: Vec<Arc<DiagnosticRun>> = tokio::select! {
                () = stop.cancelled() => return,
                Some(run) = changes.next() => vec![run],
                _ = tick.tick() => self.service.list(&RunFilter::default()),
            };
            for run in due {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.look(&run) => {}
                }
            }
        }
    }

    async fn look(&mut self, run: &DiagnosticRun) {
        let Some(term) = self.service.leadership().current() else {
            return;
        };
        let Some(name) = run.name() else { return };
        let Some(cause) = &run.spec.origin.cause else { return };
        let Some(incident) = cause.incident.as_ref().filter(|id| is_incident(id)) else {
            return;
        };
        let Some(desk) = self.desks.get(&cause.source) else {
            return;
        };
        if !run.phase().is_final() || run.is_noted() || self.done.contains(&name) || term.remaining() < LEAST_TERM {
            return;
        }
        let links = self.service.links_of(run).await.unwrap_or_default();
        let outcome = desk.note(incident, &name, &content(&name, run, &links)).await;
        let failures = self.failures.entry(name.clone()).or_default();
        match outcome {
            Ok(()) => {}
            Err(error) => {
                *failures += 1;
                tracing::warn!(run.id = %name, error = %diagbot_base::telemetry::Chain(&error), "no note was written");
                if !error.is_permanent() && *failures < MOST_FAILURES {
                    return;
                }
            }
        }
        self.failures.remove(&name);
        match self.service.record_note(&name).await {
            Ok(()) => {
                self.done.insert(name);
                // Runs are forgotten after days; so is this.
                while self.done.len() > 4096 {
                    self.done.pop_first();
                }
            }
            Err(error) => {
                tracing::warn!(run.id = %name, error = %diagbot_base::telemetry::Chain(&error), "the note is looked for again");
            }
        }
    }
}

/// What the note says, in plain text.
pub(super) fn content(name: &RunName, run: &DiagnosticRun, links: &[ArtifactLink]) -> String {
    let status = run.status.clone().unwrap_or_default();
    let word = match run.phase() {
        Phase::Succeeded => "captured",
        Phase::PartlyFailed => "partly captured",
        Phase::Refused => "refused",
        Phase::Denied => "denied",
        Phase::Expired => "expired",
        Phase::Cancelled => "cancelled",
        Phase::TimedOut => "timed out",
        _ => "failed",
    };
    let mut lines = vec![format!(
        "diagbot {}: {} of {} {word}.",
        name.short(),
        run.diagnostic_name(),
        run.spec.target
    )];
    if let Some(reason) = &status.reason {
        lines.push(shown(&reason.message));
    }
    lines.extend(status.notes.iter().map(|note| note.replace('`', "")));
    for capture in &status.captures {
        let place = format!("{}/{}", capture.target.namespace, capture.target.pod);
        if capture.phase != CapturePhase::Succeeded
            && let Some(reason) = &capture.reason
        {
            lines.push(format!("{place}: {}", shown(&reason.message)));
        }
        for artifact in &capture.artifacts {
            lines.push(format!(
                "{place}: {} ({} bytes{})",
                artifact.name,
                artifact.size_bytes,
                if artifact.sensitive {
                    ", sensitive: ask for it in Slack"
                } else {
                    ""
                }
            ));
            lines.extend(artifact.findings.iter().map(|finding| format!("- {}", shown(finding))));
        }
    }
    for link in links.iter().filter(|link| !link.sensitive).take(MOST_LINKS) {
        lines.push(format!(
            "{} (until {}): {}",
            link.name,
            link.expires_at,
            link.url.expose()
        ));
    }
    lines.push("More in the Slack thread of this run.".to_owned());
    lines.join("\n")
}

#[derive(Deserialize)]
struct Listed {
    notes: Vec<Note>,
}

#[derive(Deserialize)]
struct Note {
    #[serde(default)]
    content: String,
}

impl Desk {
    fn new(config: &NotesConfig) -> Result<Self, NotesError> {
        let provider = rustls::crypto::ring::default_provider();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider)
            .map_err(NotesError::Tls)?
            .https_or_http()
            .enable_http1()
            .build();
        if config.api_url.scheme() == "http" {
            tracing::warn!("a trigger's notes go over plain http: its token travels unencrypted");
        }
        secrets::read(&config.token_file)?;
        Ok(Self {
            base: config.api_url.as_str().trim_end_matches('/').to_owned(),
            token_file: config.token_file.clone(),
            from: HeaderValue::try_from(&config.from).map_err(|_| NotesError::From)?,
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// Writes the note unless the incident has it.
    async fn note(&self, incident: &str, name: &RunName, content: &str) -> Result<(), NoteError> {
        let key = secrets::read(&self.token_file).map_err(NoteError::Key)?;
        let path = format!("/incidents/{incident}/notes");
        let listed = self.call(&key, Method::GET, &path, Bytes::new()).await?;
        let listed: Listed = serde_json::from_slice(&listed).map_err(NoteError::Unread)?;
        let ours = format!("diagbot {}:", name.short());
        if listed.notes.iter().any(|note| note.content.starts_with(&ours)) {
            return Ok(());
        }
        let body = json!({ "note": { "content": content } }).to_string();
        self.call(&key, Method::POST, &path, Bytes::from(body))
            .await
            .map(|_| ())
    }

    async fn call(&self, key: &SecretString, method: Method, path: &str, body: Bytes) -> Result<Bytes, NoteError> {
        let lost = |error: Box<dyn std::error::Error + Send + Sync>| NoteError::Lost(error);
        let mut token = HeaderValue::try_from(format!("Token token={}", key.expose_secret()))
            .map_err(|_| lost("the token is not a valid header value".into()))?;
        token.set_sensitive(true);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::ACCEPT, "application/vnd.pagerduty+json;version=2")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::FROM, self.from.clone())
            .header(header::AUTHORIZATION, token)
            .body(Full::new(body))
            .map_err(|error| lost(error.into()))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| lost(error.into()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
            let body = body.map_err(NoteError::Lost)?.to_bytes();
            if status.is_success() {
                Ok(body)
            } else {
                Err(NoteError::Refused(status))
            }
        };
        timeout(DEADLINE, exchange)
            .await
            .map_err(|elapsed| lost(elapsed.into()))?
    }
}

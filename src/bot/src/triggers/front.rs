//! A delivery becomes runs: who sent it, what its alerts mean, one create for each capture, and an answer that says which.
//!
//! Owns the order: nothing of a body is read before its sender is proven, and the answer is given when its runs are recorded.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use diagbot_api::{
    approval::Appeal,
    request_key::RunName,
    requester::Requester,
    run::{Cause, Origin},
};
use diagbot_base::telemetry::metrics::{Metrics, Outcome};
use diagbot_runs::{
    reason::shown,
    request::RunRequest,
    service::{AcceptError, RunFilter, RunService},
};
use http::{HeaderMap, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde::Serialize;

use super::{
    alert::Alert,
    alert_counter::{AlertCounter, Seen},
    alertmanager,
    config::{From, SourceConfig, TriggersConfig},
    pagerduty::{self, Meaning},
    rule::{Capture, Verdict, judge},
    secrets::{Live, SecretsError},
    window::{Recorded, Subject},
};

/// Most alerts of a delivery that are looked at.
const MOST_ALERTS: usize = 500;
/// Most runs that one delivery starts.
const MOST_RUNS: usize = 20;
const NO_SIGNATURE: &str = "no signature of the body fits; nothing was started";
const NO_TOKEN: &str = "the token is not one of this source; nothing was started";

/// What the sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status of the answer.
    pub status: StatusCode,
    /// Its body.
    pub body: Report,
}

/// The body of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What happened, in a sentence.
    pub message: String,
    /// Each alert that was looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<Line>,
}

/// What became of one alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// `started`, `counted`, `replayed`, `unmatched`, `refused` or `unconfirmed`.
    pub outcome: &'static str,
    /// The run that has the alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Why, where nothing was started.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// Takes deliveries. Cheap to clone.
#[derive(Clone)]
pub struct TriggerFront(Arc<Inner>);

struct Inner {
    sources: HashMap<String, Source>,
    service: RunService,
    alert_counter: AlertCounter,
    seen: Mutex<Seen>,
    metrics: Metrics,
}

struct Source {
    config: SourceConfig,
    live: Live,
}

impl TriggerFront {
    /// A front for the configured sources; reads their secrets.
    pub fn new(
        config: &TriggersConfig,
        service: RunService,
        alert_counter: AlertCounter,
        metrics: Metrics,
    ) -> Result<Self, SecretsError> {
        let mut sources = HashMap::new();
        for source in &config.sources {
            let files = match &source.from {
                From::Pagerduty(config) => config.secret_files.as_slice(),
                From::Alertmanager(config) => config.token_files.as_slice(),
                From::Kubernetes(_) => &[],
            };
            let live = Live::read(files)?;
            tracing::info!(trigger = source.name, secrets = %live, rules = source.rules.len(), "a trigger is configured");
            let config = source.clone();
            sources.insert(source.name.clone(), Source { config, live });
        }
        Ok(Self(Arc::new(Inner {
            sources,
            service,
            alert_counter,
            seen: Mutex::default(),
            metrics,
        })))
    }

    /// Whether there is such a source of deliveries: what is unknown is not even read.
    pub fn knows(&self, source: &str) -> bool {
        let found = self.0.sources.get(source);
        found.is_some_and(|source| !matches!(source.config.from, From::Kubernetes(_)))
    }

    /// Takes what was seen of a pod; the same state is seen again and again.
    pub async fn observe(&self, source: &str, alert: &Alert) {
        let Some(source) = self.0.sources.get(source) else {
            return;
        };
        if self.is_known(&source.config.name, alert) {
            return;
        }
        let recorded = Recorded::of(&self.0.service.list(&RunFilter::default()));
        let line = self.settle(source, alert, &recorded, true).await;
        // What was not confirmed is taken again with the pod's next change.
        if line.outcome != "unconfirmed" {
            self.first_time(&source.config.name, alert);
        }
    }

    /// The answer to who can't prove anything by the head alone: nobody waits for such a body.
    pub fn refused_by_head(&self, name: &str, headers: &HeaderMap) -> Option<Answer> {
        let source = self.0.sources.get(name)?;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let words = match &source.config.from {
            From::Pagerduty(_) if text(pagerduty::SIGNATURE).is_none() => NO_SIGNATURE,
            From::Alertmanager(_) if !alertmanager::is_known(text(header::AUTHORIZATION.as_str()), &source.live) => {
                NO_TOKEN
            }
            _ => return None,
        };
        Some(self.say(StatusCode::UNAUTHORIZED, "unauthenticated", words))
    }

    /// Takes one delivery.
    pub async fn take(&self, name: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
        let Some(source) = self.0.sources.get(name) else {
            return self.say(StatusCode::NOT_FOUND, "unknown", "there is no such source");
        };
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let now = self.0.service.now();
        match &source.config.from {
            From::Pagerduty(config) => {
                if !pagerduty::is_signed(text(pagerduty::SIGNATURE), body, &source.live) {
                    return self.say(StatusCode::UNAUTHORIZED, "unauthenticated", NO_SIGNATURE);
                }
                let window = SignedDuration::try_from(config.replay_window).unwrap_or(SignedDuration::MAX);
                match pagerduty::read(body, now, window) {
                    Ok(Meaning::Alert(alert)) => self.alerts(source, vec![*alert], 0).await,
                    Ok(Meaning::Nothing(kind)) => {
                        let words = format!("an event `{}` starts nothing", shown(&kind));
                        self.say(StatusCode::OK, "ignored", &words)
                    }
                    Ok(Meaning::Stale(age)) => {
                        let seconds = age.as_secs();
                        let words = if seconds < 0 {
                            format!("the event is {} s ahead of our clock and starts nothing", -seconds)
                        } else {
                            format!("the event is {seconds} s old and starts nothing")
                        };
                        self.say(StatusCode::OK, "stale", &words)
                    }
                    Err(error) => self.malformed(&error),
                }
            }
            From::Kubernetes(_) => self.say(StatusCode::NOT_FOUND, "unknown", "there is no such source"),
            From::Alertmanager(_) => {
                if !alertmanager::is_known(text(header::AUTHORIZATION.as_str()), &source.live) {
                    return self.say(StatusCode::UNAUTHORIZED, "unauthenticated", NO_TOKEN);
                }
                match alertmanager::read(body) {
                    Ok((alerts, resolved)) => self.alerts(source, alerts, resolved).await,
                    Err(error) => self.malformed(&error),
                }
            }
        }
    }

    fn malformed(&self, error: &serde_json::Error) -> Answer {
        let words = format!("the body is not what this source sends: {}", shown(&error.to_string()));
        self.say(StatusCode::BAD_REQUEST, "malformed", &words)
    }

    fn say(&self, status: StatusCode, outcome: &'static str, words: &str) -> Answer {
        self.count(outcome);
        Answer {
            status,
            body: Report {
                message: words.to_owned(),
                alerts: Vec::new(),
            },
        }
    }

    fn count(&self, outcome: &'static str) {
        self.0.metrics.alerts.get_or_create(&Outcome { outcome }).inc();
    }

    /// Every alert of a delivery, in order.
    async fn alerts(&self, source: &Source, alerts: Vec<Alert>, resolved: usize) -> Answer {
        if !self.0.service.ready() {
            // What was captured before is not known yet; the sender tries again.
            let words = "the bot is starting; deliver again";
            return self.say(StatusCode::SERVICE_UNAVAILABLE, "unready", words);
        }
        let recorded = Recorded::of(&self.0.service.list(&RunFilter::default()));
        let count = alerts.len();
        let mut lines = Vec::new();
        let mut started = 0;
        for alert in alerts.into_iter().take(MOST_ALERTS) {
            let line = self.settle(source, &alert, &recorded, started < MOST_RUNS).await;
            started += usize::from(line.outcome == "started");
            lines.push(line);
        }
        let uncertain = lines.iter().any(|line| line.outcome == "unconfirmed");
        let left = count - lines.len();
        Answer {
            status: if uncertain {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::ACCEPTED
            },
            body: Report {
                message: format!(
                    "{count} firing, {resolved} resolved, {started} started{}",
                    if left > 0 {
                        format!("; {left} beyond {MOST_ALERTS} were not looked at")
                    } else {
                        String::new()
                    }
                ),
                alerts: lines,
            },
        }
    }

    /// What becomes of one alert, counted and logged.
    async fn settle(&self, source: &Source, alert: &Alert, recorded: &[Recorded], may_start: bool) -> Line {
        let line = self.alert(source, alert, recorded, may_start).await;
        self.count(line.outcome);
        if matches!(line.outcome, "unmatched" | "refused") {
            tracing::info!(
                trigger = source.config.name,
                outcome = line.outcome,
                why = line.why,
                "an alert starts nothing"
            );
        }
        line
    }

    async fn alert(&self, source: &Source, alert: &Alert, recorded: &[Recorded], may_start: bool) -> Line {
        let home = self.0.service.clusters().home().name.to_string();
        let capture = match judge(&source.config, alert, self.0.service.catalog(), &home) {
            Verdict::Capture(capture) => capture,
            Verdict::Unmatched => return line("unmatched", None, "no rule fits"),
            Verdict::Refused { rule, why } => return line("refused", None, &format!("rule `{rule}`: {why}")),
        };
        let subject = Subject {
            source: source.config.name.clone(),
            fingerprint: capture.fingerprint.clone(),
            target: (!alert.one_of_its_workload).then(|| capture.target.to_string()),
            diagnostic: capture.diagnostic.clone(),
        };
        let window = SignedDuration::try_from(source.config.window).unwrap_or(SignedDuration::MAX);
        let now = self.0.service.now();
        let at = alert.raised_at.unwrap_or(now);
        if let Some(run) = subject.captured(recorded, at, window) {
            return self.repeated(&source.config.name, &run, alert);
        }
        if !may_start {
            let words = format!("one delivery starts at most {MOST_RUNS} runs");
            return line("refused", None, &words);
        }
        let request = request(&source.config.name, subject.key(at, window), *capture, alert, now);
        let name = request.name();
        match self.0.service.accept(request).await {
            Ok(accepted) if accepted.repeated => self.repeated(&source.config.name, &name, alert),
            Ok(_) => {
                self.first_time(&source.config.name, alert);
                tracing::info!(trigger = source.config.name, run.id = %name, "an alert starts a run");
                line("started", Some(&name), "")
            }
            Err(AcceptError::Rejected(reason)) => line("refused", None, &reason.message),
            Err(AcceptError::Unconfirmed { .. }) => line(
                "unconfirmed",
                Some(&name),
                "whether it is recorded is not known; deliver again",
            ),
            Err(error) => {
                tracing::error!(error = %diagbot_base::telemetry::Chain(&error), "an alert could not be recorded");
                line("unconfirmed", None, "it could not be recorded; deliver again")
            }
        }
    }

    /// An alert whose capture there is already: counted, unless it is the same event again.
    fn repeated(&self, source: &str, run: &RunName, alert: &Alert) -> Line {
        let made_by = self.0.service.get(run).and_then(|run| run.spec.origin.cause.clone());
        let same = alert.event.is_some() && made_by.is_some_and(|cause| cause.event == alert.event);
        if same || !self.first_time(source, alert) {
            return line("replayed", Some(run), "this very event was taken before");
        }
        self.0.alert_counter.add(run);
        line(
            "counted",
            Some(run),
            "its target was captured for this alert within the window",
        )
    }

    fn is_known(&self, source: &str, alert: &Alert) -> bool {
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events = alert.event.iter();
        events.any(|event| seen.knows(&format!("{source} {event}")))
    }

    /// Whether this process sees the event for the first time; events without an id always are new.
    fn first_time(&self, source: &str, alert: &Alert) -> bool {
        let Some(event) = &alert.event else { return true };
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.is_new(&format!("{source} {event}"))
    }
}

fn request(
    source: &str,
    key: diagbot_api::request_key::RequestKey,
    capture: Capture,
    alert: &Alert,
    now: Timestamp,
) -> RunRequest {
    RunRequest {
        key,
        requester: Requester::trigger(source),
        origin: Origin {
            channel: capture.channel,
            cause: Some(Cause {
                source: source.to_owned(),
                rule: capture.rule,
                title: shown(&alert.title),
                fingerprint: capture.fingerprint,
                event: alert.event.clone(),
                incident: alert.incident.clone(),
                raised_at: alert.raised_at.map(MicroTime),
            }),
            ..Origin::default()
        },
        diagnostic: capture.diagnostic,
        parameters: capture.parameters,
        target: capture.target,
        targets: None,
        armed_until: None,
        dry_run: false,
        confirmed: false,
        appeal: Appeal::default(),
        received_at: now,
    }
}

fn line(outcome: &'static str, run: Option<&RunName>, why: &str) -> Line {
    Line {
        outcome,
        run: run.map(RunName::short),
        why: why.to_owned(),
    }
}

//! Faults on demand: what goes wrong with the next calls of a method, or with the next envelopes.

use std::time::Duration;

use serde_json::Value;

use crate::SeededFaults;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// HTTP 500; nothing was done.
    Status500,
    /// HTTP 429 with `Retry-After`; nothing was done.
    RateLimited,
    /// No answer; nothing was done. The connection stays open until the client leaves or a minute has passed.
    Timeout,
    /// The call was carried out, then the connection broke before the answer.
    LostAnswer,
    /// Carried out, but answered only after this long.
    Slow(Duration),
    /// `{"ok": false, "error": …}`; nothing was done.
    Error(String),
    /// An envelope is delivered a second time under the same id, though it was acknowledged.
    DuplicateSameEnvelope,
    /// An envelope is delivered a second time under a new id, though it was acknowledged.
    DuplicateNewEnvelope,
    /// The acknowledgement of an envelope gets lost: Slack acts as if there was none.
    LostAck,
}

impl FaultKind {
    /// From the people API: `status_500`, `rate_limited`, `timeout`, `lost_answer`, `slow:MS`, `error:NAME`,
    /// `duplicate_same_envelope`, `duplicate_new_envelope`, `lost_ack`.
    pub(super) fn parse(text: &str) -> Option<FaultKind> {
        if let Some(name) = text.strip_prefix("error:") {
            return Some(FaultKind::Error(name.to_owned()));
        }
        if let Some(millis) = text.strip_prefix("slow:") {
            return Some(FaultKind::Slow(Duration::from_millis(millis.parse().ok()?)));
        }
        Some(match text {
            "status_500" => FaultKind::Status500,
            "rate_limited" => FaultKind::RateLimited,
            "timeout" => FaultKind::Timeout,
            "lost_answer" => FaultKind::LostAnswer,
            "duplicate_same_envelope" => FaultKind::DuplicateSameEnvelope,
            "duplicate_new_envelope" => FaultKind::DuplicateNewEnvelope,
            "lost_ack" => FaultKind::LostAck,
            _ => return None,
        })
    }

    /// Whether it concerns envelopes (Socket Mode) and not calls (Web API).
    fn concerns_envelopes(&self) -> bool {
        matches!(
            self,
            FaultKind::DuplicateSameEnvelope | FaultKind::DuplicateNewEnvelope | FaultKind::LostAck
        )
    }
}

/// A fault that is armed.
#[derive(Clone, Debug)]
pub struct Fault {
    /// A Web API method, `response_url`, `upload`, or `*` for any. For envelopes their type (`slash_commands`,
    /// `events_api`, `interactive`) or `*`.
    pub method: String,
    /// What goes wrong.
    pub kind: FaultKind,
    /// How many more times.
    pub count: u32,
    /// Seconds of `Retry-After`; 1 if not given.
    pub retry_after: u64,
    /// How likely, each time.
    pub seeded: SeededFaults,
}

impl Fault {
    /// From the body of `POST /people/faults`.
    pub(super) fn parse(body: &Value) -> Result<Fault, String> {
        let kind = body["kind"].as_str().ok_or("kind is missing")?;
        Ok(Fault {
            method: body["method"].as_str().unwrap_or("*").to_owned(),
            kind: FaultKind::parse(kind).ok_or_else(|| format!("no fault is called {kind:?}"))?,
            count: body["count"]
                .as_u64()
                .map_or(1, |count| u32::try_from(count).unwrap_or(u32::MAX)),
            retry_after: body["retry_after"].as_u64().unwrap_or(1),
            seeded: SeededFaults::new(
                body["percent"]
                    .as_u64()
                    .map_or(100, |percent| u8::try_from(percent).unwrap_or(100)),
                body["seed"].as_u64().unwrap_or_default(),
            ),
        })
    }
}

/// The armed faults, used up in the order they were armed.
#[derive(Debug, Default)]
pub(super) struct Faults {
    armed: Vec<Fault>,
}

impl Faults {
    /// Arms one more.
    pub(super) fn arm(&mut self, fault: Fault) {
        self.armed.push(fault);
    }

    /// Disarms all.
    pub(super) fn clear(&mut self) {
        self.armed.clear();
    }

    /// The fault that strikes this call, if any.
    pub(super) fn strike_call(&mut self, method: &str) -> Option<Fault> {
        self.strike(method, |kind| !kind.concerns_envelopes())
    }

    /// The fault of this kind that strikes this envelope, if any.
    pub(super) fn strikes_envelope(&mut self, envelope_type: &str, wanted: &FaultKind) -> bool {
        self.strike(envelope_type, |kind| kind == wanted).is_some()
    }

    fn strike(&mut self, method: &str, wanted: impl Fn(&FaultKind) -> bool) -> Option<Fault> {
        let fits =
            |fault: &Fault| fault.count > 0 && (fault.method == method || fault.method == "*") && wanted(&fault.kind);
        let fault = self
            .armed
            .iter_mut()
            .find_map(|fault| (fits(fault) && fault.seeded.strikes()).then_some(fault))?;
        fault.count -= 1;
        let struck = fault.clone();
        self.armed.retain(|fault| fault.count > 0);
        Some(struck)
    }
}

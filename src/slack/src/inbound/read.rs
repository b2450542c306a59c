//! Fields of payloads.

use diagbot_api::requester::Requester;
use secrecy::SecretString;
use serde_json::Value;

/// The first of these JSON pointers that holds a text that is not empty.
pub(super) fn first(payload: &Value, pointers: &[&str]) -> Option<String> {
    pointers
        .iter()
        .filter_map(|pointer| payload.pointer(pointer)?.as_str())
        .find(|text| !text.is_empty())
        .map(str::to_owned)
}

/// A person, where the payload names one.
pub(super) fn person(payload: &Value, users: &[&str], teams: &[&str]) -> Option<Requester> {
    Some(Requester {
        user: first(payload, users)?,
        team: first(payload, teams).unwrap_or_default(),
    })
}

/// The `response_url`.
pub(super) fn response_url(payload: &Value) -> Option<SecretString> {
    first(payload, &["/response_url", "/response_urls/0/response_url"]).map(SecretString::from)
}

/// A foreign word for the log.
pub(super) fn shown(word: &str) -> String {
    diagbot_wire::text::word(word, 40)
}

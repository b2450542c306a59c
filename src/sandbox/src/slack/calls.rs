//! The log of what the app did: every Web API call and every envelope, for assertions. Tokens and URLs that are secrets never
//! enter it.

use serde_json::{Map, Value, json};

/// Keeps the latest entries only: a long demo must not grow without end.
const KEPT: usize = 20_000;

/// One entry of the log.
#[derive(Debug)]
struct Entry {
    number: u64,
    value: Value,
}

/// Calls and envelopes, oldest first.
#[derive(Debug, Default)]
pub(super) struct CallLog {
    next: u64,
    calls: Vec<Entry>,
    envelopes: Vec<Entry>,
}

impl CallLog {
    /// A call begins; the answer is filled in later. Returns the entry's number.
    pub(super) fn call(&mut self, method: &str, args: &Map<String, Value>) -> u64 {
        let args: Map<String, Value> = args
            .iter()
            .filter(|(name, _)| *name != "token")
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let value = json!({"time": jiff::Timestamp::now().to_string(), "method": method, "args": args});
        push(&mut self.calls, &mut self.next, value)
    }

    /// The answer of a call: HTTP status and, where it was refused, the error's name.
    pub(super) fn answered(&mut self, number: u64, status: u16, error: Option<&str>) {
        if let Some(entry) = find(&mut self.calls, number) {
            entry["status"] = json!(status);
            entry["error"] = json!(error);
        }
    }

    /// An envelope was written to a connection.
    pub(super) fn envelope(&mut self, envelope: &Value, connection: u64) -> u64 {
        let value = json!({
            "time": jiff::Timestamp::now().to_string(), "envelope_id": envelope["envelope_id"], "type": envelope["type"],
            "retry_attempt": envelope["retry_attempt"], "connection": connection, "ack_ms": null,
        });
        push(&mut self.envelopes, &mut self.next, value)
    }

    /// The envelope was acknowledged after so many milliseconds.
    pub(super) fn acknowledged(&mut self, number: u64, ack_ms: u64) {
        if let Some(entry) = find(&mut self.envelopes, number) {
            entry["ack_ms"] = json!(ack_ms);
        }
    }

    /// Everything, or the calls of one method.
    pub(super) fn view(&self, method: Option<&str>) -> Value {
        let wanted = |entry: &&Entry| method.is_none_or(|method| entry.value["method"] == method);
        let calls: Vec<&Value> = self.calls.iter().filter(wanted).map(|entry| &entry.value).collect();
        let envelopes: Vec<&Value> = self.envelopes.iter().map(|entry| &entry.value).collect();
        json!({"calls": calls, "envelopes": envelopes})
    }
}

fn push(entries: &mut Vec<Entry>, next: &mut u64, value: Value) -> u64 {
    *next += 1;
    if entries.len() == KEPT {
        entries.drain(..KEPT / 10);
    }
    entries.push(Entry { number: *next, value });
    *next
}

fn find(entries: &mut [Entry], number: u64) -> Option<&mut Value> {
    let at = entries.binary_search_by_key(&number, |entry| entry.number).ok()?;
    Some(&mut entries[at].value)
}

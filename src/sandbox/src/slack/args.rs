//! The arguments of a Web API call, whatever way they came: query, form, multipart or JSON.

use base64::Engine as _;
use serde_json::{Map, Value};

/// Arguments that hold JSON, also where a form carries them as text.
const JSON_ARGUMENTS: &[&str] = &["blocks", "attachments", "metadata", "view", "files"];

/// Named arguments of one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Args {
    values: Map<String, Value>,
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArgsError {
    /// Slack's `invalid_json`.
    #[error("the body is not JSON")]
    Json,
    /// Slack's `json_not_object`.
    #[error("the body is not a JSON object")]
    NotObject,
    /// An argument such as `blocks` is not JSON.
    #[error("the argument {0} is not JSON")]
    Argument(String),
}

impl ArgsError {
    /// As Slack names it.
    pub(super) fn name(&self) -> String {
        match self {
            ArgsError::Json => "invalid_json".to_owned(),
            ArgsError::NotObject => "json_not_object".to_owned(),
            ArgsError::Argument(name) if name == "blocks" => "invalid_blocks_format".to_owned(),
            ArgsError::Argument(_) => "invalid_arguments".to_owned(),
        }
    }
}

impl Args {
    /// Reads the query and a body of this content type.
    pub(super) fn read(query: &str, content_type: &str, body: &[u8]) -> Result<Args, ArgsError> {
        let mut values = Map::new();
        insert_form(&mut values, query.as_bytes());
        if body.is_empty() {
            // Slack's Python SDK announces JSON also where it sends nothing.
        } else if content_type.starts_with("application/json") {
            match serde_json::from_slice(body).map_err(|_| ArgsError::Json)? {
                Value::Object(object) => values.extend(object),
                _ => return Err(ArgsError::NotObject),
            }
        } else if let Some(boundary) = multipart_boundary(content_type) {
            insert_multipart(&mut values, &boundary, body);
        } else {
            insert_form(&mut values, body);
        }
        for name in JSON_ARGUMENTS {
            if let Some(Value::String(text)) = values.get(*name) {
                let parsed = match text.as_str() {
                    "" => Value::Null,
                    text => serde_json::from_str(text).map_err(|_| ArgsError::Argument((*name).to_owned()))?,
                };
                values.insert((*name).to_owned(), parsed);
            }
        }
        values.retain(|_, value| !value.is_null());
        Ok(Args { values })
    }

    /// From a JSON object such as the payload of an acknowledgement; anything else is no arguments.
    pub(super) fn from_payload(payload: &Value) -> Args {
        Args {
            values: payload.as_object().cloned().unwrap_or_default(),
        }
    }

    /// The same without one argument.
    pub(super) fn without(&self, name: &str) -> Args {
        let mut values = self.values.clone();
        values.remove(name);
        Args { values }
    }

    /// All of them, for the log.
    pub(super) fn all(&self) -> &Map<String, Value> {
        &self.values
    }

    /// A text argument; empty counts as absent.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.values
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    /// A JSON argument.
    pub(super) fn json(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// A list of JSON objects; an absent one is empty.
    pub(super) fn list(&self, name: &str) -> Vec<Value> {
        self.values
            .get(name)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    }

    /// A flag: `true`, `"true"` or `"1"`.
    pub(super) fn flag(&self, name: &str) -> bool {
        match self.values.get(name) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => text == "true" || text == "1",
            Some(Value::Number(number)) => number.as_u64() == Some(1),
            _ => false,
        }
    }

    /// A number, as number or text.
    pub(super) fn number(&self, name: &str) -> Option<usize> {
        let value = self.values.get(name)?;
        value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .or_else(|| value.as_str()?.parse().ok())
    }
}

fn insert_form(values: &mut Map<String, Value>, form: &[u8]) {
    for (name, value) in url::form_urlencoded::parse(form) {
        values.insert(name.into_owned(), Value::String(value.into_owned()));
    }
}

fn multipart_boundary(content_type: &str) -> Option<String> {
    let parameters = content_type.strip_prefix("multipart/form-data")?;
    let (_, boundary) = parameters.split_once("boundary=")?;
    Some(boundary.trim_matches('"').to_owned())
}

/// The parts of a multipart body: name and content. Files come through as base64 where they are not text.
fn insert_multipart(values: &mut Map<String, Value>, boundary: &str, body: &[u8]) {
    let delimiter = format!("--{boundary}");
    for part in split(body, delimiter.as_bytes()) {
        let mut halves = split(part, b"\r\n\r\n").into_iter();
        let (Some(head), Some(first)) = (halves.next(), halves.next()) else {
            continue;
        };
        let start = first.as_ptr().addr() - part.as_ptr().addr();
        let content = part[start..].strip_suffix(b"\r\n").unwrap_or(&part[start..]);
        let head = String::from_utf8_lossy(head);
        let Some((_, rest)) = head.split_once("name=\"") else {
            continue;
        };
        let Some((name, _)) = rest.split_once('"') else {
            continue;
        };
        let text = String::from_utf8(content.to_vec())
            .unwrap_or_else(|_| base64::engine::general_purpose::STANDARD.encode(content));
        values.insert(name.to_owned(), Value::String(text));
    }
}

/// The pieces of `body` between occurrences of `delimiter`.
fn split<'a>(body: &'a [u8], delimiter: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at + delimiter.len() <= body.len() {
        if &body[at..at + delimiter.len()] == delimiter {
            pieces.push(&body[start..at]);
            at += delimiter.len();
            start = at;
        } else {
            at += 1;
        }
    }
    pieces.push(&body[start..]);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_arguments_come_out_of_json_form_and_multipart() {
        let json = Args::read(
            "",
            "application/json; charset=utf-8",
            br#"{"channel":"C1","blocks":[{"type":"divider"}]}"#,
        );
        let form = Args::read(
            "",
            "application/x-www-form-urlencoded",
            b"channel=C1&blocks=%5B%7B%22type%22%3A%22divider%22%7D%5D",
        );
        let multipart = Args::read(
            "",
            "multipart/form-data; boundary=xx",
            b"--xx\r\nContent-Disposition: form-data; name=\"channel\"\r\n\r\nC1\r\n--xx\r\nContent-Disposition: form-data; \
              name=\"blocks\"\r\n\r\n[{\"type\":\"divider\"}]\r\n--xx--\r\n",
        );
        for args in [json, form, multipart] {
            let args = args.expect("readable");
            assert_eq!(args.text("channel"), Some("C1"));
            assert_eq!(args.list("blocks"), [serde_json::json!({"type": "divider"})]);
        }
    }

    #[test]
    fn blocks_that_are_not_json_are_named() {
        let error = Args::read("blocks=%5B", "", b"").expect_err("not JSON");
        assert_eq!(error.name(), "invalid_blocks_format");
    }
}

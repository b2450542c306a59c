//! Answers of the API that are no objects: `Status`, with the real server's texts.
//!
//! Owns the wording and the codes. Never decides when one is given.

use diagbot_catalog::policy::CONTAINERS;
use http::StatusCode;
use serde_json::{Value, json};

use super::kind::{self, Kind};

/// A refusal or failure, as the API server words it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status.
    pub code: StatusCode,
    /// `reason` of the Status, e.g. `NotFound`.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
    /// `details` of the Status; null where the real one has none.
    pub details: Value,
}

/// One fault of a validated object: field path, type and text.
#[derive(Debug, Clone)]
pub(super) struct Cause {
    /// Path of the field, e.g. `spec.ephemeralContainers[0].name`.
    pub(super) field: String,
    /// Text after the path, e.g. `Required value`.
    pub(super) message: String,
    /// `reason` of the cause, e.g. `FieldValueRequired`.
    pub(super) reason: &'static str,
}

impl Cause {
    /// `Forbidden: <text>`.
    pub(super) fn forbidden(field: impl Into<String>, text: &str) -> Self {
        Self::new(field, format!("Forbidden: {text}"), "FieldValueForbidden")
    }

    /// `Duplicate value: "<value>"`.
    pub(super) fn duplicate(field: impl Into<String>, value: &str) -> Self {
        Self::new(field, format!("Duplicate value: {value:?}"), "FieldValueDuplicate")
    }

    /// `Not found: "<value>"`.
    pub(super) fn not_found(field: impl Into<String>, value: &str) -> Self {
        Self::new(field, format!("Not found: {value:?}"), "FieldValueNotFound")
    }

    /// `Required value`, with an explanation where the real server has one.
    pub(super) fn required(field: impl Into<String>, text: &str) -> Self {
        let message = if text.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {text}")
        };
        Self::new(field, message, "FieldValueRequired")
    }

    /// `Invalid value: "<value>": <text>`.
    pub(super) fn invalid(field: impl Into<String>, value: &str, text: &str) -> Self {
        Self::new(field, format!("Invalid value: {value:?}: {text}"), "FieldValueInvalid")
    }

    /// `Unsupported value: "<value>": supported values: "<one>", "<other>"`.
    pub(super) fn unsupported(field: impl Into<String>, value: &str, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let message = format!("Unsupported value: {value:?}: supported values: {}", quoted.join(", "));
        Self::new(field, message, "FieldValueNotSupported")
    }

    fn new(field: impl Into<String>, message: String, reason: &'static str) -> Self {
        Self {
            field: field.into(),
            message,
            reason,
        }
    }
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Value::Null,
        }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        let mut details = json!({ "kind": kind.plural });
        if !name.is_empty() {
            details["name"] = json!(name);
        }
        if !kind.group.is_empty() {
            details["group"] = json!(kind.group);
        }
        self.details = details;
        self
    }

    /// 404 of an object.
    pub(super) fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} not found", kind.qualified_resource());
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(kind, name)
    }

    /// 404 of a path.
    pub(super) fn no_such_path() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
        )
    }

    /// 409 of a create.
    pub(super) fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", kind.qualified_resource());
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(kind, name)
    }

    /// 409 of a write over a newer object.
    pub(super) fn modified(kind: &Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 of an operation.
    pub(super) fn conflict(kind: &Kind, name: &str, text: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {text}",
            kind.qualified_resource()
        );
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(kind, name)
    }

    /// 400.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401.
    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403; `text` is the part after `is forbidden: `.
    pub(super) fn forbidden(kind: &Kind, name: &str, text: &str) -> Self {
        let subject = if name.is_empty() {
            kind.qualified_resource()
        } else {
            format!("{} {name:?}", kind.qualified_resource())
        };
        Self::new(
            StatusCode::FORBIDDEN,
            "Forbidden",
            format!("{subject} is forbidden: {text}"),
        )
        .about(kind, name)
    }

    /// 403 of a path that is no resource.
    pub(super) fn forbidden_path(user: &str, verb: &str, path: &str) -> Self {
        let message = format!("forbidden: User {user:?} cannot {verb} path {path:?}");
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 422 of an object with faults.
    pub(super) fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let text = if let [only] = texts.as_slice() {
            only.clone()
        } else {
            format!("[{}]", texts.join(", "))
        };
        let message = format!("{} {name:?} is invalid: {text}", kind.qualified_kind());
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message);
        error.details = json!({
            "name": name,
            "kind": kind.kind,
            "causes": causes
                .iter()
                .map(|c| json!({ "reason": c.reason, "message": c.message, "field": c.field }))
                .collect::<Vec<_>>(),
        });
        if !kind.group.is_empty() {
            error.details["group"] = json!(kind.group);
        }
        error
    }

    /// 410 of a watch or list from a revision that is gone.
    pub(super) fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(
            StatusCode::GONE,
            "Expired",
            format!("too old resource version: {asked} ({oldest})"),
        )
    }

    /// 405.
    pub(super) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// 415 of a patch type that the kind does not take.
    pub(super) fn unsupported_patch(accepted: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// 429, as priority and fairness answers.
    pub(super) fn too_many_requests() -> Self {
        let mut error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TooManyRequests",
            "Too many requests, please try again later.",
        );
        error.details = json!({ "retryAfterSeconds": 1 });
        error
    }

    /// 500.
    pub(super) fn internal(message: &str) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: {message}"),
        )
    }

    /// 503 of a server that starts or ends.
    pub(super) fn unavailable() -> Self {
        let message = "the server is currently unable to handle the request";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// 422 of an admission policy of somebody else.
    pub(super) fn policy_denied(kind: &Kind, name: &str) -> Self {
        Self::denied_by("no-debugging", kind, name, "ephemeral containers are not allowed here")
    }

    /// 422 of the fence around the bot's containers; `text` is the rule's message.
    pub(super) fn fenced(pod: &str, text: &str) -> Self {
        Self::denied_by(CONTAINERS, &kind::POD, pod, text)
    }

    fn denied_by(policy: &str, kind: &Kind, name: &str, text: &str) -> Self {
        let message = format!(
            "{} {name:?} is forbidden: ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: {text}",
            kind.qualified_resource()
        );
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(kind, name)
    }

    /// 501: what the real server has and the sandbox has not.
    pub(super) fn not_in_sandbox(what: &str) -> Self {
        let message = format!("this is the diagbot sandbox, not a cluster: it does not serve {what}");
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    /// The `Status` object.
    pub(super) fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

/// `Status: Success` about a deleted object.
pub(super) fn deleted(kind: &Kind, name: &str, uid: &str) -> Value {
    let mut details = json!({ "name": name, "kind": kind.plural, "uid": uid });
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}

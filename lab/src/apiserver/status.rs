//! Failures, as the `Status` objects that a real API server answers.

use serde_json::{Value, json};

/// Why a request was refused: becomes the HTTP status and a `Status` body.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
    details: Value,
}

/// One complaint about one field of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FieldError {
    /// Path of the field, such as `spec.cidr` or `spec.peers[0].ip`.
    pub field: String,
    /// Kubernetes' name of the sort of error, such as `FieldValueInvalid`.
    pub reason: &'static str,
    /// What is wrong, without the path, such as `Required value`.
    pub message: String,
}

impl FieldError {
    /// A complaint in the caller's own words.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), reason: "FieldValueInvalid", message: message.into() }
    }

    pub(super) fn value(field: &str, value: &Value, why: &str) -> Self {
        Self::invalid(field, format!("Invalid value: {value}: {why}"))
    }

    pub(super) fn required(field: &str) -> Self {
        let message = "Required value".to_owned();
        Self { field: field.to_owned(), reason: "FieldValueRequired", message }
    }

    pub(super) fn forbidden(field: &str, why: &str) -> Self {
        let message = format!("Forbidden: {why}");
        Self { field: field.to_owned(), reason: "FieldValueForbidden", message }
    }

    pub(super) fn unsupported(field: &str, value: &Value, supported: &[String]) -> Self {
        let supported: Vec<String> = supported.iter().map(|item| format!("{item:?}")).collect();
        Self {
            field: field.to_owned(),
            reason: "FieldValueNotSupported",
            message: format!(
                "Unsupported value: {value}: supported values: {}",
                supported.join(", ")
            ),
        }
    }
}

impl Failure {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: json!({}) }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(super) fn no_route() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(super) fn method() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    pub(super) fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, plural));
        Self::new(404, "NotFound", message).about(group, plural, name)
    }

    pub(super) fn exists(group: &str, plural: &str, name: &str, going: bool) -> Self {
        let going = if going { "object is being deleted: " } else { "" };
        let message = format!("{going}{} {name:?} already exists", qualified(group, plural));
        Self::new(409, "AlreadyExists", message).about(group, plural, name)
    }

    pub(super) fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let what = qualified(group, plural);
        let message = format!("Operation cannot be fulfilled on {what} {name:?}: {why}");
        Self::new(409, "Conflict", message).about(group, plural, name)
    }

    pub(super) fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", qualified(group, plural));
        Self::new(403, "Forbidden", message).about(group, plural, name)
    }

    pub(super) fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    pub(super) fn media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 422 with one cause for each error (apimachinery `errors.NewInvalid`).
    pub(super) fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for error in errors {
            let text = format!("{}: {}", error.field, error.message);
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let text = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let causes: Vec<Value> = errors
            .iter()
            .map(|error| json!({"reason": error.reason, "message": error.message, "field": error.field}))
            .collect();
        let what = qualified(group, kind);
        let mut failure = Self::new(422, "Invalid", format!("{what} {name:?} is invalid: {text}"));
        failure = failure.about(group, kind, name);
        if let Some(details) = failure.details.as_object_mut() {
            details.insert("causes".to_owned(), Value::Array(causes));
        }
        failure
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let mut details = serde_json::Map::new();
        details.insert("name".to_owned(), json!(name));
        if !group.is_empty() {
            details.insert("group".to_owned(), json!(group));
        }
        details.insert("kind".to_owned(), json!(kind));
        self.details = Value::Object(details);
        self
    }

    pub(super) fn body(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": self.details, "code": self.code,
        })
    }
}

/// `pods`, but `ippools.projectcalico.org`.
fn qualified(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

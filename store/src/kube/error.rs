//! From HTTP status and Kubernetes `Status` bodies to [`StoreError`].

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use crate::StoreError;

/// What a request was about, for error messages.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) kind: &'static str,
    pub(super) key: String,
}

/// The parts of `meta/v1 Status` that decide.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    code: u16,
    reason: String,
    message: String,
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    retry_after_seconds: u64,
}

/// A failed request.
#[derive(Debug)]
pub(super) struct Failure {
    code: u16,
    reason: String,
    message: String,
    retry_after: Option<u64>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, body: &[u8], retry_after: Option<u64>) -> Self {
        let parsed = serde_json::from_slice::<Status>(body).unwrap_or_default();
        let message = if parsed.message.is_empty() {
            let text: String = String::from_utf8_lossy(body).trim().chars().take(300).collect();
            format!("HTTP {status} {text}").trim_end().to_owned()
        } else {
            parsed.message
        };
        let in_body = parsed.details.retry_after_seconds;
        Self {
            code: status.as_u16(),
            reason: parsed.reason,
            message,
            retry_after: retry_after.or((in_body > 0).then_some(in_body)),
        }
    }

    /// From the object of a watch's `ERROR` event.
    pub(super) fn from_status(status: Status) -> Self {
        let seconds = status.details.retry_after_seconds;
        Self {
            code: status.code,
            reason: status.reason,
            message: status.message,
            retry_after: (seconds > 0).then_some(seconds),
        }
    }

    pub(super) fn into_store_error(self, target: &Target) -> StoreError {
        let (kind, key, message) = (target.kind, target.key.clone(), self.message);
        match (self.code, self.reason.as_str()) {
            (404, _) => StoreError::NotFound { kind, key },
            (409, "AlreadyExists") => StoreError::AlreadyExists { kind, key },
            (409, _) => StoreError::Conflict { kind, key },
            (410, _) => StoreError::Gone,
            (401 | 403, _) => StoreError::Forbidden { message },
            (429, _) => {
                StoreError::TooManyRequests { message, retry_after_seconds: self.retry_after }
            }
            (400..=499, _) => StoreError::Invalid { message },
            _ => StoreError::Unavailable { message },
        }
    }
}

pub(super) fn retry_after(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

//! What a datastore call can fail with.

/// Why a datastore call failed. Every variant says what a caller may do next.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No such object (HTTP 404).
    #[error("{kind} {key} not found")]
    NotFound {
        /// Kind asked for.
        kind: &'static str,
        /// Object asked for.
        key: String,
    },
    /// Create of something that exists (HTTP 409 AlreadyExists).
    #[error("{kind} {key} already exists")]
    AlreadyExists {
        /// Kind.
        kind: &'static str,
        /// Object.
        key: String,
    },
    /// Compare-and-swap lost, or a delete precondition did not hold (HTTP 409 Conflict): read again, then retry.
    #[error("{kind} {key} was changed by someone else")]
    Conflict {
        /// Kind.
        kind: &'static str,
        /// Object.
        key: String,
    },
    /// The watch revision is too old (HTTP 410): list again.
    #[error("revision is too old, list again")]
    Gone,
    /// The API server refused the object (HTTP 400, 422) with its reason: retrying does not help.
    #[error("{message}")]
    Invalid {
        /// The server's message: field and reason.
        message: String,
    },
    /// Not allowed (HTTP 401, 403).
    #[error("not allowed: {message}")]
    Forbidden {
        /// The server's message.
        message: String,
    },
    /// The server asks to slow down (HTTP 429).
    #[error("API server asks to slow down: {message}")]
    TooManyRequests {
        /// The server's message.
        message: String,
        /// Seconds to wait, when the server said so.
        retry_after_seconds: Option<u64>,
    },
    /// The server could not be reached, timed out or failed (5xx): the write may or may not have happened.
    #[error("datastore unavailable: {message}")]
    Unavailable {
        /// What happened.
        message: String,
    },
    /// An object could not be read into our type.
    #[error("cannot read {kind} {key}: {message}")]
    Malformed {
        /// Kind.
        kind: &'static str,
        /// Object.
        key: String,
        /// Serde's message with the field.
        message: String,
    },
}

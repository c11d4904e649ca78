//! An object together with what the server sent, so that unknown fields survive a write.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde_json::Value;

/// A typed object and the raw JSON it was read from.
#[derive(Clone, Debug)]
pub struct Stored<R> {
    value: R,
    raw: Arc<Value>,
}

impl<R> Stored<R> {
    /// Pairs a typed object with the JSON it was read from.
    #[must_use]
    pub fn new(value: R, raw: Arc<Value>) -> Self {
        Self { value, raw }
    }

    /// Returns the JSON as the server sent it.
    #[must_use]
    pub fn raw(&self) -> &Value {
        &self.raw
    }

    /// Gives up the raw JSON.
    #[must_use]
    pub fn into_inner(self) -> R {
        self.value
    }
}

impl<R> Deref for Stored<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.value
    }
}

impl<R> DerefMut for Stored<R> {
    fn deref_mut(&mut self) -> &mut R {
        &mut self.value
    }
}

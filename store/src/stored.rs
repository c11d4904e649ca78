//! An object together with what the server sent, so that unknown fields survive a write.

mod merge;
#[cfg(test)]
mod tests;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use api::{Key, Resource};
use serde_json::Value;

use crate::{Revision, StoreError};

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

    /// Forgets the raw JSON to save memory. Such an object can be read, not written back.
    #[must_use]
    pub fn without_raw(self) -> Self {
        Self { value: self.value, raw: Arc::new(Value::Null) }
    }
}

impl<R: Resource> Stored<R> {
    /// Reads an object from JSON.
    pub fn parse(raw: Arc<Value>) -> Result<Self, StoreError> {
        match R::deserialize(raw.as_ref()) {
            Ok(value) => Ok(Self { value, raw }),
            Err(error) => Err(StoreError::Malformed {
                kind: R::KIND.kind,
                key: raw_key(&raw).to_string(),
                message: error.to_string(),
            }),
        }
    }

    /// Returns the revision of the object, empty when it was never stored.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision::new(self.value.meta().resource_version.clone().unwrap_or_default())
    }

    /// Returns the JSON to send for an update: what was read, changed by what changed in the typed object.
    ///
    /// Keys that our type does not know survive; keys that were removed on purpose go.
    pub fn body(&self) -> Result<Value, StoreError> {
        let malformed = |error: serde_json::Error| StoreError::Malformed {
            kind: R::KIND.kind,
            key: self.value.key().to_string(),
            message: error.to_string(),
        };
        if self.raw.is_null() {
            return Err(StoreError::Invalid {
                message: format!(
                    "{} {} was cached without its raw form: read it again before writing it",
                    R::KIND.kind,
                    self.value.key()
                ),
            });
        }
        let as_read = R::deserialize(self.raw.as_ref()).map_err(malformed)?;
        let base = serde_json::to_value(&as_read).map_err(malformed)?;
        let now = serde_json::to_value(&self.value).map_err(malformed)?;
        let mut body = merge::three_way(&self.raw, &base, &now);
        name_type::<R>(&mut body);
        Ok(body)
    }
}

/// Serialises an object for a create.
pub(crate) fn new_body<R: Resource>(object: &R) -> Result<Value, StoreError> {
    let mut body = serde_json::to_value(object).map_err(|error| StoreError::Malformed {
        kind: R::KIND.kind,
        key: object.key().to_string(),
        message: error.to_string(),
    })?;
    name_type::<R>(&mut body);
    Ok(body)
}

/// Items of a built-in list come without `apiVersion` and `kind`, and a write needs them.
fn name_type<R: Resource>(body: &mut Value) {
    if let Some(body) = body.as_object_mut() {
        body.entry("apiVersion").or_insert_with(|| Value::String(R::KIND.api_version()));
        body.entry("kind").or_insert_with(|| Value::String(R::KIND.kind.to_owned()));
    }
}

/// Reads the key out of raw JSON, as far as it is there.
pub(crate) fn raw_key(raw: &Value) -> Key {
    let text = |pointer: &str| raw.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    Key { namespace: text("/metadata/namespace"), name: text("/metadata/name").unwrap_or_default() }
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

//! The port itself.

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin};

use api::{Key, Resource};
use futures::Stream;

use crate::{StoreError, Stored};

/// An opaque revision of the datastore or of one object. Only equality means anything.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Revision(String);

impl Revision {
    /// Wraps what a server returned as `resourceVersion`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text to send back to the server.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What to list or watch.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ListOptions {
    /// Only this namespace; `None` means all.
    pub namespace: Option<String>,
    /// Only objects that have all these labels (equality).
    pub labels: BTreeMap<String, String>,
    /// Only objects with these fields (`spec.nodeName`, `metadata.name`), where the server supports it.
    pub fields: BTreeMap<String, String>,
    /// Accept an answer from the server's cache, which can be a moment old (`resourceVersion=0`). A consistent list costs a
    /// real API server a hundred times more: never use it in a hot path.
    pub cached: bool,
    /// The answer must not be older than this revision; an API server's cache can still serve it. Wins over `cached`.
    pub not_older_than: Option<Revision>,
}

impl ListOptions {
    /// Everything, in every namespace, from the server's cache.
    #[must_use]
    pub fn cached() -> Self {
        Self { cached: true, ..Self::default() }
    }

    /// Everything, in every namespace, as of now.
    #[must_use]
    pub fn consistent() -> Self {
        Self::default()
    }

    /// Restricts to objects with the label `key=value`.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Restricts to objects whose field `path` equals `value`.
    #[must_use]
    pub fn field(mut self, path: impl Into<String>, value: impl Into<String>) -> Self {
        self.fields.insert(path.into(), value.into());
        self
    }

    /// Restricts to one namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }
}

/// The answer to a list: objects in key order, and the revision to watch from.
#[derive(Clone, Debug)]
pub struct Listing<R> {
    /// Objects in key order.
    pub items: Vec<Stored<R>>,
    /// Objects that our type cannot read, with the reason. They count as absent and must be reported.
    pub malformed: Vec<(Key, String)>,
    /// Revision of the whole list.
    pub revision: Revision,
}

/// One change seen by a watch.
#[derive(Clone, Debug)]
pub enum WatchEvent<R> {
    /// Created or changed.
    Applied(Stored<R>),
    /// Deleted; the last state that the server knew.
    Deleted(Stored<R>),
    /// Nothing changed up to this revision: resume from here.
    Bookmark(Revision),
    /// An object that our type cannot read. It counts as absent, must be reported, and hides nothing else.
    Malformed {
        /// Which object.
        key: Key,
        /// Whether it was deleted.
        is_gone: bool,
        /// Why.
        message: String,
    },
}

/// A stream of changes; ends with an error (for instance [`StoreError::Gone`]) or silently when the server closes it.
pub type WatchStream<R> = Pin<Box<dyn Stream<Item = Result<WatchEvent<R>, StoreError>> + Send>>;

/// What must hold for a delete to happen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DeletePreconditions {
    /// UID that the object must have.
    pub uid: Option<String>,
    /// Revision that the object must have.
    pub revision: Option<Revision>,
}

/// A datastore with compare-and-swap. Cheap to clone; clones share connections.
///
/// Contract, checked by `conformance`:
/// * `create` fails with `AlreadyExists`, `update` with `Conflict` when the object moved on and with `NotFound` when it is gone.
/// * A successful write returns the object as stored (defaults filled, new revision).
/// * A watch from the revision of a list sees every later change of the listed objects exactly once, in order.
/// * `Unavailable` says nothing about whether a write happened.
pub trait Store: Clone + Send + Sync + 'static {
    /// Reads one object.
    fn get<R: Resource>(
        &self,
        key: &Key,
    ) -> impl Future<Output = Result<Stored<R>, StoreError>> + Send;

    /// Lists objects, all pages of it.
    fn list<R: Resource>(
        &self,
        options: &ListOptions,
    ) -> impl Future<Output = Result<Listing<R>, StoreError>> + Send;

    /// Watches from a revision that a list, a bookmark or an event gave.
    fn watch<R: Resource>(
        &self,
        options: &ListOptions,
        from: &Revision,
    ) -> impl Future<Output = Result<WatchStream<R>, StoreError>> + Send;

    /// Creates an object.
    fn create<R: Resource>(
        &self,
        object: &R,
    ) -> impl Future<Output = Result<Stored<R>, StoreError>> + Send;

    /// Replaces an object if its revision is still the one in `object`. Unknown fields are kept.
    fn update<R: Resource>(
        &self,
        object: &Stored<R>,
    ) -> impl Future<Output = Result<Stored<R>, StoreError>> + Send;

    /// Like [`Store::update`], for the status sub-resource.
    fn update_status<R: Resource>(
        &self,
        object: &Stored<R>,
    ) -> impl Future<Output = Result<Stored<R>, StoreError>> + Send;

    /// Merge-patches (RFC 7386) an object, or its sub-resource (`Some("status")`), without compare-and-swap.
    fn patch<R: Resource>(
        &self,
        key: &Key,
        subresource: Option<&str>,
        patch: &serde_json::Value,
    ) -> impl Future<Output = Result<Stored<R>, StoreError>> + Send;

    /// Deletes an object if the preconditions hold.
    fn delete<R: Resource>(
        &self,
        key: &Key,
        preconditions: &DeletePreconditions,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

//! Objects in memory, one revision for all of them, and enough history of each kind to resume a watch.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;
use tokio::sync::watch;

use super::{status::Failure, value::text};

/// Changes remembered for each kind; a watch that is further behind must list again (410).
const HISTORY: usize = 8192;

/// Namespace ("" when cluster-scoped) and name.
pub(super) type ObjectKey = (String, String);

/// Everything stored.
#[derive(Debug, Default)]
pub(super) struct Storage {
    revision: u64,
    collections: BTreeMap<String, Collection>,
}

/// The objects of one kind.
#[derive(Debug)]
struct Collection {
    objects: BTreeMap<ObjectKey, Arc<Value>>,
    history: VecDeque<Change>,
    /// Newest revision that `history` has forgotten.
    forgotten: u64,
    newest: watch::Sender<u64>,
}

impl Default for Collection {
    fn default() -> Self {
        let newest = watch::Sender::new(0);
        Self { objects: BTreeMap::new(), history: VecDeque::new(), forgotten: 0, newest }
    }
}

/// One change: `before` and `after` tell creation, change and deletion apart.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) before: Option<Arc<Value>>,
    /// The object after the change; for a deletion its last state, at the revision of the deletion.
    pub(super) object: Arc<Value>,
    pub(super) deleted: bool,
}

impl Storage {
    /// The revision of the newest change of all.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn get(&self, collection: &str, key: &ObjectKey) -> Option<&Arc<Value>> {
        self.collections.get(collection)?.objects.get(key)
    }

    /// Objects in key order, after `start` if given.
    pub(super) fn list(
        &self,
        collection: &str,
        start: Option<&ObjectKey>,
    ) -> impl Iterator<Item = (&ObjectKey, &Arc<Value>)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = start.map_or(Unbounded, |key| Excluded(key.clone()));
        self.collections
            .get(collection)
            .into_iter()
            .flat_map(move |c| c.objects.range((from.clone(), Unbounded)))
    }

    /// Names of the collections that have objects.
    pub(super) fn collections(&self) -> Vec<String> {
        self.collections.keys().cloned().collect()
    }

    /// Stores an object at the next revision, which it writes into the object's metadata.
    pub(super) fn put(&mut self, collection: &str, key: ObjectKey, object: Value) -> Arc<Value> {
        let (revision, object) = self.stamp(object);
        let place = self.collections.entry(collection.to_owned()).or_default();
        let before = place.objects.insert(key, Arc::clone(&object));
        place.record(Change { revision, before, object: Arc::clone(&object), deleted: false });
        object
    }

    /// Removes an object at the next revision.
    pub(super) fn remove(&mut self, collection: &str, key: &ObjectKey) -> Option<Arc<Value>> {
        let before = self.collections.get_mut(collection)?.objects.remove(key)?;
        let (revision, object) = self.stamp(Value::clone(&before));
        let place = self.collections.get_mut(collection)?;
        place.record(Change {
            revision,
            before: Some(before),
            object: Arc::clone(&object),
            deleted: true,
        });
        Some(object)
    }

    fn stamp(&mut self, mut object: Value) -> (u64, Arc<Value>) {
        self.revision += 1;
        super::value::object_at(&mut object, &["metadata"])
            .insert("resourceVersion".to_owned(), Value::String(self.revision.to_string()));
        (self.revision, Arc::new(object))
    }

    /// Changes of a kind after a revision; an error when they are no longer known.
    pub(super) fn changes_after(
        &self,
        collection: &str,
        revision: u64,
    ) -> Result<Vec<Change>, Failure> {
        let Some(place) = self.collections.get(collection) else { return Ok(Vec::new()) };
        if revision < place.forgotten {
            return Err(Failure::expired(revision, place.forgotten));
        }
        let first = place.history.partition_point(|change| change.revision <= revision);
        Ok(place.history.range(first..).cloned().collect())
    }

    /// Wakes when the kind changes.
    pub(super) fn subscribe(&mut self, collection: &str) -> watch::Receiver<u64> {
        self.collections.entry(collection.to_owned()).or_default().newest.subscribe()
    }
}

impl Collection {
    fn record(&mut self, change: Change) {
        let revision = change.revision;
        self.history.push_back(change);
        if self.history.len() > HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.forgotten = oldest.revision;
        }
        self.newest.send_replace(revision);
    }
}

/// The key of an object.
pub(super) fn key_of(object: &Value) -> ObjectKey {
    (
        text(object, &["metadata", "namespace"]).to_owned(),
        text(object, &["metadata", "name"]).to_owned(),
    )
}

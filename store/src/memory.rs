//! The reference backend: everything in memory, with the API server's manners, and with faults on demand.
//!
//! It behaves like an API server where callers can notice: one revision for everything, compare-and-swap, no event for
//! a write that changes nothing, status as a sub-resource, finalizers, watches that resume and get too old. It does not
//! validate objects against a schema and fills in no defaults.

mod fault;
mod objects;
mod requests;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::{Key, Resource};
use futures::stream;
use serde_json::Value;
use tokio::sync::watch;

pub use fault::Faults;
pub use requests::{Request, Verb};

use crate::{
    DeletePreconditions, ListOptions, Listing, Revision, Store, StoreError, Stored, WatchEvent,
    WatchStream, stored,
};
use fault::FaultState;
use objects::{Change, ChangeKind, KindId, Objects, Selection, WriteError};
use requests::RequestLog;

/// A datastore in memory. Clones share the same objects.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    revision: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    objects: Objects,
    faults: FaultState,
    requests: RequestLog,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// Makes an empty store without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::with_faults(Faults::none())
    }

    /// Makes an empty store that fails as planned.
    #[must_use]
    pub fn with_faults(faults: Faults) -> Self {
        let state = State {
            objects: Objects::new(),
            faults: FaultState::new(faults),
            requests: RequestLog::default(),
        };
        let (revision, _) = watch::channel(0);
        Self { shared: Arc::new(Shared { state: Mutex::new(state), revision }) }
    }

    /// Changes the plan of faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = FaultState::new(faults);
    }

    /// Forgets the history up to now: every watch that is behind gets [`StoreError::Gone`].
    pub fn compact(&self) {
        self.lock().objects.compact();
    }

    /// Returns how many requests of this verb and kind came in.
    #[must_use]
    pub fn count<R: Resource>(&self, verb: Verb) -> u64 {
        self.lock().requests.count(verb, R::KIND.kind)
    }

    /// Returns every request since the last [`MemoryStore::forget_requests`], in order (at most 100 000).
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests.entries().to_vec()
    }

    /// Empties the request log and the counters.
    pub fn forget_requests(&self) {
        self.lock().requests = RequestLog::default();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request, makes it slow and perhaps fails it before anything happens.
    async fn arrive<R: Resource>(&self, verb: Verb, key: &str) -> Result<(), StoreError> {
        let (latency, failure) = {
            let mut state = self.lock();
            state.requests.push(verb, R::KIND.kind, key);
            (state.faults.latency(), state.faults.before(verb, R::KIND.kind, key))
        };
        // Always a point where a caller can be cancelled, as with a real network.
        tokio::task::yield_now().await;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Runs a write, tells the watches, and perhaps loses the answer.
    async fn commit<R: Resource>(
        &self,
        verb: Verb,
        key: &Key,
        write: impl FnOnce(&mut Objects) -> Result<Arc<Value>, WriteError>,
    ) -> Result<Arc<Value>, StoreError> {
        let (result, lost, revision) = {
            let mut state = self.lock();
            let result = write(&mut state.objects);
            let lost = state.faults.after(verb);
            (result, lost, state.objects.revision())
        };
        self.shared.revision.send_replace(revision);
        tokio::task::yield_now().await;
        let object = result.map_err(|error| error.explain(&R::KIND, key))?;
        lost.map_or(Ok(object), Err)
    }

    fn next_change(&self, kind: &KindId, selection: &Selection, after: u64) -> Next {
        let mut state = self.lock();
        if state.faults.loses_watch() {
            return Next::Lost;
        }
        match state.objects.next_change(kind, selection, after) {
            Err(WriteError::Gone) => Next::Gone,
            Ok((Some(change), revision)) => Next::Change(change, revision),
            Ok((None, revision)) if revision > after.saturating_add(BOOKMARK_EVERY) => {
                Next::Bookmark(revision)
            }
            _ => Next::Nothing,
        }
    }
}

/// Revisions that pass a quiet watch by before it gets a bookmark.
const BOOKMARK_EVERY: u64 = 64;

enum Next {
    Change(Change, u64),
    Bookmark(u64),
    Nothing,
    Gone,
    Lost,
}

struct Watcher {
    store: MemoryStore,
    kind: KindId,
    selection: Selection,
    at: u64,
    revision: watch::Receiver<u64>,
    ended: bool,
}

impl Watcher {
    async fn next<R: Resource>(mut self) -> Option<(Result<WatchEvent<R>, StoreError>, Self)> {
        while !self.ended {
            self.revision.borrow_and_update();
            match self.store.next_change(&self.kind, &self.selection, self.at) {
                Next::Change(change, revision) => {
                    self.at = revision;
                    return Some((Ok(event(change)), self));
                }
                Next::Bookmark(revision) => {
                    self.at = revision;
                    let bookmark = WatchEvent::Bookmark(Revision::new(revision.to_string()));
                    return Some((Ok(bookmark), self));
                }
                Next::Gone => {
                    self.ended = true;
                    return Some((Err(StoreError::Gone), self));
                }
                Next::Lost => self.ended = true,
                Next::Nothing => self.revision.changed().await.ok()?,
            }
        }
        None
    }
}

fn event<R: Resource>(change: Change) -> WatchEvent<R> {
    let is_gone = change.kind == ChangeKind::Deleted;
    match Stored::parse(Arc::clone(&change.object)) {
        Ok(object) if is_gone => WatchEvent::Deleted(object),
        Ok(object) => WatchEvent::Applied(object),
        Err(error) => WatchEvent::Malformed {
            key: stored::raw_key(&change.object),
            is_gone,
            message: error.to_string(),
        },
    }
}

impl Store for MemoryStore {
    async fn get<R: Resource>(&self, key: &Key) -> Result<Stored<R>, StoreError> {
        self.arrive::<R>(Verb::Get, &key.to_string()).await?;
        let found = self.lock().objects.get(&KindId::of(&R::KIND), key);
        Stored::parse(found.ok_or_else(|| WriteError::NotFound.explain(&R::KIND, key))?)
    }

    async fn list<R: Resource>(&self, options: &ListOptions) -> Result<Listing<R>, StoreError> {
        self.arrive::<R>(Verb::List, "").await?;
        let (raw, revision) = {
            let mut state = self.lock();
            let State { objects, faults, .. } = &mut *state;
            let newest = objects.revision();
            let at = if options.cached {
                let floor = options
                    .not_older_than
                    .as_ref()
                    .map_or(objects.horizon(), |floor| floor.as_str().parse().unwrap_or(newest));
                faults.stale_revision(floor.max(objects.horizon()), newest)
            } else {
                newest
            };
            (objects.list_at(&KindId::of(&R::KIND), &Selection::of(options), at), at)
        };
        let revision = Revision::new(revision.to_string());
        let mut listing = Listing { items: Vec::new(), malformed: Vec::new(), revision };
        for raw in raw {
            match Stored::parse(Arc::clone(&raw)) {
                Ok(item) => listing.items.push(item),
                Err(error) => listing.malformed.push((stored::raw_key(&raw), error.to_string())),
            }
        }
        Ok(listing)
    }

    async fn watch<R: Resource>(
        &self,
        options: &ListOptions,
        from: &Revision,
    ) -> Result<WatchStream<R>, StoreError> {
        self.arrive::<R>(Verb::Watch, "").await?;
        let at = from.as_str().parse().map_err(|_| StoreError::Invalid {
            message: format!("resourceVersion {:?} is not one of this server's", from.as_str()),
        })?;
        let watcher = Watcher {
            store: self.clone(),
            kind: KindId::of(&R::KIND),
            selection: Selection::of(options),
            at,
            revision: self.shared.revision.subscribe(),
            ended: false,
        };
        Ok(Box::pin(stream::unfold(watcher, Watcher::next)))
    }

    async fn create<R: Resource>(&self, object: &R) -> Result<Stored<R>, StoreError> {
        let key = object.key();
        self.arrive::<R>(Verb::Create, &key.to_string()).await?;
        let body = stored::new_body(object)?;
        let write = |objects: &mut Objects| objects.create(&R::KIND, &key, body);
        Stored::parse(self.commit::<R>(Verb::Create, &key, write).await?)
    }

    async fn update<R: Resource>(&self, object: &Stored<R>) -> Result<Stored<R>, StoreError> {
        let (key, body) = (object.key(), object.body()?);
        self.arrive::<R>(Verb::Update, &key.to_string()).await?;
        let write = |objects: &mut Objects| objects.update(&R::KIND, &key, body, None);
        Stored::parse(self.commit::<R>(Verb::Update, &key, write).await?)
    }

    async fn update_status<R: Resource>(
        &self,
        object: &Stored<R>,
    ) -> Result<Stored<R>, StoreError> {
        let (key, body) = (object.key(), object.body()?);
        self.arrive::<R>(Verb::UpdateStatus, &key.to_string()).await?;
        let write = |objects: &mut Objects| objects.update(&R::KIND, &key, body, Some("status"));
        Stored::parse(self.commit::<R>(Verb::UpdateStatus, &key, write).await?)
    }

    async fn patch<R: Resource>(
        &self,
        key: &Key,
        subresource: Option<&str>,
        patch: &Value,
    ) -> Result<Stored<R>, StoreError> {
        self.arrive::<R>(Verb::Patch, &key.to_string()).await?;
        let write = |objects: &mut Objects| objects.patch(&R::KIND, key, patch, subresource);
        Stored::parse(self.commit::<R>(Verb::Patch, key, write).await?)
    }

    async fn delete<R: Resource>(
        &self,
        key: &Key,
        preconditions: &DeletePreconditions,
    ) -> Result<(), StoreError> {
        self.arrive::<R>(Verb::Delete, &key.to_string()).await?;
        let write = |objects: &mut Objects| objects.delete(&R::KIND, key, preconditions);
        self.commit::<R>(Verb::Delete, key, write).await.map(drop)
    }
}

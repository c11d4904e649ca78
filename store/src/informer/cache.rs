//! A shared map that follows the datastore.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};

use api::{Key, Resource};
use futures::StreamExt;
use tokio::{sync::watch, task::AbortHandle};

use super::{Change, FollowOptions, follow};
use crate::{Store, Stored};

/// What the cache is like at the moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CacheStatus {
    /// The first list is in.
    pub synced: bool,
    /// The datastore answered last time.
    pub connected: bool,
    /// Goes up with every change.
    pub version: u64,
}

/// A map of all selected objects, kept up to date by a task. Clones share it; the task ends with the last clone.
#[derive(Clone, Debug)]
pub struct Cache<R> {
    shared: Arc<Shared<R>>,
}

#[derive(Debug)]
struct Shared<R> {
    map: Arc<RwLock<BTreeMap<Key, Arc<Stored<R>>>>>,
    status: watch::Receiver<CacheStatus>,
    task: AbortHandle,
}

impl<R> Drop for Shared<R> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<R: Resource> Cache<R> {
    /// Starts following. Must be called inside a tokio runtime.
    #[must_use]
    pub fn follow(store: impl Store, options: FollowOptions) -> Self {
        let map = Arc::new(RwLock::new(BTreeMap::new()));
        let (told, status) = watch::channel(CacheStatus::default());
        let task = tokio::spawn(run(store, options, Arc::clone(&map), told)).abort_handle();
        Self { shared: Arc::new(Shared { map, status, task }) }
    }

    /// Returns one object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Stored<R>>> {
        self.shared.map.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Returns all objects in key order.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Stored<R>>> {
        self.shared.map.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Waits until the first list is in.
    pub async fn wait_synced(&self) {
        // The sender lives as long as the task, which lives as long as `self`.
        let _ = self.shared.status.clone().wait_for(|status| status.synced).await;
    }

    /// Returns the current status.
    #[must_use]
    pub fn status(&self) -> CacheStatus {
        *self.shared.status.borrow()
    }

    /// Returns a receiver that wakes up on every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<CacheStatus> {
        self.shared.status.clone()
    }
}

async fn run<R: Resource>(
    store: impl Store,
    options: FollowOptions,
    map: Arc<RwLock<BTreeMap<Key, Arc<Stored<R>>>>>,
    told: watch::Sender<CacheStatus>,
) {
    let mut changes = pin!(follow::<R>(store, options));
    while let Some(change) = changes.next().await {
        let (mut synced, mut connected) = (false, true);
        let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Applied(object) => {
                map.insert(object.key(), Arc::new(object));
            }
            Change::Deleted(key, _) => {
                map.remove(&key);
            }
            Change::Synced => synced = true,
            Change::Malformed { key, message } => {
                tracing::warn!(kind = R::KIND.kind, %key, message, "object cannot be read, ignored");
            }
            Change::Disconnected { reason, retry_in } => {
                connected = false;
                tracing::warn!(kind = R::KIND.kind, error = %reason, ?retry_in, "datastore does not answer");
            }
        }
        drop(map);
        told.send_modify(|status| {
            status.synced |= synced;
            status.connected = connected;
            status.version += 1;
        });
    }
}

//! A datastore that is as far away as an API server.

use std::time::Duration;

use api::{Key, Resource};
use serde_json::Value;
use store::{
    DeletePreconditions, ListOptions, Listing, Revision, Store, StoreError, Stored, WatchStream,
    memory::MemoryStore,
};

/// The reference backend, each of whose calls takes some time. Watches deliver at once.
#[derive(Clone, Debug)]
pub(super) struct Slow {
    store: MemoryStore,
    latency: Duration,
}

impl Slow {
    pub(super) fn new(store: MemoryStore, latency: Duration) -> Self {
        Self { store, latency }
    }

    async fn far(&self) -> &MemoryStore {
        tokio::time::sleep(self.latency).await;
        &self.store
    }
}

impl Store for Slow {
    async fn get<R: Resource>(&self, key: &Key) -> Result<Stored<R>, StoreError> {
        self.far().await.get(key).await
    }

    async fn list<R: Resource>(&self, options: &ListOptions) -> Result<Listing<R>, StoreError> {
        self.far().await.list(options).await
    }

    async fn watch<R: Resource>(
        &self,
        options: &ListOptions,
        from: &Revision,
    ) -> Result<WatchStream<R>, StoreError> {
        self.far().await.watch(options, from).await
    }

    async fn create<R: Resource>(&self, object: &R) -> Result<Stored<R>, StoreError> {
        self.far().await.create(object).await
    }

    async fn update<R: Resource>(&self, object: &Stored<R>) -> Result<Stored<R>, StoreError> {
        self.far().await.update(object).await
    }

    async fn update_status<R: Resource>(
        &self,
        object: &Stored<R>,
    ) -> Result<Stored<R>, StoreError> {
        self.far().await.update_status(object).await
    }

    async fn patch<R: Resource>(
        &self,
        key: &Key,
        subresource: Option<&str>,
        patch: &Value,
    ) -> Result<Stored<R>, StoreError> {
        self.far().await.patch(key, subresource, patch).await
    }

    async fn delete<R: Resource>(
        &self,
        key: &Key,
        preconditions: &DeletePreconditions,
    ) -> Result<(), StoreError> {
        self.far().await.delete::<R>(key, preconditions).await
    }
}

//! An API server as a test sees it: paths and JSON, blocking.

use std::{path::Path, time::Duration};

use http::Method;
use serde_json::Value;
use store::{
    StoreError,
    kube::{KubeOptions, KubeStore},
};
use tokio::runtime::Runtime;

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

/// A client of an API server.
#[derive(Debug)]
pub struct Api {
    runtime: Runtime,
    store: KubeStore,
}

impl Api {
    /// Uses a kubeconfig file.
    #[must_use]
    pub fn new(kubeconfig: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut options = KubeOptions::default();
        options.rate = None;
        let store = runtime.block_on(KubeStore::from_kubeconfig(kubeconfig, None, options));
        Self { runtime, store: store.expect("kubeconfig") }
    }

    fn call(&self, method: Method, path: &str, kind: &str, body: Option<&Value>) -> Answer {
        self.runtime.block_on(self.store.raw(method, path, kind, body))
    }

    /// Reads what is at a path.
    pub fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, JSON, None)
    }

    /// Creates an object in a collection; the same object again is fine.
    pub fn create(&self, collection: &str, object: &Value) {
        match self.call(Method::POST, collection, JSON, Some(object)) {
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => panic!("create in {collection}: {error}"),
        }
    }

    /// Posts a request, such as for a token.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, JSON, Some(body))
    }

    /// Replaces an object.
    pub fn replace(&self, path: &str, object: &Value) -> Answer {
        self.call(Method::PUT, path, JSON, Some(object))
    }

    /// Merges a patch into an object.
    pub fn merge(&self, path: &str, patch: &Value) -> Answer {
        self.call(Method::PATCH, path, MERGE, Some(patch))
    }

    /// Deletes an object; one that is gone is fine.
    pub fn delete(&self, path: &str) {
        match self.call(Method::DELETE, path, JSON, None) {
            Ok(_) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => panic!("delete {path}: {error}"),
        }
    }

    /// Returns the items of a collection. A kind that was just defined may be refused for a moment.
    #[must_use]
    pub fn list(&self, collection: &str) -> Vec<Value> {
        let list = crate::wait_for(collection, Duration::from_secs(10), || {
            self.get(collection).map_err(|error| error.to_string())
        });
        list.pointer("/items").and_then(Value::as_array).cloned().unwrap_or_default()
    }
}

/// JSON, or why there is none.
pub type Answer = Result<Value, StoreError>;

//! An API server in this process: as much of Kubernetes' HTTP API as kubectl and kube-rs use, over objects in memory.
//!
//! Built-in kinds have a real server's schemas, defaults and columns; custom ones come from CustomResourceDefinitions.
//! Where it differs from a real server:
//! * Nothing acts on objects: no scheduler, no controllers, no garbage collection along `ownerReferences`, no quotas or roles.
//! * No server-side apply and no `managedFields`; no CEL: the [`Admission`] hook of the caller stands for it.
//! * One version of each kind, the stored one. The pages of a list are not one snapshot (but a watch from the list's
//!   revision misses nothing).
//! * A pod is bound by writing its `spec.nodeName`.
//! * Pods that are bound to a node are deleted when the node's agent deletes them with a grace period of zero.

mod checks;
mod cli;
mod defaults;
mod deletion;
mod discovery;
mod engine;
mod handlers;
mod kinds;
mod openapi;
mod patch;
mod protobuf;
mod schema;
mod selector;
mod status;
mod storage;
mod table;
mod target;
mod value;
mod watch;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use axum::Router;
use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub use self::{
    cli::{Args, cli, random_token, read_crds},
    engine::Admission,
    status::FieldError,
};
use self::{
    engine::{Context, Engine, Validation},
    kinds::Registry,
    storage::Storage,
};

/// How a server is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bearer token that every request must bring.
    pub token: String,
    /// CustomResourceDefinitions that are there from the start.
    pub crds: Vec<Value>,
    /// Checks of objects beyond their schemas.
    pub admission: Admission,
    /// Where Services get their cluster addresses, one range for each address family, the preferred family first.
    pub service_ranges: Vec<IpNet>,
}

impl Options {
    /// No CRDs, no checks beyond schemas, services in 10.96.0.0/16 and fd00:10:96::/112.
    pub fn new(token: impl Into<String>) -> Self {
        let ranges = ["10.96.0.0/16", "fd00:10:96::/112"];
        Self {
            token: token.into(),
            crds: Vec::new(),
            admission: |_, _, _| Vec::new(),
            service_ranges: ranges.iter().filter_map(|range| range.parse().ok()).collect(),
        }
    }
}

/// The server. Clones are the same server.
#[derive(Clone, Debug)]
pub struct Server {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    token: String,
    engine: Mutex<Engine>,
}

impl Server {
    /// Makes a server with the namespaces that a cluster begins with.
    pub fn new(options: Options) -> Self {
        let engine = Engine {
            registry: Registry::built_in(),
            storage: Storage::default(),
            admission: options.admission,
            service_ranges: options.service_ranges,
        };
        let server =
            Self { shared: Arc::new(Shared { token: options.token, engine: Mutex::new(engine) }) };
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            server.seed("", "namespaces", json!({"metadata": {"name": name}}));
        }
        for crd in options.crds {
            server.seed("apiextensions.k8s.io", "customresourcedefinitions", crd);
        }
        server
    }

    /// Puts an object in that the program itself brings.
    fn seed(&self, group: &str, plural: &str, object: Value) {
        let mut engine = self.shared.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(resource) = engine.registry.find(group, "v1", plural).cloned() else { return };
        let uid = handlers::random_uuid();
        let mut context = Context {
            now: Timestamp::now(),
            uid,
            validation: Validation::Ignore,
            dry_run: false,
            patch: None,
            warnings: Vec::new(),
        };
        if let Err(refused) = engine.create(&resource, "", object, &mut context) {
            tracing::error!(status = %refused.body(), "an object of the lab itself is refused");
        }
    }

    /// Serves plain HTTP on a listener; may be called once for each listener, in any network namespace.
    pub async fn serve(&self, listener: TcpListener) -> io::Result<()> {
        let router = Router::new().fallback(handlers::handle).with_state(Arc::clone(&self.shared));
        axum::serve(listener, router).await
    }
}

/// A kubeconfig for a server at `url` (`http://host:port`).
///
/// The token is part of the URL, because kubectl sends no token over plain HTTP, and in the user, for other clients.
#[must_use]
pub fn kubeconfig(url: &str, token: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": format!("{url}/{token}")}}],
        "users": [{"name": "lab", "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab", "namespace": "default"}}],
    })
    .to_string()
}

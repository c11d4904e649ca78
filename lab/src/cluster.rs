//! What a control plane and kubelets do, as small as it gets: scheduling, node objects, pods, endpoint slices.
//!
//! Each part is a loop over [`cache::Cache`]s that makes the world match what it sees; decisions are pure functions.

pub mod cache;
pub mod cni;
pub mod kubelet;
pub mod manifests;
pub mod nodes;
pub mod pod_server;
pub mod scheduler;
pub mod slices;

use anyhow::{Context as _, Result};

/// Connects to an API server at a URL that holds the token.
pub fn connect(url: &str) -> Result<kube::Client> {
    let config = kube::Config::new(url.parse().context("the API server's URL")?);
    Ok(kube::Client::try_from(config)?)
}

/// Connects with the kubeconfig that the lab wrote.
pub fn connect_by(kubeconfig: &std::path::Path) -> Result<kube::Client> {
    let text = std::fs::read_to_string(kubeconfig)
        .with_context(|| format!("cannot read {}; is the lab up?", kubeconfig.display()))?;
    let config: serde_json::Value = serde_json::from_str(&text)?;
    let url = config.pointer("/clusters/0/cluster/server").and_then(serde_json::Value::as_str);
    connect(url.context("the kubeconfig names no server")?)
}

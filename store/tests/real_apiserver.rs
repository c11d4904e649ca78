//! The conformance suite against a real kube-apiserver.
#![expect(clippy::print_stderr, reason = "says why it skips")]

use std::path::Path;

use serde_json::{Value, json};
use store::testing::{ApiServer, StartError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_passes_the_suite() {
    let server = match ApiServer::start().await {
        Ok(server) => server,
        Err(StartError::Skip(why)) => return eprintln!("real_apiserver {why}"),
        Err(error) => panic!("{error}"),
    };
    server.install_crds(&crds()).await.unwrap();
    store::conformance::run(async || server.store().await.unwrap()).await;
}

/// The generated definitions, or stand-ins with the parts that the suite needs.
fn crds() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
    let wanted = ["ippools", "ipamblocks"];
    let found: Vec<Value> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
        .filter_map(|text| serde_norway::from_str::<Value>(&text).ok())
        .filter(|crd| {
            let plural = crd.pointer("/spec/names/plural").and_then(Value::as_str);
            plural.is_some_and(|plural| wanted.contains(&plural))
        })
        .collect();
    if found.len() == wanted.len() {
        eprintln!("using the definitions in deploy/crds");
        return found;
    }
    vec![stand_in("IPPool", "ippools", true), stand_in("IPAMBlock", "ipamblocks", false)]
}

fn stand_in(kind: &str, plural: &str, status: bool) -> Value {
    let subresources = if status { json!({"status": {}}) } else { json!({}) };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.projectcalico.org"),
            "annotations": {"api-approved.kubernetes.io": "unapproved, test"}},
        "spec": {
            "group": "projectcalico.org", "scope": "Cluster",
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural,
                "singular": kind.to_lowercase()},
            "versions": [{
                "name": "v3", "served": true, "storage": true, "subresources": subresources,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

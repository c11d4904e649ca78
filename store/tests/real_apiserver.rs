//! The conformance suite against a real kube-apiserver.
#![expect(clippy::print_stderr, reason = "says why it skips")]

use std::path::Path;

use http::Method;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_takes_every_definition_and_enforces_it() {
    let server = match ApiServer::start().await {
        Ok(server) => server,
        Err(StartError::Skip(why)) => return eprintln!("real_apiserver {why}"),
        Err(error) => panic!("{error}"),
    };
    let crds = api::crd::all();
    server.install_crds(&crds).await.unwrap();
    let store = server.store().await.unwrap();
    let create = async |plural: &str, kind: &str, name: &str, spec: Value| {
        let path = format!("/apis/projectcalico.org/v3/{plural}?fieldValidation=Strict");
        let object = json!({
            "apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec,
        });
        let created = store.raw(Method::POST, &path, "application/json", Some(&object)).await;
        created.map_err(|error| error.to_string())
    };
    let pool = create("ippools", "IPPool", "good", json!({"cidr": "10.0.0.0/16"})).await.unwrap();
    assert_eq!(pool["spec"]["nodeSelector"], "all()", "defaults are filled: {pool}");
    assert_eq!(pool["spec"]["assignmentMode"], "Automatic", "defaults are filled: {pool}");
    let pool = |spec: Value| ("ippools", "IPPool", spec);
    let refused = [
        (pool(json!({"cidr": "10.0.0.0"})), "spec.cidr"),
        (pool(json!({"cidr": "10.0.0.0/33"})), "spec.cidr"),
        (pool(json!({"cidr": "10.1.0.0/16", "blockSize": 99})), "blockSize"),
        (pool(json!({"cidr": "10.1.0.0/16", "blokSize": 26})), "spec.blokSize"),
        (pool(json!({"cidr": "10.1.0.0/16", "ipipMode": "Perhaps"})), "spec.ipipMode"),
        (("bgppeers", "BGPPeer", json!({"peerIP": "192.0.2.1"})), "asNumber"),
    ];
    for ((plural, kind, spec), field) in refused {
        let error = create(plural, kind, "bad", spec.clone()).await.expect_err("a refusal");
        assert!(error.contains(field), "{spec}: {error}");
    }
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

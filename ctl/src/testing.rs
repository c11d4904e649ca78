//! For tests: a small cluster in memory, and commands run as they are typed.

use std::sync::{Arc, Mutex};

use api::Resource;
use clap::Parser as _;
use serde_json::{Value, json};
use store::{Store as _, memory::MemoryStore};

use crate::{
    cli::Cli,
    cmd::{self, Context},
    output::{Screen, Sink},
};

/// 2026-11-24T09:00:00Z.
pub(crate) const NOW: u64 = 1_795_510_800;

/// Puts an object, written as a manifest, into a store; its status separately, as a server wants it.
pub(crate) async fn put<R: Resource>(store: &MemoryStore, object: Value) {
    let status = object.get("status").cloned();
    let object: R = serde_json::from_value(object).unwrap();
    store.create(&object).await.unwrap();
    if let Some(status) = status {
        let patch = json!({"status": status});
        store.patch::<R>(&object.key(), Some("status"), &patch).await.unwrap();
    }
}

/// Runs a command line and returns its output, or the error, with the exit code.
pub(crate) async fn run(store: &MemoryStore, line: &[&str]) -> String {
    let cli = Cli::try_parse_from(std::iter::once(&"voilectl").chain(line)).unwrap();
    let output = &cli.global.output;
    let kept = Arc::new(Mutex::new(String::new()));
    let context = Context {
        store: store.clone(),
        format: output.format(),
        report: output.file().map(Into::into),
        screen: Screen { width: 80, color: false },
        sink: Sink::Kept(Arc::clone(&kept)),
        now: NOW,
    };
    let result = cmd::run(&context, &cli.command).await;
    let said = std::mem::take(&mut *kept.lock().unwrap());
    match result {
        Ok(outcome) => {
            format!("{said}{}exit code {}\n", outcome.text, u8::from(outcome.finding))
        }
        Err(error) => format!("{said}error: {error:#}\nexit code 2\n"),
    }
}

/// A node.
pub(crate) async fn node(store: &MemoryStore, name: &str, number: u32) {
    let object = json!({
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name},
            "annotations": {
                "projectcalico.org/ASNumber": (64_600 + number).to_string(),
                "projectcalico.org/IPv4Address": format!("10.0.0.{number}/32"),
                "projectcalico.org/IPv6Address": format!("fd00::{number}/128"),
            },
        },
    });
    put::<api::Node>(store, object).await;
}

/// A pod with one address.
pub(crate) async fn pod(store: &MemoryStore, name: &str, labels: Value, ip: &str, node: &str) {
    let (namespace, name) = name.split_once('/').unwrap();
    let object = json!({
        "metadata": {
            "name": name, "namespace": namespace, "labels": labels,
            "annotations": {"cni.projectcalico.org/podIPs": format!("{ip}/32")},
        },
        "spec": {"nodeName": node, "containers": [{"name": "main", "ports": []}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    });
    put::<api::Pod>(store, object).await;
}

/// A node's report `age` seconds ago.
pub(crate) async fn report(store: &MemoryStore, node: &str, at: &str, peers: Value) {
    let object = json!({
        "metadata": {"name": node},
        "status": {
            "updatedAt": at,
            "daemon": {"version": "0.1.0", "pid": 7},
            "bgp": {"localAs": 64601, "routerId": "10.0.0.1", "peers": peers},
            "ipam": {"blocks": ["10.244.0.0/26"]},
            "policy": {"localEndpoints": 2, "policies": 1, "rules": 30, "ipSets": 2},
            "routes": {"bgp": 4, "local": 3},
        },
    });
    put::<api::NodeNetworkState>(store, object).await;
}

/// A session.
pub(crate) fn session(
    name: &str,
    address: &str,
    state: &str,
    since: &str,
    error: Option<&str>,
) -> Value {
    let up = state == "Established";
    let mut session = json!({
        "name": name, "address": address, "localAs": 64601, "peerAs": 65001, "type": "NodePeer",
        "state": state, "since": since, "families": if up { json!(["ipv4-unicast"]) } else { json!([]) },
        "received": if up { 4 } else { 0 }, "accepted": if up { 4 } else { 0 },
        "installed": if up { 4 } else { 0 }, "advertised": if up { 12 } else { 0 },
    });
    if up {
        session["gracefulRestart"] = json!("ready");
    }
    if let Some(error) = error {
        session["lastError"] = json!(error);
    }
    session
}

/// A pool of 10.244.0.0/16.
pub(crate) async fn pool(store: &MemoryStore) {
    put::<api::IpPool>(
        store,
        json!({"metadata": {"name": "pool-1"}, "spec": {"cidr": "10.244.0.0/16"}}),
    )
    .await;
}

/// A block whose first addresses belong to these pods: (`namespace/name`, node).
pub(crate) async fn block(
    store: &MemoryStore,
    cidr: &str,
    owner: Option<&str>,
    pods: &[(&str, &str)],
) {
    let net: ipnet::IpNet = cidr.parse().unwrap();
    let taken = u32::try_from(pods.len()).unwrap();
    let size = 1_u32 << (net.max_prefix_len() - net.prefix_len());
    let attributes: Vec<Value> = pods
        .iter()
        .map(|(pod, node)| {
            let (namespace, name) = pod.split_once('/').unwrap();
            json!({
                "handle_id": format!("k8s-pod-network.{name}"),
                "secondary": {"namespace": namespace, "pod": name, "node": node},
            })
        })
        .collect();
    let object = json!({
        "metadata": {"name": api::cidr_name(&net)},
        "spec": {
            "cidr": cidr,
            "affinity": owner.map(|owner| format!("host:{owner}")),
            "allocations": (0..size).map(|i| (i < taken).then_some(i)).collect::<Vec<_>>(),
            "unallocated": (taken..size).collect::<Vec<_>>(),
            "attributes": attributes,
            "sequenceNumber": 5, "deleted": false, "strictAffinity": false,
        },
    });
    put::<api::IpamBlock>(store, object).await;
    if let Some(owner) = owner {
        let object = json!({
            "metadata": {"name": format!("{owner}-{}", api::cidr_name(&net))},
            "spec": {"cidr": cidr, "node": owner, "type": "host", "state": "confirmed", "deleted": false},
        });
        put::<api::BlockAffinity>(store, object).await;
    }
    for (pod, _) in pods {
        let name = format!("k8s-pod-network.{}", pod.split_once('/').unwrap().1);
        let object = json!({
            "metadata": {"name": name},
            "spec": {"handleID": name, "block": {cidr: 1}, "deleted": false},
        });
        put::<api::IpamHandle>(store, object).await;
    }
}

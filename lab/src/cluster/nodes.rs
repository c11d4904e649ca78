//! Node objects: registered once, Ready when the node's daemon says so.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{paths::Layout, topology};

/// Topology labels of the lab itself; all others become labels of the Node.
const OWN_LABELS: &str = "voile.dev/";
/// Topology label with the node's AS number.
const AS_LABEL: &str = "voile.dev/as-number";
/// Where the daemon of a node answers, inside its namespace.
pub const HEALTH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9091);

/// Registers a node and returns its addresses.
pub async fn register(
    client: &Client,
    node: &topology::Node,
    layout: &Layout,
) -> Result<Vec<String>> {
    let api: Api<Node> = Api::all(client.clone());
    let prefixes = addresses(&layout.netns(&node.name))?;
    let object = serde_json::from_value(object(node, &prefixes)).context("node object")?;
    let created = api.create(&PostParams::default(), &object).await;
    created.with_context(|| format!("cannot register node {:?}", node.name))?;
    // Not a strategic merge: that takes the addresses of two families for one, because their `type` is the same.
    let parameters = PatchParams::default();
    api.patch_status(&node.name, &parameters, &Patch::Merge(&first_status(node, &prefixes)))
        .await?;
    set_ready(&api, &node.name, false, "the node's daemon has not started").await?;
    Ok(prefixes.iter().map(|prefix| prefix.addr().to_string()).collect())
}

/// Follows the daemon's health until the lab ends.
pub async fn follow(client: Client, node: topology::Node, layout: Layout) {
    let api: Api<Node> = Api::all(client);
    let netns = layout.netns(&node.name);
    let mut told = false;
    loop {
        let path = netns.clone();
        let ready = tokio::task::spawn_blocking(move || healthy(&path)).await.unwrap_or(false);
        if ready != told {
            let reason = if ready { "voile-node is ready" } else { "voile-node does not answer" };
            match set_ready(&api, &node.name, ready, reason).await {
                Ok(()) => told = ready,
                Err(error) => tracing::warn!(node = node.name, "{error:#}"),
            }
        }
        sleep(Duration::from_millis(if told { 1000 } else { 200 })).await;
    }
}

fn object(node: &topology::Node, prefixes: &[IpNet]) -> Value {
    let mut labels: BTreeMap<_, _> = node
        .labels
        .iter()
        .filter(|(key, _)| !key.starts_with(OWN_LABELS))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    labels.extend([
        ("kubernetes.io/hostname".into(), node.name.clone()),
        ("kubernetes.io/os".into(), "linux".into()),
        ("kubernetes.io/arch".into(), architecture().into()),
    ]);
    let mut annotations = BTreeMap::new();
    for prefix in prefixes {
        let key = if prefix.addr().is_ipv4() { "IPv4Address" } else { "IPv6Address" };
        annotations.entry(format!("projectcalico.org/{key}")).or_insert_with(|| prefix.to_string());
    }
    if let Some(number) = node.labels.get(AS_LABEL) {
        annotations.insert("projectcalico.org/ASNumber".into(), number.clone());
    }
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node.name, "labels": labels, "annotations": annotations},
        "spec": {},
    })
}

/// GOARCH names, which Kubernetes uses.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What never changes.
fn first_status(node: &topology::Node, prefixes: &[IpNet]) -> Value {
    let addresses: Vec<_> = prefixes
        .iter()
        .map(|prefix| json!({"type": "InternalIP", "address": prefix.addr().to_string()}))
        .chain([json!({"type": "Hostname", "address": node.name})])
        .collect();
    let kernel =
        nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    json!({"status": {
        "addresses": addresses,
        "capacity": {"pods": "110", "cpu": "1", "memory": "1Gi"},
        "allocatable": {"pods": "110", "cpu": "1", "memory": "1Gi"},
        "nodeInfo": {
            "kubeletVersion": concat!("v", env!("CARGO_PKG_VERSION"), "-lab"), "kubeProxyVersion": "",
            "containerRuntimeVersion": "netns://1", "operatingSystem": "linux", "architecture": architecture(),
            "osImage": "namespace of this machine", "kernelVersion": kernel.unwrap_or_default(),
            "machineID": "", "systemUUID": "", "bootID": "",
        },
    }})
}

async fn set_ready(api: &Api<Node>, name: &str, ready: bool, message: &str) -> Result<()> {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = json!({"status": {"conditions": [{
        "type": "Ready", "status": if ready { "True" } else { "False" },
        "reason": if ready { "KubeletReady" } else { "NetworkPluginNotReady" },
        "message": message, "lastHeartbeatTime": now, "lastTransitionTime": now,
    }]}});
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(&status)).await?;
    Ok(())
}

/// Addresses of a node, those of the loopback first: they do not go down with a link.
fn addresses(netns: &Path) -> Result<Vec<IpNet>> {
    let netlink = kernel::Netlink::open_in(&kernel::NetNs::open(netns)?)?;
    let links = kernel::link::list(&netlink)?;
    let mut found: Vec<(bool, u32, IpNet)> = kernel::address::list(&netlink, None)?
        .into_iter()
        .filter(|address| match address.prefix.addr() {
            IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
        })
        .map(|address| {
            let loopback =
                links.iter().any(|link| link.index == address.interface && link.loopback);
            (!loopback, address.interface, address.prefix)
        })
        .collect();
    found.sort();
    let mut seen = (false, false);
    found.retain(|(_, _, prefix)| {
        let seen = if prefix.addr().is_ipv4() { &mut seen.0 } else { &mut seen.1 };
        !std::mem::replace(seen, true)
    });
    Ok(found.into_iter().map(|(_, _, prefix)| prefix).collect())
}

fn healthy(netns: &PathBuf) -> bool {
    kernel::netns::in_netns(netns, || http_status(HEALTH, "/readyz")).ok().flatten() == Some(200)
}

/// Asks for a path and returns the status code of the answer.
fn http_status(address: SocketAddr, path: &str) -> Option<u16> {
    let limit = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).ok()?;
    std::str::from_utf8(&answer).ok()?.strip_prefix("HTTP/1.1 ")?.parse().ok()
}

//! What the demonstration reads from the API server and the kernel, as rows to show and facts to check.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use api::{NodeNetworkStateStatus, PeerStatus};
use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod},
    networking::v1::NetworkPolicy,
};
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use serde_json::Value;

use super::oracle::Subject;
use crate::paths::Layout;

/// A pod of the demonstration.
#[derive(Clone, Debug)]
pub(super) struct DemoPod {
    /// `metadata.name`, which is also its host name.
    pub(super) name: String,
    /// Where it runs.
    pub(super) node: String,
    /// Its addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// Its TCP ports, the main one first.
    pub(super) ports: Vec<u16>,
    /// Its network namespace.
    pub(super) netns: PathBuf,
    /// As policies see it.
    pub(super) subject: Subject,
    /// `Ready` is true.
    pub(super) ready: bool,
    /// Why not.
    pub(super) problem: Option<String>,
}

impl DemoPod {
    /// `namespace/name`.
    #[must_use]
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.subject.namespace, self.name)
    }
}

/// Reads all pods, those that are leaving excepted.
pub(super) async fn pods(client: &Client, layout: &Layout) -> Result<Vec<DemoPod>> {
    let spaces: Api<Namespace> = Api::all(client.clone());
    let spaces: BTreeMap<_, _> = spaces
        .list(&ListParams::default())
        .await?
        .into_iter()
        .map(|ns| (ns.name_any(), ns.labels().clone()))
        .collect();
    let pods: Api<Pod> = Api::all(client.clone());
    let pods = pods.list(&ListParams::default()).await?;
    Ok(pods
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .map(|pod| demo_pod(&pod, layout, &spaces))
        .collect())
}

fn demo_pod(
    pod: &Pod,
    layout: &Layout,
    spaces: &BTreeMap<String, BTreeMap<String, String>>,
) -> DemoPod {
    let namespace = pod.namespace().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    DemoPod {
        name: pod.name_any(),
        node: spec.node_name.clone().unwrap_or_default(),
        addresses: status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect(),
        ports: ports
            .filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
            .filter_map(|port| u16::try_from(port.container_port).ok())
            .collect(),
        netns: layout.pod_netns(&pod.uid().unwrap_or_default()),
        subject: Subject {
            namespace_labels: spaces.get(&namespace).cloned().unwrap_or_default(),
            labels: pod.labels().clone(),
            namespace,
        },
        ready: ready.is_some_and(|condition| condition.status == "True"),
        problem: status.conditions.iter().flatten().find_map(|condition| condition.message.clone()),
    }
}

/// Names of nodes that are Ready.
pub(super) async fn ready_nodes(client: &Client) -> Result<Vec<String>> {
    let nodes: Api<Node> = Api::all(client.clone());
    let ready = |node: &Node| {
        node.status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    Ok(nodes
        .list(&ListParams::default())
        .await?
        .into_iter()
        .filter(ready)
        .map(|node| node.name_any())
        .collect())
}

/// Reads all Kubernetes network policies.
pub(super) async fn policies(client: &Client) -> Result<Vec<NetworkPolicy>> {
    let api: Api<NetworkPolicy> = Api::all(client.clone());
    Ok(api.list(&ListParams::default()).await?.items)
}

/// Lists objects of a kind of ours as JSON.
async fn list(client: &Client, path: &str) -> Result<Vec<Value>> {
    let request = http::Request::get(path).body(Vec::new())?;
    let mut list: Value =
        client.request(request).await.with_context(|| format!("cannot list {path}"))?;
    Ok(match list.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    })
}

fn name(object: &Value) -> String {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// BGP sessions by node, as the daemons report them.
pub(super) async fn sessions(client: &Client) -> Result<Vec<(String, PeerStatus)>> {
    let states = list(client, "/apis/voile.dev/v1/nodenetworkstates").await?;
    let mut sessions = Vec::new();
    for state in states {
        // A daemon creates the object before it knows anything.
        let Some(status) = state.get("status").filter(|status| !status.is_null()).cloned() else {
            continue;
        };
        let status: NodeNetworkStateStatus = serde_json::from_value(status)
            .with_context(|| format!("NodeNetworkState of {}", name(&state)))?;
        let peers = status.bgp.into_iter().flat_map(|bgp| bgp.peers);
        sessions.extend(peers.map(|peer| (name(&state), peer)));
    }
    sessions.sort_by(|a, b| (&a.0, &a.1.address).cmp(&(&b.0, &b.1.address)));
    Ok(sessions)
}

/// IPAM blocks: prefix, node, addresses in use.
pub(super) async fn blocks(client: &Client) -> Result<Vec<(IpNet, String, usize)>> {
    let blocks = list(client, "/apis/projectcalico.org/v3/ipamblocks").await?;
    let mut rows: Vec<_> = blocks
        .iter()
        .filter_map(|block| {
            let cidr: IpNet = block.pointer("/spec/cidr")?.as_str()?.parse().ok()?;
            let affinity =
                block.pointer("/spec/affinity").and_then(Value::as_str).unwrap_or_default();
            let used = block
                .pointer("/spec/allocations")
                .and_then(Value::as_array)
                .map_or(0, |list| list.iter().filter(|entry| !entry.is_null()).count());
            Some((cidr, affinity.trim_start_matches("host:").to_owned(), used))
        })
        .collect();
    rows.sort();
    Ok(rows)
}

/// A route to pods, for people: `10.244.0.0/26 via 172.20.1.1 dev eth1 ...`.
#[derive(Clone, Debug)]
pub(super) struct PodRoute {
    /// The prefix.
    pub(super) prefix: IpNet,
    /// Number of next hops.
    pub(super) hops: usize,
    /// As ip(8) would print it, more or less.
    pub(super) text: String,
}

/// Routes of a namespace whose prefix is inside one of `pools`.
pub(super) fn routes(layout: &Layout, node: &str, pools: &[IpNet]) -> Result<Vec<PodRoute>> {
    let netlink = kernel::Netlink::open_in(&kernel::NetNs::open(layout.netns(node))?)?;
    let links = kernel::link::list(&netlink)?;
    let interface = |interface: &Option<kernel::Interface>| match interface {
        Some(kernel::Interface::Index(index)) => links
            .iter()
            .find(|link| link.index == *index)
            .map_or_else(|| format!("#{index}"), |link| link.name.clone()),
        Some(kernel::Interface::Name(name)) => name.clone(),
        None => "?".into(),
    };
    let routes = kernel::route::list(&netlink, kernel::route::Filter::default())?;
    let mut rows: Vec<_> = routes
        .iter()
        .filter(|route| pools.iter().any(|pool| pool.contains(&route.prefix)))
        .map(|route| {
            let hops = route.next_hops();
            let ways: Vec<_> = hops
                .iter()
                .map(|hop| match hop.gateway {
                    Some(gateway) => format!("via {gateway} dev {}", interface(&hop.interface)),
                    None => format!("dev {}", interface(&hop.interface)),
                })
                .collect();
            let kind = if hops.is_empty() { "blackhole ".to_owned() } else { String::new() };
            let protocol = protocol(route.protocol);
            let text = if ways.len() > 1 {
                format!("{kind}{} proto {protocol}  ECMP {}", route.prefix, ways.join(" | "))
            } else {
                format!("{kind}{} proto {protocol} {}", route.prefix, ways.join(""))
            };
            PodRoute { prefix: route.prefix, hops: hops.len(), text: text.trim_end().to_owned() }
        })
        .collect();
    rows.sort_by_key(|row| row.prefix);
    Ok(rows)
}

/// Names of /etc/iproute2/rt_protos, and Calico's number for workloads.
fn protocol(number: u8) -> String {
    match number {
        2 => "kernel".into(),
        3 => "boot".into(),
        4 => "static".into(),
        12 => "bird".into(),
        186 => "bgp".into(),
        80 => "workload".into(),
        other => other.to_string(),
    }
}

/// Addresses of a topology node.
pub(super) fn addresses(layout: &Layout, node: &str) -> Result<BTreeSet<IpAddr>> {
    let netlink = kernel::Netlink::open_in(&kernel::NetNs::open(layout.netns(node))?)?;
    let addresses = kernel::address::list(&netlink, None)?;
    Ok(addresses.into_iter().map(|address| address.prefix.addr()).collect())
}

/// Prefixes of all IP pools.
pub(super) async fn pools(client: &Client) -> Result<Vec<IpNet>> {
    let pools = list(client, "/apis/projectcalico.org/v3/ippools").await?;
    Ok(pools.iter().filter_map(|pool| pool.pointer("/spec/cidr")?.as_str()?.parse().ok()).collect())
}

//! Cross-checks everything that is stored about addresses. Pure: objects in, findings out.

mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use api::{BlockAffinity, IpPool, IpamBlock, IpamHandle, Node, Pod, Service};
use ipnet::IpNet;

use crate::{affinity, block, machine, ordinal};

/// Everything that the check reads.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the names are the kinds")]
pub struct State<'a> {
    pub blocks: &'a [IpamBlock],
    pub affinities: &'a [BlockAffinity],
    pub handles: &'a [IpamHandle],
    pub pools: &'a [IpPool],
    pub pods: &'a [Pod],
    pub nodes: &'a [Node],
    pub services: &'a [Service],
}

/// Something wrong.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "Display says it in words")]
pub enum Finding {
    InvalidBlock { block: String, defect: String },
    Overlap { first: String, second: String },
    OutsidePools { block: String },
    Leaked { address: IpAddr, owner: String },
    NotAllocated { address: IpAddr, pod: String },
    UsedOutsidePools { address: IpAddr, pod: String },
    SharedAddress { address: IpAddr, pods: Vec<String> },
    SharedService { address: IpAddr, services: Vec<String> },
    HandleWithoutAddresses { handle: String, block: String },
    HandleMissing { handle: String, address: IpAddr },
    WrongCount { handle: String, block: String, stored: u32, actual: u32 },
    AffinityWithoutBlock { affinity: String, block: String },
    BlockWithoutAffinity { block: String, owner: String, unfinished: Option<&'static str> },
    UnfinishedAffinity { affinity: String, state: &'static str },
    DeadNode { affinity: String, node: String },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidBlock { block, defect } => write!(f, "block {block} is invalid: {defect}"),
            Self::Overlap { first, second } => write!(f, "blocks {first} and {second} overlap"),
            Self::OutsidePools { block } => write!(f, "block {block} is in no pool"),
            Self::Leaked { address, owner } => {
                write!(f, "{address} is allocated to {owner}, which does not use it")
            }
            Self::NotAllocated { address, pod } => {
                write!(f, "{address} is used by {pod} and not allocated")
            }
            Self::UsedOutsidePools { address, pod } => {
                write!(f, "{address} is used by {pod} and in no enabled pool")
            }
            Self::SharedAddress { address, pods } => {
                write!(f, "{address} is used by several pods: {}", pods.join(", "))
            }
            Self::SharedService { address, services } => {
                write!(f, "{address} is used by several services: {}", services.join(", "))
            }
            Self::HandleWithoutAddresses { handle, block } => {
                write!(f, "handle {handle} has no addresses in block {block}")
            }
            Self::HandleMissing { handle, address } => {
                write!(f, "{address} belongs to handle {handle}, which does not list it")
            }
            Self::WrongCount { handle, block, stored, actual } => write!(
                f,
                "handle {handle} counts {stored} addresses in block {block}, there are {actual}"
            ),
            Self::AffinityWithoutBlock { affinity, block } => {
                write!(f, "affinity {affinity} is confirmed and block {block} is not its node's")
            }
            Self::BlockWithoutAffinity { block, owner, unfinished } => {
                write!(f, "block {block} says {owner} and there is no confirmed affinity")?;
                unfinished.map_or(Ok(()), |state| write!(f, ", only one that is {state}"))
            }
            Self::UnfinishedAffinity { affinity, state } => {
                write!(f, "affinity {affinity} is {state}: neither confirmed nor gone")
            }
            Self::DeadNode { affinity, node } => {
                write!(f, "affinity {affinity} is of node {node}, which does not exist")
            }
        }
    }
}

/// Returns everything that is wrong, sorted.
#[must_use]
pub fn check(state: &State<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let blocks: Vec<(IpNet, &IpamBlock)> = state
        .blocks
        .iter()
        .filter(|block| !block.spec.deleted)
        .filter_map(|block| Some((block.spec.cidr.parse().ok()?, block)))
        .collect();
    check_blocks(state, &blocks, &mut findings);
    check_affinities(state, &blocks, &mut findings);
    check_handles(state, &blocks, &mut findings);
    check_pods(state, &blocks, &mut findings);
    check_tunnels(state, &blocks, &mut findings);
    services::check(state, &blocks, &mut findings);
    findings.sort();
    findings.dedup();
    findings
}

/// Returns the closing line, the same as calicoctl's.
#[must_use]
pub fn summary(findings: &[Finding]) -> String {
    format!("Check complete; found {} problems.", findings.len())
}

fn check_blocks(state: &State<'_>, blocks: &[(IpNet, &IpamBlock)], findings: &mut Vec<Finding>) {
    for block in state.blocks.iter().filter(|block| !block.spec.deleted) {
        for defect in block::defects(&block.spec) {
            findings.push(Finding::InvalidBlock { block: block.spec.cidr.clone(), defect });
        }
    }
    let mut sorted: Vec<IpNet> = blocks.iter().map(|(net, _)| *net).collect();
    // By first address, larger blocks first: an overlap is then always with the last block that is not over yet.
    sorted.sort_by_key(|net| {
        (net.addr().is_ipv6(), ordinal::number(net.network()), net.prefix_len())
    });
    let mut widest: Option<IpNet> = None;
    for net in sorted {
        match widest {
            Some(first) if ordinal::overlap(&first, &net) => {
                let (first, second) = (first.to_string(), net.to_string());
                findings.push(Finding::Overlap { first, second });
            }
            _ => widest = Some(net),
        }
    }
    let pools: Vec<IpNet> =
        state.pools.iter().filter_map(|pool| pool.spec.cidr.parse().ok()).collect();
    for (net, _) in blocks.iter().filter(|(net, _)| !pools.iter().any(|pool| pool.contains(net))) {
        findings.push(Finding::OutsidePools { block: net.to_string() });
    }
}

fn check_affinities(
    state: &State<'_>,
    blocks: &[(IpNet, &IpamBlock)],
    findings: &mut Vec<Finding>,
) {
    let nodes: BTreeSet<&str> =
        state.nodes.iter().map(|node| node.metadata.name.as_str()).collect();
    let owner_of: BTreeMap<IpNet, &str> = blocks
        .iter()
        .filter_map(|(net, block)| Some((*net, block.spec.affinity.as_deref()?)))
        .collect();
    let mut claims = BTreeMap::new();
    for one in state.affinities.iter().filter(|one| !one.spec.deleted) {
        let name = one.metadata.name.clone();
        let is_host = one.spec.affinity_type.as_deref().unwrap_or("host") == "host";
        if is_host && !nodes.contains(one.spec.node.as_str()) {
            let node = one.spec.node.clone();
            findings.push(Finding::DeadNode { affinity: name.clone(), node });
        }
        let owner =
            format!("{}:{}", one.spec.affinity_type.as_deref().unwrap_or("host"), one.spec.node);
        let net = one.spec.cidr.parse::<IpNet>().ok();
        let unfinished = affinity::unfinished(&one.spec);
        claims.extend(net.map(|net| ((net, owner.clone()), unfinished)));
        if let Some(state) = unfinished {
            findings.push(Finding::UnfinishedAffinity { affinity: name, state });
            continue;
        }
        if net.and_then(|net| owner_of.get(&net).copied()) != Some(&owner) {
            let block = one.spec.cidr.clone();
            findings.push(Finding::AffinityWithoutBlock { affinity: name, block });
        }
    }
    for (net, owner) in owner_of {
        let claim = claims.get(&(net, owner.to_owned())).copied();
        if claim != Some(None) {
            let (block, owner, unfinished) = (net.to_string(), owner.to_owned(), claim.flatten());
            findings.push(Finding::BlockWithoutAffinity { block, owner, unfinished });
        }
    }
}

fn check_handles(state: &State<'_>, blocks: &[(IpNet, &IpamBlock)], findings: &mut Vec<Finding>) {
    let mut actual: BTreeMap<(String, String), (u32, IpAddr)> = BTreeMap::new();
    for (net, block) in blocks {
        for (address, owner) in block::assigned(&block.spec) {
            if let Some(handle) = &owner.handle_id {
                let key = (handle.to_lowercase(), net.to_string());
                actual.entry(key).or_insert((0, address)).0 += 1;
            }
        }
    }
    for handle in state.handles.iter().filter(|handle| !handle.spec.deleted) {
        let id = &handle.spec.handle_id;
        if handle.spec.block.is_empty() {
            let (handle, block) = (id.clone(), "(none)".to_owned());
            findings.push(Finding::HandleWithoutAddresses { handle, block });
        }
        for (block, stored) in &handle.spec.block {
            let found = actual.remove(&(id.to_lowercase(), block.clone()));
            let (handle, block, stored) = (id.clone(), block.clone(), *stored);
            match found {
                None => findings.push(Finding::HandleWithoutAddresses { handle, block }),
                Some((actual, _)) if actual != stored => {
                    findings.push(Finding::WrongCount { handle, block, stored, actual });
                }
                Some(_) => {}
            }
        }
    }
    for ((handle, _), (_, address)) in actual {
        findings.push(Finding::HandleMissing { handle, address });
    }
}

/// Returns the addresses of a pod: the annotation first, which is there before the kubelet's status.
fn pod_addresses(pod: &Pod) -> BTreeSet<IpAddr> {
    let annotated = annotated_addresses(pod);
    annotated.unwrap_or_else(|| status_addresses(pod))
}

/// Returns every address that the annotations or the status of a pod know of.
pub(crate) fn known_addresses(pod: &Pod) -> BTreeSet<IpAddr> {
    let mut addresses = status_addresses(pod);
    addresses.extend(annotated_addresses(pod).into_iter().flatten());
    addresses
}

/// Returns the addresses that Calico's annotations name, which are all that a pod has; `None` without one.
pub(crate) fn annotated_addresses(pod: &Pod) -> Option<BTreeSet<IpAddr>> {
    let get = |name: &str| pod.metadata.annotations.get(name);
    let text =
        get("cni.projectcalico.org/podIPs").or_else(|| get("cni.projectcalico.org/podIP"))?;
    let address = |text: &str| text.split('/').next()?.trim().parse().ok();
    Some(text.split(',').filter_map(address).collect())
}

fn status_addresses(pod: &Pod) -> BTreeSet<IpAddr> {
    let Some(status) = &pod.status else { return BTreeSet::new() };
    let all = status.pod_ips.iter().map(|one| one.ip.as_str()).chain(status.pod_ip.as_deref());
    all.filter_map(|text| text.parse().ok()).collect()
}

fn check_pods(state: &State<'_>, blocks: &[(IpNet, &IpamBlock)], findings: &mut Vec<Finding>) {
    let mut users: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for pod in state.pods.iter().filter(|pod| !pod.spec.host_network && !is_over(pod)) {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        for address in pod_addresses(pod) {
            let name = format!("{namespace}/{}", pod.metadata.name);
            users.entry(address).or_default().push(name);
        }
    }
    let pools: Vec<IpNet> =
        state.pools.iter().filter_map(|pool| pool.spec.cidr.parse().ok()).collect();
    let enabled: Vec<IpNet> = state
        .pools
        .iter()
        .filter(|pool| !pool.spec.disabled)
        .filter_map(|pool| pool.spec.cidr.parse().ok())
        .collect();
    let (mut allocated, mut of_machines) = (BTreeSet::new(), BTreeSet::new());
    for (_, block) in blocks {
        for (address, owner) in block::assigned(&block.spec) {
            allocated.insert(address);
            let get = |key: &str| owner.secondary.get(key).map(String::as_str);
            let (Some(namespace), Some(pod)) = (get("namespace"), get("pod")) else { continue };
            if get(machine::NAME).is_some() {
                // It waits for its machine, and two pods have it while that migrates.
                of_machines.insert(address);
                continue;
            }
            let pod = format!("{namespace}/{pod}");
            let used = users.get(&address).is_some_and(|pods| pods.contains(&pod));
            if !used {
                findings.push(Finding::Leaked { address, owner: format!("pod {pod}") });
            }
        }
    }
    for (address, pods) in users {
        let in_pool = pools.iter().any(|pool| pool.contains(&address));
        if in_pool && !allocated.contains(&address) {
            let pod = format!("pod {}", pods.first().cloned().unwrap_or_default());
            findings.push(Finding::NotAllocated { address, pod });
        }
        if !enabled.iter().any(|pool| pool.contains(&address)) {
            let pod = format!("pod {}", pods.first().cloned().unwrap_or_default());
            findings.push(Finding::UsedOutsidePools { address, pod });
        }
        if pods.len() > 1 && !of_machines.contains(&address) {
            findings.push(Finding::SharedAddress { address, pods });
        }
    }
}

/// Returns who uses which address: pods that run, tunnels of nodes, and services with a load balancer.
#[must_use]
pub fn users(pods: &[Pod], nodes: &[Node], services: &[Service]) -> BTreeMap<IpAddr, Vec<String>> {
    let mut users: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pod.spec.host_network && !is_over(pod)) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for address in known_addresses(pod) {
            let name = format!("pod {namespace}/{}", pod.metadata.name);
            users.entry(address).or_default().push(name);
        }
    }
    for (address, node) in tunnel_addresses(nodes) {
        users.entry(address).or_default().push(format!("a tunnel of node {node}"));
    }
    for (address, names) in services::of_services(services) {
        let names = names.into_iter().map(|name| format!("service {name}"));
        users.entry(address).or_default().extend(names);
    }
    users
}

fn tunnel_addresses(nodes: &[Node]) -> BTreeMap<IpAddr, &str> {
    let mut used = BTreeMap::new();
    for node in nodes {
        let texts = TUNNELS.iter().filter_map(|name| node.metadata.annotations.get(*name));
        let addresses = texts.filter_map(|text| text.split('/').next()?.parse().ok());
        used.extend(addresses.map(|address| (address, node.metadata.name.as_str())));
    }
    used
}

/// Where nodes write the addresses of their tunnels.
const TUNNELS: [&str; 5] = [
    "projectcalico.org/IPv4IPIPTunnelAddr",
    "projectcalico.org/IPv4VXLANTunnelAddr",
    "projectcalico.org/IPv6VXLANTunnelAddr",
    "projectcalico.org/IPv4WireguardInterfaceAddr",
    "projectcalico.org/IPv6WireguardInterfaceAddr",
];

fn check_tunnels(state: &State<'_>, blocks: &[(IpNet, &IpamBlock)], findings: &mut Vec<Finding>) {
    let used = tunnel_addresses(state.nodes);
    let mut allocated = BTreeSet::new();
    for (_, block) in blocks {
        for (address, owner) in block::assigned(&block.spec) {
            allocated.insert(address);
            let get = |key: &str| owner.secondary.get(key).map(String::as_str);
            let (Some(kind), Some(node)) = (get("type"), get("node")) else { continue };
            let exists = state.nodes.iter().any(|one| one.metadata.name == node);
            if kind.ends_with("TunnelAddress") && !exists {
                let owner = format!("{kind} of node {node}");
                findings.push(Finding::Leaked { address, owner });
            }
        }
    }
    for (address, node) in used.into_iter().filter(|(address, _)| !allocated.contains(address)) {
        let pod = format!("a tunnel of node {node}");
        findings.push(Finding::NotAllocated { address, pod });
    }
}

/// Returns whether a pod ran to its end and will not run again.
pub(crate) fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Owner, UnixNanos};

    #[test]
    fn every_kind_of_damage_is_named() {
        let block = |cidr: &str, owner| block::empty(&cidr.parse().unwrap(), owner, UnixNanos(1));
        let mut first = block("10.0.0.0/28", Some("host:n1"));
        let owner = Owner::pod("n1", "ns", "gone").attribute("h1", UnixNanos(1));
        block::take_any(&mut first.spec, &owner, |_| false).unwrap();
        let second = block("10.0.0.8/30", None);
        let far = block("10.9.0.0/28", None);
        let claimed = block("10.0.0.16/28", Some("host:n2"));
        let affinity = affinity::pending("n2", &"10.0.0.16/28".parse().unwrap());
        let handle = crate::handle::new("h2", &"10.0.0.0/28".parse().unwrap(), 1);
        let mut pod = Pod::in_namespace("ns", "p", api::PodSpec::default());
        let annotation = "cni.projectcalico.org/podIPs".to_owned();
        pod.metadata.annotations.insert(annotation, "10.0.0.5/32".to_owned());
        let mut twin = pod.clone();
        twin.metadata.name = "q".to_owned();
        let spec = api::IpPoolSpec { cidr: "10.0.0.0/16".to_owned(), ..Default::default() };
        let findings = check(&State {
            blocks: &[first, second, far, claimed],
            affinities: &[affinity],
            handles: &[handle],
            pools: &[IpPool::new("p", spec)],
            pods: &[pod, twin],
            nodes: &[Node::new("n1", api::NodeSpec::default())],
            services: &[],
        });
        let mut text: String = findings.iter().map(|one| format!("{one}\n")).collect();
        text.push_str(&summary(&findings));
        expect_test::expect![[r#"
            blocks 10.0.0.0/28 and 10.0.0.8/30 overlap
            block 10.9.0.0/28 is in no pool
            10.0.0.0 is allocated to pod ns/gone, which does not use it
            10.0.0.5 is used by pod ns/p and not allocated
            10.0.0.5 is used by several pods: ns/p, ns/q
            handle h2 has no addresses in block 10.0.0.0/28
            10.0.0.0 belongs to handle h1, which does not list it
            block 10.0.0.0/28 says host:n1 and there is no confirmed affinity
            block 10.0.0.16/28 says host:n2 and there is no confirmed affinity, only one that is pending
            affinity n2-10-0-0-16-28 is pending: neither confirmed nor gone
            affinity n2-10-0-0-16-28 is of node n2, which does not exist
            Check complete; found 11 problems."#]]
        .assert_eq(&text);
    }
}

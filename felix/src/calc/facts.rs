//! What the engine takes from objects that are not policies.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use api::{AffinityState, BlockAffinity, EndpointSlice, Key, Pod, Resource, net::parse_net};
use ipnet::IpNet;

use super::{
    catalog::Backend,
    item::{Labels, NamedPort},
    model::parse_protocol,
};
use crate::update::LocalEndpoint;

/// What matters of a pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PodFacts {
    pub(super) uid: Option<String>,
    pub(super) labels: Labels,
    pub(super) service_account: String,
    pub(super) host_network: bool,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: Vec<NamedPort>,
}

impl PodFacts {
    /// Whether an endpoint is of this pod, and not of another one of the same name.
    pub(super) fn is(&self, endpoint: &LocalEndpoint) -> bool {
        match (&self.uid, &endpoint.pod_uid) {
            (Some(known), Some(told)) => known == told,
            _ => true,
        }
    }
}

pub(super) fn pod(pod: &Pod) -> PodFacts {
    let containers = pod.spec.containers.iter().flat_map(|container| &container.ports);
    let ports = containers.filter_map(|port| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        Some(NamedPort {
            name: port.name.clone().filter(|name| !name.is_empty())?,
            protocol: parse_protocol(protocol)?,
            port: port.container_port,
        })
    });
    let account = pod.spec.service_account_name.clone().filter(|name| !name.is_empty());
    PodFacts {
        uid: pod.metadata.uid.clone(),
        labels: Arc::new(pod.metadata.labels.clone()),
        service_account: account.unwrap_or_else(|| "default".to_owned()),
        host_network: pod.spec.host_network,
        addresses: addresses(pod),
        ports: ports.collect(),
    }
}

/// The annotation is written by the CNI plugin before kubelet reports the address, and emptied at DEL before kubelet
/// reports that (libcalico-go/lib/backend/k8s/resources/workloadendpoint.go).
fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let annotations = &pod.metadata.annotations;
    let written = annotations
        .get("cni.projectcalico.org/podIPs")
        .or_else(|| annotations.get("cni.projectcalico.org/podIP"));
    let texts: Vec<&str> = match written {
        Some(text) => text.split(',').collect(),
        None => pod
            .status
            .iter()
            .flat_map(|status| {
                let many = status.pod_ips.iter().map(|one| one.ip.as_str());
                many.chain(status.pod_ip.as_deref())
            })
            .collect(),
    };
    let parsed: BTreeSet<IpAddr> = texts.into_iter().filter_map(address).collect();
    parsed.into_iter().collect()
}

/// `10.0.0.1` or `10.0.0.1/32`.
fn address(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.trim().parse().ok()
}

/// The service and backends of a slice. Backends that are not ready count too: policy must not depend on health.
pub(super) fn slice(slice: &EndpointSlice) -> Option<(Key, Vec<Backend>)> {
    let service = slice.service_name()?;
    let namespace = slice.meta().namespace.clone()?;
    let mut backends = BTreeSet::new();
    for addr in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
        let Some(addr) = address(addr) else { continue };
        for port in &slice.ports {
            let protocol = parse_protocol(port.protocol.as_deref().unwrap_or("TCP"));
            if let Some((protocol, port)) = protocol.zip(port.port) {
                backends.insert(Backend { addr, protocol, port });
            }
        }
    }
    Some((Key::namespaced(namespace, service), backends.into_iter().collect()))
}

/// Reads prefixes; what is not one is left out and noted.
pub(super) fn nets(texts: &[impl ToString], field: &str, problems: &mut Vec<String>) -> Vec<IpNet> {
    let mut nets = Vec::new();
    for text in texts {
        let text = text.to_string();
        match parse_net(&text) {
            Ok(net) => nets.push(net),
            Err(why) => problems.push(format!("{field}: {why}")),
        }
    }
    nets
}

/// Whether an affinity is a block that a node surely has.
pub(crate) fn is_confirmed(affinity: &BlockAffinity, node: &str) -> bool {
    let spec = &affinity.spec;
    spec.node == node
        && matches!(spec.state, AffinityState::Confirmed | AffinityState::Unset)
        && !spec.deleted
}

/// The block of an affinity.
pub(crate) fn block_cidr(affinity: &BlockAffinity) -> Option<IpNet> {
    parse_net(&affinity.spec.cidr).ok()
}

//! Pools, reservations, blocks, host endpoints, and addresses in settings.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::Findings;
use crate::{
    AllowedUse, BlockAffinitySpec, EncapMode, FelixConfigurationSpec, HostEndpointSpec, IpPoolSpec,
    IpReservationSpec, IpamBlockSpec, IpamConfigurationSpec, IpamHandleSpec,
};

/// Block sizes that Calico takes (`ippool.go`), with the default between.
const BLOCK_BITS_V4: (u8, u8, u8) = (20, 26, 32);
const BLOCK_BITS_V6: (u8, u8, u8) = (116, 122, 128);

fn wrapped(mode: Option<EncapMode>) -> bool {
    mode.is_some_and(|mode| mode != EncapMode::Never)
}

pub(super) fn pool(spec: &IpPoolSpec, found: &mut Findings) {
    if let Some(cidr) = found.cidr("spec.cidr", &spec.cidr) {
        block_size(spec, &cidr, found);
        if is_link_local(&cidr) {
            found.add("spec.cidr", "is link-local: choose routable addresses", spec.cidr.as_str());
        }
        if cidr.addr().is_ipv6() && wrapped(spec.ipip_mode) {
            found.add("spec.ipipMode", "must be Never for an IPv6 pool", "IPv6");
        }
    }
    if wrapped(spec.ipip_mode) && wrapped(spec.vxlan_mode) {
        found.add(
            "spec.vxlanMode",
            "excludes ipipMode: set one of them to Never",
            format!("{:?}", spec.vxlan_mode.unwrap_or_default()),
        );
    }
    found.plain_selector("spec.nodeSelector", Some(&spec.node_selector));
    found.plain_selector("spec.namespaceSelector", spec.namespace_selector.as_deref());
    if spec.allowed_uses.contains(&AllowedUse::LoadBalancer) {
        load_balancer_pool(spec, found);
    }
}

/// Pools share no address: a pod's pool decides about NAT and encapsulation, and must be one.
pub(super) fn pool_among<'a>(
    object: &Value,
    others: impl Iterator<Item = &'a Value>,
    found: &mut Findings,
) {
    let (Some(name), Some(own)) = (text(object, "/metadata/name"), cidr_of(object)) else { return };
    for other in others {
        let other_name = text(other, "/metadata/name").unwrap_or_default();
        let shared = cidr_of(other).filter(|theirs| theirs.contains(&own) || own.contains(theirs));
        if let Some(theirs) = shared.filter(|_| other_name != name) {
            let message = format!("overlaps {theirs} of pool {other_name}: choose another range");
            found.add("spec.cidr", message, own.to_string());
        }
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

fn cidr_of(pool: &Value) -> Option<IpNet> {
    text(pool, "/spec/cidr").and_then(|cidr| cidr.parse().ok())
}

fn is_link_local(cidr: &IpNet) -> bool {
    match cidr.addr() {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}

fn block_size(spec: &IpPoolSpec, cidr: &IpNet, found: &mut Findings) {
    let (least, default, most) = if cidr.addr().is_ipv4() { BLOCK_BITS_V4 } else { BLOCK_BITS_V6 };
    let bits = spec.block_size.unwrap_or(default);
    if !(least..=most).contains(&bits) {
        found.add("spec.blockSize", format!("must be from {least} to {most} for this cidr"), bits);
    } else if cidr.prefix_len() > bits {
        let message = format!(
            "the pool is smaller than one block of /{bits}: shorten the prefix of cidr or set a blockSize of at least {}",
            cidr.prefix_len()
        );
        found.add("spec.blockSize", message, bits);
    }
}

fn load_balancer_pool(spec: &IpPoolSpec, found: &mut Findings) {
    if spec.allowed_uses.len() > 1 {
        let message = "LoadBalancer can't be combined with other uses: make a pool of its own";
        found.add("spec.allowedUses", message, spec.allowed_uses.len());
    }
    if wrapped(spec.ipip_mode) || wrapped(spec.vxlan_mode) {
        found.add(
            "spec.allowedUses",
            "a pool for load balancers has no ipipMode or vxlanMode",
            "LoadBalancer",
        );
    }
    if spec.disable_bgp_export {
        found.add("spec.disableBGPExport", "must be false in a pool for load balancers", true);
    }
    if !matches!(spec.node_selector.as_str(), "" | "all()") {
        let message = "must be all() in a pool for load balancers";
        found.add("spec.nodeSelector", message, spec.node_selector.as_str());
    }
}

pub(super) fn reservation(spec: &IpReservationSpec, found: &mut Findings) {
    found.nets("spec.reservedCIDRs", &spec.reserved_cidrs);
}

pub(super) fn configuration(spec: &IpamConfigurationSpec, found: &mut Findings) {
    if !spec.strict_affinity && !spec.auto_allocate_blocks {
        let message = "must be true unless strictAffinity is: nodes could not get addresses";
        found.add("spec.autoAllocateBlocks", message, false);
    }
}

pub(super) fn block(spec: &IpamBlockSpec, found: &mut Findings) {
    let Some(cidr) = found.cidr("spec.cidr", &spec.cidr) else { return };
    let host_bits = cidr.max_prefix_len() - cidr.prefix_len();
    let size = 1_usize.checked_shl(u32::from(host_bits)).unwrap_or(0);
    if spec.allocations.len() != size {
        let message = format!("must have {size} entries, one for each address of the block");
        found.add("spec.allocations", message, spec.allocations.len());
    }
    for (ordinal, entry) in spec.allocations.iter().enumerate() {
        let dangling = entry.is_some_and(|index| {
            usize::try_from(index).map_or(true, |index| index >= spec.attributes.len())
        });
        if dangling {
            let field = format!("spec.allocations[{ordinal}]");
            found.add(field, "is no index into attributes", *entry);
        }
    }
    for (index, ordinal) in spec.unallocated.iter().enumerate() {
        let entry = usize::try_from(*ordinal).ok().and_then(|at| spec.allocations.get(at));
        let problem = match entry {
            None => "is outside the block",
            Some(Some(_)) => "is allocated",
            Some(None) => continue,
        };
        found.add(format!("spec.unallocated[{index}]"), problem, *ordinal);
    }
}

pub(super) fn affinity(spec: &BlockAffinitySpec, found: &mut Findings) {
    found.cidr("spec.cidr", &spec.cidr);
    if spec.node.is_empty() {
        found.add("spec.node", "must name a node", "");
    }
}

pub(super) fn handle(spec: &IpamHandleSpec, found: &mut Findings) {
    for (cidr, count) in &spec.block {
        found.cidr(&format!("spec.block.{cidr}"), cidr);
        if *count == 0 {
            found.add(format!("spec.block.{cidr}"), "must not be 0: remove the entry", *count);
        }
    }
}

pub(super) fn host_endpoint(spec: &HostEndpointSpec, found: &mut Findings) {
    if spec.node.is_none() {
        found.add("spec.node", "is missing: name the node the interface is on", "");
    }
    if spec.interface_name.is_none() && spec.expected_ips.is_empty() {
        let message = "is missing: name the interface (`*` means all) or give expectedIPs";
        found.add("spec.interfaceName", message, "");
    }
    for (index, text) in spec.expected_ips.iter().enumerate() {
        if text.parse::<IpAddr>().is_err() {
            found.add(format!("spec.expectedIPs[{index}]"), "is no address", text.as_str());
        }
    }
    for (index, port) in spec.ports.iter().enumerate() {
        if port.protocol.number().is_none() {
            let field = format!("spec.ports[{index}].protocol");
            found.add(field, super::policy::PROTOCOL_HINT, port.protocol.to_string());
        }
    }
}

pub(super) fn felix(spec: &FelixConfigurationSpec, found: &mut Findings) {
    found.plain_selector("spec.nodeSelector", spec.node_selector.as_deref());
    let addresses = [
        ("spec.natOutgoingAddress", &spec.nat_outgoing_address, true),
        ("spec.deviceRouteSourceAddress", &spec.device_route_source_address, true),
        ("spec.deviceRouteSourceAddressIPv6", &spec.device_route_source_address_ipv6, false),
    ];
    for (field, text, v4) in addresses {
        let Some(text) = text else { continue };
        if !text.parse::<IpAddr>().is_ok_and(|addr| addr.is_ipv4() == v4) {
            let family = if v4 { "IPv4" } else { "IPv6" };
            found.add(field, format!("must be an {family} address"), text.as_str());
        }
    }
    let durations = [
        ("spec.nftablesRefreshInterval", &spec.nftables_refresh_interval),
        ("spec.routeRefreshInterval", &spec.route_refresh_interval),
        ("spec.interfaceRefreshInterval", &spec.interface_refresh_interval),
        ("spec.dataplaneWatchdogTimeout", &spec.dataplane_watchdog_timeout),
    ];
    for (field, text) in durations {
        found.duration(field, text.as_deref());
    }
    for (list, field) in [
        (&spec.failsafe_inbound_host_ports, "spec.failsafeInboundHostPorts"),
        (&spec.failsafe_outbound_host_ports, "spec.failsafeOutboundHostPorts"),
    ] {
        for (index, port) in list.iter().enumerate() {
            if let Some(net) = &port.net {
                found.nets(&format!("{field}[{index}].net"), std::slice::from_ref(net));
            }
        }
    }
}

//! BGP: peers, filters, settings.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Findings;
use crate::{BgpConfigurationSpec, BgpFilterRule, BgpFilterSpec, BgpPeerSpec, FilterAction, net};

pub(super) fn peer(spec: &BgpPeerSpec, found: &mut Findings) {
    let selectors = [
        ("spec.nodeSelector", &spec.node_selector),
        ("spec.peerSelector", &spec.peer_selector),
        ("spec.localWorkloadSelector", &spec.local_workload_selector),
    ];
    for (field, text) in selectors {
        found.plain_selector(field, text.as_deref());
    }
    if let (Some(_), Some(selector)) = (&spec.node, &spec.node_selector) {
        found.add("spec.nodeSelector", "excludes node: remove one", selector.as_str());
    }
    if let Some(text) = &spec.peer_ip
        && net::parse_peer(text).is_none()
    {
        let message = "is no address: write 192.0.2.1, 192.0.2.1:179 or [2001:db8::1]:179";
        found.add("spec.peerIP", message, text.as_str());
    }
    whom(spec, found);
    if let Some(via) = &spec.reachable_by {
        if spec.peer_ip.is_none() {
            let message = "is the gateway to peerIP: add peerIP or remove it";
            found.add("spec.reachableBy", message, via.as_str());
        }
        if via.parse::<IpAddr>().is_err() {
            found.add("spec.reachableBy", "is no address", via.as_str());
        }
    }
    if spec.keep_original_next_hop && spec.next_hop_mode.is_some() {
        let message = "is the old form of nextHopMode Keep: use nextHopMode alone";
        found.add("spec.keepOriginalNextHop", message, true);
    }
    // RFC 5082: 1 to 255 hops.
    if let Some(hops) = spec.ttl_security.filter(|hops| !(1..=255).contains(hops)) {
        found.add("spec.ttlSecurity", "must be from 1 to 255 hops", hops);
    }
    if let Some(text) =
        spec.reverse_peering.as_deref().filter(|text| !matches!(*text, "Auto" | "Manual"))
    {
        found.add("spec.reversePeering", "must be one of Auto, Manual", text);
    }
    found.duration("spec.maxRestartTime", spec.max_restart_time.as_deref());
    found.duration("spec.keepaliveTime", spec.keepalive_time.as_deref());
}

/// Exactly one way of saying who the peer is, and its AS number where nodes don't tell it.
fn whom(spec: &BgpPeerSpec, found: &mut Findings) {
    let ways = [
        ("spec.peerIP", spec.peer_ip.as_deref()),
        ("spec.peerSelector", spec.peer_selector.as_deref()),
        ("spec.localWorkloadSelector", spec.local_workload_selector.as_deref()),
    ];
    let given: Vec<_> =
        ways.iter().filter_map(|(field, text)| text.map(|text| (*field, text))).collect();
    if given.is_empty() {
        let message = "is missing: give peerIP, peerSelector or localWorkloadSelector";
        found.add("spec.peerIP", message, "");
    }
    for (field, text) in given.iter().skip(1) {
        let first = given.first().map_or("", |(field, _)| *field);
        found.add(*field, format!("excludes {first}: make another BGPPeer"), *text);
    }
    let as_number = spec.as_number.filter(|number| *number != 0);
    match (as_number, &spec.peer_selector) {
        (Some(number), Some(_)) => {
            let message = "comes from the selected nodes: remove it or peerSelector";
            found.add("spec.asNumber", message, number);
        }
        (None, None) if !given.is_empty() => {
            found.add("spec.asNumber", "is missing: give the AS number of the peer", 0);
        }
        _ => {}
    }
}

pub(super) fn filter(spec: &BgpFilterSpec, found: &mut Findings) {
    let lists = [
        ("importV4", &spec.import_v4, true),
        ("exportV4", &spec.export_v4, true),
        ("importV6", &spec.import_v6, false),
        ("exportV6", &spec.export_v6, false),
    ];
    for (name, rules, v4) in lists {
        for (index, rule) in rules.iter().enumerate() {
            filter_rule(&format!("spec.{name}[{index}]"), rule, v4, found);
        }
    }
}

fn filter_rule(at: &str, rule: &BgpFilterRule, v4: bool, found: &mut Findings) {
    match (&rule.cidr, rule.match_operator) {
        (Some(text), None) => {
            found.add(
                format!("{at}.matchOperator"),
                "is missing: say how a route relates to cidr",
                text.as_str(),
            );
        }
        (None, Some(operator)) => {
            let message = "needs cidr: add it or remove matchOperator";
            found.add(format!("{at}.matchOperator"), message, format!("{operator:?}"));
        }
        _ => {}
    }
    if let Some(text) = &rule.cidr {
        let field = format!("{at}.cidr");
        if let Some(IpNet::V6(_)) = found.cidr(&field, text).filter(|_| v4) {
            found.add(field, "is IPv6 in a list of IPv4 rules", text.as_str());
        } else if !v4 && text.parse::<ipnet::Ipv4Net>().is_ok() {
            found.add(field, "is IPv4 in a list of IPv6 rules", text.as_str());
        }
    }
    if let Some(range) = &rule.prefix_length {
        if rule.cidr.is_none() {
            found.add(format!("{at}.prefixLength"), "needs cidr", "");
        }
        if let (Some(min), Some(max)) = (range.min, range.max)
            && min > max
        {
            found.add(format!("{at}.prefixLength.min"), "is above max: swap them", min);
        }
    }
    if !rule.operations.is_empty() && rule.action != FilterAction::Accept {
        let message = "change accepted routes only: set action to Accept";
        found.add(format!("{at}.operations"), message, rule.operations.len());
    }
    let values = rule.communities.iter().flat_map(|list| &list.values);
    for (index, text) in values.enumerate() {
        community(&format!("{at}.communities.values[{index}]"), text, found);
    }
    for (index, operation) in rule.operations.iter().enumerate() {
        let field = format!("{at}.operations[{index}]");
        let set = usize::from(operation.add_community.is_some())
            + usize::from(operation.prepend_as_path.is_some())
            + usize::from(operation.set_priority.is_some());
        if set != 1 {
            found.add(
                &*field,
                "must set exactly one of addCommunity, prependASPath, setPriority",
                set,
            );
        }
        if let Some(add) = &operation.add_community {
            community(&format!("{field}.addCommunity.value"), &add.value, found);
        }
    }
}

/// `aa:nn` of 16 bits each (RFC 1997) or `aa:nn:mm` of 32 bits each (RFC 8092).
fn community(field: &str, text: &str, found: &mut Findings) {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = text.split(':').collect();
    let fits = match parts.as_slice() {
        [a, b] => [a, b].iter().all(|part| digits(part) && part.parse::<u16>().is_ok()),
        [a, b, c] => [a, b, c].iter().all(|part| digits(part) && part.parse::<u32>().is_ok()),
        _ => false,
    };
    if !fits {
        found.add(field, "is no community: write aa:nn, or aa:nn:mm for a large one", text);
    }
}

pub(super) fn configuration(spec: &BgpConfigurationSpec, found: &mut Findings) {
    let lists = [
        ("serviceClusterIPs", &spec.service_cluster_ips),
        ("serviceExternalIPs", &spec.service_external_ips),
        ("serviceLoadBalancerIPs", &spec.service_load_balancer_ips),
    ];
    for (name, list) in lists {
        for (index, entry) in list.iter().enumerate() {
            if let Some(text) = &entry.cidr {
                found.cidr(&format!("spec.{name}[{index}].cidr"), text);
            }
        }
    }
    if spec.node_to_node_mesh_enabled == Some(false) {
        if spec.node_mesh_password.is_some() {
            found.add("spec.nodeMeshPassword", "needs the mesh: remove it or enable the mesh", "");
        }
        if let Some(text) = &spec.node_mesh_max_restart_time {
            let message = "needs the mesh: remove it or enable the mesh";
            found.add("spec.nodeMeshMaxRestartTime", message, text.as_str());
        }
    }
    found.duration("spec.nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time.as_deref());
    communities(spec, found);
}

fn communities(spec: &BgpConfigurationSpec, found: &mut Findings) {
    if !spec.communities.is_empty() && spec.prefix_advertisements.is_empty() {
        let message = "only name values for prefixAdvertisements: add one or remove communities";
        found.add("spec.communities", message, spec.communities.len());
    }
    for (index, named) in spec.communities.iter().enumerate() {
        let value = named.value.as_deref().unwrap_or_default();
        community(&format!("spec.communities[{index}].value"), value, found);
    }
    for (index, advertisement) in spec.prefix_advertisements.iter().enumerate() {
        let at = format!("spec.prefixAdvertisements[{index}]");
        if let Some(text) = &advertisement.cidr {
            found.cidr(&format!("{at}.cidr"), text);
        }
        for (number, text) in advertisement.communities.iter().enumerate() {
            let named = spec.communities.iter().any(|entry| entry.name.as_deref() == Some(text));
            if !named {
                community(&format!("{at}.communities[{number}]"), text, found);
            }
        }
    }
}

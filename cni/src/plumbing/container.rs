//! The container's end of the wire.

use std::net::IpAddr;

use ipnet::IpNet;
use kernel::{
    Address, Link, MacAddr, NetNs, Netlink, Route, address, link, neighbour,
    route::{self, Filter},
    sysctl::{self, ipv6_conf},
};

use super::{PlumbingError, default_prefix, during, find, host::try_all};
use crate::rpc::Wiring;

/// Configures the container's end; returns its Ethernet address and harmless troubles.
pub(super) fn configure(
    pod: &Netlink,
    netns: &NetNs,
    ifname: &str,
    wiring: &Wiring,
) -> Result<(MacAddr, Vec<String>), PlumbingError> {
    let far = find(pod, ifname)?;
    let mac = far.mac.ok_or_else(|| PlumbingError::Vanished(ifname.to_owned()))?;
    let mut warnings = Vec::new();
    if wiring.gateways.iter().any(IpAddr::is_ipv6) {
        warnings = netns
            .run(|| enable_ipv6(ifname))
            .map_err(during("enter the container's namespace"))??;
    }
    let loopback = find(pod, "lo")?;
    link::set_up(pod, loopback.index, true)
        .map_err(during("switch the container's loopback on"))?;
    link::set_up(pod, far.index, true).map_err(during("switch the container's end on"))?;
    for prefix in &wiring.addresses {
        address::replace(pod, &Address::new(far.index, *prefix))
            .map_err(during("give the container its address"))?;
    }
    for gateway in &wiring.gateways {
        neighbour::set_permanent(pod, far.index, *gateway, wiring.host_mac)
            .map_err(during("pin the container's gateway"))?;
        for route in routes(far.index, *gateway) {
            route::replace(pod, &route).map_err(during("make the container's default route"))?;
        }
    }
    Ok((mac, warnings))
}

/// Some runtimes start containers with IPv6 switched off.
fn enable_ipv6(ifname: &str) -> Result<Vec<String>, PlumbingError> {
    sysctl::ensure(&ipv6_conf(ifname, "disable_ipv6"), "0")?;
    Ok(try_all([
        (ipv6_conf("lo", "disable_ipv6"), "0"),
        (ipv6_conf(ifname, "accept_dad"), "0"),
        (ipv6_conf(ifname, "accept_ra"), "0"),
    ]))
}

/// The gateway is on the link although no address says so; then everything goes through it.
fn routes(interface: u32, gateway: IpAddr) -> Vec<Route> {
    let default = Route::via(default_prefix(gateway), gateway, interface);
    match gateway {
        IpAddr::V4(_) => vec![Route::device(IpNet::from(gateway), interface), default],
        // Link-local gateways need no route.
        IpAddr::V6(_) => vec![default],
    }
}

/// Removes the container's end if it is a veth (a name alone is no proof of ours).
pub(super) fn remove(netns: &NetNs, ifname: &str) -> Result<(), PlumbingError> {
    let pod = Netlink::open_in(netns).map_err(during("connect to the container's namespace"))?;
    let far = link::by_name(&pod, ifname).map_err(during("look up the container's end"))?;
    match far.filter(|link| link.kind.as_deref() == Some("veth")) {
        Some(far) => link::delete(&pod, far.index).map_err(during("remove the container's end")),
        None => Ok(()),
    }
}

/// Compares addresses, routes and neighbours; every difference is one text.
pub(super) fn check(
    pod: &Netlink,
    far: &Link,
    wiring: &Wiring,
) -> Result<Vec<String>, PlumbingError> {
    let mut findings = Vec::new();
    let addresses =
        address::list(pod, Some(far.index)).map_err(during("list the container's addresses"))?;
    for prefix in &wiring.addresses {
        if !addresses.iter().any(|address| address.prefix == *prefix) {
            findings.push(format!("address {prefix} is missing on {}", far.name));
        }
    }
    let present =
        route::list(pod, Filter::default()).map_err(during("list the container's routes"))?;
    let neighbours =
        neighbour::list(pod, far.index).map_err(during("list the container's neighbours"))?;
    for gateway in &wiring.gateways {
        for wanted in routes(far.index, *gateway) {
            let wanted = wanted.normalized();
            if !present.iter().any(|route| wanted.is_met_by(route)) {
                findings.push(format!("route {wanted} is missing"));
            }
        }
        let pinned = neighbours.iter().any(|neighbour| {
            neighbour.address == *gateway
                && neighbour.mac == Some(wiring.host_mac)
                && neighbour.permanent
        });
        if !pinned {
            findings.push(format!("gateway {gateway} is not pinned to {}", wiring.host_mac));
        }
    }
    Ok(findings)
}

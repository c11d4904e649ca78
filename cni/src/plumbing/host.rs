//! The host's end of the wire.

use ipnet::IpNet;
use kernel::{
    Address, Link, Netlink, address, link,
    sysctl::{self, ipv4_conf, ipv6_conf},
};

use super::{PlumbingError, during};
use crate::rpc::Wiring;

/// Configures the host's end and switches it on; returns what could not be set and does no harm.
pub(super) fn configure(
    host: &Netlink,
    near: &Link,
    wiring: &Wiring,
) -> Result<Vec<String>, PlumbingError> {
    let mut warnings = Vec::new();
    if wiring.addresses.iter().any(|address| address.addr().is_ipv4()) {
        warnings.extend(ipv4(&near.name)?);
    }
    let v6 = wiring.gateways.iter().find(|gateway| gateway.is_ipv6());
    if v6.is_some() {
        warnings.extend(ipv6(&near.name)?);
    }
    link::set_up(host, near.index, true).map_err(during("switch the host's end on"))?;
    if let Some(gateway) = v6 {
        // The kernel makes the same one from the Ethernet address, unless it is told to use another method.
        let link_local = IpNet::new_assert(*gateway, 64);
        address::replace(host, &Address::new(near.index, link_local))
            .map_err(during("give the host's end its link-local address"))?;
    }
    Ok(warnings)
}

/// The same settings as Calico's (`dataplane/linux`), but that packets of the pod must have its address is the
/// policy's check too: `rp_filter` only helps it.
fn ipv4(name: &str) -> Result<Vec<String>, PlumbingError> {
    sysctl::ensure(&ipv4_conf(name, "forwarding"), "1")?;
    Ok(try_all([
        (ipv4_conf(name, "proxy_arp"), "1"),
        (format!("net/ipv4/neigh/{name}/proxy_delay"), "0"),
        (ipv4_conf(name, "rp_filter"), "1"),
        (ipv4_conf(name, "accept_redirects"), "0"),
        (ipv4_conf(name, "send_redirects"), "0"),
    ]))
}

fn ipv6(name: &str) -> Result<Vec<String>, PlumbingError> {
    sysctl::ensure(&ipv6_conf(name, "disable_ipv6"), "0")?;
    sysctl::ensure(&ipv6_conf(name, "forwarding"), "1")?;
    Ok(try_all([
        (ipv6_conf(name, "accept_dad"), "0"),
        (ipv6_conf(name, "accept_ra"), "0"),
        (ipv6_conf(name, "accept_redirects"), "0"),
        (ipv6_conf(name, "proxy_ndp"), "1"),
    ]))
}

/// Sets what can be set; the rest comes back as texts.
pub(super) fn try_all<const N: usize>(settings: [(String, &str); N]) -> Vec<String> {
    let attempts = settings.map(|(path, value)| sysctl::ensure(&path, value).err());
    attempts.into_iter().flatten().map(|error| error.to_string()).collect()
}

//! Who this node is: its addresses. Pure choice over what the API and the kernel say, with the reason for the log.

use std::net::IpAddr;

use ipnet::IpNet;

/// An interface address as a candidate for the node's own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Candidate {
    /// Interface name.
    pub(crate) interface: String,
    /// Address with prefix length.
    pub(crate) address: IpNet,
    /// Whether the interface is up.
    pub(crate) up: bool,
}

/// A choice and why it was made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Choice {
    /// Address with prefix length: the mask decides what is on the same subnet.
    pub(crate) address: IpNet,
    /// Reason in words, for the log.
    pub(crate) reason: String,
}

/// Address family to choose for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    fn holds(self, address: IpAddr) -> bool {
        matches!((self, address), (Self::V4, IpAddr::V4(_)) | (Self::V6, IpAddr::V6(_)))
    }
}

/// Interfaces that never carry the node's address: pods, bridges of container engines, tunnels.
const SKIPPED: &[&str] = &["cali", "docker", "br-", "cbr", "veth", "virbr", "tunl", "vxlan", "wg"];

/// Chooses the node's address of one family.
///
/// `configured` is the command line's word: an address, `autodetect` or `none`. `annotated` is what the Node object
/// carries already (`projectcalico.org/IPv4Address`): it wins over detection as long as this host still has the address.
pub(crate) fn choose(
    family: Family,
    configured: &str,
    annotated: Option<&str>,
    internal_ip: Option<IpAddr>,
    candidates: &[Candidate],
) -> Option<Choice> {
    match configured {
        "none" => return None,
        "autodetect" | "" => {}
        text => {
            return parse(text)
                .map(|address| Choice { address, reason: "given on the command line".into() });
        }
    }
    let mine =
        |wanted: IpAddr| candidates.iter().find(|candidate| candidate.address.addr() == wanted);
    if let Some(address) = annotated.and_then(parse)
        && family.holds(address.addr())
        && mine(address.addr()).is_some()
    {
        return Some(Choice { address, reason: "kept from the Node's annotation".into() });
    }
    if let Some(wanted) = internal_ip
        && family.holds(wanted)
        && let Some(found) = mine(wanted)
    {
        let reason = format!("InternalIP of the Node, on {}", found.interface);
        return Some(Choice { address: found.address, reason });
    }
    let first = candidates.iter().find(|candidate| {
        candidate.up
            && family.holds(candidate.address.addr())
            && usable(candidate.address.addr())
            && !SKIPPED.iter().any(|prefix| candidate.interface.starts_with(prefix))
    })?;
    Some(Choice {
        address: first.address,
        reason: format!("first address found, on {}", first.interface),
    })
}

fn parse(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Whether others can reach an address: not on the loopback, not of one link only.
pub(crate) fn usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(interface: &str, address: &str) -> Candidate {
        Candidate { interface: interface.into(), address: address.parse().unwrap(), up: true }
    }

    #[test]
    fn annotation_wins_while_the_host_has_the_address() {
        let have = [candidate("eth0", "10.0.0.1/24"), candidate("eth1", "10.0.1.1/24")];
        let choice = choose(Family::V4, "autodetect", Some("10.0.1.1/24"), None, &have).unwrap();
        assert_eq!(choice.address.to_string(), "10.0.1.1/24");
        let gone = choose(Family::V4, "autodetect", Some("10.9.9.9/24"), None, &have).unwrap();
        assert_eq!(gone.address.to_string(), "10.0.0.1/24");
        assert_eq!(gone.reason, "first address found, on eth0");
    }

    #[test]
    fn internal_ip_wins_over_the_first_interface() {
        let have = [candidate("eth0", "10.0.0.1/24"), candidate("lo", "10.255.0.1/32")];
        let internal = Some("10.255.0.1".parse().unwrap());
        let choice = choose(Family::V4, "autodetect", None, internal, &have).unwrap();
        assert_eq!(choice.reason, "InternalIP of the Node, on lo");
    }

    #[test]
    fn pods_bridges_and_link_local_addresses_are_never_the_nodes() {
        let have = [
            candidate("docker0", "172.17.0.1/16"),
            candidate("cali123", "10.244.0.1/32"),
            candidate("eth0", "fe80::1/64"),
            candidate("eth0", "2001:db8::1/64"),
        ];
        assert_eq!(choose(Family::V4, "autodetect", None, None, &have), None);
        let v6 = choose(Family::V6, "autodetect", None, None, &have).unwrap();
        assert_eq!(v6.address.to_string(), "2001:db8::1/64");
        assert_eq!(choose(Family::V6, "none", None, None, &have), None);
    }
}

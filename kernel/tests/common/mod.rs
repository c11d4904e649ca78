//! Namespaces and interfaces for tests.

use std::net::IpAddr;

use ipnet::IpNet;
use kernel::{
    Address, NetNs, Netlink, address,
    link::{self, VethEnd},
};

/// Makes a namespace with loopback up, or says why the test is skipped.
pub(crate) fn namespace() -> Option<(NetNs, Netlink)> {
    let netns = match NetNs::anonymous() {
        Ok(netns) => netns,
        Err(error) if error.is_denied() => {
            eprintln!("skipped: {error}: run as root or under `unshare -Urnm`");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let netlink = Netlink::open_in(&netns).unwrap();
    link::set_up(&netlink, 1, true).unwrap();
    Some((netns, netlink))
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An interface that is up, with addresses; a veth whose other end, `NAMEp`, is in the same namespace, because not
/// every kernel has dummy interfaces.
pub(crate) fn wire(netlink: &Netlink, name: &str, addresses: &[&str]) -> u32 {
    let end = |name: String| VethEnd { name, ..VethEnd::default() };
    link::create_veth(netlink, &end(name.to_owned()), &end(format!("{name}p"))).unwrap();
    let peer = link::index_of(netlink, &format!("{name}p")).unwrap();
    link::set_up(netlink, peer, true).unwrap();
    let index = link::index_of(netlink, name).unwrap();
    link::set_up(netlink, index, true).unwrap();
    for prefix in addresses {
        address::add(netlink, &Address::new(index, net(prefix))).unwrap();
    }
    index
}

//! Neighbour entries (ARP and NDP) that are configured, not learned.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, Parseable};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
};

use crate::{MacAddr, Netlink, Result, error::missing_is_fine};

/// One neighbour entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the interface.
    pub interface: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its Ethernet address; absent for proxy and unresolved entries.
    pub mac: Option<MacAddr>,
    /// Whether it was configured and never expires.
    pub permanent: bool,
    /// Whether we answer for that address on the interface.
    pub proxy: bool,
}

/// Pins the Ethernet address of a neighbour.
pub fn set_permanent(
    netlink: &Netlink,
    interface: u32,
    address: IpAddr,
    mac: MacAddr,
) -> Result<()> {
    let mut message = encode(interface, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    netlink.execute(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
        || format!("pin neighbour {address} to {mac} on interface {interface}"),
    )
}

/// Answers neighbour solicitations (or ARP requests) for `address` on the interface.
pub fn add_proxy(netlink: &Netlink, interface: u32, address: IpAddr) -> Result<()> {
    let mut message = encode(interface, address);
    message.header.flags = NeighbourFlags::Proxy;
    netlink.execute(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
        || format!("proxy {address} on interface {interface}"),
    )
}

/// Removes an entry; one that is gone already is fine.
pub fn delete(netlink: &Netlink, interface: u32, address: IpAddr) -> Result<()> {
    remove(netlink, encode(interface, address))
}

/// Stops answering for `address`; not having done so is fine.
pub fn delete_proxy(netlink: &Netlink, interface: u32, address: IpAddr) -> Result<()> {
    let mut message = encode(interface, address);
    message.header.flags = NeighbourFlags::Proxy;
    remove(netlink, message)
}

fn remove(netlink: &Netlink, message: NeighbourMessage) -> Result<()> {
    missing_is_fine(
        netlink
            .execute(RouteNetlinkMessage::DelNeighbour(message), 0, || "delete neighbour".into()),
    )
}

/// Lists the entries of an interface, proxy entries included.
pub fn list(netlink: &Netlink, interface: u32) -> Result<Vec<Neighbour>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for flags in [NeighbourFlags::empty(), NeighbourFlags::Proxy] {
            let mut message = NeighbourMessage::default();
            message.header.family = family;
            message.header.flags = flags;
            let message = RouteNetlinkMessage::GetNeighbour(message);
            found.extend(netlink.dump(&message, "list neighbours", |raw| decode(raw.payload))?);
        }
    }
    found.retain(|neighbour| neighbour.interface == interface);
    Ok(found)
}

fn encode(interface: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = interface;
    message.header.family =
        if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(address)));
    message
}

fn decode(payload: &[u8]) -> Option<Neighbour> {
    let message = NeighbourMessage::parse(payload).ok()?;
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(IpAddr::V4(*ip))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(IpAddr::V6(*ip))
            }
            NeighbourAttribute::LinkLayerAddress(octets) => mac = MacAddr::from_slice(octets),
            _ => (),
        }
    }
    Some(Neighbour {
        interface: message.header.ifindex,
        address: address?,
        mac,
        permanent: message.header.state == NeighbourState::Permanent,
        proxy: message.header.flags.contains(NeighbourFlags::Proxy),
    })
}

//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Parseable};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
};

use crate::{Netlink, Result, error::missing_is_fine, netlink::RawMessage};

pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_DELADDR: u16 = 21;

/// One address of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Index of the interface.
    pub interface: u32,
    /// The address with its prefix length (host bits kept).
    pub prefix: IpNet,
    /// `RT_SCOPE_*`: 0 universe, 253 link, 254 host.
    pub scope: u8,
    /// IPv6: no duplicate address detection, usable at once.
    pub no_dad: bool,
    /// Whether the kernel makes no route for the prefix.
    pub no_prefix_route: bool,
    /// IPv6, only read: duplicate address detection has not finished.
    pub tentative: bool,
}

impl Address {
    /// Describes an address to add; link-local ones get link scope, IPv6 ones are usable at once.
    pub fn new(interface: u32, prefix: IpNet) -> Self {
        let link_local = match prefix.addr() {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        Self {
            interface,
            prefix,
            scope: if link_local { SCOPE_LINK } else { 0 },
            no_dad: prefix.addr().is_ipv6(),
            no_prefix_route: false,
            tentative: false,
        }
    }
}

const SCOPE_LINK: u8 = 253;

/// Lists the addresses of all interfaces, or of one.
pub fn list(netlink: &Netlink, interface: Option<u32>) -> Result<Vec<Address>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = AddressMessage::default();
        message.header.family = family;
        message.header.index = interface.unwrap_or(0);
        found.extend(netlink.dump(
            &RouteNetlinkMessage::GetAddress(message),
            "list addresses",
            decode,
        )?);
    }
    found.retain(|address| interface.is_none_or(|index| address.interface == index));
    Ok(found)
}

/// Adds an address; one that is there already is an error.
pub fn add(netlink: &Netlink, address: &Address) -> Result<()> {
    netlink.execute(
        RouteNetlinkMessage::NewAddress(encode(address)),
        NLM_F_CREATE | NLM_F_EXCL,
        || format!("add address {} to interface {}", address.prefix, address.interface),
    )
}

/// Adds an address or changes the flags of the one that is there.
pub fn replace(netlink: &Netlink, address: &Address) -> Result<()> {
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    netlink.execute(RouteNetlinkMessage::NewAddress(encode(address)), flags, || {
        format!("set address {} of interface {}", address.prefix, address.interface)
    })
}

/// Deletes an address; one that is gone already is fine.
pub fn delete(netlink: &Netlink, interface: u32, prefix: IpNet) -> Result<()> {
    let message = encode(&Address::new(interface, prefix));
    missing_is_fine(netlink.execute(RouteNetlinkMessage::DelAddress(message), 0, || {
        format!("delete address {prefix} of interface {interface}")
    }))
}

fn encode(address: &Address) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = address.interface;
    message.header.prefix_len = address.prefix.prefix_len();
    message.header.scope = AddressScope::from(address.scope);
    message.header.family =
        if address.prefix.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let mut flags = AddressFlags::empty();
    flags.set(AddressFlags::Nodad, address.no_dad);
    flags.set(AddressFlags::Noprefixroute, address.no_prefix_route);
    message.attributes = vec![
        AddressAttribute::Local(address.prefix.addr()),
        AddressAttribute::Address(address.prefix.addr()),
    ];
    if !flags.is_empty() {
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    message
}

pub(crate) fn decode(raw: RawMessage<'_>) -> Option<Address> {
    if !matches!(raw.kind, RTM_NEWADDR | RTM_DELADDR) {
        return None;
    }
    let message = AddressMessage::parse(raw.payload)
        .inspect_err(|error| tracing::debug!(%error, "address message skipped"))
        .ok()?;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => (),
        }
    }
    // IFA_ADDRESS is the peer on point-to-point links; IFA_LOCAL is ours when present.
    let prefix = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some(Address {
        interface: message.header.index,
        prefix,
        scope: message.header.scope.into(),
        no_dad: flags.contains(AddressFlags::Nodad),
        no_prefix_route: flags.contains(AddressFlags::Noprefixroute),
        tentative: flags.contains(AddressFlags::Tentative),
    })
}

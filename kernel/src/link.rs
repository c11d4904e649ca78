//! Interfaces: list, create, change, delete.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NlasIterator, parse_string, parse_u32};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader,
        LinkInfo, LinkMessage,
    },
};

use crate::{Error, MacAddr, NetNs, Netlink, Result, error::missing_is_fine, netlink::RawMessage};

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
/// `IFNAMSIZ` without the terminating zero.
pub const MAX_NAME: usize = 15;

/// An interface as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index, unique in its namespace while it exists.
    pub index: u32,
    /// Name, at most 15 octets.
    pub name: String,
    /// Driver kind (`veth`, `bridge`, ...), `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Ethernet address, `None` for interfaces without one.
    pub mac: Option<MacAddr>,
    /// Largest packet in octets.
    pub mtu: u32,
    /// Whether an administrator switched it on (`IFF_UP`).
    pub up: bool,
    /// Whether the lower layer is there (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// `IFLA_OPERSTATE`, RFC 2863.
    pub oper_state: OperState,
    /// Index of the bridge or VRF that this is a port of.
    pub master: Option<u32>,
    /// Index of the other end of a veth, or of the parent device; in another namespace's numbering if it lives there.
    pub peer: Option<u32>,
    /// Free text that whoever manages it left on it (`ip link set alias`).
    pub alias: Option<String>,
    /// Whether it is the loopback.
    pub loopback: bool,
}

impl Link {
    /// Says whether packets can pass: switched on and with carrier.
    pub fn is_operational(&self) -> bool {
        self.up && self.carrier
    }
}

/// RFC 2863 operational state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperState {
    /// The driver does not tell (loopback, tun).
    Unknown,
    /// Up.
    Up,
    /// Down, for whatever reason.
    Down,
}

/// What to create with [`create_veth`].
#[derive(Debug, Clone, Default)]
pub struct VethEnd<'a> {
    /// Name of this end.
    pub name: String,
    /// Largest packet; the kernel's default when absent.
    pub mtu: Option<u32>,
    /// Ethernet address; random when absent.
    pub mac: Option<MacAddr>,
    /// Namespace of this end; the connection's own when absent.
    pub netns: Option<&'a NetNs>,
}

/// Lists all interfaces.
pub fn list(netlink: &Netlink) -> Result<Vec<Link>> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    netlink.dump(&RouteNetlinkMessage::GetLink(message), "list interfaces", decode)
}

/// Finds an interface by name.
pub fn by_name(netlink: &Netlink, name: &str) -> Result<Option<Link>> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Ok(None);
    }
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    get(netlink, message)
}

/// Finds an interface by index.
pub fn by_index(netlink: &Netlink, index: u32) -> Result<Option<Link>> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    get(netlink, message)
}

/// Returns the index of the interface with that name, or [`Error::NoSuchLink`].
pub fn index_of(netlink: &Netlink, name: &str) -> Result<u32> {
    let link = by_name(netlink, name)?;
    link.map(|link| link.index).ok_or_else(|| Error::NoSuchLink { name: name.to_owned() })
}

fn get(netlink: &Netlink, mut message: LinkMessage) -> Result<Option<Link>> {
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let mut found = None;
    let asked = netlink.query(RouteNetlinkMessage::GetLink(message), "look up interface", |raw| {
        found = decode(raw);
    });
    missing_is_fine(asked)?;
    Ok(found)
}

/// Creates a veth pair, each end at once with its name, MTU, address and namespace.
pub fn create_veth(netlink: &Netlink, near: &VethEnd<'_>, far: &VethEnd<'_>) -> Result<()> {
    let mut message = veth_message(near)?;
    let peer = InfoData::Veth(InfoVeth::Peer(veth_message(far)?));
    message
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(peer)]));
    create(netlink, message, || format!("create veth {} with peer {}", near.name, far.name))
}

fn veth_message(end: &VethEnd<'_>) -> Result<LinkMessage> {
    let mut message = named_message(&end.name)?;
    message.attributes.extend(end.mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(end.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message
        .attributes
        .extend(end.netns.map(|netns| LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd())));
    Ok(message)
}

/// Creates a bridge.
pub fn create_bridge(netlink: &Netlink, name: &str) -> Result<()> {
    create_kind(netlink, name, InfoKind::Bridge)
}

/// Creates a dummy interface (a loopback for service and router addresses).
pub fn create_dummy(netlink: &Netlink, name: &str) -> Result<()> {
    create_kind(netlink, name, InfoKind::Dummy)
}

fn create_kind(netlink: &Netlink, name: &str, kind: InfoKind) -> Result<()> {
    let mut message = named_message(name)?;
    let operation = format!("create {kind} {name}");
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
    create(netlink, message, || operation)
}

fn create(
    netlink: &Netlink,
    message: LinkMessage,
    operation: impl FnOnce() -> String,
) -> Result<()> {
    netlink.execute(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, operation)
}

fn named_message(name: &str) -> Result<LinkMessage> {
    let invalid = name.is_empty()
        || name.len() > MAX_NAME
        || name == "."
        || name == ".."
        || name.contains(['/', ':'])
        || name.chars().any(char::is_whitespace);
    if invalid {
        let reason = format!("{name:?} is not 1 to {MAX_NAME} octets without /, : and white space");
        return Err(Error::Invalid { field: "interface name", reason });
    }
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    Ok(message)
}

/// Switches an interface on or off.
pub fn set_up(netlink: &Netlink, index: u32, up: bool) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    netlink.execute(RouteNetlinkMessage::SetLink(message), 0, || {
        format!("switch interface {index} {}", if up { "on" } else { "off" })
    })
}

/// Sets the MTU.
pub fn set_mtu(netlink: &Netlink, index: u32, mtu: u32) -> Result<()> {
    change(netlink, index, LinkAttribute::Mtu(mtu), || {
        format!("set MTU {mtu} of interface {index}")
    })
}

/// Sets the Ethernet address.
pub fn set_mac(netlink: &Netlink, index: u32, mac: MacAddr) -> Result<()> {
    change(netlink, index, LinkAttribute::Address(mac.0.to_vec()), || {
        format!("set address {mac} of interface {index}")
    })
}

/// Renames an interface; old kernels (< 6.2) want it switched off for that.
pub fn set_name(netlink: &Netlink, index: u32, name: &str) -> Result<()> {
    let mut message = named_message(name)?;
    message.header.index = index;
    let operation = || format!("rename interface {index} to {name}");
    netlink.execute(RouteNetlinkMessage::SetLink(message), 0, operation)
}

/// Leaves a text of at most 255 octets on an interface, to know it again by.
pub fn set_alias(netlink: &Netlink, index: u32, alias: &str) -> Result<()> {
    change(netlink, index, LinkAttribute::IfAlias(alias.to_owned()), || {
        format!("set alias {alias:?} of interface {index}")
    })
}

/// Makes an interface a port of a bridge or VRF, or of none.
pub fn set_master(netlink: &Netlink, index: u32, master: Option<u32>) -> Result<()> {
    change(netlink, index, LinkAttribute::Controller(master.unwrap_or(0)), || {
        format!("set master {} of interface {index}", master.unwrap_or(0))
    })
}

/// Moves an interface into another namespace.
pub fn set_netns(netlink: &Netlink, index: u32, netns: &NetNs) -> Result<()> {
    change(netlink, index, LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()), || {
        format!("move interface {index} to another namespace")
    })
}

fn change(
    netlink: &Netlink,
    index: u32,
    attribute: LinkAttribute,
    operation: impl FnOnce() -> String,
) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(attribute);
    netlink.execute(RouteNetlinkMessage::SetLink(message), 0, operation)
}

/// Deletes an interface (and the other end of a veth); one that is gone already is fine.
pub fn delete(netlink: &Netlink, index: u32) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    missing_is_fine(
        netlink.execute(RouteNetlinkMessage::DelLink(message), 0, || {
            format!("delete interface {index}")
        }),
    )
}

/// Deletes an interface by name and says whether it was there.
pub fn delete_by_name(netlink: &Netlink, name: &str) -> Result<bool> {
    let Some(link) = by_name(netlink, name)? else { return Ok(false) };
    delete(netlink, link.index).map(|()| true)
}

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_INFO_KIND: u16 = 1;
const HEADER: usize = 16;

/// Reads only the attributes we use: a driver's odd attribute must never hide an interface from us.
pub(crate) fn decode(raw: RawMessage<'_>) -> Option<Link> {
    let header = LinkHeader::parse(raw.payload).ok()?;
    // AF_BRIDGE messages describe bridge ports; a DELLINK among them is a port leaving, not an interface going.
    if !matches!(raw.kind, RTM_NEWLINK | RTM_DELLINK)
        || header.interface_family != AddressFamily::Unspec
    {
        return None;
    }
    let mut link = Link {
        index: header.index,
        name: String::new(),
        kind: None,
        mac: None,
        mtu: 0,
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        oper_state: OperState::Unknown,
        master: None,
        peer: None,
        alias: None,
        loopback: header.flags.contains(LinkFlags::Loopback),
    };
    for attribute in NlasIterator::new(raw.payload.get(HEADER..)?).flatten() {
        let value = attribute.value();
        match attribute.kind() {
            IFLA_ADDRESS => link.mac = MacAddr::from_slice(value),
            IFLA_IFNAME => link.name = parse_string(value).ok()?,
            IFLA_MTU => link.mtu = parse_u32(value).ok()?,
            IFLA_LINK => link.peer = parse_u32(value).ok().filter(|index| *index != 0),
            IFLA_MASTER => link.master = parse_u32(value).ok().filter(|index| *index != 0),
            IFLA_IFALIAS => link.alias = parse_string(value).ok(),
            IFLA_OPERSTATE => link.oper_state = oper_state(value),
            IFLA_LINKINFO => link.kind = driver_kind(value),
            _ => (),
        }
    }
    Some(link)
}

/// `IF_OPER_UNKNOWN` is 0, `IF_OPER_UP` 6, the rest are flavours of down.
fn oper_state(value: &[u8]) -> OperState {
    match value.first() {
        Some(0) | None => OperState::Unknown,
        Some(6) => OperState::Up,
        Some(_) => OperState::Down,
    }
}

fn driver_kind(link_info: &[u8]) -> Option<String> {
    NlasIterator::new(link_info)
        .flatten()
        .find(|attribute| attribute.kind() == IFLA_INFO_KIND)
        .and_then(|attribute| parse_string(attribute.value()).ok())
}

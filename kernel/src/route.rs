//! Routes: list, add, replace, delete. One [`Route`] is one kernel route with all its next hops.

mod message;

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

pub(crate) use self::message::{RTM_DELROUTE, RTM_NEWROUTE, decode, merge_legs};
use crate::{Netlink, Result, error::missing_is_fine, link};

/// `RTPROT_BGP`: learned by BGP.
pub const PROTOCOL_BGP: u8 = 186;
/// Local workloads and block blackholes; the number Calico uses for its own routes.
pub const PROTOCOL_WORKLOAD: u8 = 80;
/// `RTPROT_STATIC`.
pub const PROTOCOL_STATIC: u8 = 4;
/// `RT_TABLE_MAIN`.
pub const TABLE_MAIN: u32 = 254;
/// `RT_SCOPE_UNIVERSE`.
pub const SCOPE_UNIVERSE: u8 = 0;
/// `RT_SCOPE_LINK`.
pub const SCOPE_LINK: u8 = 253;
/// `IP6_RT_PRIO_USER`: what the kernel makes of an IPv6 route without priority.
const IPV6_DEFAULT_PRIORITY: u32 = 1024;

/// A kernel route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination, host bits zero.
    pub prefix: IpNet,
    /// What happens to packets.
    pub kind: RouteKind,
    /// Who installed it (`RTPROT_*`).
    pub protocol: u8,
    /// Metric; smaller wins. IPv6 turns 0 into 1024.
    pub priority: u32,
    /// Routing table.
    pub table: u32,
    /// IPv4 scope (`RT_SCOPE_*`); IPv6 has none and ignores it.
    pub scope: u8,
    /// Preferred source address of packets sent by this host.
    pub source: Option<IpAddr>,
}

/// What a route does with packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends them on; several next hops share the load.
    Unicast {
        /// At least one.
        next_hops: Vec<NextHop>,
    },
    /// Drops them silently.
    Blackhole,
    /// Drops them and tells the sender: host unreachable.
    Unreachable,
    /// Drops them and tells the sender: prohibited.
    Prohibit,
    /// A kernel type we never install (`RTN_*`): local, broadcast, multicast, throw...
    Other(u8),
}

/// One way out of a unicast route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// Router to send to; absent when the destination is on the link. May be IPv6 for an IPv4 prefix (RFC 8950).
    pub gateway: Option<IpAddr>,
    /// Interface to send from; when absent the kernel finds it by the gateway.
    pub interface: Option<Interface>,
    /// Share among the next hops, 1 to 256.
    pub weight: u16,
    /// Take the gateway for on-link although no route says so.
    pub onlink: bool,
}

/// An interface by name or index. The kernel always answers with indexes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interface {
    /// Index.
    Index(u32),
    /// Name, looked up when the route is written.
    Name(String),
}

impl From<u32> for Interface {
    fn from(index: u32) -> Self {
        Self::Index(index)
    }
}

impl From<&str> for Interface {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<String> for Interface {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "#{index}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl NextHop {
    /// A router whose interface the kernel finds.
    pub fn gateway(gateway: IpAddr) -> Self {
        Self { gateway: Some(gateway), interface: None, weight: 1, onlink: false }
    }

    /// A link that the destination is on.
    pub fn device(interface: impl Into<Interface>) -> Self {
        Self { gateway: None, interface: Some(interface.into()), weight: 1, onlink: false }
    }

    /// A router as routing protocols tell it. One with an interface is there although no network of ours need say so, which
    /// goes without saying for link-local addresses.
    pub fn told(gateway: IpAddr, interface: Option<impl Into<Interface>>) -> Self {
        let link_local = matches!(gateway, IpAddr::V6(address) if address.is_unicast_link_local());
        match interface {
            Some(interface) => Self { onlink: !link_local, ..Self::via(gateway, interface) },
            None => Self::gateway(gateway),
        }
    }

    /// A router on a given interface.
    pub fn via(gateway: IpAddr, interface: impl Into<Interface>) -> Self {
        Self { gateway: Some(gateway), ..Self::device(interface) }
    }
}

impl Route {
    /// A unicast route with protocol static, in the main table; universe scope, or link scope when no next hop has a
    /// gateway.
    pub fn unicast(prefix: IpNet, next_hops: Vec<NextHop>) -> Self {
        let on_link = prefix.addr().is_ipv4() && next_hops.iter().all(|hop| hop.gateway.is_none());
        let scope = if on_link { SCOPE_LINK } else { SCOPE_UNIVERSE };
        Self { kind: RouteKind::Unicast { next_hops }, scope, ..Self::blackhole(prefix) }
    }

    /// A route to a prefix that is on a link.
    pub fn device(prefix: IpNet, interface: impl Into<Interface>) -> Self {
        Self::unicast(prefix, vec![NextHop::device(interface)])
    }

    /// A route through one router.
    pub fn via(prefix: IpNet, gateway: IpAddr, interface: impl Into<Interface>) -> Self {
        Self::unicast(prefix, vec![NextHop::via(gateway, interface)])
    }

    /// A route that drops packets, with protocol static, in the main table.
    pub fn blackhole(prefix: IpNet) -> Self {
        Self {
            prefix: prefix.trunc(),
            kind: RouteKind::Blackhole,
            protocol: PROTOCOL_STATIC,
            priority: 0,
            table: TABLE_MAIN,
            scope: SCOPE_UNIVERSE,
            source: None,
        }
    }

    /// Lists the routers that packets are sent to.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        let next_hops = match &self.kind {
            RouteKind::Unicast { next_hops } => next_hops.as_slice(),
            _ => &[],
        };
        next_hops.iter().filter_map(|hop| hop.gateway)
    }

    /// The same route from another protocol.
    #[must_use]
    pub fn with_protocol(self, protocol: u8) -> Self {
        Self { protocol, ..self }
    }

    /// The same route with another metric.
    #[must_use]
    pub fn with_priority(self, priority: u32) -> Self {
        Self { priority, ..self }
    }

    /// The same route in another table.
    #[must_use]
    pub fn with_table(self, table: u32) -> Self {
        Self { table, ..self }
    }

    /// The same route with a preferred source address.
    #[must_use]
    pub fn with_source(self, source: Option<IpAddr>) -> Self {
        Self { source, ..self }
    }

    /// Returns the next hops; none unless unicast.
    pub fn next_hops(&self) -> &[NextHop] {
        match &self.kind {
            RouteKind::Unicast { next_hops } => next_hops,
            _ => &[],
        }
    }

    /// Returns the route in the one form that the kernel would list it in.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.prefix = self.prefix.trunc();
        if self.prefix.addr().is_ipv6() {
            self.scope = SCOPE_UNIVERSE;
            if self.priority == 0 {
                self.priority = IPV6_DEFAULT_PRIORITY;
            }
        }
        if let RouteKind::Unicast { next_hops } = &mut self.kind {
            next_hops.sort();
            next_hops.dedup();
            if let [only] = next_hops.as_mut_slice() {
                only.weight = 1;
            }
        }
        self
    }

    /// Says whether `actual` (both normalized) does what this route asks for; an interface or onlink flag that this
    /// route leaves to the kernel may be anything.
    pub fn is_met_by(&self, actual: &Self) -> bool {
        let (wanted, found) = (self.next_hops(), actual.next_hops());
        let hops_met = wanted.len() == found.len()
            && if wanted.iter().all(|hop| hop.interface.is_some()) {
                wanted.iter().zip(found).all(|(want, have)| want.is_met_by(have))
            } else {
                wanted.iter().all(|want| found.iter().any(|have| want.is_met_by(have)))
            };
        let same_kind = match (&self.kind, &actual.kind) {
            (RouteKind::Unicast { .. }, RouteKind::Unicast { .. }) => hops_met,
            (wanted, found) => wanted == found,
        };
        same_kind
            && (self.prefix, self.protocol, self.priority, self.table, self.scope, self.source)
                == (
                    actual.prefix,
                    actual.protocol,
                    actual.priority,
                    actual.table,
                    actual.scope,
                    actual.source,
                )
    }
}

impl NextHop {
    fn is_met_by(&self, actual: &Self) -> bool {
        self.gateway == actual.gateway
            && self.weight == actual.weight
            && (self.interface.is_none() || self.interface == actual.interface)
            && (!self.onlink || actual.onlink)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            RouteKind::Unicast { .. } => write!(f, "{}", self.prefix)?,
            RouteKind::Blackhole => write!(f, "blackhole {}", self.prefix)?,
            RouteKind::Unreachable => write!(f, "unreachable {}", self.prefix)?,
            RouteKind::Prohibit => write!(f, "prohibit {}", self.prefix)?,
            RouteKind::Other(kind) => write!(f, "type-{kind} {}", self.prefix)?,
        }
        let several = self.next_hops().len() > 1;
        for hop in self.next_hops() {
            f.write_str(if several { " nexthop" } else { "" })?;
            if let Some(gateway) = hop.gateway {
                write!(f, " via {gateway}")?;
            }
            if let Some(interface) = &hop.interface {
                write!(f, " dev {interface}")?;
            }
            if several && hop.weight != 1 {
                write!(f, " weight {}", hop.weight)?;
            }
        }
        write!(f, " proto {} metric {}", self.protocol, self.priority)?;
        if self.table != TABLE_MAIN { write!(f, " table {}", self.table) } else { Ok(()) }
    }
}

/// What to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Only routes of this protocol.
    pub protocol: Option<u8>,
    /// Only routes of this table; the main table when absent.
    pub table: Option<u32>,
}

impl Filter {
    /// Routes of one protocol in the main table.
    pub fn protocol(protocol: u8) -> Self {
        Self { protocol: Some(protocol), table: None }
    }
}

/// Lists routes, IPv4 before IPv6. The kernel does the filtering where it can.
pub fn list(netlink: &Netlink, filter: Filter) -> Result<Vec<Route>> {
    let table = filter.table.unwrap_or(TABLE_MAIN);
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let request = message::dump_request(family, table, filter.protocol);
        match netlink.dump(&request, "list routes", decode) {
            Ok(routes) => found.extend(routes),
            // A table that was never used does not exist.
            Err(error) if error.is_missing() => (),
            Err(error) => return Err(error),
        }
    }
    found.retain(|route: &Route| {
        route.table == table && filter.protocol.is_none_or(|protocol| route.protocol == protocol)
    });
    Ok(merge_legs(found))
}

/// Finds the configured route that packets to an address take; none if the kernel's answer is not one of those. Where
/// there is no route, or one that drops packets, the kernel refuses to answer.
pub fn lookup(netlink: &Netlink, address: IpAddr) -> Result<Option<Route>> {
    let mut found = None;
    netlink.query(message::lookup_request(address), "look up the route to an address", |raw| {
        found = decode(raw);
    })?;
    Ok(found)
}

/// Adds a route; one with the same prefix, metric and table is an error, whoever owns it.
pub fn add(netlink: &Netlink, route: &Route) -> Result<()> {
    write(netlink, route, NLM_F_CREATE | NLM_F_EXCL, "add")
}

/// Adds a route in place of whatever has the same prefix, metric and table, **whoever owns that**.
pub fn replace(netlink: &Netlink, route: &Route) -> Result<()> {
    write(netlink, route, NLM_F_CREATE | NLM_F_REPLACE, "replace")
}

fn write(netlink: &Netlink, route: &Route, flags: u16, verb: &str) -> Result<()> {
    let resolved = resolve(netlink, route)?;
    let message = RouteNetlinkMessage::NewRoute(message::encode(&resolved)?);
    netlink.execute(message, flags, || format!("{verb} route {route}"))
}

/// Deletes the route with this prefix, metric, table and protocol; one that is gone already is fine.
pub fn delete(netlink: &Netlink, route: &Route) -> Result<()> {
    let message = RouteNetlinkMessage::DelRoute(message::encode_deletion(route));
    missing_is_fine(netlink.execute(message, 0, || format!("delete route {route}")))
}

pub(crate) fn addition(route: &Route) -> Result<(RouteNetlinkMessage, u16)> {
    let message = RouteNetlinkMessage::NewRoute(message::encode(route)?);
    Ok((message, NLM_F_CREATE | NLM_F_EXCL))
}

pub(crate) fn replacement(route: &Route) -> Result<(RouteNetlinkMessage, u16)> {
    let message = RouteNetlinkMessage::NewRoute(message::encode(route)?);
    Ok((message, NLM_F_CREATE | NLM_F_REPLACE))
}

pub(crate) fn deletion(route: &Route) -> (RouteNetlinkMessage, u16) {
    (RouteNetlinkMessage::DelRoute(message::encode_deletion(route)), 0)
}

fn resolve(netlink: &Netlink, route: &Route) -> Result<Route> {
    let mut route = route.clone().normalized();
    if let RouteKind::Unicast { next_hops } = &mut route.kind {
        for hop in next_hops {
            if let Some(Interface::Name(name)) = &hop.interface {
                hop.interface = Some(Interface::Index(link::index_of(netlink, name)?));
            }
        }
    }
    Ok(route)
}

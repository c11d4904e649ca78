//! Between [`Route`] and its netlink message.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
        RouteProtocol, RouteScope, RouteType, RouteVia,
    },
};

use super::{Interface, NextHop, Route, RouteKind};
use crate::{Error, Result, netlink::RawMessage};

pub(crate) const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_DELROUTE: u16 = 25;
/// `RTNH_F_ONLINK`, also in the flags of a single-path route.
const ONLINK: u32 = 4;
/// `RTM_F_CLONED`: a cache entry, not a configured route.
const CLONED: u32 = 0x200;

fn family(prefix: &IpNet) -> AddressFamily {
    if prefix.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

pub(super) fn dump_request(
    family: AddressFamily,
    table: u32,
    protocol: Option<u8>,
) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.protocol = RouteProtocol::from(protocol.unwrap_or(0));
    message.attributes.push(RouteAttribute::Table(table));
    RouteNetlinkMessage::GetRoute(message)
}

/// Asks for the route itself, not for what a packet would meet on its way (`RTM_F_FIB_MATCH`).
pub(super) fn lookup_request(address: IpAddr) -> RouteNetlinkMessage {
    let host = IpNet::from(address);
    let mut message = RouteMessage::default();
    message.header.address_family = family(&host);
    message.header.destination_prefix_length = host.prefix_len();
    message.header.flags |= netlink_packet_route::route::RouteFlags::FibMatch;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(address)));
    RouteNetlinkMessage::GetRoute(message)
}

/// The part that names a route: prefix, table, metric, protocol.
fn identity(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(&route.prefix);
    message.header.destination_prefix_length = route.prefix.prefix_len();
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(route.prefix.trunc().addr())),
        RouteAttribute::Table(route.table),
        RouteAttribute::Priority(route.priority),
    ];
    message
}

/// `RT_SCOPE_NOWHERE` matches any scope; without next hops all legs of an IPv6 multipath go at once.
pub(super) fn encode_deletion(route: &Route) -> RouteMessage {
    let mut message = identity(route);
    message.header.scope = RouteScope::NoWhere;
    message
}

/// Interfaces must be indexes by now.
pub(super) fn encode(route: &Route) -> Result<RouteMessage> {
    let mut message = identity(route);
    message.header.scope = RouteScope::from(route.scope);
    message.header.kind = match &route.kind {
        RouteKind::Unicast { .. } => RouteType::Unicast,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Prohibit => RouteType::Prohibit,
        RouteKind::Other(kind) => RouteType::from(*kind),
    };
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    match (&route.kind, route.next_hops()) {
        (RouteKind::Unicast { .. }, []) => {
            let reason = format!("{} is unicast but has none", route.prefix);
            return Err(Error::Invalid { field: "next hops", reason });
        }
        (_, []) => (),
        (_, [only]) => {
            if only.onlink {
                message.header.flags |= netlink_packet_route::route::RouteFlags::Onlink;
            }
            message.attributes.extend(index(only)?.map(RouteAttribute::Oif));
            message.attributes.extend(gateway(route, only));
        }
        (_, several) => {
            let legs: Result<Vec<_>> = several.iter().map(|hop| leg(route, hop)).collect();
            message.attributes.push(RouteAttribute::MultiPath(legs?));
        }
    }
    Ok(message)
}

fn leg(route: &Route, hop: &NextHop) -> Result<RouteNextHop> {
    let mut leg = RouteNextHop::default();
    // The wire carries weight - 1.
    leg.hops = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    leg.interface_index = index(hop)?.unwrap_or(0);
    leg.flags.set(RouteNextHopFlags::Onlink, hop.onlink);
    leg.attributes.extend(gateway(route, hop));
    Ok(leg)
}

fn index(hop: &NextHop) -> Result<Option<u32>> {
    match &hop.interface {
        None => Ok(None),
        Some(Interface::Index(index)) => Ok(Some(*index)),
        Some(Interface::Name(name)) => Err(Error::NoSuchLink { name: name.clone() }),
    }
}

fn gateway(route: &Route, hop: &NextHop) -> Option<RouteAttribute> {
    match (route.prefix, hop.gateway?) {
        (IpNet::V4(_), IpAddr::V6(gateway)) => Some(RouteAttribute::Via(RouteVia::Inet6(gateway))),
        (_, gateway) => Some(RouteAttribute::Gateway(gateway.into())),
    }
}

/// Decodes a route; cache entries and messages that make no sense are skipped.
pub(crate) fn decode(raw: RawMessage<'_>) -> Option<Route> {
    if !matches!(raw.kind, RTM_NEWROUTE | RTM_DELROUTE) {
        return None;
    }
    let message = RouteMessage::parse(raw.payload)
        .inspect_err(|error| tracing::debug!(%error, "route message skipped"))
        .ok()?;
    let header = &message.header;
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    if header.flags.bits() & CLONED != 0 {
        return None;
    }
    let mut single = NextHop {
        gateway: None,
        interface: None,
        weight: 1,
        onlink: header.flags.bits() & ONLINK != 0,
    };
    let mut legs = Vec::new();
    let mut destination = unspecified;
    let mut route = Route {
        prefix: IpNet::from(unspecified),
        kind: RouteKind::Blackhole,
        protocol: header.protocol.into(),
        priority: 0,
        table: u32::from(header.table),
        scope: header.scope.into(),
        source: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(priority) => route.priority = *priority,
            RouteAttribute::Oif(index) => single.interface = Some(Interface::Index(*index)),
            RouteAttribute::MultiPath(hops) => legs = hops.iter().map(decode_leg).collect(),
            other => single.gateway = single.gateway.or(gateway_of(other)),
        }
    }
    route.prefix = IpNet::new(destination, header.destination_prefix_length).ok()?;
    route.kind = match header.kind {
        RouteType::Unicast => {
            RouteKind::Unicast { next_hops: if legs.is_empty() { vec![single] } else { legs } }
        }
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        other => RouteKind::Other(other.into()),
    };
    Some(route.normalized())
}

fn decode_leg(leg: &RouteNextHop) -> NextHop {
    NextHop {
        gateway: leg.attributes.iter().find_map(gateway_of),
        interface: Some(leg.interface_index).filter(|index| *index != 0).map(Interface::Index),
        weight: u16::from(leg.hops).saturating_add(1),
        onlink: leg.flags.contains(RouteNextHopFlags::Onlink),
    }
}

fn gateway_of(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Joins IPv6 routes that only differ in their next hop: the kernel may list the legs of a multipath one by one.
pub(crate) fn merge_legs(routes: Vec<Route>) -> Vec<Route> {
    let mut merged: Vec<Route> = Vec::with_capacity(routes.len());
    let mut seen: BTreeMap<(IpNet, u32, u32, u8), usize> = BTreeMap::new();
    for route in routes {
        let key = (route.prefix, route.table, route.priority, route.protocol);
        let is_leg =
            route.prefix.addr().is_ipv6() && matches!(route.kind, RouteKind::Unicast { .. });
        let earlier = seen.get(&key).copied().filter(|_| is_leg).and_then(|at| merged.get_mut(at));
        match earlier.map(|earlier| &mut earlier.kind) {
            Some(RouteKind::Unicast { next_hops }) => {
                next_hops.extend_from_slice(route.next_hops())
            }
            _ => {
                seen.insert(key, merged.len());
                merged.push(route);
            }
        }
    }
    merged.into_iter().map(Route::normalized).collect()
}

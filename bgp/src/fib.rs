//! What is said between the speaker and whoever writes and reads the machine's routing table: the ways to prefixes, what became
//! of them, and how next hops are reached.

use std::{net::IpAddr, sync::Arc};

use crate::types::Prefix;

/// The way to a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibUpdate {
    /// The prefix.
    pub prefix: Prefix,
    /// Where packets go from now on.
    pub route: FibRoute,
}

/// Where packets go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum FibRoute {
    /// Nowhere because of BGP: there is no route, or one that was there is removed.
    #[default]
    Absent,
    /// To these routers, at least one; several share the load.
    Via(Arc<[FibNextHop]>),
    /// They are dropped, as agreed with the peer that asked for it (RFC 7999).
    Blackhole,
}

impl FibRoute {
    /// Lists the routers.
    pub fn next_hops(&self) -> &[FibNextHop] {
        match self {
            Self::Via(next_hops) => next_hops,
            Self::Absent | Self::Blackhole => &[],
        }
    }
}

/// What the writer of kernel routes made of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibOutcome {
    /// The prefix.
    pub prefix: Prefix,
    /// Why the kernel does not have the route; none: it has it.
    pub refused: Option<String>,
}

/// One way out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FibNextHop {
    /// The router. Where next hops are followed ([`crate::Output::NextHopWatch`]) it is on a link of ours, otherwise who knows.
    pub address: IpAddr,
    /// The interface, for link-local addresses and for routers that are there although no network of ours says so.
    pub interface: Option<String>,
}

/// What the machine's routing table says of a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHopAnswer {
    /// The next hop.
    pub address: IpAddr,
    /// The route that leads there; otherwise why there is none, in words.
    pub route: Result<ResolvingRoute, String>,
}

/// A route of others that leads to a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvingRoute {
    /// Its prefix.
    pub prefix: Prefix,
    /// What it costs (RFC 4271 §9.1.2.2 e): its metric; 0 where the next hop is on a network of ours.
    pub metric: u32,
    /// A route of BGP to the same prefix would be preferred to it.
    pub yields: bool,
    /// The routers on our links that it leads to; none: the next hop is on a link itself.
    pub via: Vec<FibNextHop>,
}

impl ResolvingRoute {
    /// Describes a route of others; `own_metric` is that of the routes of BGP, each router comes with its interface where the
    /// address alone does not say enough.
    pub fn new<'a>(
        prefix: Prefix,
        is_connected: bool,
        metric: u32,
        own_metric: u32,
        routers: impl IntoIterator<Item = (IpAddr, Option<&'a str>)>,
    ) -> Self {
        let via = routers.into_iter().map(|(address, interface)| FibNextHop {
            address,
            interface: interface.map(str::to_owned),
        });
        Self {
            prefix,
            metric: if is_connected { 0 } else { metric },
            yields: metric > own_metric,
            via: via.collect(),
        }
    }
}

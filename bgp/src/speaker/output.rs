//! What goes into and comes out of the speaker.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    attr::{Community, LargeCommunity, NextHop, Origin, PathAttributes},
    bfd,
    session::State,
    types::Prefix,
};

/// Name of a connection or of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Something for the driver or the daemon to do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Connect; answer with `handle_connected` or `handle_closed`.
    Connect(ConnectRequest),
    /// Ask `transmit` for bytes as soon as the connection can take some.
    TransmitReady(ConnectionId),
    /// Send these last messages, then close. The connection is unknown from now on.
    Close {
        /// Which.
        connection: ConnectionId,
        /// What the peer should still get, if it is quick.
        last: Vec<Bytes>,
    },
    /// Watch the path to a peer, or watch it in another way; answer with `handle_bfd`.
    BfdWatch(BfdSession),
    /// Watch the path to this peer no more.
    BfdForget(String),
    /// There are messages for a collector of BMP: ask `bmp_take`.
    BmpReady(String),
    /// The way to a prefix changed.
    Fib(FibUpdate),
    /// Watch how the machine's routing table leads to this next hop; answer with `handle_next_hops`, now and at every change.
    NextHopWatch(IpAddr),
    /// Watch this next hop no more.
    NextHopForget(IpAddr),
    /// A session changed its state.
    Peer(PeerEvent),
    /// Everything learned after a restart has been told: kernel routes that were not among it are stale.
    RestartComplete,
}

/// What came of asking for a slice of work.
#[derive(Clone, Debug)]
pub enum Slice {
    /// There is something to do.
    Output(Output),
    /// Nothing yet; there may be more work.
    Worked,
    /// Nothing, and nothing is left to be worked on.
    Idle,
}

/// A path to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdSession {
    /// Name of the peer.
    pub peer: String,
    /// Its address.
    pub address: IpAddr,
    /// The interface that a link-local address is on.
    pub interface: Option<String>,
    /// Our address, if it matters.
    pub local: Option<IpAddr>,
    /// How to watch.
    pub config: bfd::Config,
}

/// How to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Name of the attempt and of the connection it leads to.
    pub connection: ConnectionId,
    /// Name of the peer; its configuration has password, TTL and so on.
    pub peer: String,
    /// To where.
    pub remote: SocketAddr,
    /// From where, if it matters.
    pub local: Option<IpAddr>,
}

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
    /// The router. Where next hops are followed ([`Output::NextHopWatch`]) it is on a link of ours, otherwise who knows.
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

/// A session changed its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerEvent {
    /// Name of the peer.
    pub peer: String,
    /// Its address.
    pub address: IpAddr,
    /// Before.
    pub from: State,
    /// Now.
    pub to: State,
    /// Why, in words.
    pub cause: String,
}

impl fmt::Display for PeerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {} ({})", self.peer, self.from, self.to, self.cause)
    }
}

/// A route that this speaker originates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalRoute {
    /// ORIGIN.
    pub origin: Origin,
    /// COMMUNITIES.
    pub communities: Vec<Community>,
    /// LARGE_COMMUNITY.
    pub large_communities: Vec<LargeCommunity>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF towards internal peers; what the peer is configured with when absent.
    pub local_pref: Option<u32>,
    /// Another next hop than ourselves, for peers with next hop mode keep.
    pub next_hop: Option<IpAddr>,
}

impl LocalRoute {
    pub(crate) fn into_attributes(self) -> PathAttributes {
        let Self { origin, mut communities, mut large_communities, med, local_pref, next_hop } =
            self;
        communities.sort_unstable();
        large_communities.sort_unstable();
        PathAttributes {
            origin,
            communities,
            large_communities,
            med,
            local_pref,
            next_hop: next_hop.map(NextHop::from),
            ..PathAttributes::default()
        }
    }
}

/// An interface that lost its carrier or disappeared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceDown {
    /// Name.
    pub interface: String,
    /// Addresses it has; sessions from these end at once.
    pub addresses: Vec<IpAddr>,
    /// Networks it is on; next hops there are unusable.
    pub networks: Vec<Prefix>,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// We come back: peers shall keep our routes (RFC 4724).
    Restart,
    /// We do not: peers shall forget us now.
    Final,
}

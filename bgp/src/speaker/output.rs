//! What goes into and comes out of the speaker.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;

use crate::{
    attr::{Community, LargeCommunity, NextHop, Origin, PathAttributes},
    bfd,
    fib::FibUpdate,
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

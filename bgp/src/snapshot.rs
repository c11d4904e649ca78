//! The speaker as plain data, for whoever shows it.

use std::{net::IpAddr, time::Duration};

use crate::{
    attr::PathAttributes,
    decision::Why,
    session::State,
    speaker::FibRoute,
    types::{Asn, Families, PeerType, Prefix, RouterId},
};

pub use crate::session::MessageCounters;

/// Everything worth showing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Our autonomous system.
    pub local_as: Asn,
    /// Our identifier.
    pub router_id: RouterId,
    /// Time since the speaker was made.
    pub uptime: Duration,
    /// Whether a restart is still waiting for peers.
    pub restarting: bool,
    /// How many prefixes there are.
    pub prefixes: usize,
    /// How many distinct sets of attributes they share.
    pub attribute_sets: usize,
    /// How many routes the kernel does not have although it should.
    pub routes_refused: usize,
    /// The peers, by name.
    pub peers: Vec<PeerSnapshot>,
    /// The table, in order; empty unless asked for.
    pub rib: Vec<RibEntry>,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSnapshot {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its autonomous system.
    pub asn: Asn,
    /// Internal or external.
    pub peer_type: PeerType,
    /// State of the session.
    pub state: State,
    /// How long it has been in that state.
    pub since: Duration,
    /// How often an established session was lost.
    pub flaps: u64,
    /// What ended the last session or attempt.
    pub last_error: Option<String>,
    /// Changes of state, oldest first; the oldest ones are forgotten.
    pub history: Vec<TransitionSnapshot>,
    /// Its identifier, while a session is up.
    pub router_id: Option<RouterId>,
    /// Our address in the session.
    pub local_address: Option<IpAddr>,
    /// Families that are exchanged.
    pub families: Families,
    /// Negotiated hold time.
    pub hold_time: Option<Duration>,
    /// Whether the session survives a restart of the peer.
    pub graceful_restart: bool,
    /// Families whose routes are kept although the peer is away or has not repeated them yet.
    pub stale: Families,
    /// State of the BFD session, if one is wanted.
    pub bfd: Option<crate::bfd::State>,
    /// Messages we sent.
    pub sent: MessageCounters,
    /// Messages we got.
    pub received: MessageCounters,
    /// Prefixes the peer announced.
    pub prefixes_received: usize,
    /// Whether that is close to the limit.
    pub near_limit: bool,
    /// Those that import policy and loop checks let through.
    pub prefixes_accepted: usize,
    /// Those whose packets are dropped, as agreed with the peer (RFC 7999).
    pub prefixes_blackholed: usize,
    /// Those that go the way of the peer, in the kernel; other paths share the load or not.
    pub prefixes_installed: usize,
    /// Prefixes we announced.
    pub prefixes_advertised: usize,
    /// Messages whose routes counted as withdrawn because of errors (RFC 7606).
    pub treated_as_withdraw: u64,
    /// Attributes that were ignored because of errors (RFC 7606).
    pub discarded_attributes: u64,
    /// Times that a route was ignored because its next hop or prefix makes no sense (RFC 4271 §6.3).
    pub ignored_routes: u64,
}

/// A session changed its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitionSnapshot {
    /// How long ago, the last time.
    pub ago: Duration,
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
    /// Why, in words.
    pub cause: String,
    /// How often, when it happened again and again.
    pub times: u32,
}

/// One prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RibEntry {
    /// The prefix.
    pub prefix: Prefix,
    /// All paths; the best one first.
    pub paths: Vec<PathSnapshot>,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathSnapshot {
    /// Name of the peer it is from; none for our own.
    pub peer: Option<String>,
    /// The identifier that the peer gave it (RFC 7911); 0 without ADD-PATH.
    pub path_id: u32,
    /// Attributes after import policy; as received if rejected.
    pub attributes: PathAttributes,
    /// Whether the peer is away or has not repeated it yet.
    pub stale: bool,
    /// What became of it.
    pub usage: Usage,
}

/// Everything about one prefix: which path was chosen in which step, which rule let it in, who is told and which rule
/// said so, and whether the kernel is to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteExplanation {
    /// The prefix.
    pub prefix: Prefix,
    /// All paths; the best one first.
    pub paths: Vec<PathExplanation>,
    /// For each peer, the paths it could be told, or why there is none.
    pub announcements: Vec<Announcement>,
    /// The kernel's part.
    pub fib: FibState,
}

/// One path and the reasons for what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathExplanation {
    /// Name of the peer it is from; none for our own.
    pub peer: Option<String>,
    /// Its address.
    pub address: Option<IpAddr>,
    /// The identifier that the peer gave it (RFC 7911); 0 without ADD-PATH.
    pub path_id: u32,
    /// Attributes as received.
    pub received: PathAttributes,
    /// After import policy; none if it was refused.
    pub accepted: Option<PathAttributes>,
    /// What is made of BLACKHOLE, if it is attached.
    pub blackhole: Option<BlackholeState>,
    /// What import policy said.
    pub import: ImportReason,
    /// Whether the peer is away or has not repeated it yet.
    pub stale: bool,
    /// What became of it, with the step of the decision process.
    pub usage: Usage,
    /// Why it is behind the path before it; of the first one, why the second is behind it. None: it is not considered.
    pub rank: Option<Rank>,
}

/// What is made of the community BLACKHOLE (RFC 7999).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlackholeState {
    /// Packets are dropped.
    Honoured,
    /// Nothing was agreed with the peer for such a prefix: the route is one like others.
    NotAgreed,
}

/// The step of the decision process that put one path before another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rank {
    /// The step.
    pub step: Why,
    /// What this path has there, and the other one; none where nothing can be shown, or there is no other path.
    pub compared: Option<(String, String)>,
}

/// What import policy said about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportReason {
    /// We originate it.
    Local,
    /// Let through unchanged; by which rule.
    Accepted(String),
    /// Let through with changes, by a rule or by what the peer is to us (roles, graceful shutdown, staleness).
    Changed(String),
    /// Stopped; by which rule.
    Rejected(String),
    /// Stopped before policy was asked: the usage says by what.
    BeforePolicy,
}

/// What a peer is told about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Name of the peer.
    pub peer: String,
    /// Which path: its place in [`RouteExplanation::paths`]. None: no path of this prefix comes into question.
    pub path: Option<usize>,
    /// The identifier that we give it (RFC 7911); 0 without ADD-PATH.
    pub path_id: u32,
    /// Attributes as they go out; none: not for this peer.
    pub attributes: Option<PathAttributes>,
    /// The rule of export policy that let it pass, or what stopped it.
    pub reason: String,
    /// Whether it went into the messages for the peer; a table that is on its way may not have come to it yet.
    pub told: bool,
}

/// The kernel's part of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FibState {
    /// The kernel has the route.
    Installed(FibRoute),
    /// It was told to whoever writes the kernel's routes, who has not answered yet.
    Told(FibRoute),
    /// The kernel does not have the route.
    Refused {
        /// The route that it should have.
        route: FibRoute,
        /// Why not.
        why: String,
    },
    /// Originated here: the way to it is not ours to write.
    Local,
    /// No path is usable.
    NoPath,
    /// The next hop is on a link that is down.
    Unreachable,
    /// Nothing is told until peers have sent their tables after a restart.
    Restarting,
    /// This speaker writes no routes.
    Off,
}

/// What became of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    /// Used and announced; the step that decided.
    Best(Why),
    /// Shares the load with the best one.
    Multipath,
    /// Lost in this step.
    Lost(Why),
    /// Its next hop is on a link that is down.
    Unreachable,
    /// Not considered; why.
    Rejected(&'static str),
}

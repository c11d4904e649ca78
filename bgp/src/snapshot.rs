//! The speaker as plain data, for whoever shows it.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

#[cfg(feature = "report")]
use serde::{Deserialize, Serialize};

#[cfg(feature = "report")]
use crate::report::{optional_seconds, seconds};
use crate::{
    PeerEvent,
    attr::PathAttributes,
    decision::Why,
    fib::FibRoute,
    session::State,
    types::{Asn, Families, Family, PeerType, Prefix, RouterId},
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
    /// How many prefixes have a path that is not used because its next hop cannot be reached.
    pub prefixes_unreachable: usize,
    /// The peers, by name.
    pub peers: Vec<PeerSnapshot>,
    /// Collectors of BMP.
    pub collectors: Vec<CollectorSnapshot>,
    /// The table, in order; empty unless asked for.
    pub rib: Vec<RibEntry>,
}

/// A collector of BMP.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "report", derive(Serialize, Deserialize), serde(rename_all = "camelCase"))]
pub struct CollectorSnapshot {
    /// Where it listens.
    pub address: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Changes that it has not taken yet.
    pub waiting: usize,
}

/// One peer. With the feature `report` it is what programs exchange, too: a field that is added later has a default, because
/// the other program may be of another version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "report", derive(Serialize, Deserialize), serde(rename_all = "camelCase"))]
pub struct PeerSnapshot {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its autonomous system.
    #[cfg_attr(feature = "report", serde(rename = "as"))]
    pub asn: Asn,
    /// Internal or external.
    #[cfg_attr(feature = "report", serde(rename = "type"))]
    pub peer_type: PeerType,
    /// State of the session.
    pub state: State,
    /// How long it has been in that state.
    #[cfg_attr(feature = "report", serde(rename = "sinceSeconds", with = "seconds"))]
    pub since: Duration,
    /// How often an established session was lost.
    pub flaps: u64,
    /// The same by what ended it.
    #[cfg_attr(feature = "report", serde(default))]
    pub losses: BTreeMap<LossCause, u64>,
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
    #[cfg_attr(
        feature = "report",
        serde(rename = "holdTimeSeconds", default, with = "optional_seconds")
    )]
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
    /// How long ago the last UPDATE came; none came yet when absent.
    #[cfg_attr(
        feature = "report",
        serde(rename = "lastUpdateSeconds", default, with = "optional_seconds")
    )]
    pub last_update: Option<Duration>,
    /// Octets that wait to be sent.
    #[cfg_attr(feature = "report", serde(default))]
    pub queued_octets: usize,
    /// Prefixes the peer announced.
    pub prefixes_received: usize,
    /// How many it may announce.
    #[cfg_attr(feature = "report", serde(default))]
    pub max_prefixes: Option<usize>,
    /// Whether that is close to the limit.
    pub near_limit: bool,
    /// Those that import policy and loop checks let through.
    pub prefixes_accepted: usize,
    /// Those whose packets are dropped, as agreed with the peer (RFC 7999).
    #[cfg_attr(feature = "report", serde(default))]
    pub prefixes_blackholed: usize,
    /// Those that go the way of the peer, in the kernel; other paths share the load or not.
    #[cfg_attr(feature = "report", serde(default))]
    pub prefixes_installed: usize,
    /// Prefixes we announced.
    pub prefixes_advertised: usize,
    /// The same by family: those of the session, and those of which there is something.
    #[cfg_attr(feature = "report", serde(default))]
    pub prefixes: BTreeMap<Family, PrefixCounts>,
    /// Messages whose routes counted as withdrawn because of errors (RFC 7606).
    pub treated_as_withdraw: u64,
    /// Attributes that were ignored because of errors (RFC 7606).
    pub discarded_attributes: u64,
    /// Times that a route was ignored because its next hop or prefix makes no sense (RFC 4271 §6.3).
    #[cfg_attr(feature = "report", serde(default))]
    pub ignored_routes: u64,
}

/// Prefixes of one family that are exchanged with a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "report",
    derive(Serialize, Deserialize),
    serde(rename_all = "camelCase", default)
)]
pub struct PrefixCounts {
    /// The peer announced.
    pub received: usize,
    /// Of these, import policy and loop checks let in.
    pub accepted: usize,
    /// Of those received, the ones that the peer has not repeated since its session was lost.
    pub stale: usize,
    /// We announced.
    pub advertised: usize,
}

/// What ended a session, in the few kinds that a graph can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "report", derive(Serialize, Deserialize), serde(rename_all = "snake_case"))]
pub enum LossCause {
    /// The connection broke, or the peer closed it without a word.
    Transport,
    /// The peer was silent for too long.
    HoldTimer,
    /// BFD says that the path is down.
    Bfd,
    /// The peer sent a NOTIFICATION.
    NotificationReceived,
    /// The peer made an error.
    NotificationSent,
    /// It announced more prefixes than it may.
    MaxPrefixes,
    /// The peer restarted, and opened the session that came after.
    PeerRestarted,
    /// An operator, the configuration, or a link of ours that went down.
    Local,
}

impl LossCause {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Transport,
        Self::HoldTimer,
        Self::Bfd,
        Self::NotificationReceived,
        Self::NotificationSent,
        Self::MaxPrefixes,
        Self::PeerRestarted,
        Self::Local,
    ];

    /// Returns the name for programs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Transport => "transport",
            Self::HoldTimer => "hold_timer",
            Self::Bfd => "bfd",
            Self::NotificationReceived => "notification_received",
            Self::NotificationSent => "notification_sent",
            Self::MaxPrefixes => "max_prefixes",
            Self::PeerRestarted => "peer_restarted",
            Self::Local => "local",
        }
    }
}

/// A session changed its state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "report", derive(Serialize, Deserialize), serde(rename_all = "camelCase"))]
pub struct TransitionSnapshot {
    /// How long ago, the last time.
    #[cfg_attr(feature = "report", serde(rename = "secondsAgo", with = "seconds"))]
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
    /// How its next hop is reached, where that is through another router.
    pub reached: Option<String>,
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

/// A table of the speaker (RFC 4271 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "report", derive(Serialize, Deserialize), serde(rename_all = "kebab-case"))]
pub enum Table {
    /// Adj-RIB-In: what peers told us.
    AdjIn,
    /// Loc-RIB: what we use.
    Loc,
    /// Adj-RIB-Out: what we tell peers.
    AdjOut,
}

/// On which side of the policy of an Adj-RIB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "report", derive(Serialize, Deserialize), serde(rename_all = "kebab-case"))]
pub enum PolicySide {
    /// What comes to it; also what it stops.
    Pre,
    /// What it lets through, as it changed it.
    Post,
}

/// Asks for a part of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "report", derive(Serialize, Deserialize), serde(rename_all = "camelCase"))]
pub struct TableQuestion {
    /// Which one.
    pub table: Table,
    /// On which side of policy; of no meaning to the Loc-RIB.
    pub policy: PolicySide,
    /// Of this peer only, by name or address.
    pub peer: Option<String>,
    /// Only this prefix and those within.
    pub within: Option<Prefix>,
    /// Only what comes behind this prefix, where the part before ended.
    pub after: Option<Prefix>,
    /// About how many paths.
    pub limit: usize,
}

/// A part of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TablePart {
    /// Prefixes in order.
    pub routes: Vec<TableRoute>,
    /// There may be more behind this prefix.
    pub next: Option<Prefix>,
}

/// A prefix of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRoute {
    /// The prefix.
    pub prefix: Prefix,
    /// Of Adj-RIB-In the paths received, of Loc-RIB those used, best one first; of Adj-RIB-Out those that come into question.
    pub paths: Vec<PathExplanation>,
    /// Of Adj-RIB-Out what the peers are told.
    pub announcements: Vec<Announcement>,
    /// Of Loc-RIB the kernel's part.
    pub fib: Option<FibState>,
}

/// What happened since somebody looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Happenings {
    /// Changes of sessions, in order, with how long ago.
    pub sessions: Vec<(Duration, PeerEvent)>,
    /// Prefixes with another best path than before, each once, with the one that it has now; none: it is gone.
    pub routes: Vec<(Prefix, Option<PathExplanation>)>,
    /// More changed than is remembered.
    pub missed: bool,
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
    /// No next hop can be reached; why.
    Unreachable(String),
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
    /// Its next hop cannot be reached; why.
    Unreachable(String),
    /// Not considered; why.
    Rejected(&'static str),
}

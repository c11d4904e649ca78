//! The speaker as plain data, for whoever shows it.

use std::{net::IpAddr, time::Duration};

use crate::{
    attr::PathAttributes,
    decision::Why,
    session::State,
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
    /// Prefixes we announced.
    pub prefixes_advertised: usize,
    /// Messages whose routes counted as withdrawn because of errors (RFC 7606).
    pub treated_as_withdraw: u64,
    /// Attributes that were ignored because of errors (RFC 7606).
    pub discarded_attributes: u64,
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
    /// Attributes after import policy; as received if rejected.
    pub attributes: PathAttributes,
    /// Whether the peer is away or has not repeated it yet.
    pub stale: bool,
    /// What became of it.
    pub usage: Usage,
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

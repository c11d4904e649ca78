//! The speaker: all sessions and the routing table behind one set of verbs.
//!
//! Feed it with `handle_*`; after each call take everything out of [`Speaker::poll_output`] and sleep until
//! [`Speaker::poll_timeout`] at most. Decisions run when outputs are taken, so input that is handled before that is
//! decided about in one batch.

mod bfd;
mod bmp;
mod close;
mod configure;
mod connect;
mod explain;
mod export;
mod fib;
mod group;
mod history;
mod import;
mod networks;
mod next_hops;
mod operate;
mod output;
mod peer;
mod receive;
mod restart;
mod stale;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod timer;
mod walk;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Instant,
};

pub use self::networks::LocalNetworks;
pub use self::operate::PeerAction;
pub use self::output::{
    BfdSession, ConnectRequest, ConnectionId, InterfaceDown, LocalRoute, Output, PeerEvent,
    Shutdown, Slice,
};
use self::{fib::Fib, peer::Peer, restart::Restart, watch::Watcher};
use crate::{
    attr::Interner,
    bmp::Monitor,
    config::{PeerConfig, SpeakerConfig},
    decision::{Multipath, Origination},
    random::Random,
    rib::{Lookup, Path, PeerId, Rib, Source},
    session::{Identity, Session},
    types::Prefix,
    update_group::{Limits, Sender, Senders, UpdateGroup},
    watched::Watched,
};

/// How many prefixes are worked on before outputs are handed out again.
const SLICE: usize = 8192;

/// A BGP speaker.
#[derive(Debug)]
pub struct Speaker {
    config: SpeakerConfig,
    /// The time of the last input.
    now: Instant,
    started: Instant,
    random: Random,
    peers: Watched<PeerId, Peer>,
    by_address: BTreeSet<(IpAddr, PeerId)>,
    next_peer: u32,
    /// Numbers of peers that are gone.
    free_peers: Vec<PeerId>,
    connections: Watched<ConnectionId, Session>,
    next_connection: u64,
    rib: Rib,
    /// Room for the prefixes of a message.
    lookups: Vec<Lookup>,
    interner: Interner,
    groups: Vec<UpdateGroup>,
    limits: Limits,
    slice: usize,
    senders: Senders,
    restart: Option<Restart>,
    /// A restart is over, but for the decisions about what was learned.
    completes: bool,
    fib: Fib,
    networks: LocalNetworks,
    /// Collectors that are connected.
    monitors: BTreeMap<String, Monitor>,
    /// Those who look on, by the names they gave themselves.
    watchers: BTreeMap<String, Watcher>,
    down: Vec<InterfaceDown>,
    outputs: VecDeque<Output>,
    /// Those with more to look through for them before there may be something to send.
    resume: VecDeque<ConnectionId>,
    stopped: bool,
    /// This process came back while forwarding went on, whatever later configurations say.
    restarted: bool,
    /// Counted by the kernel (see [`Speaker::set_refused_segments`]).
    refused_segments: u64,
}

impl Speaker {
    /// Makes a speaker and begins to connect to its peers. `seed` feeds jitter only.
    pub fn new(config: SpeakerConfig, seed: u64, now: Instant) -> Self {
        let multipath = Multipath { max_paths: config.max_paths, relax: config.multipath_relax };
        let mut speaker = Self {
            now,
            started: now,
            random: Random::new(seed),
            peers: Watched::new(),
            by_address: BTreeSet::new(),
            next_peer: 1,
            free_peers: Vec::new(),
            connections: Watched::new(),
            next_connection: 1,
            rib: Rib::new(multipath),
            lookups: Vec::new(),
            interner: Interner::default(),
            groups: Vec::new(),
            limits: Limits::default(),
            slice: SLICE,
            senders: Senders::new(),
            restart: config.restarting.then(|| Restart::new(&config, now)),
            completes: false,
            fib: Fib::default(),
            networks: LocalNetworks::default(),
            monitors: BTreeMap::new(),
            watchers: BTreeMap::new(),
            down: Vec::new(),
            outputs: VecDeque::new(),
            resume: VecDeque::new(),
            stopped: false,
            restarted: config.restarting,
            refused_segments: 0,
            // The rest comes with `configure`, as every later change does.
            config: SpeakerConfig::new(config.local_as, config.router_id),
        };
        speaker.set_local_source();
        speaker.configure(config, now);
        speaker
    }

    /// Returns the configuration of a peer, also of a member of a group.
    pub fn peer_config(&self, name: &str) -> Option<&PeerConfig> {
        self.peers.values().map(|peer| &*peer.config).find(|config| config.name == name)
    }

    /// Returns the configuration of the peer with an address, also of a member of a group.
    pub fn peer_at(&self, address: IpAddr) -> Option<&PeerConfig> {
        let peer = self.peers_at(address).next().and_then(|id| self.peers.get(&id))?;
        Some(&*peer.config)
    }

    /// Lists the peers with an address; link-local ones may be several.
    fn peers_at(&self, address: IpAddr) -> impl Iterator<Item = PeerId> + use<'_> {
        let all = (address, PeerId(0))..=(address, PeerId(u32::MAX));
        self.by_address.range(all).map(|(_, id)| *id)
    }

    /// Returns the configuration in force.
    pub const fn config(&self) -> &SpeakerConfig {
        &self.config
    }

    fn set_local_source(&mut self) {
        let origination = Origination {
            peer_type: None,
            router_id: self.config.router_id,
            address: IpAddr::from(std::net::Ipv4Addr::from(self.config.router_id.0)),
        };
        self.rib.set_source(PeerId::LOCAL, Source { origination, interface: None });
        self.senders.insert(PeerId::LOCAL, Sender::Local);
    }

    /// Announces a prefix from now on, or changes what is attached to it.
    pub fn originate(&mut self, prefix: Prefix, route: LocalRoute) {
        let set = self.interner.intern(&route.into_attributes());
        self.rib.insert(prefix, Path::new(PeerId::LOCAL.into(), set, Ok(set.into())));
        self.note_own_route(prefix);
    }

    /// Announces a prefix no longer.
    pub fn withdraw(&mut self, prefix: &Prefix) {
        self.rib.remove(prefix, PeerId::LOCAL.into());
        self.forget_own_route(prefix);
    }

    /// Returns what a session with a peer is opened with.
    fn identity(&self, peer: &Peer) -> Identity {
        let restarting = self.restart.is_some();
        Identity {
            local_as: self.config.local_as,
            router_id: self.config.router_id,
            restart_time: self.config.restart_time,
            restarting,
            forwarding: self.restarted || peer.was_established,
            without_capabilities: peer.without_capabilities,
        }
    }

    fn peer_of(&self, connection: ConnectionId) -> Option<(&Session, &Peer)> {
        let session = self.connections.get(&connection)?;
        Some((session, self.peers.get(&session.peer)?))
    }

    /// Tells the driver once that a connection has something to send.
    fn signal(&mut self, connection: ConnectionId) {
        if let Some(session) = self.connections.get_mut(&connection)
            && !session.signalled
        {
            session.signalled = true;
            session.blocked_since = Some(self.now);
            self.outputs.push_back(Output::TransmitReady(connection));
        }
    }
}

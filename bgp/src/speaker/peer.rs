//! A configured peer: its connections, when to try again, and its stale routes.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{BfdSession, ConnectionId, history::History};
use crate::{
    bfd,
    config::PeerConfig,
    session::{MessageCounters, State},
    snapshot::LossCause,
    types::{Families, Family},
    watched::Deadline,
};

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) config: Arc<PeerConfig>,
    /// The group that it is a member of.
    pub(super) group: Option<String>,
    pub(super) outgoing: Option<ConnectionId>,
    pub(super) incoming: Option<ConnectionId>,
    pub(super) established: Option<ConnectionId>,
    /// When to connect next.
    pub(super) retry_at: Option<Instant>,
    /// Connections of the peer are refused until then.
    pub(super) refuse_until: Option<Instant>,
    /// Sessions lost in a row.
    pub(super) failures: u32,
    /// Attempts to connect that failed since the last session.
    pub(super) attempts: u32,
    /// The state told last, since when, and why.
    pub(super) state: State,
    pub(super) since: Instant,
    pub(super) last_error: Option<String>,
    pub(super) history: History,
    pub(super) was_established: bool,
    /// How often it was lost.
    pub(super) flaps: u64,
    pub(super) losses: BTreeMap<LossCause, u64>,
    pub(super) without_capabilities: bool,
    /// Its own OPEN said that it restarts too.
    pub(super) peer_restarting: bool,
    /// Families whose table the peer has sent completely.
    pub(super) end_of_rib: Families,
    /// Families with stale routes, and when to forget them.
    pub(super) stale: Families,
    pub(super) stale_until: Option<Instant>,
    /// How long the peer's routes may live beyond that, as of its last session (RFC 9494).
    pub(super) long_lived_times: Vec<(Family, Duration)>,
    /// Families whose stale routes do so, and when to forget them.
    pub(super) long_lived: BTreeMap<Family, Instant>,
    /// Families that the peer is sending again, and when to stop waiting for the end (RFC 7313).
    pub(super) refreshing: Families,
    pub(super) refresh_until: Option<Instant>,
    /// The BFD session asked for, and its state.
    pub(super) bfd_wanted: Option<BfdSession>,
    pub(super) bfd: Option<bfd::State>,
    /// The operator was warned about the number of prefixes.
    pub(super) near_limit: bool,
    pub(super) sent: MessageCounters,
    pub(super) received: MessageCounters,
    /// When the last UPDATE came.
    pub(super) last_update: Option<Instant>,
    /// Messages whose routes counted as withdrawn, and attributes that were discarded (RFC 7606).
    pub(super) treated_as_withdraw: u64,
    pub(super) discarded_attributes: u64,
    /// Routes whose next hop or prefix makes no sense (RFC 4271 §6.3).
    pub(super) ignored_routes: u64,
}

impl Deadline for Peer {
    fn next_deadline(&self) -> Option<Instant> {
        let long_lived = self.long_lived.values().min().copied();
        let fixed = [self.retry_at, self.stale_until, self.refuse_until, self.refresh_until];
        fixed.into_iter().chain([long_lived]).flatten().min()
    }
}

impl Peer {
    pub(super) fn new(config: PeerConfig, now: Instant) -> Self {
        Self {
            config: Arc::new(config),
            group: None,
            outgoing: None,
            incoming: None,
            established: None,
            retry_at: None,
            refuse_until: None,
            failures: 0,
            attempts: 0,
            state: State::Idle,
            since: now,
            last_error: None,
            history: History::default(),
            was_established: false,
            flaps: 0,
            losses: BTreeMap::new(),
            without_capabilities: false,
            peer_restarting: false,
            end_of_rib: Families::NONE,
            stale: Families::NONE,
            stale_until: None,
            long_lived_times: Vec::new(),
            long_lived: BTreeMap::new(),
            refreshing: Families::NONE,
            refresh_until: None,
            bfd_wanted: None,
            bfd: None,
            near_limit: false,
            sent: MessageCounters::default(),
            received: MessageCounters::default(),
            last_update: None,
            treated_as_withdraw: 0,
            discarded_attributes: 0,
            ignored_routes: 0,
        }
    }

    /// Returns the other connection to the peer.
    pub(super) fn other(&self, connection: ConnectionId) -> Option<ConnectionId> {
        self.connections().find(|other| *other != connection)
    }

    /// None of its routes stays for a restart.
    pub(super) fn keep_nothing(&mut self) {
        self.stale = Families::NONE;
        self.stale_until = None;
        self.long_lived.clear();
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = ConnectionId> + use<> {
        // An incoming session stays when the peer connects once more.
        let places = [self.outgoing, self.incoming, self.established];
        let repeated = self.established == self.outgoing || self.established == self.incoming;
        places.into_iter().take(if repeated { 2 } else { 3 }).flatten()
    }

    pub(super) fn forget(&mut self, connection: ConnectionId) {
        for place in [&mut self.outgoing, &mut self.incoming, &mut self.established] {
            if *place == Some(connection) {
                *place = None;
            }
        }
    }

    /// Returns how long to wait after a lost session: doubles with each.
    pub(super) fn hold_off(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.config.idle_hold.saturating_mul(factor).min(self.config.idle_hold_max)
    }

    pub(super) fn accepts(&self, local: IpAddr, now: Instant) -> bool {
        let refused = self.refuse_until.is_some_and(|until| now < until);
        let right_address = self.config.local_address.is_none_or(|address| address == local);
        !self.config.shutdown && !refused && right_address
    }
}

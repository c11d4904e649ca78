//! Coming back after a restart (RFC 4724 §4.1): wait for the peers that are there, then choose and announce.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Output, Speaker, peer::Peer};
use crate::{
    config::{Members, SpeakerConfig},
    rib::{NEXT_HOP_PATIENCE, PeerId},
    session::State,
    types::{Prefix, is_link_local},
    update_group::{Table, UpdateGroup},
};

/// A peer that has no session after this time counts as down.
const SETTLE: Duration = Duration::from_secs(20);
/// One that refused this often is down, unless traffic went on flowing to it: then it most likely restarts as well.
const ATTEMPTS: u32 = 2;
/// How long a peer that restarts too may take for its table. RFC 4724 §4.1 does not wait for such a peer, so that two do not
/// wait for each other; but an End-of-RIB that knows nothing of its routes yet makes everybody else forget them. What is its
/// own it sends at once ([`Speaker::tell_own_routes`]).
const RESTARTS_TOO: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Restart {
    /// Selection_Deferral_Timer.
    deadline: Instant,
    /// Peers without a session are not waited for from then on.
    settled: Instant,
    /// The routers that traffic went on flowing to. Nobody else is waited for before it shows up. None: who knows.
    carriers: Option<BTreeSet<IpAddr>>,
    /// What is announced already, because it depends on no peer.
    own: BTreeSet<Prefix>,
}

impl Restart {
    pub(super) fn new(config: &SpeakerConfig, now: Instant) -> Self {
        let deadline = now + config.deferral_time;
        // A next hop that is no peer was learned through one, such as a reflector: then it may be any of them.
        let carriers = config.forwarding_via.clone();
        let carriers = carriers
            .filter(|all| all.iter().all(|each| is_peer(config, each) || is_member(config, each)));
        Self { deadline, settled: deadline.min(now + SETTLE), carriers, own: BTreeSet::new() }
    }

    /// From then on nobody is waited for, and no next hop of what was learned last.
    fn last_deadline(&self) -> Instant {
        self.deadline + NEXT_HOP_PATIENCE
    }

    /// Says whether one without a session is waited for before it is settled.
    fn expects(&self, address: &IpAddr, attempts: u32) -> bool {
        match &self.carriers {
            Some(carriers) => carriers.contains(address),
            None => attempts < ATTEMPTS,
        }
    }
}

fn is_peer(config: &SpeakerConfig, address: &IpAddr) -> bool {
    config.peers.iter().any(|peer| peer.address == *address)
}

/// Says whether a router may be a member of a group that has not shown up yet.
fn is_member(config: &SpeakerConfig, address: &IpAddr) -> bool {
    config.groups.iter().any(|group| match &group.members {
        Members::Range(prefix) => prefix.contains_address(*address),
        Members::Interface(_) => is_link_local(address),
    })
}

impl Speaker {
    /// Returns when a restart must be looked at again.
    pub(super) fn restart_deadline(&self) -> Option<Instant> {
        let restart = self.restart.as_ref()?;
        let sessions = self.peers.values().filter(|peer| peer.established.is_some());
        let patience = sessions.filter(|peer| peer.peer_restarting).map(patience_with);
        let steps = patience.chain([restart.settled, restart.deadline]);
        steps.filter(|step| *step > self.now).chain([restart.last_deadline()]).min()
    }

    /// Ends the wait if there is nobody left to wait for.
    pub(super) fn finish_restart(&mut self) {
        let Some(restart) = &self.restart else { return };
        let over = self.now >= restart.deadline;
        if !over && self.awaits_somebody(restart) {
            return;
        }
        // What was learned last waits for its next hop still, for some milliseconds or until that is late.
        let is_late = self.now >= restart.last_deadline();
        self.ask_next_hops();
        if self.rib.reach().is_waiting() && !is_late {
            return;
        }
        self.restart = None;
        self.completes = true;
    }

    /// First everything that was learned, then the word that this was all.
    pub(super) fn complete_restart(&mut self) {
        if self.completes && !self.rib.is_dirty() {
            self.completes = false;
            self.outputs.push_back(Output::RestartComplete);
        }
    }

    fn awaits_somebody(&self, restart: &Restart) -> bool {
        let settled = self.now >= restart.settled;
        let mut carriers = restart.carriers.iter().flatten();
        let awaits_member = !settled
            && carriers
                .any(|each| self.peers_at(*each).next().is_none() && is_member(&self.config, each));
        awaits_member || self.peers.keys().any(|id| self.is_awaited(*id, restart, settled))
    }

    fn is_awaited(&self, id: PeerId, restart: &Restart, settled: bool) -> bool {
        let Some(peer) = self.peers.get(&id) else { return false };
        if peer.config.shutdown {
            return false;
        }
        let session = peer.established.and_then(|connection| self.connections.get(&connection));
        let Some(negotiated) = session.and_then(|session| session.negotiated.as_ref()) else {
            // One that tries right now is nearly there.
            let near = self.state_of(id) >= State::OpenSent;
            let address = &peer.config.address;
            let expected = restart.expects(address, peer.attempts)
                || self.is_behind_others(address) && peer.attempts < ATTEMPTS;
            return near || !settled && expected;
        };
        if peer.peer_restarting && self.now >= patience_with(peer) {
            return false;
        }
        // Those without the capability send no marker.
        let Some(graceful) = negotiated.graceful.as_ref() else { return false };
        // A peer that preserves some families may not mark the others; one that only helps marks all.
        let marked = match graceful.families() {
            none if none.is_empty() => negotiated.families,
            some => negotiated.families.and(some),
        };
        !marked.without(peer.end_of_rib).is_empty()
    }

    /// Says whether traffic to a peer may have flowed to another router: then that is in the kernel's routes, and the peer not.
    fn is_behind_others(&self, peer: &IpAddr) -> bool {
        self.config.follow_next_hops && !self.networks.is_neighbour(peer)
    }

    /// A restart waits before it chooses between routes of peers (RFC 4724 §4.1). What is our own needs no choice: peers that
    /// restart at the same moment hear of it before they say their End-of-RIB to others.
    pub(super) fn note_own_route(&mut self, prefix: Prefix) {
        let Some(restart) = &mut self.restart else { return };
        restart.own.insert(prefix);
        let joined: Vec<PeerId> = self.groups.iter().flat_map(UpdateGroup::joiners).collect();
        for peer in joined {
            self.tell_routes(peer, &[prefix]);
        }
    }

    pub(super) fn forget_own_route(&mut self, prefix: &Prefix) {
        if let Some(restart) = &mut self.restart {
            restart.own.remove(prefix);
        }
    }

    /// Tells a peer whose session is new what is ours, while a restart waits.
    pub(super) fn tell_own_routes(&mut self, id: PeerId) {
        let Some(restart) = &self.restart else { return };
        let own: Vec<Prefix> = restart.own.iter().copied().collect();
        self.tell_routes(id, &own);
    }

    fn tell_routes(&mut self, id: PeerId, own: &[Prefix]) {
        let Self { rib, interner, senders, groups, .. } = self;
        let table = Table { rib, interner, senders };
        let told = groups.iter_mut().any(|group| group.tell_early(id, own, table));
        let connection = self.peers.get(&id).and_then(|peer| peer.established);
        if let Some(connection) = connection.filter(|_| told) {
            self.signal(connection);
        }
    }
}

/// Until when the table of a peer that restarts too is waited for.
fn patience_with(peer: &Peer) -> Instant {
    peer.since + RESTARTS_TOO
}

//! Coming back after a restart (RFC 4724 §4.1): wait for the peers that are there, then choose and announce.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Output, Speaker, connect::is_link_local};
use crate::{
    config::{Members, SpeakerConfig},
    rib::PeerId,
    session::State,
};

/// A peer that has no session after this time counts as down.
const SETTLE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Restart {
    /// Selection_Deferral_Timer.
    deadline: Instant,
    /// Peers without a session are not waited for from then on.
    settled: Instant,
    /// The routers that traffic went on flowing to. Nobody else is waited for before it shows up. None: who knows.
    carriers: Option<BTreeSet<IpAddr>>,
}

impl Restart {
    pub(super) fn new(config: &SpeakerConfig, now: Instant) -> Self {
        let deadline = now + config.deferral_time;
        // A next hop that is no peer was learned through one, such as a reflector: then it may be any of them.
        let carriers = config.forwarding_via.clone();
        let carriers = carriers
            .filter(|all| all.iter().all(|each| is_peer(config, each) || is_member(config, each)));
        Self { deadline, settled: deadline.min(now + SETTLE), carriers }
    }

    pub(super) fn next_deadline(&self, now: Instant) -> Instant {
        if now < self.settled { self.settled } else { self.deadline }
    }

    fn carried(&self, address: &IpAddr) -> bool {
        self.carriers.as_ref().is_none_or(|all| all.contains(address))
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
    /// Ends the wait if there is nobody left to wait for.
    pub(super) fn finish_restart(&mut self) {
        let Some(restart) = &self.restart else { return };
        let over = self.now >= restart.deadline;
        if !over && self.awaits_somebody(restart) {
            return;
        }
        self.restart = None;
        // First everything that was learned, then the word that this was all.
        let mut learned = Vec::new();
        while let Some(output) = self.poll_output() {
            learned.push(output);
        }
        self.outputs.extend(learned);
        self.outputs.push_back(Output::RestartComplete);
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
            // One that tries right now is nearly there; one that refused twice is not.
            let near = self.state_of(id) >= State::OpenSent;
            return near || !settled && peer.attempts < 2 && restart.carried(&peer.config.address);
        };
        // RFC 4724 §4.1: not for those that restart too, and those without the capability send no marker.
        let Some(graceful) = negotiated.graceful.as_ref().filter(|_| !peer.peer_restarting) else {
            return false;
        };
        // A peer that preserves some families may not mark the others; one that only helps marks all.
        let marked = match graceful.families() {
            none if none.is_empty() => negotiated.families,
            some => negotiated.families.and(some),
        };
        !marked.without(peer.end_of_rib).is_empty()
    }
}

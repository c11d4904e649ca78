//! Coming back after a restart (RFC 4724 §4.1): wait for the peers that are there, then choose and announce.

use std::time::{Duration, Instant};

use super::{Output, Speaker};
use crate::{config::SpeakerConfig, rib::PeerId, session::State};

/// A peer that has no session after this time counts as down.
const SETTLE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Restart {
    /// Selection_Deferral_Timer.
    deadline: Instant,
    /// Peers without a session are not waited for from then on.
    settled: Instant,
}

impl Restart {
    pub(super) fn new(config: &SpeakerConfig, now: Instant) -> Self {
        let deadline = now + config.deferral_time;
        Self { deadline, settled: deadline.min(now + SETTLE) }
    }

    pub(super) fn next_deadline(&self, now: Instant) -> Instant {
        if now < self.settled { self.settled } else { self.deadline }
    }
}

impl Speaker {
    /// Ends the wait if there is nobody left to wait for.
    pub(super) fn finish_restart(&mut self) {
        let Some(restart) = &self.restart else { return };
        let over = self.now >= restart.deadline;
        let settled = self.now >= restart.settled;
        if !over && self.peers.keys().any(|id| self.is_awaited(*id, settled)) {
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

    fn is_awaited(&self, id: PeerId, settled: bool) -> bool {
        let Some(peer) = self.peers.get(&id) else { return false };
        if peer.config.shutdown {
            return false;
        }
        let session = peer.established.and_then(|connection| self.connections.get(&connection));
        let Some(negotiated) = session.and_then(|session| session.negotiated.as_ref()) else {
            // One that tries right now is nearly there; one that refused twice is not.
            let near = self.state_of(id) >= State::OpenSent;
            return near || !settled && peer.attempts < 2;
        };
        // RFC 4724 §4.1: not for those that restart too, and those without the capability send no marker.
        let marks = negotiated.graceful.is_some() && !peer.peer_restarting;
        marks && !negotiated.families.without(peer.end_of_rib).is_empty()
    }
}

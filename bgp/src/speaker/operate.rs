//! What an operator does to one peer.

use std::time::Instant;

use super::Speaker;
use crate::{
    rib::{PeerId, Retire},
    wire::{Cease, Notification, Refresh, encode_route_refresh},
};

impl Speaker {
    pub(super) fn peer_named(&self, name: &str) -> Option<PeerId> {
        self.peers.iter().find(|(_, peer)| peer.config.name == name).map(|(id, _)| *id)
    }

    /// Ends the session of a peer and begins anew at once, also after too many prefixes. `text` is for the other
    /// operator (RFC 9003). Returns whether there is such a peer.
    pub fn reset(&mut self, peer: &str, text: &str, now: Instant) -> bool {
        self.now = now;
        let Some(id) = self.peer_named(peer) else { return false };
        let cease = Notification::shutdown(Cease::AdministrativeReset, text);
        self.end_sessions(id, &cease, "reset by the operator");
        self.retire(id, Retire::ALL);
        if let Some(peer) = self.peers.get_mut(&id) {
            let active = !peer.config.passive && !peer.config.shutdown;
            peer.retry_at = active.then_some(now);
        }
        self.report(id, "reset by the operator");
        true
    }

    /// Asks a peer to send everything again (RFC 2918). Returns whether it was asked: its session must be up, and it must
    /// know how.
    pub fn request_refresh(&mut self, peer: &str, now: Instant) -> bool {
        self.now = now;
        let Some(connection) = self
            .peer_named(peer)
            .and_then(|id| self.peers.get(&id))
            .and_then(|peer| peer.established)
        else {
            return false;
        };
        let Some(session) = self.connections.get_mut(&connection) else { return false };
        let Some(negotiated) = session.negotiated.clone().filter(|each| each.refresh) else {
            return false;
        };
        for family in negotiated.families.iter() {
            session.send(encode_route_refresh(family, Refresh::Request));
        }
        self.after_sending(connection);
        true
    }
}

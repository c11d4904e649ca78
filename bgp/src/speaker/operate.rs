//! What an operator does to one peer.

use std::time::Instant;

use super::{ConnectionId, Speaker};
use crate::{
    rib::{PeerId, Retire},
    wire::{Cease, Notification, Refresh, encode_route_refresh},
};

/// What an operator wants to be done to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAction {
    /// End it and begin anew at once.
    Reset {
        /// For the other operator (RFC 9003).
        text: String,
    },
    /// Ask the peer to send everything again (RFC 2918).
    RefreshIn,
    /// Send the peer everything again.
    RefreshOut,
}

impl PeerAction {
    /// Ends a session with a word for the other operator.
    pub fn reset(text: impl Into<String>) -> Self {
        Self::Reset { text: text.into() }
    }
}

impl Speaker {
    pub(super) fn peer_named(&self, name: &str) -> Option<PeerId> {
        self.peers.iter().find(|(_, peer)| peer.config.name == name).map(|(id, _)| *id)
    }

    /// Lists the peers with this name, or with this address: of link-local ones there may be several.
    pub(super) fn peers_called(&self, name: &str) -> Vec<PeerId> {
        match (self.peer_named(name), name.parse()) {
            (Some(id), _) => vec![id],
            (None, Ok(address)) => self.peers_at(address).collect(),
            (None, Err(_)) => Vec::new(),
        }
    }

    /// Does something to the session with a peer, by its name or address.
    ///
    /// # Errors
    /// Why it cannot be done, in words.
    pub fn operate(&mut self, peer: &str, action: &PeerAction, now: Instant) -> Result<(), String> {
        self.now = now;
        let peers = self.peers_called(peer);
        if peers.is_empty() {
            return Err(format!("there is no peer '{peer}'"));
        }
        for id in peers {
            match action {
                PeerAction::Reset { text } => self.reset(id, text),
                PeerAction::RefreshIn => self.request_refresh(id)?,
                PeerAction::RefreshOut => self.resend(id)?,
            }
        }
        Ok(())
    }

    /// Ends the session of a peer and begins anew at once, also after too many prefixes.
    fn reset(&mut self, id: PeerId, text: &str) {
        let cease = Notification::shutdown(Cease::AdministrativeReset, text);
        self.end_sessions(id, &cease, "reset by the operator");
        self.retire(id, Retire::ALL);
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(&id) {
            let active = !peer.config.passive && !peer.config.shutdown;
            peer.retry_at = active.then_some(now);
        }
        self.report(id, "reset by the operator");
    }

    /// Asks a peer to send everything again (RFC 2918).
    fn request_refresh(&mut self, id: PeerId) -> Result<(), String> {
        let connection = self.session_with(id)?;
        let Some(session) = self.connections.get_mut(&connection) else { return Ok(()) };
        let negotiated = session.negotiated.clone().filter(|each| each.refresh);
        let Some(negotiated) = negotiated else {
            let name = self.peers.get(&id).map(|peer| peer.config.name.as_str());
            let name = name.unwrap_or_default();
            return Err(format!(
                "{name} does not know route refresh (RFC 2918); reset its session"
            ));
        };
        for family in negotiated.families.iter() {
            session.send(encode_route_refresh(family, Refresh::Request));
        }
        self.after_sending(connection);
        Ok(())
    }

    /// Sends a peer everything again, as if it had asked.
    fn resend(&mut self, id: PeerId) -> Result<(), String> {
        let connection = self.session_with(id)?;
        let session = self.connections.get(&connection);
        let negotiated = session.and_then(|session| session.negotiated.clone());
        if let Some(negotiated) = negotiated {
            self.refresh_group(id, negotiated.families, negotiated.enhanced_refresh);
        }
        Ok(())
    }

    fn session_with(&self, id: PeerId) -> Result<ConnectionId, String> {
        let Some(peer) = self.peers.get(&id) else { return Err("the peer is gone".to_owned()) };
        let (name, state) = (&peer.config.name, peer.state);
        peer.established.ok_or_else(|| format!("the session with {name} is not up ({state})"))
    }
}

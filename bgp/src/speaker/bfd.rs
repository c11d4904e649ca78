//! What the failure of a path means to a session (RFC 5882 §4).

use std::time::Instant;

use super::{BfdSession, Output, Speaker, close::Loss};
use crate::{
    bfd::{Change, State},
    rib::PeerId,
    wire::{Cease, Notification},
};

impl Speaker {
    /// The BFD session of a peer changed its state.
    pub fn handle_bfd(&mut self, peer: &str, change: &Change, now: Instant) {
        self.now = now;
        let Some(id) = self.peer_named(peer) else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(config) = peer.config.bfd else { return };
        peer.bfd = Some(change.to);
        // An operator's wish says nothing about the path (RFC 5882 §4.2).
        let failed = change.from == State::Up && change.to == State::Down && !change.administrative;
        if !failed {
            return;
        }
        // RFC 5882 §4.3.2: BFD that ends with the control plane may only tell of a restart.
        let may_restart = !change.control_plane_independent && !config.strict;
        let cause = format!("BFD session is down: {}", change.diagnostic);
        let Some(connection) = peer.established else {
            // The session went first: of a router that was shut down in order, and keeps no promise.
            if !may_restart {
                self.forget_kept(id, &cause);
            }
            return;
        };
        let session = self.connections.get(&connection);
        let negotiated = session.and_then(|session| session.negotiated.as_ref());
        let keeps = negotiated.is_some_and(|each| each.notification_keeps);
        let cease = Notification::cease(Cease::BfdDown);
        let loss = if may_restart {
            Loss::PathDown(cease)
        } else {
            Loss::Final(Some(if keeps { cease.into_hard_reset() } else { cease }))
        };
        self.lose(connection, loss, &cause);
        self.finish_restart();
    }

    /// Asks the driver for what the configuration wants.
    pub(super) fn update_bfd(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let config = &peer.config;
        let wanted = config.bfd.filter(|_| !config.shutdown).map(|bfd| BfdSession {
            peer: config.name.clone(),
            address: config.address,
            interface: config.interface.clone(),
            local: config.local_address,
            config: bfd,
        });
        if peer.bfd_wanted == wanted {
            return;
        }
        let output = match &wanted {
            Some(session) => Output::BfdWatch(session.clone()),
            None => {
                peer.bfd = None;
                Output::BfdForget(peer.config.name.clone())
            }
        };
        peer.bfd_wanted = wanted;
        self.outputs.push_back(output);
    }
}

//! Time passes.

use std::{sync::Arc, time::Instant};

use super::{ConnectionId, Speaker, close::Loss};
use crate::{rib::PeerId, session::Expired, wire::Notification};

impl Speaker {
    /// Returns when [`Speaker::handle_timeout`] must be called at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sessions = self.connections.values().filter_map(|session| session.next_deadline());
        let peers = self
            .peers
            .values()
            .flat_map(|peer| [peer.retry_at, peer.stale_until, peer.refuse_until])
            .flatten();
        let restart = self.restart.iter().map(|restart| restart.next_deadline(self.now));
        sessions.chain(peers).chain(restart).min()
    }

    /// Fires whatever is due at `now`. Calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let due: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(_, session)| session.next_deadline().is_some_and(|at| at <= now))
            .map(|(connection, _)| *connection)
            .collect();
        for connection in due {
            self.connection_timeout(connection);
        }
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in peers {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if is_due(peer.refuse_until) {
                peer.refuse_until = None;
                self.report(id, "waited long enough after the error");
            }
            let Some(peer) = self.peers.get(&id) else { continue };
            if is_due(peer.stale_until) {
                self.forget_stale(id);
            }
            if self.peers.get(&id).is_some_and(|peer| is_due(peer.retry_at)) {
                self.connect(id);
            }
        }
        self.finish_restart();
    }

    fn connection_timeout(&mut self, connection: ConnectionId) {
        let Some((session, peer)) = self.peer_of(connection) else { return };
        let (id, config, identity) = (session.peer, Arc::clone(&peer.config), self.identity(peer));
        let now = self.now;
        let Some(session) = self.connections.get_mut(&connection) else { return };
        let expired = session.handle_timeout(&config, &identity, &mut self.random, now);
        match expired {
            None => {
                self.after_sending(connection);
                self.report(id, "delay open timer expired");
            }
            Some(Expired::Connect) => {
                self.lose(connection, Loss::Transport, "connection attempt timed out");
            }
            Some(Expired::Hold) => {
                let notification = Notification::HOLD_TIMER_EXPIRED;
                self.lose(connection, Loss::Sent(notification), "hold timer expired");
            }
            Some(Expired::SendHold) => {
                let notification = Notification::SEND_HOLD_TIMER_EXPIRED;
                self.lose(connection, Loss::Sent(notification), "peer stopped reading");
            }
        }
    }

    /// The peer did not come back, or did not repeat these routes (RFC 4724 §4.2).
    fn forget_stale(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let families = std::mem::take(&mut peer.stale);
        peer.stale_until = None;
        self.rib.remove_all(id, families, true);
    }
}

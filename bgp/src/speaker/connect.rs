//! Connections come up: ours, the peer's, and what happens when both do (RFC 4271 §6.8).

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{ConnectRequest, ConnectionId, Output, Speaker, close::Loss, peer::Peer};
use crate::{
    rib::PeerId,
    session::{Direction, Session, State},
    types::is_link_local,
    wire::{Cease, Notification},
};

/// A second OPEN within this time of the session is a late collision, after it a restart (RFC 4724 §5), unless it says
/// so itself.
const COLLISION_WINDOW: Duration = Duration::from_secs(5);

impl Speaker {
    fn new_connection(&mut self, mut session: Session) -> ConnectionId {
        session.refused_before = self.refused_segments;
        let connection = ConnectionId(self.next_connection);
        self.next_connection = self.next_connection.saturating_add(1);
        self.connections.insert(connection, session);
        connection
    }

    /// Event 1, 9: begins to connect.
    pub(super) fn connect(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.retry_at = None;
        let pointless = peer.outgoing.is_some() || peer.established.is_some();
        if peer.config.passive || peer.config.shutdown || pointless {
            return;
        }
        let config = peer.config.clone();
        let deadline = self.now + config.connect_retry.max(Duration::from_secs(1));
        let connection = self.new_connection(Session::connecting(id, deadline));
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.outgoing = Some(connection);
        }
        self.outputs.push_back(Output::Connect(ConnectRequest {
            connection,
            peer: config.name.clone(),
            remote: SocketAddr::new(config.address, config.port),
            local: config.local_address,
        }));
        self.report(id, "connecting");
    }

    /// Events 16, 17: our connection is up.
    pub fn handle_connected(&mut self, connection: ConnectionId, local: IpAddr, now: Instant) {
        self.now = now;
        let Some((session, peer)) = self.peer_of(connection) else { return };
        let id = session.peer;
        // The peer's own connection is further: this one would only collide with it.
        let other = peer.other(connection).and_then(|other| self.connections.get(&other));
        if other.is_some_and(|other| other.state() >= State::OpenConfirm) {
            self.drop_connection(connection, None);
            return;
        }
        self.open(connection, local);
        self.report(id, "TCP connection established");
    }

    fn open(&mut self, connection: ConnectionId, local: IpAddr) {
        let Some((_, peer)) = self.peer_of(connection) else { return };
        let (identity, config) = (self.identity(peer), peer.config.clone());
        let now = self.now;
        if let Some(session) = self.connections.get_mut(&connection) {
            session.connected(local, &config, &identity, now);
        }
        self.after_sending(connection);
    }

    /// Counts and signals what a session has put into its queue.
    pub(super) fn after_sending(&mut self, connection: ConnectionId) {
        if self.connections.get(&connection).is_some_and(Session::has_control) {
            self.signal(connection);
        }
    }

    /// Event 16 of the peer's connection; `None`: nobody we know, close it. Addresses are plain, never v4-mapped.
    pub fn handle_accepted(
        &mut self,
        local: IpAddr,
        remote: IpAddr,
        now: Instant,
    ) -> Option<ConnectionId> {
        self.handle_accepted_on(None, local, remote, now)
    }

    /// The same, if it is known which interface a link-local address is on.
    pub fn handle_accepted_on(
        &mut self,
        interface: Option<&str>,
        local: IpAddr,
        remote: IpAddr,
        now: Instant,
    ) -> Option<ConnectionId> {
        self.now = now;
        if self.stopped {
            return None;
        }
        let is_it = |peer: &Peer| {
            let elsewhere =
                interface.is_some_and(|each| peer.config.interface.as_deref() != Some(each));
            peer.config.address == remote && !(is_link_local(&remote) && elsewhere)
        };
        let known = self.peers_at(remote).find(|id| self.peers.get(id).is_some_and(is_it));
        let id = known.or_else(|| self.admit(remote))?;
        let peer = self.peers.get(&id).filter(|peer| peer.accepts(local, now))?;
        let older = peer.incoming;
        // A peer that connects again has given up on the connection before, unless that became the session.
        if let Some(older) = older
            && peer.established != Some(older)
        {
            let cease = Notification::cease(Cease::ConnectionCollision);
            self.drop_connection(older, Some(&cease));
        }
        let connection = self.new_connection(Session::accepted(id, now));
        if let Some(peer) = self.peers.get_mut(&id) {
            // An established incoming session is remembered as such; the newcomer takes the place.
            peer.incoming = Some(connection);
            // Time for the peer to speak; if it does not, we try as well.
            let patience = peer.config.connect_retry.saturating_mul(2);
            peer.retry_at = (!peer.config.passive).then(|| now + patience);
        }
        self.open(connection, local);
        self.report(id, "peer connected");
        Some(connection)
    }

    /// An OPEN was accepted: if there is another connection, one of them goes. Returns whether this one stays.
    pub(super) fn resolve_collision(&mut self, connection: ConnectionId) -> bool {
        let Some((session, peer)) = self.peer_of(connection) else { return false };
        let (id, direction) = (session.peer, session.direction);
        let Some(other) = peer
            .established
            .filter(|other| *other != connection)
            .or_else(|| peer.other(connection))
        else {
            return true;
        };
        let Some(rival) = self.connections.get(&other) else { return true };
        match rival.state() {
            State::Established => {
                if direction == Direction::Incoming && self.is_restart(connection, other) {
                    self.lose(other, Loss::PeerRestarted, "peer restarted");
                    if let Some(peer) = self.peers.get_mut(&id) {
                        peer.incoming = Some(connection);
                    }
                    return true;
                }
                self.drop_collided(connection);
                false
            }
            State::OpenConfirm => {
                let keep_outgoing = self.outgoing_wins(connection);
                let keep_this = (direction == Direction::Outgoing) == keep_outgoing;
                self.drop_collided(if keep_this { other } else { connection });
                keep_this
            }
            _ => true,
        }
    }

    fn drop_collided(&mut self, connection: ConnectionId) {
        let cease = Notification::cease(Cease::ConnectionCollision);
        self.drop_connection(connection, Some(&cease));
    }

    /// The connection of the speaker with the higher identifier lives; between equal ones that of the higher AS
    /// (RFC 6286 §2.3).
    fn outgoing_wins(&self, connection: ConnectionId) -> bool {
        let Some((session, peer)) = self.peer_of(connection) else { return true };
        let Some(open) = &session.their_open else { return true };
        let local_as = peer.config.local_as.unwrap_or(self.config.local_as);
        (self.config.router_id, local_as) > (open.router_id, open.asn)
    }

    fn is_restart(&self, newcomer: ConnectionId, established: ConnectionId) -> bool {
        let restarting = self.connections.get(&newcomer).and_then(|session| {
            session.their_open.as_ref()?.capabilities.graceful_restart.as_ref()
        });
        let Some(old) = self.connections.get(&established) else { return true };
        let graceful = old.negotiated.as_ref().is_some_and(|each| each.graceful.is_some());
        let settled = old.established_at.is_some_and(|at| self.now >= at + COLLISION_WINDOW);
        graceful && (settled || restarting.is_some_and(|each| each.restarting))
    }
}

//! Time passes.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use super::{ConnectionId, Speaker, close::Loss};
use crate::{session::Expired, wire::Notification};

impl Speaker {
    /// Returns when [`Speaker::handle_timeout`] must be called at the latest.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let sessions = self.connections.next_deadline();
        let peers = self.peers.next_deadline();
        let restart = self.restart_deadline();
        let next_hops = self.rib.reach().deadline();
        [sessions, peers, restart, next_hops].into_iter().flatten().min()
    }

    /// Lists the connections whose peer has been silent for too long by `now`. Who may not have looked for a while reads
    /// from them once more before [`Speaker::handle_timeout`].
    pub fn expiring(&mut self, now: Instant) -> Vec<ConnectionId> {
        let mut due = self.connections.due(now);
        due.retain(|each| self.connections.get(each).is_some_and(|each| each.is_expiring(now)));
        due
    }

    /// Fires whatever is due at `now`. Calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        for connection in self.connections.due(now) {
            self.connection_timeout(connection);
        }
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        for id in self.peers.due(now) {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if is_due(peer.refuse_until) {
                peer.refuse_until = None;
                self.report(id, "waited long enough after the error");
            }
            let Some(peer) = self.peers.get(&id) else { continue };
            if is_due(peer.stale_until) {
                self.forget_stale(id);
            }
            self.long_lived_timeout(id);
            if self.peers.get(&id).is_some_and(|peer| is_due(peer.refresh_until)) {
                self.refresh_timeout(id);
            }
            if self.peers.get(&id).is_some_and(|peer| is_due(peer.retry_at)) {
                self.connect(id);
            }
            self.forget_member(id);
        }
        self.give_up_next_hops();
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
                let remote = SocketAddr::new(config.address, config.port);
                let cause = format!("{remote} does not answer");
                let cause = self.suspect_password(connection, cause);
                self.lose(connection, Loss::Transport, &cause);
            }
            Some(Expired::Hold) => {
                let silence = self.connections.get(&connection).map(|each| each.silence(now));
                let cause = self.suspect_password(connection, silence.unwrap_or_default());
                let notification = Notification::HOLD_TIMER_EXPIRED;
                self.lose(connection, Loss::Sent(notification), &cause);
            }
            Some(Expired::SendHold) => {
                let notification = Notification::SEND_HOLD_TIMER_EXPIRED;
                self.lose(connection, Loss::Sent(notification), "peer stopped reading");
            }
        }
    }

    /// How many segments the kernel has refused so far because of a missing, unexpected or wrong TCP MD5 signature.
    pub fn set_refused_segments(&mut self, total: u64) {
        self.refused_segments = total;
    }

    /// A wrong TCP MD5 key looks like silence (RFC 2385 §2): adds what the kernel counted meanwhile.
    fn suspect_password(&self, connection: ConnectionId, cause: String) -> String {
        let before = self.connections.get(&connection).map_or(u64::MAX, |each| each.refused_before);
        match self.refused_segments.saturating_sub(before) {
            0 => cause,
            count => {
                let (_, peer) = self.peer_of(connection).unzip();
                let signed = peer.is_some_and(|peer| !peer.config.tcp_ao.is_empty());
                let kind = if signed { "TCP-AO" } else { "TCP-MD5" };
                format!("{cause} ({kind} mismatch suspected: {count} segments refused)")
            }
        }
    }
}

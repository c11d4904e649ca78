//! Bytes come in: frames, and what each message leads to.

use std::{sync::Arc, time::Instant};

use super::{ConnectionId, Speaker, close::Loss};
use crate::{
    config::PeerConfig,
    decision::Origination,
    rib::{PeerId, Retire, Source},
    session::{Failure, Step},
    types::{Asn, Families},
    update_group::Sender,
    wire::{Frame, Kind, Notification, next_frame, update::Parts},
};

impl Speaker {
    /// Bytes from a peer, cut anywhere.
    pub fn handle_received(&mut self, connection: ConnectionId, bytes: &[u8], now: Instant) {
        self.now = now;
        let Some(session) = self.connections.get_mut(&connection) else { return };
        let mut kept = std::mem::take(&mut session.buffer);
        if kept.is_empty() {
            let rest = self.consume(connection, bytes);
            kept.extend_from_slice(rest);
        } else {
            kept.extend_from_slice(bytes);
            let rest = self.consume(connection, &kept).len();
            kept.drain(..kept.len().saturating_sub(rest));
        }
        if let Some(session) = self.connections.get_mut(&connection) {
            session.buffer = kept;
        }
        self.read_journal();
        self.finish_restart();
    }

    /// Handles all complete messages; returns what is left.
    fn consume<'a>(&mut self, connection: ConnectionId, mut stream: &'a [u8]) -> &'a [u8] {
        loop {
            let Some(session) = self.connections.get(&connection) else { return &[] };
            match next_frame(stream, session.limit()) {
                Ok(Some(frame)) => {
                    let rest = stream.get(frame.length()..).unwrap_or_default();
                    stream = self.handle_frame(connection, &frame, rest);
                }
                Ok(None) => return stream,
                Err(notification) => {
                    self.fail(connection, notification);
                    return &[];
                }
            }
        }
    }

    /// We found an error: tells the peer and ends the session.
    pub(super) fn fail(&mut self, connection: ConnectionId, notification: Notification) {
        self.fail_because(connection, notification.into());
    }

    fn fail_because(&mut self, connection: ConnectionId, failure: Failure) {
        let Failure { notification, explanation } = failure;
        let cause = match explanation {
            Some(explanation) => format!("{explanation} (sent {notification})"),
            None => format!("sent {notification}"),
        };
        self.lose(connection, Loss::Sent(notification), &cause);
    }

    /// Handles a message, and those that go with it; returns the rest of the stream.
    fn handle_frame<'a>(
        &mut self,
        connection: ConnectionId,
        frame: &Frame<'a>,
        rest: &'a [u8],
    ) -> &'a [u8] {
        let Some(id) = self.connections.get(&connection).map(|session| session.peer) else {
            return rest;
        };
        self.learn_as(id, frame);
        let Some((_, peer)) = self.peer_of(connection) else { return rest };
        let (config, identity) = (Arc::clone(&peer.config), self.identity(peer));
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.received.count(frame.kind);
        }
        let now = self.now;
        let Some(session) = self.connections.get_mut(&connection) else { return rest };
        match session.handle_frame(frame, &config, &identity, now) {
            Step::Nothing => (),
            Step::Opened => {
                if self.resolve_collision(connection) {
                    self.after_sending(connection);
                    self.report(id, "received OPEN");
                }
            }
            Step::Established => self.session_up(id, connection),
            Step::Update(body) => return self.handle_updates(id, connection, body, rest),
            Step::Refresh(family, refresh) => self.handle_refresh(id, family, refresh),
            Step::Notified(notification) => {
                let cause = received(&notification, &config, identity.local_as);
                self.lose(connection, Loss::Received(notification), &cause);
            }
            Step::Fail(failure) => self.fail_because(connection, failure),
        }
        rest
    }

    /// Handles an UPDATE and those that follow it at once: a table comes in hundreds of thousands, and what is the same
    /// for all of them is looked up once.
    fn handle_updates<'a>(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        body: &'a [u8],
        mut rest: &'a [u8],
    ) -> &'a [u8] {
        let Some(importer) = self.importer(id) else { return rest };
        let session = self.connections.get(&connection);
        let Some((negotiated, limit)) =
            session.and_then(|session| Some((session.negotiated.clone()?, session.limit())))
        else {
            return rest;
        };
        let add_path = negotiated.add_path_receive;
        let mut next = Some(Parts::find(body, add_path));
        let mut more: u64 = 0;
        while let Some(update) = next {
            next = match next_frame(rest, limit) {
                Ok(Some(frame)) if frame.kind == Kind::Update => {
                    rest = rest.get(frame.length()..).unwrap_or_default();
                    more = more.saturating_add(1);
                    Some(Parts::find(frame.body, add_path))
                }
                _ => None,
            };
            // What the next one needs comes from memory while this one is worked on.
            if let Some(Ok(parts)) = &next {
                self.rib.prefetch(parts.items());
            }
            if !self.handle_update(&importer, &negotiated, connection, update) {
                break;
            }
        }
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.received.updates = peer.received.updates.saturating_add(more);
            peer.last_update = Some(now);
        }
        rest
    }

    fn session_up(&mut self, id: PeerId, connection: ConnectionId) {
        let Some(negotiated) =
            self.connections.get(&connection).and_then(|session| session.negotiated.clone())
        else {
            return;
        };
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.established = Some(connection);
        peer.was_established = true;
        peer.attempts = 0;
        peer.retry_at = None;
        peer.refuse_until = None;
        peer.end_of_rib = Families::NONE;
        let graceful = negotiated.graceful.as_ref();
        peer.peer_restarting = graceful.is_some_and(|each| each.restarting);
        let (config, stale) = (Arc::clone(&peer.config), peer.stale);
        // RFC 4724 §4.2, RFC 9494 §4.2: what the peer did not keep forwarding is gone.
        let longer: Families = peer.long_lived.keys().copied().collect();
        let preserved = graceful.map_or(Families::NONE, |each| each.forwarding());
        let preserved = preserved.without(longer);
        let preserved = preserved.or(negotiated.long_lived_forwarding().and(longer));
        let waiting = stale.and(preserved).and(negotiated.families);
        peer.stale = waiting;
        peer.long_lived.retain(|family, _| waiting.contains(*family));
        peer.near_limit = false;
        peer.stale_until = (!waiting.is_empty()).then(|| now + config.stale_time);
        self.retire(id, Retire::stale(stale.without(waiting)));
        let peer_type = config.peer_type(self.config.local_as);
        let origination = Origination {
            peer_type: Some(peer_type),
            router_id: negotiated.router_id,
            address: config.address,
        };
        self.rib.set_source(id, Source { origination, interface: config.interface.clone() });
        self.set_sender(id, negotiated.router_id);
        // The other attempt, if any, is pointless now.
        let rival = self.peers.get(&id).and_then(|peer| peer.other(connection));
        if let Some(rival) = rival.filter(|rival| {
            self.connections.get(rival).is_some_and(|session| !session.is_connected())
        }) {
            self.drop_connection(rival, None);
        }
        self.join_group(id);
        self.monitor_up(id, connection);
        self.report(id, "received KEEPALIVE");
    }

    pub(super) fn set_sender(&mut self, id: PeerId, router_id: crate::types::RouterId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let peer_type = peer.config.peer_type(self.config.local_as);
        let client = peer.config.route_reflector_client;
        let keeps = !peer.stale.is_empty();
        let before = self.senders.insert(id, Sender::Peer { peer_type, client, router_id });
        let was_another = before.is_some_and(
            |before| matches!(before, Sender::Peer { router_id: known, .. } if known != router_id),
        );
        if keeps && was_another {
            // Routes that it repeats unchanged go on under another ORIGINATOR_ID (RFC 4456 §8).
            self.regroup_all();
        }
    }
}

/// Words for a notification of the peer, with what we know about its reason.
fn received(notification: &Notification, config: &PeerConfig, local_as: Asn) -> String {
    match (notification.code, notification.subcode) {
        (2, 2) => {
            let asn = config.local_as.unwrap_or(local_as);
            format!("peer does not expect AS {asn} (received {notification})")
        }
        (2, 7) => format!(
            "peer has no address family in common with {} (received {notification})",
            config.families
        ),
        _ => format!("received {notification}"),
    }
}

//! Decisions turn into FIB updates and announcements, and connections get their bytes.

use std::{collections::BTreeSet, net::IpAddr};

use bytes::Bytes;

use super::{ConnectionId, FibUpdate, Output, Speaker, close::Loss};
use crate::{
    rib::{PeerId, SlotId},
    types::{Families, Prefix},
    update_group::{GroupKey, UpdateGroup},
    wire::{Cease, Kind, Notification},
};

/// How many prefixes are decided about before outputs are handed out again.
const SLICE: usize = 8192;

impl Speaker {
    /// Returns the next thing to do. Never ask again before the last answer was `None` and then give new input.
    pub fn poll_output(&mut self) -> Option<Output> {
        while self.outputs.is_empty() && self.wants_to_work() {
            self.work();
        }
        self.outputs.pop_front()
    }

    /// A restart chooses and announces nothing before it knows enough (RFC 4724 §4.1).
    fn wants_to_work(&self) -> bool {
        let due = self.rib.is_dirty() || self.groups.iter().any(UpdateGroup::wants_flush);
        due && self.restart.is_none()
    }

    fn work(&mut self) {
        let ids = self.rib.take_dirty(SLICE);
        let mut changed: Vec<SlotId> = Vec::with_capacity(ids.len());
        for id in &ids {
            let outcome = self.rib.update(*id);
            if let (Some(next_hops), Some(prefix)) = (outcome.fib, self.rib.prefix(*id)) {
                self.outputs.push_back(Output::Fib(FibUpdate { prefix, next_hops }));
            }
            if outcome.chosen {
                changed.push(*id);
            }
        }
        let complete = !self.rib.is_dirty();
        let mut ready = BTreeSet::new();
        let mut laggards = Vec::new();
        for group in &mut self.groups {
            let (rib, senders) = (&self.rib, &self.senders);
            let interner = &mut self.interner;
            ready.extend(group.flush(&changed, rib, senders, interner, complete));
            laggards.extend(group.laggards());
        }
        self.rib.release(&ids);
        for peer in ready {
            if let Some(connection) = self.peers.get(&peer).and_then(|peer| peer.established) {
                self.signal(connection);
            }
        }
        for peer in laggards {
            self.give_up(peer);
        }
    }

    fn give_up(&mut self, id: PeerId) {
        let Some(connection) = self.peers.get(&id).and_then(|peer| peer.established) else {
            return;
        };
        let cease = Notification::cease(Cease::OutOfResources);
        self.lose(connection, Loss::Sent(cease), "peer does not read fast enough");
    }

    /// Takes messages to send over a connection, about `limit` bytes. Nothing: wait for [`Output::TransmitReady`].
    pub fn transmit(&mut self, connection: ConnectionId, limit: usize) -> Vec<Bytes> {
        let now = self.now;
        let Some(session) = self.connections.get_mut(&connection) else { return Vec::new() };
        let id = session.peer;
        let mut out: Vec<Bytes> = session.take_control().collect();
        let established =
            self.peers.get(&id).is_some_and(|peer| peer.established == Some(connection));
        if established {
            for group in &mut self.groups {
                group.transmit(id, limit, &mut out);
            }
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            for message in &out {
                if let Some(kind) = message.get(18).and_then(|number| Kind::from_number(*number)) {
                    peer.sent.count(kind);
                }
            }
        }
        if let Some(session) = self.connections.get_mut(&connection) {
            session.signalled = !out.is_empty();
            session.blocked_since = (!out.is_empty()).then_some(now);
        }
        out
    }

    /// Returns what makes announcements to a peer the same as to others.
    fn group_key(&self, id: PeerId) -> Option<GroupKey> {
        let peer = self.peers.get(&id)?;
        let session = self.connections.get(&peer.established?)?;
        let negotiated = session.negotiated.as_ref()?;
        let config = &peer.config;
        let local = session.local;
        let own = |configured: Option<IpAddr>, is_family: fn(&IpAddr) -> bool| {
            configured.or_else(|| local.filter(is_family))
        };
        Some(GroupKey {
            peer_type: config.peer_type(self.config.local_as),
            client: config.route_reflector_client,
            local_as: config.local_as.unwrap_or(self.config.local_as),
            cluster_id: self.config.cluster_id.unwrap_or(self.config.router_id),
            families: negotiated.families,
            four_octet_as: negotiated.four_octet_as,
            limit: negotiated.limit,
            next_hop: config.next_hop,
            own_ipv4: own(config.next_hop_ipv4, IpAddr::is_ipv4),
            own_ipv6: own(config.next_hop_ipv6, IpAddr::is_ipv6),
            local_pref: config.local_pref,
            graceful_shutdown: config.graceful_shutdown,
            role: config.role,
            long_lived: negotiated.long_lived.is_some(),
            export: config.export.clone(),
        })
    }

    pub(super) fn join_group(&mut self, id: PeerId) {
        self.enter_group(id, Vec::new());
    }

    fn enter_group(&mut self, id: PeerId, had: Vec<Prefix>) {
        let Some(key) = self.group_key(id) else { return };
        let found = self.groups.iter_mut().find(|group| group.key == key);
        match found {
            Some(group) => group.join(id, had),
            None => {
                let mut group = UpdateGroup::new(key);
                group.join(id, had);
                self.groups.push(group);
            }
        }
    }

    pub(super) fn leave_group(&mut self, id: PeerId) {
        self.groups.iter_mut().for_each(|group| group.leave(id));
        self.groups.retain(|group| !group.is_empty());
    }

    /// The peer's policy changed: it gets what is new and is told what it should forget.
    pub(super) fn change_group(&mut self, id: PeerId) {
        let current = self.groups.iter().find(|group| group.has(id));
        let Some(current) = current else { return };
        if self.group_key(id).is_some_and(|key| key == current.key) {
            return;
        }
        let had = current.prefixes_of(id, &self.rib);
        self.leave_group(id);
        self.enter_group(id, had);
    }

    /// Like [`Speaker::change_group`], also when only the senders changed.
    pub(super) fn rejoin_group(&mut self, id: PeerId) {
        let Some(current) = self.groups.iter().find(|group| group.has(id)) else { return };
        let had = current.prefixes_of(id, &self.rib);
        self.leave_group(id);
        self.enter_group(id, had);
    }

    pub(super) fn refresh_group(&mut self, id: PeerId, families: Families, enhanced: bool) {
        if let Some(group) = self.groups.iter_mut().find(|group| group.has(id)) {
            group.refresh(id, families, enhanced);
        }
    }

    pub(super) fn advertised(&self, id: PeerId) -> usize {
        self.groups.iter().map(|group| group.advertised(id)).sum()
    }
}
